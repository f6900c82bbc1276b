"""Receptive fields found numerically, for networks that are not declared layer by layer."""

from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ppl_cnn.models.networks.window import Region

type Images = Float[Array, "n row col channel"]
type Weights = dict[str, Array]
type Respond = Callable[[Weights, Images], Array]
"""From weights and images to a layer's responses, (n, row, col, channel) or (n, channel)."""

_DEVIATIONS = (1.0, 8.0, 64.0)
"""Standard deviations of the noise images, in pixel units.

Small ones saturate nothing, large ones open ReLUs.
"""
_ROUNDS = 4
"""How many images of each deviation are tried: pooling passes gradients to one pixel a window."""
_TOLERANCE = 1e-4
"""The change that counts, relative to the largest response: above rounding, below what matters."""


def receptive_fields(
    respond: Respond,
    weights: Weights,
    image_shape: tuple[int, int, int],
    places: Iterable[Float[np.ndarray, " ..."]],
) -> Iterator[Region]:
    """The pixels on which a layer's responses depend, found numerically.

    A receptive field is the least rectangle that holds the support of the gradient of a random
    combination of the channels, at a dozen noise images. This is an observation, not a proof, so
    it is checked: if pixels outside the rectangle change the response to further noise images,
    the whole image is taken.

    Args:
        respond: computes the layer's responses from weights and images.
        weights: the first argument of `respond`.
        image_shape: (row, col, channel) of the images.
        places: for each unit, weights over the layer's map (row, col) by which its response is
            summed: 1 at its place, or equal ones for the mean; an array without axes for a layer
            without a map.

    Yields:
        The rows and columns for each of the places, both empty if there is no gradient.
    """

    def summed(weights: Weights, place: Array, images: Images) -> Float[Array, "n c"]:
        response = respond(weights, images)
        return response if response.ndim == 2 else jnp.einsum("nrck,rc->nk", response, place)

    @jax.jit
    def look(
        weights: Weights, place: Array, images: Images
    ) -> tuple[Float[Array, "n c"], Bool[Array, "row col"]]:
        response, pull_back = jax.vjp(lambda images: summed(weights, place, images), images)
        # With random signs and sizes, channels' gradients cancel with probability zero.
        mix = jax.random.normal(jax.random.key(0), response.shape, response.dtype)
        return response, jnp.any(pull_back(mix)[0] != 0, axis=(0, 3))

    for place in places:
        support = np.zeros(image_shape[:2], bool)
        for seed in range(_ROUNDS):
            images = _noise(seed, image_shape)
            before, found = look(weights, place, images)
            support |= np.asarray(found)
        rows, cols = _hull(support)
        inside = np.s_[:, rows.start : rows.stop, cols.start : cols.stop]
        others = _noise(_ROUNDS, image_shape)
        others[inside] = images[inside]
        after, _ = look(weights, place, others)
        change = np.abs(np.asarray(after) - np.asarray(before)).max()
        if rows and change > _TOLERANCE * np.abs(before).max():
            rows, cols = range(image_shape[0]), range(image_shape[1])
        yield rows, cols


def _noise(seed: int, shape: tuple[int, int, int]) -> Float[np.ndarray, "n row col channel"]:
    """Noise images, one for each of the deviations."""
    noise = np.random.default_rng(seed).standard_normal((len(_DEVIATIONS), *shape), np.float32)
    return noise * np.asarray(_DEVIATIONS, np.float32)[:, None, None, None]


def _hull(support: Bool[np.ndarray, "row col"]) -> Region:
    """The rows and columns of the least rectangle that holds the support."""
    rows, cols = (np.flatnonzero(support.any(axis)) for axis in (1, 0))
    if not rows.size:
        return range(0), range(0)
    return range(int(rows[0]), int(rows[-1]) + 1), range(int(cols[0]), int(cols[-1]) + 1)
