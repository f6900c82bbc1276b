"""Estimates log Z of units' densities, Z = E_q[exp(f/T)], and the class offsets that follow.

Three estimates must agree: thermodynamic integration and reweighting (MBAR), both from the replicas
of a tempered run, and annealed importance sampling along the same ladder. The run's folder holds
that run and evidence.json. The same command resumes a run that was stopped.

Examples:
    python -m ppl_cnn.evidence --model runs/lenet --unit fc4:0-9 --target logit
    python -m ppl_cnn.evidence --unit conv5:12 --temperature 0.1 --rungs 24
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from ppl_cnn.options.command import run_command
from ppl_cnn.options.densities import DensityOptions


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


def main(options: EvidenceOptions) -> None:
    """Estimates and prints a table."""
    from ppl_cnn.inference.sampling.driver import Origin
    from ppl_cnn.inference.sampling.evidence import evidence
    from ppl_cnn.inference.sampling.log_z import class_offsets

    named = options.named()
    options.print_values(named.choices)
    out = options.out or options.folder("evidence", named.target)
    command = shlex.join(["python", "-m", "ppl_cnn.evidence", *sys.argv[1:]])
    found = evidence(
        named.densities,
        rungs=options.rungs,
        chains=options.chains,
        draws=options.draws,
        warmup=options.warmup,
        particles=options.particles,
        temperatures=options.temperatures,
        seed=options.seed,
        out=out,
        origin=Origin(options.model, named.description, command),
    )
    print(f"{'unit':24}{'integration':>20}{'reweighting':>20}{'annealing':>20}  weights' ESS")
    for unit, each in found.items():
        numbers = "".join(
            f"{value!s:>20}" for value in (each.integrated, each.reweighted, each.annealed.log_z)
        )
        print(f"{unit:24}{numbers}  {each.annealed.effective:.1f} of {options.particles}")
        if not each.agree:
            print(f"{'':24}The estimates differ. Give more --rungs, --draws or --temperatures.")
    classes = named.description["classes"]
    if len(classes) == len(found) > 1:
        print("\nalpha = -log Z - log of the number of classes, for equal class priors:")
        for unit, alpha in class_offsets(found).items():
            print(f"{classes[unit]:24}{alpha:20.4f}")
    print(out / "evidence.json")


if __name__ == "__main__":
    run_command(EvidenceOptions, main, prog="python -m ppl_cnn.evidence", description=__doc__)
