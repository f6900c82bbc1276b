"""Estimates log Z of units' densities, Z = E_q[exp(f/T)], and the class offsets that follow.

Three estimates, which must agree: thermodynamic integration and reweighting (MBAR), both from the
replicas of a tempered run, and annealed importance sampling along the same ladder. The run's folder
holds that run and evidence.json; the same command continues one that was stopped.

Examples:
    python -m ppl_cnn.evidence --model runs/lenet --unit fc4:0-9
    python -m ppl_cnn.evidence --unit conv5:12 --temperature 0.1 --rungs 24
"""

import json
import math
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
    """Of the ladder from the reference to the density; more for larger log Z."""
    chains: int = 8
    """Of replicas, at least 4: the standard errors are those between chains."""
    draws: int = 300
    """Of each chain, on all rungs."""
    warmup: int = 300
    """Transitions at the start that adapt step sizes and place the rungs."""
    particles: int = 64
    """Of annealed importance sampling."""
    temperatures: int = 200
    """That each of them goes through."""
    seed: int = 0
    """The same seed gives the same numbers."""
    out: Path | None = None
    """The run's folder (default: runs/MODEL-UNIT-evidence)."""


def main(options: EvidenceOptions) -> None:
    """Estimates and prints a table."""
    from ppl_cnn.files import write_aside
    from ppl_cnn.inference.sampling.driver import sample_to
    from ppl_cnn.inference.sampling.log_z import estimates
    from ppl_cnn.inference.sampling.settings import Sampling

    named = options.named()
    options.print_preset()
    kernel = f"tempered:{options.rungs}"
    sampling = Sampling(kernel, options.chains, options.warmup, seed=options.seed)
    out = options.out or options.folder("evidence")
    command = shlex.join(["python", "-m", "ppl_cnn.evidence", *sys.argv[1:]])
    sample_to(
        out, named.densities, sampling, options.draws, options.model, named.description, command
    )
    found = estimates(out, named.densities, options.particles, options.temperatures, options.seed)
    print(f"{'unit':24}{'integration':>20}{'reweighting':>20}{'annealing':>20}  weights' ESS")
    for unit, each in found.items():
        numbers = "".join(
            f"{value!s:>20}" for value in (each.integrated, each.reweighted, each.annealed.log_z)
        )
        print(f"{unit:24}{numbers}  {each.annealed.effective:.1f} of {options.particles}")
        if not each.agree:
            print(f"{'':24}they differ: give more --rungs, --draws or --temperatures")
    record = {unit: each.record() for unit, each in found.items()}
    write_aside(out / "evidence.json", (json.dumps(record, indent=2) + "\n").encode())
    classes = named.description["classes"]
    if len(classes) == len(found) > 1:
        print("\nalpha = -log Z - log of the number of classes, for equal class priors:")
        for unit, each in found.items():
            alpha = -each.reweighted.value - math.log(len(found))
            print(f"{classes[unit]:24}{alpha:20.4f}")
    print(out / "evidence.json")


if __name__ == "__main__":
    run_command(EvidenceOptions, main, prog="python -m ppl_cnn.evidence", description=__doc__)
