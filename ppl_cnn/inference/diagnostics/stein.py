"""Stein's identity, E[x] = (s^2/T) E[grad f(x)]: its mean images, and a check of the sampler."""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Float32, Int

from ppl_cnn.errors import FileError
from ppl_cnn.inference.diagnostics.scan import loaded, variable
from ppl_cnn.inference.diagnostics.summary import quiet
from ppl_cnn.inference.diagnostics.thresholds import STEIN_BY_CHANCE


class SteinMeans(NamedTuple):
    """Each chain's Stein mean image, (s^2/T) mean grad f over its draws, in pixel units.

    By Stein's identity its expectation is that of the image minus the mean, without the noise of
    the reference. It is stored by blocks of draws.
    """

    running: Float32[np.ndarray, "chain step row col channel"]
    """The mean over all draws up to the end of each block in which a shown draw lies."""
    draws: Int[np.ndarray, " step"]
    """The number of draws in each of these means."""
    step: Int[np.ndarray, " shown"]
    """Which of these means belongs to each shown draw."""


def stein_means(tree: xr.DataTree, shown: Int[np.ndarray, " shown"]) -> SteinMeans | None:
    """Reads the Stein means of a run.

    Args:
        tree: the draws, as `read` or `ppl_cnn.draw` returns them.
        shown: the numbers of the draws up to which means are kept, in order.

    Returns:
        None if the reference has no Stein mean.

    Raises:
        FileError: the store of draws is damaged.
    """
    if "stein" not in tree.children or not {"image", "draws"} <= set(tree["stein"].data_vars):
        return None
    image = variable(tree, "stein/image")
    ends = np.cumsum(loaded(variable(tree, "stein/draws")))
    if not len(ends) or ends[-1] <= shown[-1]:
        raise FileError(
            "The store is damaged: it lacks Stein mean images of some draws.",
            path=tree.encoding.get("source", "draws.zarr"),
        )
    blocks, step = np.unique(np.searchsorted(ends, shown, side="right"), return_inverse=True)
    chains, _, *shape = image.shape
    running = np.empty((chains, len(blocks), *shape), np.float32)
    total = np.zeros((chains, *shape))
    for block, count in enumerate(np.diff(ends, prepend=0)):
        if count:
            total += count * loaded(image.isel(block=block)).astype(np.float64)
        running[:, blocks == block] = (total / max(1, ends[block]))[:, None]
    return SteinMeans(running, ends[blocks], step)


class SteinCheck(NamedTuple):
    """How far the mean image is from the Stein mean image: root mean squares, in pixel units."""

    difference: float
    """The difference of the two images."""
    chance: float
    """The difference that chance alone would give, from its spread over the chains."""
    largest: float
    """The largest ratio of the two that chance explains: Student's t for that many chains, as if
    all pixels moved together. Where they don't, chance gives as much more rarely."""

    @property
    def ratio(self) -> float:
        """The difference in units of what chance would give."""
        return self.difference / self.chance if self.chance > 0 else math.nan


def stein_check(
    mean: Float[np.ndarray, "chain row col channel"],
    stein: Float[np.ndarray, "chain row col channel"],
) -> SteinCheck | None:
    """Compares both sides of Stein's identity, E[x] = (s^2/T) E[grad f(x)].

    Chains that have reached their density obey it up to chance, whatever the network is.

    Args:
        mean: each chain's mean image.
        stein: each chain's Stein mean image.

    Returns:
        None for a single chain, whose spread is unknown, or if a mean isn't finite.
    """
    from scipy import stats

    chains = len(mean)
    with quiet():
        difference = mean - stein
        if chains < 2 or not np.isfinite(difference).all():
            return None
    chance = difference.var(axis=0, ddof=1) / chains
    largest = math.ceil(10 * stats.t.isf(STEIN_BY_CHANCE / 2, chains - 1)) / 10
    apart = math.sqrt(np.mean(difference.mean(axis=0) ** 2))
    return SteinCheck(apart, math.sqrt(np.mean(chance)), largest)
