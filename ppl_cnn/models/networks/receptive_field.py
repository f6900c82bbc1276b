"""Receptive fields of responses of which nothing is known but how to compute them."""

from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ppl_cnn.models.networks.graph import Region

type Images = Float[Array, "n row col channel"]
type Weights = dict[str, Array]
type Respond = Callable[[Weights, Images], Array]
"""Images to a layer's responses, (n, row, col, channel) or (n, channel)."""

_DEVIATIONS = (1.0, 8.0, 64.0)
"""Of the noise images, in pixel units: small ones saturate nothing, large ones open ReLUs."""
_ROUNDS = 4
"""Of an image of each deviation; pooling hands a gradient to one pixel of a window at a time."""
_TOLERANCE = 1e-4
"""Of the largest response: more than rounding, less than anything that a density could show."""


def receptive_fields(
    respond: Respond,
    weights: Weights,
    image_shape: tuple[int, int, int],
    places: Iterable[Float[np.ndarray, " ..."]],
) -> Iterator[Region]:
    """The pixels on which a layer's responses depend, found numerically.

    They are the least rectangle that holds the support of the gradient of a random combination
    of the channels, at a dozen noise images. That is an observation and no proof, and so it is
    checked: if other pixels outside the rectangle change the response to further noise images,
    the receptive field is taken to be the whole image.

    Args:
        respond: computes the layer's responses.
        weights: its first argument.
        image_shape: (row, col, channel) of the images.
        places: weights over the layer's map (row, col), of which the responses' sum is taken:
            one at a place, or even ones for the mean; an array without axes for a layer without
            a map.

    Returns:
        For each of the places rows and columns, both empty if there is no gradient.
    """

    def summed(weights: Weights, place: Array, images: Images) -> Float[Array, "n c"]:
        response = respond(weights, images)
        return response if response.ndim == 2 else jnp.einsum("nrck,rc->nk", response, place)

    @jax.jit
    def look(
        weights: Weights, place: Array, images: Images
    ) -> tuple[Float[Array, "n c"], Bool[Array, "row col"]]:
        response, pull_back = jax.vjp(lambda images: summed(weights, place, images), images)
        # Random signs and sizes: that channels' gradients cancel has probability zero.
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
    """An image of each deviation."""
    noise = np.random.default_rng(seed).standard_normal((len(_DEVIATIONS), *shape), np.float32)
    return noise * np.asarray(_DEVIATIONS, np.float32)[:, None, None, None]


def _hull(support: Bool[np.ndarray, "row col"]) -> Region:
    """The least rectangle that holds it."""
    rows, cols = (np.flatnonzero(support.any(axis)) for axis in (1, 0))
    if not rows.size:
        return range(0), range(0)
    return range(int(rows[0]), int(rows[-1]) + 1), range(int(cols[0]), int(cols[-1]) + 1)
