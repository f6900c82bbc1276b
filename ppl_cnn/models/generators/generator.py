"""A generator: a push-forward of normal noise to images, with its weights."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree


@dataclass(frozen=True, eq=False, kw_only=True)
class Generator:
    """A distribution of images x = G(z), z ~ N(0, I). `load_generator` opens one.

    Two generators are equal if their digests are.
    """

    name: str
    """The text that names it, such as fashion or runs/clothes."""
    latent_shape: tuple[int, ...]
    """The shape of z, of any rank."""
    image_shape: tuple[int, int, int]
    """(row, col, channel) of an image; one channel is grey, three are RGB."""
    apply: Callable[[PyTree, Float[Array, "..."]], Float[Array, "*batch row col channel"]]
    """G: weights and z, with any leading axes, to pixels in 0..255. It can be differentiated."""
    params: PyTree
    """The weights."""
    digest: str
    """16 hexadecimal digits that stand for architecture and weights."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """What is known of its training, as JSON: `data`, the data set, and `training_images`, their
    number. It isn't part of what the generator is."""

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "*batch row col channel"]:
        """G(z): pixels in 0..255.

        Args:
            z: of `latent_shape`, with any leading axes.
        """
        return self.apply(self.params, z)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Generator) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def digest_of(params: PyTree, description: Mapping[str, Any]) -> str:
    """The digest of weights and of what else determines a generator.

    Args:
        params: the weights.
        description: as JSON, such as an architecture's name and sizes.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
