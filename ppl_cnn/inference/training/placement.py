"""Where arrays lie: the devices of all processes are a mesh with one axis, "data"."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

AHEAD = 2
"""Batches on the devices, or on their way, while a step works on one of them and the next waits."""


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of devices in a row.

    Args:
        devices: these; by default all devices of all processes.
    """
    return Mesh(np.asarray(devices or jax.devices()), ("data",))


def in_parts(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of an array in parts: along its largest axis that the devices divide evenly.

    An array without such an axis lies on each device as a whole.

    Args:
        mesh: the devices.
        shape: the array's.
    """
    axes = [axis for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    if not axes:
        return NamedSharding(mesh, PartitionSpec())
    axis = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def put[T](tree: T, shardings: T) -> T:
    """Places arrays on the devices; every process must hold the same ones.

    Args:
        tree: the arrays.
        shardings: a `NamedSharding` for each, in a tree of the same structure.
    """

    def one(x: Any, sharding: NamedSharding) -> Array:
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    placed: T = jax.tree.map(one, tree, shardings)
    return placed


def local[T](tree: T, mesh: Mesh) -> T:
    """This process's own copy of arrays that may lie in parts; all processes must call it.

    Args:
        tree: the arrays.
        mesh: the devices they lie on.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    whole = jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)
    copy: T = jax.tree.map(lambda x: jax.numpy.asarray(x.addressable_data(0)), whole)
    return copy


class BatchesAhead:
    """Global batches on the devices, the next ones on their way while a step works on the last.

    A thread fetches them, so that neither reading nor copying keeps a step from being dispatched.

    Args:
        loader: endless iterator of this process's part of each batch, with `get_state`, `set_state`
            and `close`.
        mesh: the devices.
    """

    def __init__(self, loader: Any, mesh: Mesh) -> None:
        self._loader = loader
        self._rows = NamedSharding(mesh, PartitionSpec("data"))
        self._coming: deque[Future[tuple[Array, Array, Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, "batches-ahead")
        self.state = loader.get_state()
        """The loader's state after the last batch handed out, not after the one on its way: what a
        checkpoint must hold."""

    def set_state(self, state: Any) -> None:
        """Continues after the batch that `state` belongs to."""
        self._forget()
        self._loader.set_state(state)
        self.state = state

    def __next__(self) -> tuple[Array, Array]:
        """Images (0..255) and labels of the next batch, spread over the devices along it."""
        self._fill()
        images, labels, self.state = self._coming.popleft().result()
        self._fill()
        return images, labels

    def close(self) -> None:
        """Ends what reads ahead."""
        self._forget()
        self._thread.shutdown()
        self._loader.close()

    def _fill(self) -> None:
        while len(self._coming) < AHEAD:
            self._coming.append(self._thread.submit(self._fetch))

    def _forget(self) -> None:
        for batch in self._coming:
            batch.cancel()
        wait(self._coming)
        self._coming.clear()

    def _fetch(self) -> tuple[Array, Array, Any]:
        batch = next(self._loader)
        images, labels = (
            jax.make_array_from_process_local_data(self._rows, batch[name])
            for name in ("image", "label")
        )
        return images, labels, self._loader.get_state()
