"""What a generator's page shows: draws, the training images next to them, ways between draws."""

import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ppl_cnn.data import ImageSplit, batches
from ppl_cnn.inference.training.generators.figures import draws_of

DRAWS = 100
"""Draws that are shown."""
COMPARED = 16
"""Draws that are shown beside their nearest training images."""
WAYS = 6
"""Ways between two draws."""
_STOPS = 10
"""Images of a way."""
_MEASURED = 500
"""Images of either kind whose distance to the nearest training image is measured."""
_BATCH = 1000


class Exhibits(NamedTuple):
    """The pictures, and the distances that tell whether training images were learned by heart."""

    draws: UInt8[np.ndarray, "n row col channel"]
    """Draws of the generator."""
    compared: UInt8[np.ndarray, "k row col channel"]
    """Some draws: those that come nearest to a training image."""
    nearest: UInt8[np.ndarray, "k row col channel"]
    """The training image next to each of these."""
    ways: UInt8[np.ndarray, "way stop row col channel"]
    """Images along great circles from one z to another."""
    distances: Float[np.ndarray, " m"]
    """Root mean squared difference, in grey levels, from draws to their nearest training images."""
    real_distances: Float[np.ndarray, " h"]
    """The same from images that weren't trained on; empty if there are none."""

    def saved(self) -> bytes:
        """The content of `exhibits.npz`."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **self._asdict())
        return stream.getvalue()


def exhibits_of(
    apply: Callable[[PyTree, Array], Array],
    params: PyTree,
    *,
    latent_shape: tuple[int, ...],
    image_shape: tuple[int, int, int],
    train: ImageSplit,
    held_out: ImageSplit | None,
) -> Exhibits:
    """Makes the pictures and measures the distances.

    Args:
        apply: G, as `Generator.apply`.
        params: its weights.
        latent_shape: the shape of z.
        image_shape: the shape of G(z).
        train: the images that it was trained on.
        held_out: other images of the same kind.
    """
    drawn = draws_of(apply, params, latent_shape=latent_shape, count=_MEASURED, seed=1)
    others = np.zeros((0, *image_shape), np.float32)
    if held_out is not None:
        others = np.concatenate([*_images(held_out, image_shape, _MEASURED)])
    found, distances = _nearest(np.concatenate([drawn, others]), train, image_shape)
    own = distances[: len(drawn)]
    closest = np.argsort(own)[:COMPARED]
    return Exhibits(
        draws=_levels(drawn[:DRAWS]),
        compared=_levels(drawn[closest]),
        nearest=_levels(found[closest]),
        ways=_levels(_ways(apply, params, latent_shape)),
        distances=own,
        real_distances=distances[len(drawn) :],
    )


def _levels(images: np.ndarray) -> UInt8[np.ndarray, "..."]:
    levels: np.ndarray = np.clip(images, 0, 255).round().astype(np.uint8)
    return levels


def _images(split: ImageSplit, shape: tuple[int, int, int], count: int) -> Iterator[np.ndarray]:
    """The first images of a split, in batches of float32."""
    left = count
    for batch in batches(split, _BATCH, image_shape=shape):
        yield batch["image"][:left].astype(np.float32)
        left -= len(batch["image"])
        if left <= 0:
            return


def _nearest(
    images: Float[np.ndarray, "n row col channel"], train: ImageSplit, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training image of each, and its distance."""
    flat = images.reshape(len(images), -1)
    squares = (flat**2).sum(axis=1)
    least, found = np.full(len(images), np.inf), np.zeros_like(images)
    for batch in _images(train, shape, len(train)):
        others = batch.reshape(len(batch), -1)
        apart = squares[:, None] + (others**2).sum(axis=1)[None] - 2 * flat @ others.T
        index = apart.argmin(axis=1)
        nearest = apart[np.arange(len(flat)), index]
        closer = nearest < least
        least[closer], found[closer] = nearest[closer], batch[index[closer]]
    return found, np.sqrt(np.maximum(least, 0) / flat.shape[1])


def _ways(
    apply: Callable[[PyTree, Array], Array], params: PyTree, latent_shape: tuple[int, ...]
) -> np.ndarray:
    """Images along great circles, on which z keeps the length that normal noise has."""
    rng = np.random.default_rng(2)
    begin, end = rng.standard_normal((2, WAYS, 1, *latent_shape)).astype(np.float32)
    angles = np.linspace(0, np.pi / 2, _STOPS, dtype=np.float32)
    turned: Any = angles.reshape(1, -1, *[1] * len(latent_shape))
    z = np.cos(turned) * begin + np.sin(turned) * end
    images = np.asarray(apply(params, jnp.asarray(z.reshape(-1, *latent_shape))))
    return images.reshape(WAYS, _STOPS, *images.shape[1:])
