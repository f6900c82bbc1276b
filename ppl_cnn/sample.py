"""Samples the image density of a unit of a trained CNN, and reports the draws with diagnostics.

The density is p(x) ∝ exp(f(x)/T) q(x): f is the unit's response, q the reference. The run's
folder holds draws.zarr (ArviZ's layout), run.json, report.html, images/ and summary.csv.

Examples:
    python -m ppl_cnn.sample --unit conv5:12 --chains 8
    python -m ppl_cnn.sample --model runs/lenet --unit fc4:3 --kernel nuts --out runs/dress
"""

import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ppl_cnn.command import run_command


@dataclass(frozen=True)
class Sample:
    """Options."""

    unit: str
    """layer:channel (at the centre of the layer's map) or layer:channel@row,col. `python -m
    ppl_cnn.units` lists them. The image is the unit's receptive field."""
    model: str = "alexnet-fashion"
    """An embedded network, or the folder of a run of `python -m ppl_cnn.pretrain`."""
    reference: str = "white:10"
    """q. white:SIGMA is independent Gaussian noise of SIGMA grey levels about the mean image."""
    temperature: float = 1.0
    """T: 1 is the published model, lower means stronger tilts."""
    kernel: Literal["hmc", "nuts"] = "hmc"
    """NumPyro's HMC, with trajectories of jittered length, or its NUTS."""
    chains: int = 8
    """Run side by side, each from its own draw of the reference."""
    draws: int = 500
    """Kept per chain. More than before adds to a run that has ended."""
    warmup: int = 200
    """Transitions at the start that adapt the step size; not kept."""
    thin: int = 1
    """Transitions per kept draw."""
    target_accept: float = 0.8
    """Mean acceptance probability that the step size is adapted to."""
    seed: int = 0
    """The same seed gives the same bits."""
    out: Path | None = None
    """The run's folder (default: runs/MODEL-UNIT-KERNEL). The same command continues a run that
    was stopped."""


def main(options: Sample) -> None:
    """Samples and prints the report's path."""
    from ppl_cnn.inference.blocks import Sampling
    from ppl_cnn.inference.chains import sample_to
    from ppl_cnn.inference.page import build_report
    from ppl_cnn.models.density import TiltedDensity
    from ppl_cnn.models.references import parse_reference
    from ppl_cnn.models.weights import load

    network = load(options.model)
    unit = network.unit(options.unit)
    density = TiltedDensity(unit, parse_reference(options.reference), options.temperature)
    sampling = Sampling(
        options.kernel,
        options.chains,
        options.warmup,
        options.thin,
        options.target_accept,
        options.seed,
    )
    name = f"{Path(options.model).name}-{options.unit}-{options.kernel}".replace(":", "-")
    out = options.out or Path("runs") / name
    sample_to(
        out,
        density,
        sampling,
        options.draws,
        options.model,
        {"network": unit.network.name, "preprocessing": asdict(unit.network.preprocessing)},
        shlex.join(["python", "-m", "ppl_cnn.sample", *sys.argv[1:]]),
    )
    print(build_report(out))


if __name__ == "__main__":
    run_command(Sample, main, "python -m ppl_cnn.sample", __doc__)
