"""The scalars by which a run is judged, and ArviZ's summary of them.

An image has too many pixels to judge each by rank statistics. So a run is judged by the response,
lp, the energy, random projections of the image and a grid of pixels.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Int

from ppl_cnn.inference.diagnostics.scan import Scan, loaded, scan, variable
from ppl_cnn.inference.diagnostics.thresholds import ESS_DRAWS

_SUMMARISED = 8
"""Projections in the summary, of the 50 that there are."""


class Extreme(NamedTuple):
    """The worst value of a diagnostic, and where it was found."""

    value: float
    """The value; NaN if it is defined for no quantity."""
    of: str
    """The quantity or chain that has it; empty if there is none."""


def extreme(column: pd.Series, largest: bool = False) -> Extreme:
    """The smallest (or largest) value of a labelled column, NaN left aside, and its label."""
    column = column.dropna()
    if column.empty:
        return Extreme(math.nan, "")
    label = column.idxmax() if largest else column.idxmin()
    return Extreme(float(column[label]), str(label))


def scalars(tree: xr.DataTree, images: Scan | None = None) -> xr.DataTree:
    """The quantities by which a run is judged, in memory, as ArviZ takes them.

    Args:
        tree: the draws, as `read` or `ppl_cnn.draw` returns them.
        images: the result of `scan`, if it is at hand.

    Returns:
        `posterior` with `response` (chain, draw), `lp` and `energy` of chains, `projections`
        (.., projection) and `pixels` (.., pixel), the last two in pixel units; `sample_stats`
        (chain, draw). A pixel is labelled `row,col` in the network's image, or `row,col,channel`
        in a colour image.

    Raises:
        ArgumentError: there are fewer than 4 draws per chain.
        FileError: a chunk of the store is damaged.
    """
    images = scan(tree) if images is None else images
    stats = {
        str(name): (("chain", "draw"), loaded(values))
        for name, values in tree["sample_stats"].data_vars.items()
        if values.dims == ("chain", "draw")
    }
    sample = ("chain", "draw")
    chains, draws, _ = images.pixels.shape
    steps = {"chain": np.arange(chains), "draw": np.arange(draws)}
    image = variable(tree, "posterior/image")
    posterior = xr.Dataset(
        {
            "response": (sample, loaded(variable(tree, "posterior/response")).astype(np.float64)),
            **{
                name: (sample, stats[name][1].astype(np.float64))
                for name in ("lp", "energy")
                if name in stats
            },
            "projections": ((*sample, "projection"), images.projections[..., :_SUMMARISED]),
            "pixels": ((*sample, "pixel"), images.pixels.astype(np.float64)),
        },
        {
            **steps,
            "projection": np.arange(_SUMMARISED),
            "pixel": [_label(image, place) for place in images.places],
        },
    )
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": xr.Dataset(stats, steps)})


def _label(image: xr.DataArray, place: Int[np.ndarray, " 3"]) -> str:
    used = ("row", "col", "channel") if image.sizes["channel"] > 1 else ("row", "col")
    return ",".join(str(image[dim].values[at]) for dim, at in zip(used, place, strict=False))


def by_label(quantities: xr.DataTree) -> dict[str, xr.DataArray]:
    """Every scalar (chain, draw), by the label that `summary` gives it.

    Args:
        quantities: the result of `scalars`.
    """
    posterior = quantities["posterior"].to_dataset()
    every = {name: posterior[name] for name in ("response", "lp", "energy") if name in posterior}
    for name, dim in (("projections", "projection"), ("pixels", "pixel")):
        for label in posterior[dim].values:
            every[f"{name}[{label}]"] = posterior[name].sel({dim: label}, drop=True)
    return every


def summary(quantities: xr.DataTree) -> pd.DataFrame:
    """ArviZ's summary of every scalar, unrounded: mean, sd, interval, ESS, R-hat, MCSE.

    Args:
        quantities: the result of `scalars`.

    Returns:
        One row per scalar. ESS and MCSE are NaN for fewer than 10 draws per chain, from which they
        can't be estimated.
    """
    with quiet():
        import arviz

        table = pd.DataFrame(arviz.summary(quantities, round_to="none"))
    if quantities["posterior"].sizes["draw"] < ESS_DRAWS:
        table[["ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"]] = math.nan
    return table


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences ArviZ's log and NumPy's warnings of NaN and constants; the verdict says it once."""
    logger = logging.getLogger("arviz_stats")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    finally:
        logger.setLevel(level)
