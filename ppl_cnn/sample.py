"""Samples the image density of units of a trained CNN, and reports the draws with diagnostics.

The density is p(x) ∝ exp(f(x)/T) q(x): f is the unit's response, q the reference. The run's
folder holds draws.zarr (ArviZ's layout), run.json, report.html, images/ and summary.csv; of
several units, a folder each, and one report.html.

Examples:
    python -m ppl_cnn.sample --unit conv5:12 --chains 8
    python -m ppl_cnn.sample --unit conv5:0-15,conv2:40 --chains 4
    python -m ppl_cnn.sample --model runs/lenet --unit fc4:3 --kernel nuts --out runs/dress
    python -m ppl_cnn.sample --model alexnet --weights bvlc_alexnet.caffemodel --unit class:goldfish
"""

import re
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ppl_cnn.command import run_command


@dataclass(frozen=True)
class Sample:
    """Options."""

    unit: str
    """One or more, between commas: layer:channel (at the centre of the layer's map),
    layer:channel@row,col, layer:channel@mean (the channel's mean over its map), class:name or
    class:index; first-last stands for all channels between. `python -m ppl_cnn.units` lists
    them. The image is the unit's receptive field."""
    model: str = "alexnet-fashion"
    """An embedded network; the folder of a run of `python -m ppl_cnn.pretrain` or of an import;
    with --weights, a declared network; or package.module:factory, a Flax NNX network of yours."""
    weights: str | None = None
    """A file of weights (safetensors, PyTorch, Caffe, npz, pickled arrays), or auto to fetch the
    network's published ones."""
    response: Literal["pre", "post"] = "pre"
    """Before or after the nonlinearity that follows the unit's layer."""
    target: Literal["logit", "log-prob"] = "logit"
    """Of a class: its score, or log p(y|x), for the density p(y|x)^(1/T) q(x)."""
    reference: str = "white:10"
    """q. white:SIGMA is independent Gaussian noise of SIGMA grey levels about the mean image;
    uniform is over 0..255; spectral has natural images' spectrum and colours, spectral:A the
    amplitude 1/f^A; bounded:white:SIGMA and bounded:spectral squash pixels into 0..255."""
    fit: Path | None = None
    """A folder of photographs that a spectral reference takes its exponent and colours from;
    the fit is stored as spectral.json in the run's folder."""
    temperature: float = 1.0
    """T: 1 is the published model, lower means stronger tilts."""
    kernel: str = "split"
    """split is HMC that solves the reference exactly, so that its step doesn't shrink as images
    grow; tempered (or tempered:R, of R rungs) exchanges replicas between the reference and the
    density, at R times the cost, for densities whose chains stay where they started; hmc is
    NumPyro's, with trajectories of jittered length, and nuts its NUTS."""
    chains: int = 8
    """Of each unit, run side by side."""
    init: Annotated[str, tyro.conf.arg(aliases=["--start"])] = "prior"
    """Where chains start: prior (each at its own draw of the reference), rto (at the optimum next
    to such a draw), two-sided (half of the chains each way: the report says whether the sides
    agree), zero (the mean image), image:FILE (or image:FILE,FILE,..., in turn) or run:FOLDER
    (another run's last draws)."""
    draws: int = 500
    """Kept per chain. More than before adds to a run that has ended."""
    warmup: int = 200
    """Transitions at the start that adapt step size and, of split, trajectory; not kept."""
    thin: int = 1
    """Transitions per kept draw."""
    target_accept: float = 0.8
    """Mean acceptance probability that the step size is adapted to."""
    side_by_side: int | None = None
    """Units sampled in one batch, at most; by default as many as about 4 GB hold."""
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
    from ppl_cnn.inference.starts import Starts
    from ppl_cnn.models.density import TiltedDensity
    from ppl_cnn.models.references import parse_reference
    from ppl_cnn.models.spectral import Spectral
    from ppl_cnn.models.weights import load

    network = load(options.model, options.weights)
    units = network.units(options.unit, options.response, options.target)
    # A reference that takes nothing from photographs is refused before they are read.
    parse_reference(options.reference, None if options.fit is None else Spectral())
    fitted = None if options.fit is None else Spectral.fit(options.fit)
    reference = parse_reference(options.reference, fitted)
    densities = [TiltedDensity(unit, reference, options.temperature) for unit in units]
    starts = Starts(options.init)
    sampling = Sampling(
        options.kernel,
        options.chains,
        options.warmup,
        options.thin,
        options.target_accept,
        options.seed,
        starts.text,
    )
    out = options.out or Path("runs") / _name(options)
    sample_to(
        out,
        densities,
        sampling,
        options.draws,
        options.model,
        {
            "network": network.network.name,
            "preprocessing": asdict(units[0].preprocessing),
            "classes": {str(unit): name for unit in units if (name := network.class_of(unit.name))},
        },
        shlex.join(["python", "-m", "ppl_cnn.sample", *sys.argv[1:]]),
        options.side_by_side,
        starts,
    )
    if fitted is not None:
        fitted.save(out / "spectral.json")
    print(build_report(out))


def _name(options: Sample) -> str:
    """The run's folder, by what is sampled and how."""
    model = Path(options.model).name
    parts = [model, options.unit, options.response, options.target, options.kernel]
    usual = (Sample.response, Sample.target)
    name = "-".join(part for part in parts if part not in usual)
    return re.sub(r"[^\w.,@-]+", "-", name)[:100]


if __name__ == "__main__":
    run_command(Sample, main, "python -m ppl_cnn.sample", __doc__)
