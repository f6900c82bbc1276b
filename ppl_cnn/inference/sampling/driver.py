"""The chain driver: draws block by block to a store, to the same bits after a kill."""

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from ppl_cnn.errors import MismatchError, RunFolderError
from ppl_cnn.inference.runs.record import read_record, unit_folder
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.group import Group
from ppl_cnn.inference.sampling.methods import Method, method_for, settings_for, with_latents
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.progress import Progress
from ppl_cnn.inference.sampling.resampling.run import ResamplingRun
from ppl_cnn.inference.sampling.resampling.scorer import Density
from ppl_cnn.inference.sampling.resampling.settings import Resampling
from ppl_cnn.inference.sampling.resources import (
    MANY_UNITS,
    check_chains,
    check_store,
    group_units,
    told_size,
)
from ppl_cnn.inference.sampling.settings import Sampling, check_count
from ppl_cnn.inference.sampling.shared_folder import claimed
from ppl_cnn.inference.sampling.starts.registry import as_start
from ppl_cnn.inference.sampling.starts.start import Start
from ppl_cnn.machines.arithmetic import Precision, products
from ppl_cnn.machines.messages import Conversation, leads
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.empirical_density import EmpiricalDensity
from ppl_cnn.models.references.generator import GeneratorReference
from ppl_cnn.models.units.score_function import Scored
from ppl_cnn.numeric import in_float32, whole


def draw(
    density: TiltedDensity | EmpiricalDensity,
    *,
    kernel: Method | str | None = None,
    chains: int = 8,
    draws: int = 500,
    warmup: int = 200,
    thin: int = 1,
    target_accept: float | None = None,
    seed: int = 0,
    start: Start | Float[Array | np.ndarray, "image row col channel"] | str = "prior",
    precision: Precision = "highest",
    out: str | Path | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Samples a tilted density, by Markov chain Monte Carlo or by resampling.

    Args:
        density: the density to sample. The images of a data set, an `EmpiricalDensity`, can only
            be resampled.
        kernel: a kernel, such as `Tempered(rungs=4)`, or its text: "split", "isir"
            (or "isir:N" with N fresh draws), "tempered" (or "tempered:R" with R rungs), "hmc" or
            "nuts"; or `Resample(5000)` or its text "resample:5000" for independent draws by
            importance resampling, which has no `warmup`, `thin`, `target_accept` or `start`.
        chains: number of chains; of resampling, rows of independent draws.
        draws: kept draws per chain.
        warmup: transitions before them that adapt step size and trajectory.
        thin: transitions per kept draw.
        target_accept: mean acceptance probability that the step size is adapted to; by default
            the kernel's, 0.65 for split and 0.8 for the others.
        seed: the same seed gives the same bits.
        start: where the chains start. Images as an array (image, row, col, channel), in pixel
            units minus the mean, as `posterior/image` has them, which chains take in turn; a start
            object; or its text, such as "prior" (each chain at its own draw of the reference),
            "rto" (at the optimum next to one) or "two-sided:rto" (half of the chains each way).
            `starts.registry.parse_start` lists the texts.
        precision: how exact products are on devices that have less than float32's: "default" is as
            fast as the device can, on GPUs TF32; "highest" is float32; "high" is between.
        out: a folder for the draws. The same call resumes a run that was stopped, and one with
            more draws adds to it. Without a folder, the draws are held in memory.
        progress: whether to show a bar.

    Returns:
        ArviZ's tree. `prior` has draws of the reference, `image` and `response` (chain, draw), so
        that `az.plot_prior_posterior(tree, var_names=["response"])` compares. `posterior` has
        `image` (chain, draw, row, col, channel), in pixel units minus the mean, and `response`
        (chain, draw). `sample_stats` has the kernel's statistics, and `start` the images at which
        the chains start. If the reference is linear in z, `stein` has the mean of R(grad_z f / T)
        over each block of draws; for white noise that is (sigma^2/T) grad f. The tempered kernel
        adds `tempering`: `tilt` (chain, draw, rung), f/T of all replicas, and `strength`,
        `step_size` and `angle` of each rung (block, rung). Resampled draws have `proposal` and
        `log_weight` as `sample_stats`, and the group `weights` has `tilt`, f/T of all proposals,
        and under a data set `label`.

    Raises:
        ArgumentError: a setting is out of range, or the kernel doesn't fit the density.
        UnknownNameError: no kernel or start has that name.
        RunFolderError: `out` holds another run, or a damaged one.
        MismatchError: the start doesn't fit the density, its response is not finite there, or too
            few of the weights are effective.

    Examples:
        >>> import jax.numpy as jnp
        >>> import ppl_cnn
        >>> unit = ppl_cnn.ScoreFunction(lambda image: jnp.sum(image), (2, 2, 1))
        >>> density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(3.0), temperature=9.0)
        >>> tree = draw(density, chains=2, draws=200, warmup=50, progress=False)
        >>> tree["posterior/image"].sizes["draw"]
        200
        >>> bool(abs(tree["posterior/image"].mean() - 1.0) < 0.5)  # N(3^2 1/9, 3^2 I)
        True
    """
    method = method_for(density, kernel)
    settings = settings_for(
        method,
        chains=chains,
        warmup=warmup,
        thin=thin,
        target_accept=target_accept,
        seed=seed,
        start=as_start(start),
    )
    if out is not None:
        sample_to(
            [density], settings, Path(out), draws=draws, precision=precision, progress=progress
        )
        return open_draws(Path(out) / "draws.zarr")
    with tempfile.TemporaryDirectory() as folder:
        sample_to(
            [density], settings, Path(folder), draws=draws, precision=precision, progress=progress
        )
        tree = open_draws(Path(folder) / "draws.zarr").load()
        tree.close()
        return tree


@dataclass(frozen=True)
class Origin:
    """Where a run comes from: what its record says beside the settings."""

    model: str = ""
    """The network whose units are sampled. A run of another model doesn't resume this one."""
    description: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the record, as JSON."""
    command: str = "ppl_cnn.draw"
    """How the run was started."""


@in_float32
def sample_to(
    densities: Sequence[Density],
    settings: Sampling | Resampling,
    out: Path,
    *,
    draws: int,
    origin: Origin = Origin(),
    side_by_side: int | None = None,
    precision: Precision = "highest",
    progress: bool = True,
) -> None:
    """Samples into a folder: `draws.zarr`, `run.json` and, to resume chains from, `state.npz`.

    Several units get a folder each (`unit_folder`), with `draws.zarr` and `run.json` of its own.
    The same call resumes a run that was stopped, and one with more draws adds to it. Where several
    processes sample together, all of them call this, with one folder that all see.

    Args:
        densities: the densities to sample.
        settings: how each is sampled; images of a data set can only be resampled.
        out: the folder.
        draws: kept draws per chain, in all.
        origin: where the run comes from, for the record.
        side_by_side: largest number of units sampled in one batch; by default as many as
            fit into about 4 GB.
        precision: how exact products are on devices that have less than float32's.
        progress: whether to show a bar.

    Raises:
        ArgumentError: a setting is out of range.
        RunFolderError: the folder holds another run, or a damaged one.
        MismatchError: the densities don't share reference and temperature, a start doesn't fit
            its density, the response is not finite there, or too few of the weights of resampling
            are effective.
        OSError: the disk is full. The draws before stay readable.
    """
    check_count("draws", draws)
    draws = whole("draws", draws)
    check_one_run(densities)
    if leads():
        check_store(densities, chains=settings.chains, draws=draws, out=out)
    config = _config(densities, settings, origin.model)
    if precision != "highest":
        config["precision"] = precision
    progress = progress and leads()
    with products(precision):
        if isinstance(settings, Resampling):
            _resample_to(
                densities,
                settings,
                out,
                config=config,
                origin=origin,
                draws=draws,
                progress=progress,
            )
        else:
            _move_to(
                densities,
                settings,
                out,
                config=config,
                origin=origin,
                draws=draws,
                most=side_by_side,
                progress=progress,
            )


def _move_to(
    densities: Sequence[Density],
    settings: Sampling,
    out: Path,
    *,
    config: dict[str, Any],
    origin: Origin,
    draws: int,
    most: int | None,
    progress: bool,
) -> None:
    """Samples by chains; see `sample_to`."""
    recorded = _recorded(out, densities) if most is None and leads() else None
    targets, talk = with_latents(densities), Conversation()
    check_chains(targets, settings, draws=draws)
    groups = group_units(targets, settings, most=most, sizes=recorded)
    sizes = talk.agreed([len(group) for group in groups])
    groups = group_units(targets, settings, sizes=sizes)
    blocks = talk.agreed([_recorded_block(out, group) if leads() else None for group in groups])
    programs = [
        Program(group, settings, block=block) for group, block in zip(groups, blocks, strict=True)
    ]
    several = len(densities) > 1
    if several:
        config["side_by_side"] = [len(group) for group in groups]
    else:
        config["block"] = programs[0].block
    with claimed(out, config, origin.command) as folder:
        folder.update(**_description(densities[0], config), **origin.description, draws=draws)
        runs = [
            Group(folder, program, settings, index if several else None)
            for index, program in enumerate(programs)
        ]
        if progress:
            _say_found(out, runs, draws, len(densities))
            if len(densities) >= MANY_UNITS:
                chains, count = settings.chains, len(groups)
                size = told_size(densities, chains=chains, draws=draws, groups=count)
                print(size, file=sys.stderr)
        with Progress(settings, draws=draws, units=len(densities), shown=progress) as bar:
            for run in runs:
                run.sample(draws, bar)


def _resample_to(
    densities: Sequence[Density],
    settings: Resampling,
    out: Path,
    *,
    config: dict[str, Any],
    origin: Origin,
    draws: int,
    progress: bool,
) -> None:
    """Samples by resampling; see `sample_to`."""
    with claimed(out, config, origin.command) as folder:
        folder.update(**_description(densities[0], config), **origin.description, draws=draws)
        run = ResamplingRun(folder, densities, settings)
        if progress:
            _say_found(out, [run], draws, len(densities))
        run.sample(draws, progress=progress)


def check_one_run(densities: Sequence[Density]) -> None:
    """Refuses densities that one record can't tell from each other.

    Raises:
        MismatchError: they don't share reference and temperature, or two have one unit.
    """
    settings = {(str(density.reference), density.temperature) for density in densities}
    units = {str(density.unit) for density in densities}
    if len(settings) > 1 or len(units) < len(densities):
        raise MismatchError(
            "The densities of a run must share `reference` and `temperature`, and have different "
            "units. Sample others in runs of their own."
        )


def _say_found(out: Path, runs: Sequence[Group | ResamplingRun], draws: int, units: int) -> None:
    """Says what an earlier run has left."""
    found, wanted = sum(run.found for run in runs), draws * units
    summed = f" (summed over its {units} units)" if units > 1 else ""
    if found > wanted:
        said = (
            f"holds {found:,} draws per chain{summed}, more than the {wanted:,} asked for. All are "
            f"kept, and there is nothing to sample."
        )
    elif found == wanted:
        said = f"holds all {found:,} draws per chain{summed}. There is nothing to sample."
    else:
        said = f"holds {found:,} of {wanted:,} draws per chain{summed}. The run resumes there."
    if found:
        print(f"{out} {said}", file=sys.stderr)


def _recorded(out: Path, densities: Sequence[Density]) -> list[int] | None:
    """The sizes of the groups in which an earlier run has sampled the same units there."""
    if not (out / "run.json").exists():
        return None
    config = read_record(out)["config"]
    same = config.get("units") == [str(density.unit) for density in densities]
    return config.get("side_by_side") if same else None


def _recorded_block(out: Path, group: Sequence[TiltedDensity]) -> int | None:
    """Draws of a block of an earlier run there, which may have been on other devices."""
    for folder in (out / unit_folder(str(group[0].unit)), out):
        if not (folder / "run.json").exists():
            continue
        with contextlib.suppress(RunFolderError):
            block: int | None = read_record(folder)["config"].get("block")
            return block
    return None


def weights_digest(units: Sequence[Scored]) -> str:
    """A digest of the units' weights, as the record of a run of them has it."""
    digest, seen = hashlib.sha256(), set[int]()
    for leaf in jax.tree.leaves([unit.params for unit in units]):
        if id(leaf) not in seen:
            seen.add(id(leaf))
            digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _config(
    densities: Sequence[Density], settings: Sampling | Resampling, model: str
) -> dict[str, Any]:
    """What determines the draws, for the record; weights are a digest."""
    units: dict[str, Any] = dict(densities[0].unit.settings)
    if len(densities) > 1:
        del units["unit"]
        units["units"] = [str(density.unit) for density in densities]
        # Classes may have another target than filters; each unit's folder has its own.
        if "target" in units:
            targets = [str(density.unit.settings["target"]) for density in densities]
            units["target"] = ", ".join(dict.fromkeys(targets))
    return {
        "kind": "sampling",
        "model": model,
        **units,
        "weights": weights_digest([density.unit for density in densities]),
        "reference": str(densities[0].reference),
        "temperature": densities[0].temperature,
        **_data(densities[0]),
        **settings.record(),
    }


def _description(density: Density, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the record says of the images and the arithmetic, beside what determines the draws."""
    found: dict[str, Any] = {"preprocessing": asdict(density.unit.preprocessing)}
    found["device"] = jax.devices()[0].device_kind
    found["precision"] = config.get("precision", "highest")
    if isinstance(density.reference, GeneratorReference):
        found["generator"] = dict(density.reference.generator.training)
    return found


def _data(density: Density) -> dict[str, str]:
    """What the images of the reference are, if they are a data set's."""
    if isinstance(density, EmpiricalDensity):
        return {"images": density.reference.identity}
    return {}
