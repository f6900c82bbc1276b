"""The diagnosis of a run: everything that its page shows, as data. Nothing is written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Float32

from ppl_cnn.errors import ArgumentError, RunFolderError
from ppl_cnn.inference.diagnostics.log_z import RunLogZ, log_z_of
from ppl_cnn.inference.diagnostics.mixing.mixing import Mixing
from ppl_cnn.inference.diagnostics.mixing.step_bias import StepBias
from ppl_cnn.inference.diagnostics.mixing.two_sides import Sides, two_sides
from ppl_cnn.inference.diagnostics.pixel_maps import Maps, convergence_maps, stored_maps
from ppl_cnn.inference.diagnostics.replicas import Climbs
from ppl_cnn.inference.diagnostics.scan import (
    Scan,
    loaded,
    missing_variable,
    read,
    scan,
    variable,
)
from ppl_cnn.inference.diagnostics.stein import SteinCheck, SteinMeans, stein_check, stein_means
from ppl_cnn.inference.diagnostics.summary import scalars, summary
from ppl_cnn.inference.diagnostics.verdict.verdict import Verdict, judge, judge_weights
from ppl_cnn.inference.diagnostics.weighing import Weighing, weighed_summary
from ppl_cnn.inference.runs.record import has_pictures, read_record, second_side, unit_folder
from ppl_cnn.work import FORWARD_COST

_OF_REFERENCE = 32
"""Images of the reference that a diagnosis holds, at most."""


class ChosenMoves(NamedTuple):
    """The moves of a kernel that chooses between trajectories and moves that take no gradient."""

    turn: float | None
    """Radians of the smallest turn; None where none is made."""
    fresh: int | None
    """Fresh draws of the reference to a draw from a pool of them; None where there are no pools."""
    passes: float
    """Forward passes of a draw, in the mean: turns, fresh draws, or what trajectories take."""
    worth_of_turns: float
    """Independent draws for the work of a gradient, as the warmup expected; NaN without a warmup
    that chooses."""
    worth_of_fresh: float
    """The same of draws from pools; NaN for runs of earlier versions, which had none."""
    worth_of_trajectories: float
    """The same of trajectories that follow the exact force."""
    width: float | None
    """Relative width of the kinks of the softened force that trajectories follow; None where it is
    the exact one."""
    worth_of_softened: float
    """The same of trajectories that follow a softened force; NaN where none was tried."""


class Efficiency(NamedTuple):
    """What the draws cost, and what they are worth; None where the record doesn't tell."""

    draws_per_second: float | None
    gradients_per_second: float | None
    forward_passes: int | None
    """Forward passes without a gradient, while drawing; None if there were none."""
    effective_draws: float | None
    """Bulk ESS of the response, over all chains."""
    gradients_per_effective_draw: float | None
    """A forward pass without a gradient counts as `FORWARD_COST` gradients."""
    transitions: dict[str, float]
    """The mean of `n_steps`, `step_size`, `tree_depth` and `global_acceptance_rate` over all draws,
    as far as the kernel has them."""
    moves: ChosenMoves | None
    """None for kernels that don't choose."""


@dataclass(kw_only=True, frozen=True, eq=False)
class Diagnosis:
    """What the draws of one unit say: the verdict, and everything that it and the page rest on.

    `print(diagnosis)` shows the verdict. Images are in pixel units, 0..255, minus the mean.
    """

    verdict: Verdict
    """Whether the draws can be relied on, why not, and what to do about it."""
    summary: pd.DataFrame
    """ArviZ's summary of every scalar, unrounded; one row each."""
    quantities: xr.DataTree
    """The scalars by which the run is judged (chain, draw): `posterior` and `sample_stats`."""
    mixing: Mixing | None
    """How the chains mix, and how near they are to their starts; None for resampled draws."""
    weighing: Weighing | None
    """The weights that the draws were resampled by; None for draws of chains."""
    log_z: RunLogZ | None
    """The estimate of log Z that the run holds; None without any."""
    sides: Sides | None
    """How chains from the reference compare with those from elsewhere; None if all started alike.
    """
    climbs: Climbs | None
    """What the replicas did; None if the kernel isn't the tempered one."""
    step_bias: StepBias | None
    """How chains at two steps differ; None for an exact kernel, and where all steps are alike."""
    images: Scan
    """What one pass over the images has kept: projections, means, a few whole draws."""
    reference: Float32[np.ndarray, "sample row col channel"] | None
    """Images of a few draws of the reference; None if the run hasn't stored any."""
    steins: SteinMeans | None
    """The Stein mean images; None if the reference has none."""
    stein_check: SteinCheck | None
    """How far mean and Stein mean differ; None if there is nothing to compare."""
    maps: Maps | None
    """R-hat and ESS of every pixel; None if they weren't asked for, or draws are resampled."""
    efficiency: Efficiency
    """What the draws cost, and what they are worth."""
    window: tuple[tuple[int, int], tuple[int, int]]
    """The first and the last row, and the first and the last column, of the network's image that
    the stored images show."""
    record: Mapping[str, Any]
    """What the run's `run.json` says; for draws in memory, what they carry along."""
    folder: Path | None
    """The run's folder; None for draws in memory."""

    @property
    def chains(self) -> int:
        """The number of chains."""
        return int(self.quantities["posterior"].sizes["chain"])

    @property
    def draws(self) -> int:
        """The number of draws per chain."""
        return int(self.quantities["posterior"].sizes["draw"])

    @property
    def config(self) -> Mapping[str, Any]:
        """The run's settings, as far as they are known."""
        found: Mapping[str, Any] = self.record.get("config", {})
        return found

    @property
    def has_pictures(self) -> bool:
        """Whether the images are pictures, as under a generator or a data set, and not noise."""
        return has_pictures(self.config)

    @property
    def mean(self) -> Float[np.ndarray, "row col channel"]:
        """The mean image over all chains."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.images.mean.mean(axis=0))

    @property
    def stein_mean(self) -> Float[np.ndarray, "row col channel"] | None:
        """The Stein mean image over all chains; None if the reference has none."""
        return None if self.steins is None else np.asarray(self.steins.running[:, -1].mean(axis=0))

    def __str__(self) -> str:
        unit = self.config.get("unit", "")
        of_unit = f" of {unit}" if unit else ""
        return f"{self.chains} chains x {self.draws:,} draws{of_unit}\n{self.verdict}"

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self.folder is not None else ""
        return f"<Diagnosis of {self.chains} chains x {self.draws:,} draws{where}: " + (
            f"{self.verdict.state}>"
        )


def diagnose(run: xr.DataTree | str | Path, *, shown: int = 32, maps: bool = True) -> Diagnosis:
    """Says whether the draws of a run can be relied on, and why not.

    It computes R-hat, ESS and E-BFMI of the response, lp, the energy, random projections and a grid
    of pixels; whether the chains have forgotten their starts and have ended burn-in; whether the
    draws obey Stein's identity; and R-hat and ESS of every pixel. It writes nothing;
    `ppl_cnn.report` makes a page of it.

    Args:
        run: what `ppl_cnn.draw` returned, or the folder of a run of one unit, finished or not.
        shown: how many draws of each chain to keep whole, evenly spread over the run.
        maps: whether to compute R-hat and ESS of every pixel, which takes most of the time. A
            folder's `maps.npz` is used if it is of these draws.

    Returns:
        The findings as data. `diagnosis.verdict.state` is "good", "short" or "bad".

    Raises:
        ArgumentError: there are fewer than 4 draws per chain, or `run` is no tree of draws.
        RunFolderError: the folder holds several units, or a run of another kind.
        FileError: the folder holds no run, or a damaged one.

    Examples:
        >>> import jax.numpy as jnp, ppl_cnn
        >>> score = ppl_cnn.ScoreFunction(jnp.sum, (3, 3, 1))
        >>> density = ppl_cnn.TiltedDensity(score, ppl_cnn.WhiteNoise(1.0))
        >>> draws = ppl_cnn.draw(density, chains=4, draws=80, warmup=60, progress=False)
        >>> diagnosis = ppl_cnn.diagnose(draws, maps=False)
        >>> diagnosis.verdict.state
        'short'
        >>> [type(finding).__name__ for finding in diagnosis.verdict.findings]
        ['TooFewDraws']
    """
    tree, record, folder = _opened(run)
    config: Mapping[str, Any] = record.get("config", {})
    images = scan(tree, shown)
    quantities = scalars(tree, images)
    table = summary(quantities)
    steins = stein_means(tree, images.shown_draws)
    two_sided = second_side(config) is not None
    weighing, mixing = Weighing.of(tree, record), None
    if weighing is None:
        mixing = Mixing.of(tree, quantities, table, two_sided=two_sided)
    else:
        table = weighed_summary(table, quantities, weighing)
    response = variable(quantities, "posterior/response").values
    sides = two_sides(response, images.projections) if two_sided else None
    climbs, step_bias = Climbs.of(tree), StepBias.of(quantities)
    stein = None if steins is None else stein_check(images.mean, steins.running[:, -1])
    resumes = folder is not None
    if weighing is None:
        verdict = judge(
            quantities,
            table,
            config=config,
            mixing=mixing,
            sides=sides,
            climbs=climbs,
            stein=stein,
            step_bias=step_bias,
            resumes=resumes,
        )
    else:
        verdict = judge_weights(quantities, weighing, config=config, resumes=resumes)
    return Diagnosis(
        verdict=verdict,
        summary=table,
        quantities=quantities,
        mixing=mixing,
        weighing=weighing,
        log_z=log_z_of(folder, record, weighing),
        sides=sides,
        climbs=climbs,
        step_bias=step_bias,
        images=images,
        reference=_reference(tree),
        steins=steins,
        stein_check=stein,
        maps=_maps(tree, folder) if maps and weighing is None else None,
        efficiency=_efficiency(quantities, table, record),
        window=_window(variable(tree, "posterior/image")),
        record=record,
        folder=folder,
    )


def _opened(
    run: xr.DataTree | str | Path,
) -> tuple[xr.DataTree, Mapping[str, Any], Path | None]:
    """The draws, their record, and the folder that they lie in."""
    if isinstance(run, xr.DataTree):
        missing = missing_variable(run)
        if missing is not None:
            raise ArgumentError(
                f"`run` is no tree of draws: it lacks {missing}. Give what ppl_cnn.draw returns.",
                argument="run",
            )
        return run, {str(name): value for name, value in run.attrs.items()}, None
    folder = Path(run)
    record = read_record(folder)
    config = record["config"]
    if config.get("kind") != "sampling":
        raise RunFolderError(
            f"{folder} holds no run of `python -m ppl_cnn.sample`, but one of another kind.",
            path=folder,
        )
    if "units" in config:
        folders = ", ".join(unit_folder(str(unit)) for unit in config["units"])
        raise RunFolderError(
            f"{folder} holds several units. Give the folder of one of them: {folders}.",
            path=folder,
        )
    return read(folder), record, folder


def _maps(tree: xr.DataTree, folder: Path | None) -> Maps:
    found = None
    if folder is not None:
        found = stored_maps(folder, variable(tree, "posterior/image").shape)
    return convergence_maps(tree, folder) if found is None else found


def _reference(tree: xr.DataTree) -> Float32[np.ndarray, "sample row col channel"] | None:
    if "prior" in tree.children:
        image = variable(tree, "prior/image")
        few = image.isel(draw=slice(-(-_OF_REFERENCE // image.sizes["chain"])))
        return loaded(few).reshape(-1, *image.shape[2:])[:_OF_REFERENCE]
    if "reference" in tree.children:  # as earlier versions stored them
        return loaded(variable(tree, "reference/image"))
    return None


def _window(image: xr.DataArray) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, cols = (image[dim].values for dim in ("row", "col"))
    return (int(rows[0]), int(rows[-1])), (int(cols[0]), int(cols[-1]))


def _efficiency(
    quantities: xr.DataTree, table: pd.DataFrame, record: Mapping[str, Any]
) -> Efficiency:
    sizes, stats = quantities["posterior"].sizes, quantities["sample_stats"]
    draws = sizes["chain"] * sizes["draw"]
    ess = float(table.loc["response", "ess_bulk"])
    seconds = record.get("seconds", {}).get("sampling", 0)
    gradients = record.get("gradients", {}).get("sampling", 0)
    passes = int(stats["forward_passes"].sum()) if "forward_passes" in stats else 0
    views = record.get("config", {}).get("warps", 1)
    cost = gradients + FORWARD_COST * views * passes
    chooses = "turn" in stats
    told = ["n_steps", "step_size", "tree_depth", "global_acceptance_rate"]
    told += [] if chooses else ["fresh_per_draw"]
    return Efficiency(
        draws / seconds if seconds else None,
        gradients / seconds if gradients and seconds else None,
        passes or None,
        ess if ess > 0 else None,
        cost / ess if cost and ess > 0 else None,
        {name: float(stats[name].mean()) for name in told if name in stats},
        _chosen(stats.to_dataset()) if chooses else None,
    )


def _chosen(stats: xr.Dataset) -> ChosenMoves:
    mean = {str(name): float(values.mean()) for name, values in stats.items()}
    return ChosenMoves(
        mean["turn"] or None,
        round(mean.get("fresh_per_draw", 0.0)) or None,
        mean["forward_passes"],
        mean["worth_of_turns"],
        mean.get("worth_of_fresh", math.nan),
        mean["worth_of_trajectories"],
        # Earlier versions followed the exact force alone, and had no pools.
        mean.get("width", 0.0) or None,
        mean.get("worth_of_softened", math.nan),
    )
