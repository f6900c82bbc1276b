"""R-hat and effective sample size of every stored pixel.

Both need all draws of a pixel at once, in order, while the store holds all pixels of some draws.
So the draws are read once and written again, grouped by pixels, to a temporary file; then JAX
diagnoses one group after another. Memory is that of a group, whatever the run's length.
"""

import io
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Float32

from ppl_cnn.files import read_arrays
from ppl_cnn.inference.diagnostics.scan import image_blocks, variable
from ppl_cnn.inference.diagnostics.thresholds import ESS_DRAWS, ESS_GOOD, RHAT_GOOD
from ppl_cnn.progress import Bar

_GROUP_BYTES = 2**23
"""Bytes of the draws of a group of pixels; diagnosing them takes some 40 times as much."""


class MapNumbers(NamedTuple):
    """The numbers of a map, over all its values that are defined."""

    least: float
    median: float
    """The lower one of the middle two, if their number is even."""
    most: float
    missed: float
    """The share of values that miss the threshold."""
    known: int
    """How many values are defined."""
    undefined: int
    """How many values are NaN."""


class Maps(NamedTuple):
    """Diagnostics of every value of the image; NaN where they aren't defined."""

    rhat: Float[np.ndarray, "row col channel"]
    """Rank-normalised split R-hat, the larger of bulk and tail; NaN for a single chain, infinite
    for chains that stand still at different values."""
    ess: Float[np.ndarray, "row col channel"]
    """Bulk effective sample size, over all chains together."""

    @property
    def rhat_numbers(self) -> MapNumbers | None:
        """The numbers of the R-hat map; None if R-hat is defined nowhere."""
        return _numbers(self.rhat, self.rhat > RHAT_GOOD)

    @property
    def ess_numbers(self) -> MapNumbers | None:
        """The numbers of the ESS map; None if ESS is defined nowhere."""
        return _numbers(self.ess, self.ess < ESS_GOOD)

    @property
    def worst_rhat(self) -> Float[np.ndarray, "row col"]:
        """The largest R-hat of each pixel's channels."""
        return np.asarray(np.fmax.reduce(self.rhat, axis=2))

    @property
    def worst_ess(self) -> Float[np.ndarray, "row col"]:
        """The smallest ESS of each pixel's channels."""
        return np.asarray(np.fmin.reduce(self.ess, axis=2))

    def saved(self, shape: tuple[int, ...]) -> bytes:
        """The content of a file `maps.npz`.

        Args:
            shape: the shape of the draws' images, (chain, draw, row, col, channel).
        """
        stream = io.BytesIO()
        np.savez_compressed(stream, shape=shape, rhat=self.rhat, ess=self.ess)
        return stream.getvalue()


def _numbers(values: Float[np.ndarray, "row col channel"], misses: np.ndarray) -> MapNumbers | None:
    known = np.sort(values[~np.isnan(values)])
    if not known.size:
        return None
    least, median, most = known[[0, (known.size - 1) // 2, -1]].tolist()
    missed = float(misses.sum() / known.size)
    return MapNumbers(least, median, most, missed, known.size, values.size - known.size)


def stored_maps(folder: Path, shape: tuple[int, ...]) -> Maps | None:
    """The maps in a run's `maps.npz`; None if that is missing, damaged or of other draws.

    Args:
        folder: the run's folder.
        shape: the shape of the draws' images, (chain, draw, row, col, channel).
    """
    try:
        found = read_arrays(folder / "maps.npz")
        return Maps(found["rhat"], found["ess"]) if tuple(found["shape"]) == shape else None
    except (OSError, ValueError, KeyError):
        return None  # the maps are computed again, and the file is replaced


def convergence_maps(tree: xr.DataTree, folder: Path | None = None) -> Maps:
    """Computes the maps from all draws.

    Args:
        tree: the draws, as `read` or `ppl_cnn.draw` returns them; at least 4 per chain.
        folder: where a temporary file as large as the draws goes; by default, and where this
            can't be written to, the system's own folder.

    Raises:
        FileError: a chunk of the store is damaged.
    """
    if folder is not None and not os.access(folder, os.W_OK):
        folder = None
    _, _, *shape = variable(tree, "posterior/image").shape
    pixels = math.prod(shape)
    values: list[np.ndarray] = []
    # Ranks and autocovariances as exact as ArviZ's, which computes in double precision.
    with jax.enable_x64(True):
        for group in _groups(tree, folder):
            values.append(np.asarray(_diagnose(jnp.asarray(group)), np.float32))
    rhat, ess = np.concatenate(values, axis=1)[:, :pixels].reshape(2, *shape)
    return Maps(rhat, ess)


def _groups(
    tree: xr.DataTree, folder: Path | None
) -> Iterator[Float32[np.ndarray, "draw chain pixel"]]:
    """All draws, a group of pixels at a time; the last group is filled up with zeros."""
    chains, draws, *shape = variable(tree, "posterior/image").shape
    pixels = math.prod(shape)
    size = min(pixels, max(1, _GROUP_BYTES // (4 * chains * draws)))
    groups = range(0, pixels, size)
    per_group = draws * chains * size
    with tempfile.TemporaryFile(dir=folder) as file:
        for here, block in image_blocks(tree, "sorting draws by pixel"):
            ordered = block.reshape(chains, -1, pixels).swapaxes(0, 1)
            for number, first in enumerate(groups):
                part = np.zeros((*ordered.shape[:2], size), np.float32)
                part[:, :, : pixels - first] = ordered[:, :, first : first + size]
                file.seek(4 * (number * per_group + here.start * chains * size))
                part.tofile(file)
        for number in Bar(range(len(groups)), "R-hat and ESS", delay=2, leave=False):
            file.seek(4 * number * per_group)
            yield np.fromfile(file, np.float32, per_group).reshape(draws, chains, size)


@jax.jit
def _diagnose(values: Float32[Array, "draw chain pixel"]) -> Float[Array, "2 pixel"]:
    """R-hat and bulk ESS of each pixel.

    As in Vehtari, Gelman, Simpson, Carpenter, Bürkner, Rank-normalization, folding, and
    localization: an improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16(2),
    2021; details that it leaves open are as in ArviZ.
    """
    draws, chains, pixels = values.shape
    half = draws // 2
    split = jnp.concatenate([values[:half], values[-half:]], axis=1).transpose(2, 1, 0)
    flat = split.reshape(pixels, -1)
    normal, median = _rank_normal(flat)
    folded, _ = _rank_normal(jnp.abs(flat - median[:, None]).astype(jnp.float32))
    normal, folded = normal.reshape(split.shape), folded.reshape(split.shape)
    rhat = jnp.fmax(_rhat(normal), _rhat(folded))  # folded values may all be equal
    known = ~jnp.isnan(values).any(axis=(0, 1))
    constant = (flat == flat[:, :1]).all(axis=1)
    rhat = jnp.where(constant | (chains < 2), jnp.nan, rhat)
    if draws < ESS_DRAWS:
        ess = jnp.full(pixels, jnp.nan)
    else:
        ess = jnp.where(constant, normal[0].size, _ess(normal))
    return jnp.where(known[None], jnp.stack([rhat, ess]), jnp.nan)


def _rank_normal(
    values: Float32[Array, "pixel draw"],
) -> tuple[Float[Array, "pixel draw"], Float[Array, " pixel"]]:
    """Normal scores (r - 3/8)/(N + 1/4) of the ranks r, ties being averaged; and the median."""
    pixels, count = values.shape
    values = jnp.where(values == 0, 0, values)  # -0 and 0 are equal, but their bits aren't
    # Sorting whole numbers is four times as fast here as sorting pairs: the value's bits, in
    # the order of the numbers, before the draw's number.
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    keys = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(jnp.int64) << 32
    keys = jnp.sort(keys | jax.lax.broadcasted_iota(jnp.int64, keys.shape, 1), axis=1)
    draw = keys & 0xFFFFFFFF
    ordered = jnp.take_along_axis(values, draw, axis=1)
    new = jnp.diff(ordered, axis=1) != 0
    ends = jnp.ones((pixels, 1), bool)
    place = jax.lax.broadcasted_iota(jnp.int32, keys.shape, 1)
    first = jax.lax.cummax(jnp.where(jnp.concatenate([ends, new], axis=1), place, 0), axis=1)
    last = jnp.where(jnp.concatenate([new, ends], axis=1), place, count)
    last = jax.lax.cummin(last, axis=1, reverse=True)
    twice = jnp.arange(2 * count + 1, dtype=jnp.float64)
    scores = jax.scipy.special.ndtri((twice / 2 - 3 / 8) / (count + 1 / 4))
    row = jnp.arange(pixels)[:, None]
    normal = jnp.zeros(keys.shape).at[row, draw].set(scores[first + last + 2], unique_indices=True)
    middle = ordered[:, (count - 1) // 2 : count // 2 + 1]
    return normal, jnp.mean(middle, axis=1, dtype=jnp.float64)


def _rhat(scores: Float[Array, "pixel half draw"]) -> Float[Array, " pixel"]:
    within = jnp.var(scores, axis=2, ddof=1).mean(axis=1)
    between = jnp.var(scores.mean(axis=2), axis=1, ddof=1)
    draws = scores.shape[2]
    # Chains that stand still vary by rounding errors only.
    ratio = jnp.where(within < 1e-12 * between, jnp.inf, between / within)
    return jnp.sqrt(ratio + (draws - 1) / draws)


def _ess(scores: Float[Array, "pixel half draw"]) -> Float[Array, " pixel"]:
    """N / tau, with tau from Geyer's initial monotone sequence of the autocorrelations."""
    _, halves, draws = scores.shape
    covariance = _autocovariance(scores).mean(axis=1)
    variance = covariance[:, :1]
    within = variance * draws / (draws - 1)
    between = jnp.var(scores.mean(axis=2), axis=1, ddof=1)[:, None] if halves > 1 else 0.0
    correlation = 1 - (within - covariance) / (variance + between)
    correlation = correlation.at[:, 0].set(1)
    pairs = (correlation[:, 0 : draws - 1 : 2] + correlation[:, 1:draws:2])[:, : draws // 2]
    # Pairs up to the first that isn't positive, or the last that ArviZ looks at.
    number = jnp.arange(pairs.shape[1])
    stop = (pairs <= 0) | (number >= (draws - 1) // 2 - 1)[None]
    last = jnp.argmax(stop, axis=1)[:, None]
    monotone = jax.lax.cummin(pairs, axis=1)
    summed = jnp.where(number[None] < last, monotone, 0).sum(axis=1)
    even = jnp.take_along_axis(correlation, 2 * last, axis=1)[:, 0]
    even = jnp.where(jnp.take_along_axis(pairs, last, axis=1)[:, 0] < 0, jnp.maximum(even, 0), even)
    total = halves * draws
    tau = jnp.maximum(-1 + 2 * summed + even, 1 / math.log10(total))
    return total / tau


def _autocovariance(scores: Float[Array, "pixel half draw"]) -> Float[Array, "pixel half draw"]:
    draws = scores.shape[2]
    centred = scores - scores.mean(axis=2, keepdims=True)
    length = 2 ** (2 * draws - 1).bit_length()  # with zeros, as the transform is periodic
    power = jnp.abs(jnp.fft.rfft(centred, length, axis=2)) ** 2
    return jnp.fft.irfft(power, length, axis=2)[:, :, :draws] / draws
