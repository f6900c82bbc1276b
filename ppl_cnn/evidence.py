"""Estimates log Z of units' densities, Z = E_q[exp(f/T)], and the class offsets that follow.

Under the images of a data set, --reference data:NAME, Z is their mean weight, and no chain is run.
For any other reference three estimates must agree: thermodynamic integration and reweighting
(MBAR), both from the replicas of a tempered run, and annealed importance sampling along the same
ladder. The run's folder holds that run and evidence.json. The same command resumes a run that was
stopped.

Examples:
    python -m ppl_cnn.evidence --model runs/lenet --unit fc4:0-9 --target logit
    python -m ppl_cnn.evidence --unit conv5:12 --temperature 0.1 --rungs 24
    python -m ppl_cnn.evidence --model runs/lenet --unit fc4:0-9 --reference data:fashion_mnist
"""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ppl_cnn.machines.processes import Processes
from ppl_cnn.options.command import run_command
from ppl_cnn.options.densities import DensityOptions, Named
from ppl_cnn.options.overrides import overrides_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ppl_cnn.inference.sampling.evidence.log_z import LogZ, MeanWeight

NUMBERS = ("rungs", "chains", "draws", "warmup", "particles", "temperatures", "seed")
"""The options that `ppl_cnn.evidence` takes by the same names."""


@dataclass(frozen=True)
class EvidenceOptions(DensityOptions):
    """Options."""

    rungs: int = 16
    """Rungs of the ladder from the reference to the density. A larger log Z needs more."""
    chains: int = 8
    """Chains of each density, at least 4: standard errors come from their differences."""
    draws: int = 300
    """Draws per chain on each rung."""
    warmup: int = 300
    """Transitions at the start that adapt step sizes and place the rungs."""
    particles: int = 64
    """Particles of annealed importance sampling."""
    temperatures: int = 200
    """Strengths that each particle climbs through."""
    seed: int = 0
    """The same seed gives the same numbers."""
    out: Path | None = None
    """The run's folder (default: runs/MODEL-UNIT-evidence)."""
    deterministic: bool = False
    """On a GPU, compute to the same bits at each run, which takes longer; CPUs do so in any case.
    Compiled programs are kept in the run's folder."""
    processes: Annotated[
        dict[str, Any], tyro.conf.arg(constructor=overrides_of(Processes), name="")
    ] = field(default_factory=dict)
    """What is given of `Processes`."""

    def check(self) -> None:
        """Refuses numbers that can't be used, before the network is opened.

        Raises:
            ArgumentError: one is out of range.
        """
        from ppl_cnn.inference.sampling.evidence.evidence import check_settings

        check_settings(**self.numbers())

    def numbers(self) -> dict[str, Any]:
        """The numbers that `evidence` takes, by their names there."""
        return {name: getattr(self, name) for name in NUMBERS}


def main(options: EvidenceOptions) -> None:
    """Estimates and prints a table."""
    from ppl_cnn.machines.arithmetic import repeatable

    if options.deterministic:
        repeatable()
    with Processes(**options.processes).together():
        estimate(options)


def estimate(options: EvidenceOptions) -> None:
    """Estimates with the other processes, if there are any, and prints a table as process 0."""
    from ppl_cnn.inference.sampling.driver import Origin
    from ppl_cnn.inference.sampling.evidence.evidence import evidence, evidence_of_images
    from ppl_cnn.machines.arithmetic import keep_programs
    from ppl_cnn.machines.messages import leads
    from ppl_cnn.models.empirical_density import EmpiricalDensity

    options.check()
    named = options.named()
    if leads():
        options.print_values(named.choices)
    out = options.out or options.folder("evidence", named.target)
    if options.deterministic:
        keep_programs(out / ".programs")
    command = shlex.join(["python", "-m", "ppl_cnn.evidence", *sys.argv[1:]])
    origin = Origin(options.model_in_record, named.description, command)
    images = [each for each in named.densities if isinstance(each, EmpiricalDensity)]
    if images:
        means = evidence_of_images(images, out=out, origin=origin)
        if not leads():
            return
        _print_means(means)
        _print_alpha(means, named)
    else:
        found = evidence(
            [each for each in named.densities if not isinstance(each, EmpiricalDensity)],
            **options.numbers(),
            out=out,
            origin=origin,
        )
        if not leads():
            return
        _print_estimates(found, options.particles)
        _print_alpha(found, named)
    print(out / "evidence.json")


def _print_means(found: "Mapping[str, MeanWeight]") -> None:
    print(f"{'unit':24}{'mean over images':>20}  weights' ESS")
    for unit, each in found.items():
        print(f"{unit:24}{each.log_z!s:>20}  {each.effective:,.1f} of {each.images:,} images")


def _print_estimates(found: "Mapping[str, LogZ]", particles: int) -> None:
    print(f"{'unit':24}{'integration':>20}{'reweighting':>20}{'annealing':>20}  weights' ESS")
    for unit, each in found.items():
        numbers = "".join(
            f"{value!s:>20}" for value in (each.integrated, each.reweighted, each.annealed.log_z)
        )
        print(f"{unit:24}{numbers}  {each.annealed.effective:.1f} of {particles}")
        if not each.agree:
            print(f"{'':24}The estimates differ. Give more --rungs, --draws or --temperatures.")


def _print_alpha(found: "Mapping[str, LogZ] | Mapping[str, MeanWeight]", named: "Named") -> None:
    """The offsets of all classes, beside those that training has stored with the network."""
    from ppl_cnn.inference.sampling.evidence.log_z import class_offsets

    classes = named.description["classes"]
    if not len(classes) == len(found) > 1:
        return
    print("\nalpha = -log Z - log of the number of classes, for equal class priors:")
    stored = named.alpha if found.keys() <= named.alpha.keys() else {}
    if stored:
        print(f"{'class':24}{'alpha':>20}{'stored':>12}{'difference':>12}")
    for unit, alpha in class_offsets(found).items():
        offset = f"{alpha:.4f} ± {found[unit].best.error:.2g}"
        beside = f"{stored[unit]:12.4f}{alpha - stored[unit]:+12.4f}" if stored else ""
        print(f"{classes[unit]:24}{offset:>20}{beside}")


if __name__ == "__main__":
    run_command(EvidenceOptions, main, prog="python -m ppl_cnn.evidence", description=__doc__)
