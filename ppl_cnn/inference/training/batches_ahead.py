"""Global batches that are on their way to the devices while a step works."""

from collections import deque
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array


class Ahead:
    """Global batches on the devices, the next one on its way while a step works on the last.

    `state` is the loader's after the last batch handed out, not after the one that is on its way:
    what a checkpoint must hold.
    """

    def __init__(self, loader: Any, mesh: Mesh) -> None:
        """`loader` gives this process's part of each batch, without end."""
        self._loader = loader
        self._rows = NamedSharding(mesh, PartitionSpec("data"))
        self._coming: deque[tuple[Array, Array, Any]] = deque()
        self.state = loader.get_state()

    def set_state(self, state: Any) -> None:
        """Goes on after the batch that `state` was of."""
        self._coming.clear()
        self._loader.set_state(state)
        self.state = state

    def __next__(self) -> tuple[Array, Array]:
        """Images and labels, sharded over the devices along the batch."""
        while len(self._coming) < 2:
            self._coming.append(self._fetch())
        images, labels, self.state = self._coming.popleft()
        return images, labels

    def _fetch(self) -> tuple[Array, Array, Any]:
        batch = next(self._loader)
        images, labels = (
            jax.make_array_from_process_local_data(self._rows, batch[name])
            for name in ("image", "label")
        )
        return images, labels, self._loader.get_state()
