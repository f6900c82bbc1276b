"""How like images a generator's draws are: figures in a judge network's features."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ppl_cnn.data import ImageSplit, batches
from ppl_cnn.errors import MismatchError
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.loading import load

_BATCH = 500
"""Images that the judge sees at once."""
_NEIGHBOURS = 5
"""The neighbour whose distance is the radius of an image's surroundings."""
_MANIFOLD = 2000
"""Most images of either kind for precision and recall, whose cost is their product."""


JUDGES = {"fashion_mnist": "alexnet-fashion", "fashion-embedded": "alexnet-fashion"}
"""Data set -> the embedded network that judges its generators."""


class Looked(NamedTuple):
    """What a judge sees in images."""

    features: Float[np.ndarray, "n feature"]
    logits: Float[np.ndarray, "n class"]


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained classifier by whose features images are compared.

    Its features are the values that its last layer reads, averaged over places if they are maps.

    Args:
        network: a declared network with weights.
    """

    network: CNN

    @classmethod
    def named(cls, model: str | None, data: str) -> Self | None:
        """The judge that a model's name or folder names.

        Args:
            model: as `ppl_cnn.load` takes it; None for `JUDGES`' network of the data.
            data: name of the data set.

        Returns:
            None if no model is given and the data have no network of their own.

        Raises:
            MismatchError: the model is no declared network.
        """
        name = JUDGES.get(data.partition("/")[0]) if model is None else model
        if name is None:
            return None
        network = load(name)
        if not isinstance(network, CNN):
            raise MismatchError(
                f"Judge {name} must be a declared network: an embedded one, or the folder of a "
                f"run of ppl_cnn.pretrain."
            )
        return cls(network)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Refuses images of another shape.

        Raises:
            MismatchError: the judge's images have another shape.
        """
        if image_shape != self.network.image_shape:
            raise MismatchError(
                f"Judge {self.network.name} sees images of shape {self.network.image_shape}, and "
                f"the generator's have {image_shape}. Give another `judge`."
            )

    def look(self, pixels: np.ndarray | Float[Array, "n row col channel"]) -> Looked:
        """Features and logits of images.

        Args:
            pixels: 0..255, grey or RGB.
        """
        found = []
        for first in range(0, len(pixels), _BATCH):
            part = np.asarray(pixels[first : first + _BATCH], np.float32)
            room = np.zeros((_BATCH - len(part), *part.shape[1:]), np.float32)
            seen = self._look(self.network.arrays(), jnp.asarray(np.concatenate([part, room])))
            found.append([np.asarray(each)[: len(part)] for each in seen])
        features, logits = (np.concatenate(each) for each in zip(*found, strict=True))
        return Looked(features, logits + np.asarray(self.network.alpha[...])[None])

    @cached_property
    def _look(self) -> Callable[..., tuple[Array, Array]]:
        declared = self.network.declaration
        before = replace(declared, layers=declared.layers[:-1])
        mean = jnp.asarray(declared.preprocessing.mean)[None, None, None]

        @jax.jit
        def look(params: Any, pixels: Array) -> tuple[Array, Array]:
            if declared.preprocessing.order == "BGR":
                pixels = pixels[..., ::-1]
            x = pixels - mean
            features = scores(before, params, x)
            if features.ndim == 4:
                features = features.mean(axis=(1, 2))
            return features, scores(declared, params, x)

        return look


def frechet_distance(
    ours: Float[np.ndarray, "n feature"], theirs: Float[np.ndarray, "m feature"]
) -> float:
    """The squared Frechet distance of two Gaussians with the samples' moments.

        |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

    Source: Heusel et al., GANs trained by a two time-scale update rule, 2017, arXiv 1706.08500;
    there in Inception's features, here in any.

    Args:
        ours: features of one sample.
        theirs: features of the other.

    Examples:
        >>> x = np.asarray([[0.0], [2.0]])
        >>> frechet_distance(x, x + 3.0)
        9.0
    """
    means = ours.mean(axis=0, dtype=np.float64), theirs.mean(axis=0, dtype=np.float64)
    one, other = (np.atleast_2d(np.cov(x.T.astype(np.float64))) for x in (ours, theirs))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    crossed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    moved = ((means[0] - means[1]) ** 2).sum()
    return float(moved + np.trace(one) + np.trace(other) - 2 * crossed)


def precision_recall(
    made: Float[np.ndarray, "n feature"], real: Float[np.ndarray, "m feature"], seed: int = 0
) -> tuple[float, float]:
    """The shares of made images near real ones, and of real images near made ones.

    An image is near another kind if it lies within the radius of one of that kind, the distance
    to its 5th neighbour among its own.

    Source: Kynkäänniemi et al., Improved precision and recall metric for assessing generative
    models, 2019, arXiv 1904.06991.

    Args:
        made: features of made images.
        real: features of real images. At most 2,000 of either kind are taken, as many of each.
        seed: of their choice.
    """
    count = min(len(made), len(real), _MANIFOLD)
    rng = np.random.default_rng(seed)
    ours, theirs = (x[rng.permutation(len(x))[:count]] for x in (made, real))
    between = _squared_distances(ours, theirs)
    near_real = (between < _radius(theirs)[None]).any(axis=1)
    near_made = (between < _radius(ours)[:, None]).any(axis=0)
    return float(near_real.mean()), float(near_made.mean())


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None]
    apart: np.ndarray = np.maximum(squares - 2 * a @ b.T, 0)
    return apart


def _radius(x: np.ndarray) -> np.ndarray:
    """The squared distance of each to its neighbour."""
    return np.partition(_squared_distances(x, x), _NEIGHBOURS, axis=1)[:, _NEIGHBOURS]


def draws_of(
    apply: Callable[[PyTree, Array], Array],
    params: PyTree,
    *,
    latent_shape: tuple[int, ...],
    count: int,
    seed: int = 0,
) -> Float[np.ndarray, "n row col channel"]:
    """Draws of a generator, pixels in 0..255.

    Args:
        apply: G, as `Generator.apply`.
        params: its weights.
        latent_shape: the shape of z.
        count: number of draws.
        seed: the same seed gives the same draws.
    """

    @jax.jit
    def some(params: PyTree, key: Array) -> Array:
        return apply(params, jax.random.normal(key, (_BATCH, *latent_shape)))

    keys = jax.random.split(jax.random.key(seed), -(-count // _BATCH))
    return np.concatenate([np.asarray(some(params, key)) for key in keys])[:count]


def figures_of(
    apply: Callable[[PyTree, Array], Array],
    params: PyTree,
    judge: Judge,
    *,
    latent_shape: tuple[int, ...],
    images: ImageSplit,
    count: int,
    seed: int = 0,
) -> dict[str, float]:
    """Compares draws of a generator with real images.

    Args:
        apply: G, as `Generator.apply`.
        params: its weights.
        judge: gives the features.
        latent_shape: the shape of z.
        images: the real images; the first `count` are halved for the figure of real images
            against each other.
        count: number of draws, and most real images.
        seed: of the draws.

    Returns:
        `frechet`, `precision`, `recall`, and `real_frechet`, `real_precision`, `real_recall` of
        one half of the real images against the other.
    """
    real = first_images(images, count, judge.network.image_shape)
    seen = judge.look(real).features
    made = judge.look(
        draws_of(apply, params, latent_shape=latent_shape, count=count, seed=seed)
    ).features
    halves = seen[::2], seen[1::2]
    precision, recall = precision_recall(made, seen)
    real_precision, real_recall = precision_recall(*halves)
    return {
        "frechet": frechet_distance(made, seen),
        "precision": precision,
        "recall": recall,
        "real_frechet": frechet_distance(*halves),
        "real_precision": real_precision,
        "real_recall": real_recall,
    }


def first_images(
    images: ImageSplit, count: int, image_shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "n row col channel"]:
    """The first images of a split, in its order.

    Args:
        images: the split.
        count: how many; all if there are fewer.
        image_shape: the shape that images of varying sizes are brought to.
    """
    found: list[np.ndarray] = []
    for batch in batches(images, _BATCH, image_shape=image_shape):
        found.append(batch["image"][: count - sum(map(len, found))])
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)
