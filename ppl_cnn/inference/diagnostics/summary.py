"""The scalars by which a run is judged, and ArviZ's summary of them.

An image has too many pixels to diagnose each by rank statistics, so a run is judged by the
response, lp, the energy, random projections of the image and a grid of pixels.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int

from ppl_cnn.inference.diagnostics.scan import Scan, loaded, scan, variable

ESS_DRAWS = 10
"""Per chain; of fewer, ArviZ's effective sample size is n log10 n whatever the chains do, as it
looks at no autocorrelation in halves of at most four draws."""


RHAT_POOR = 1.05
"""Above it the chains disagree, unless they are so short that chance may explain it; ours."""


_SUMMARISED = 8
"""Of them, in the summary."""


def scalars(tree: xr.DataTree, images: Scan | None = None) -> xr.DataTree:
    """The quantities by which a run is judged, in memory, as ArviZ takes them.

    Args:
        tree: as `read` or `ppl_cnn.draw` return it.
        images: the result of `scan`, if it is at hand.

    Returns:
        `posterior` with `response`, `lp`, `energy` (chain, draw), `projections` (.., projection)
        and `pixels` (.., pixel), the last two in pixel units; `sample_stats` (chain, draw). A pixel
        is labelled `row,col` in the network's image, in a colour one `row,col,channel`.

    Raises:
        InputError: there are fewer than 4 draws, or a chunk is damaged.
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
            "lp": (sample, stats["lp"][1].astype(np.float64)),
            "energy": (sample, stats["energy"][1].astype(np.float64)),
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
    every = {name: posterior[name] for name in ("response", "lp", "energy")}
    for name, dim in (("projections", "projection"), ("pixels", "pixel")):
        for label in posterior[dim].values:
            every[f"{name}[{label}]"] = posterior[name].sel({dim: label}, drop=True)
    return every


def summary(quantities: xr.DataTree) -> pd.DataFrame:
    """ArviZ's summary of every scalar, unrounded: mean, sd, interval, ESS, R-hat, MCSE.

    Args:
        quantities: the result of `scalars`.

    Returns:
        A row for each; ESS and MCSE are NaN of fewer than 10 draws a chain, which can't tell them.
    """
    with quiet():
        import arviz

        table = pd.DataFrame(arviz.summary(quantities, round_to="none"))
    if quantities["posterior"].sizes["draw"] < ESS_DRAWS:
        table[["ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"]] = math.nan
    return table


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """ArviZ logs NaN, constants and single chains for every quantity; the verdict says it once."""
    logger = logging.getLogger("arviz_stats")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    finally:
        logger.setLevel(level)


class Extreme(NamedTuple):
    """The worst value of a diagnostic, and whose it is."""

    value: float
    """NaN if it could be computed for nothing."""
    of: str


def largest_rhat(table: pd.DataFrame) -> Extreme:
    """Of all scalars that aren't constant.

    Args:
        table: the result of `summary`.
    """
    return _extreme(table["r_hat"][table["sd"] > 0], largest=True)


def _extreme(column: pd.Series, largest: bool = False) -> Extreme:
    column = column.dropna()
    if column.empty:
        return Extreme(math.nan, "")
    label = column.idxmax() if largest else column.idxmin()
    return Extreme(float(column[label]), str(label))


def disagree(quantities: xr.DataTree) -> bool:
    """Whether the chains differ by more than chance, given how slowly each of them mixes.

    Args:
        quantities: the result of `scalars`.
    """
    return any(_apart(each.values) for each in by_label(quantities).values())


def _apart(values: Float[np.ndarray, "chain draw"]) -> bool:
    import arviz

    with quiet():
        rhat = float(arviz.rhat(values))
    return rhat > RHAT_POOR and rhat > rhat_by_chance(values)


def rhat_by_chance(values: Float[np.ndarray, "chain draw"]) -> float:
    """What split R-hat exceeds once in 1,000 times if all chains have the same density, given
    how slowly each mixes.

    R-hat^2 = 1 + F/n up to terms of 1/draws, with n effective draws in each of m half chains and
    F distributed as F(m - 1, m(n - 1)).
    """
    import arviz
    from scipy import stats

    with quiet():
        ess = np.sum([arviz.ess(chain[None], method="bulk") for chain in values])
        halves = 2 * len(values)
        n = max(1.5, ess / halves)
        return math.sqrt(1 + stats.f.ppf(0.999, halves - 1, halves * (n - 1)) / n)
