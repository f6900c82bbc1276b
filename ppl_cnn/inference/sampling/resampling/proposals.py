"""Proposals: what can be drawn from a reference, weighted, and made again from its number."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, override

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, Key, PyTree

from ppl_cnn.data import ImageBatch, batches, images_at
from ppl_cnn.models.density import DensityParams, TiltedDensity
from ppl_cnn.models.empirical_density import EmpiricalDensity

SHOWN = 32
"""Images that the store keeps of the reference, at least, and of the heaviest proposals."""
_PRIOR_DRAWS = 200
_PRIOR_BYTES = 16 * 2**20


class Share(NamedTuple):
    """The place of a process among those that share work."""

    number: int
    """This process's, from 0."""
    processes: int


ALONE = Share(0, 1)
"""That of a process that does all the work itself."""


class Read(NamedTuple):
    """What the host knows of some proposals."""

    given: PyTree
    """Arrays with a leading axis of proposals, from which a device makes their images."""
    labels: Int32[np.ndarray, " n"] | None
    """The classes of their images; None for a reference without classes."""


class Proposals(ABC):
    """Independent draws of a reference, numbered from 0. None is kept: it is made when needed."""

    count: int
    """How many there are."""
    classes: tuple[str, ...] = ()
    """The names of their labels' classes, if they have labels."""

    @abstractmethod
    def read(self, numbers: Integer[np.ndarray, " n"]) -> Read:
        """What the host knows of the proposals of these numbers.

        Raises:
            FileError: files of a data set are damaged.
        """

    def in_order(self, size: int, share: Share = ALONE) -> Iterator[Read]:
        """This process's share of all proposals, `size` at a time over all processes.

        Args:
            size: a multiple of the processes. The last part may be smaller, and empty for some.
            share: the place of this process among those that take equal shares of each part.

        Raises:
            FileError: files of a data set are damaged.
        """
        own = size // share.processes
        for first in range(share.number * own, self.count + share.number * own, size):
            yield self.read(np.arange(min(first, self.count), min(first + own, self.count)))

    @abstractmethod
    def images(self, params: DensityParams, given: Any) -> Float[Array, "n row col channel"]:
        """The images of proposals, in pixel units minus the mean; it can be compiled.

        Args:
            params: the density's weights.
            given: what `read` gave.
        """


def latents(
    density: TiltedDensity, key: Key[Array, ""], numbers: Integer[Array | np.ndarray, " n"]
) -> Float[Array, "n ..."]:
    """The latents z ~ N(0, I) of the proposals of these numbers; it can be compiled.

    Args:
        density: whose latents they are.
        key: of all proposals.
        numbers: each folded into the key.
    """
    keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
    return jax.vmap(partial(jax.random.normal, shape=density.latent_shape))(keys)


def prior_shape(density: TiltedDensity, chains: int) -> tuple[int, int]:
    """Chains and draws of the group `prior` that a run stores.

    There are about 200 draws, or as many as fit into 16 MB, and 32 at least.

    Args:
        density: the target.
        chains: the run's.
    """
    fitting = _PRIOR_BYTES // (4 * math.prod(density.unit.shape))
    return chains, math.ceil(max(SHOWN, min(_PRIOR_DRAWS, fitting)) / chains)


@partial(jax.jit, static_argnums=0)
def prior_draws(
    density: TiltedDensity,
    params: DensityParams,
    key: Key[Array, ""],
    numbers: Integer[Array | np.ndarray, "chain draw"],
) -> tuple[Float[Array, "chain draw row col channel"], Float[Array, "chain draw"]]:
    """Draws of a reference, and the unit's response to them.

    Args:
        density: one with the same program, for which this is compiled.
        params: the weights.
        key: of all draws; densities with the same key and latent share them.
        numbers: which draws.
    """

    def drawn(row: Integer[Array, " draw"]) -> tuple[Array, Array]:
        images = density.push(latents(density, key, row), params)
        return images, jax.vmap(density.unit.score, (None, 0))(params.unit, images)

    images, responses = jax.lax.map(drawn, numbers)
    return images, responses


class Drawn(Proposals):
    """Draws x = R(z) of a push-forward; z of number i is normal noise of the key folded with i.

    Args:
        density: whose reference is drawn from; its unit says what part of an image is needed.
        key: of all draws; densities with the same key and latent share them.
        count: how many, below 2^31.
    """

    def __init__(self, density: TiltedDensity, key: Key[Array, ""], count: int) -> None:
        self._density, self._key, self.count = density, key, count

    @override
    def read(self, numbers: Integer[np.ndarray, " n"]) -> Read:
        """The numbers themselves."""
        return Read(numbers.astype(np.int32), None)

    @override
    def images(
        self, params: DensityParams, given: Integer[Array, " n"]
    ) -> Float[Array, "n row col channel"]:
        """Their images R(z)."""
        return self._density.push(latents(self._density, self._key, given), params)


class Pictures(Proposals):
    """The images of a data set, in its order: all of them, each once.

    Args:
        density: whose reference they are.
    """

    def __init__(self, density: EmpiricalDensity) -> None:
        self._density, self._split = density, density.reference.images
        self._seen: dict[str, Any] = {
            "image_shape": density.unit.image_shape,
            "short_side": density.unit.preprocessing.short_side,
        }
        self.count, self.classes = len(self._split), self._split.classes

    @override
    def read(self, numbers: Integer[np.ndarray, " n"]) -> Read:
        """Pixels and labels, as evaluation reads them."""
        return _read(images_at(self._split, numbers, **self._seen))

    @override
    def in_order(self, size: int, share: Share = ALONE) -> Iterator[Read]:
        """The images of this process's share; threads read ahead."""
        own = partial(batches, process_index=share.number, process_count=share.processes)
        return map(_read, own(self._split, size, **self._seen))

    @override
    def images(self, params: DensityParams, given: Any) -> Float[Array, "n row col channel"]:
        """The unit's images of these pixels."""
        return self._density.seen(given)


def _read(batch: ImageBatch) -> Read:
    return Read(batch["image"], batch["label"])
