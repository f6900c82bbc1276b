"""How near the draws still are to the images at which their chains started."""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from ppl_cnn.inference.diagnostics.scan import loaded, variable
from ppl_cnn.inference.diagnostics.thresholds import HARDLY_MOVED, NEAR_BY_CHANCE

_WINDOW = 10
"""The first and the last tenth of the draws are compared with the starts."""
_READ = 20
"""Draws read from a window, at most."""
_SIDE = 16
"""Rows and columns of the low-pass images that are compared."""


class Closeness(NamedTuple):
    """How alike the images of some draws are to the starts: correlations of low-pass pixels."""

    own: float
    """Correlation with each chain's own start, the mean over chains."""
    others: float
    """Correlation with other chains' starts, of the same side if there are two."""
    beyond_chance: bool
    """Whether the difference is more than the spread over pairs of a chain and another's start."""

    @property
    def excess(self) -> float:
        """`own` minus `others`: 0, up to chance, for chains that have forgotten their starts."""
        return self.own - self.others


def windows(draws: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the first and the last draws that are compared with the starts.

    Args:
        draws: draws per chain.
    """
    length = max(1, draws // _WINDOW)
    spread = np.unique(np.linspace(0, length - 1, min(length, _READ)).round().astype(int))
    return spread, draws - 1 - spread[::-1]


def closeness(tree: xr.DataTree, draws: np.ndarray, *, two_sided: bool) -> Closeness | None:
    """Compares the images of some draws with the starts.

    Args:
        tree: the draws, as `read` or `ppl_cnn.draw` returns them.
        draws: the numbers of the draws.
        two_sided: whether the first half of the chains started elsewhere than the second.

    Returns:
        None if the starts are unknown or blank, or if no two of a side differ.

    Raises:
        FileError: a chunk of the store is damaged.
    """
    if "start" not in tree.children:
        return None
    found = _alike(tree, draws)
    if not np.isfinite(found).all():
        return None
    starts = loaded(variable(tree, "start/image"))
    chains = len(found)
    side = np.arange(chains) >= (chains // 2 if two_sided else chains)
    alike = (starts[:, None] == starts[None]).all(axis=(2, 3, 4))
    return _compared(found, (side[:, None] == side[None]) & ~alike, side)


def likeness(tree: xr.DataTree, draws: np.ndarray) -> float:
    """The correlation of some draws with their own chain's start, the mean over chains.

    Args:
        tree: the draws, as `read` or `ppl_cnn.draw` returns them.
        draws: the numbers of the draws.

    Returns:
        NaN if the starts are unknown, or images have no contrast.
    """
    if "start" not in tree.children:
        return math.nan
    return float(_alike(tree, draws).diagonal().mean())


def unmoved(tree: xr.DataTree) -> tuple[int, ...]:
    """The chains whose last image is nearly that at which they started.

    Args:
        tree: the draws, as `read` or `ppl_cnn.draw` returns them.
    """
    if "start" not in tree.children:
        return ()
    starts = loaded(variable(tree, "start/image"))
    last = loaded(variable(tree, "posterior/image").isel(draw=-1))
    flat = starts.reshape(len(starts), -1)
    with np.errstate(invalid="ignore"):
        moved = np.linalg.norm(last.reshape(flat.shape) - flat, axis=1)
    near = moved <= HARDLY_MOVED * np.linalg.norm(flat, axis=1)
    return tuple(np.flatnonzero(near).tolist())


def _alike(tree: xr.DataTree, draws: np.ndarray) -> Float[np.ndarray, "chain chain"]:
    """Chain and start -> the correlation of low-pass images, the mean over some draws."""
    starts = loaded(variable(tree, "start/image"))
    images = loaded(variable(tree, "posterior/image").isel(draw=draws))
    with np.errstate(divide="ignore", invalid="ignore"):
        first = _standardised(low_pass(starts))
        found = np.einsum("cdi,si->cs", _standardised(low_pass(images)), first) / len(draws)
    return np.asarray(found)


def _compared(
    found: Float[np.ndarray, "chain chain"],
    others: Bool[np.ndarray, "chain chain"],
    side: Bool[np.ndarray, " chain"],
) -> Closeness | None:
    """Compares correlations with own starts with those with others', whose spread is chance.

    Were a chain's images independent of its start, its correlation with that start would be one
    more value like those with the others' starts.
    """
    from scipy import stats

    if not others.any(axis=1).all():
        return None
    weights = others / others.sum(axis=1, keepdims=True)
    own, other = found.diagonal().mean(), (weights * found).sum(axis=1).mean()
    sides = np.unique(side)
    groups = [found[others & (side == which)[:, None]] for which in sides]
    freedom = sum(len(group) - 1 for group in groups)
    spread = math.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / freedom)
    error = spread / math.sqrt(len(found) - len(sides))
    critical = float(stats.t.ppf(1 - NEAR_BY_CHANCE, freedom))
    return Closeness(float(own), float(other), bool(own - other > critical * error))


def low_pass(images: Float[np.ndarray, "*batch row col channel"]) -> np.ndarray:
    """Averages images over blocks of pixels, down to at most 16 rows and columns."""
    for axis in (-3, -2):
        size = images.shape[axis]
        edges = np.unique(np.linspace(0, size, min(size, _SIDE) + 1).astype(int))
        sums = np.add.reduceat(images.astype(np.float64), edges[:-1], axis=axis)
        shape = [1] * images.ndim
        shape[axis] = -1
        images = sums / np.diff(edges).reshape(shape)
    return images


def _standardised(images: np.ndarray) -> np.ndarray:
    """Flat images without their mean and of length 1, so that products are correlations."""
    flat = images.reshape(*images.shape[:-3], -1)
    flat = flat - flat.mean(axis=-1, keepdims=True)
    return np.asarray(flat / np.linalg.norm(flat, axis=-1, keepdims=True))
