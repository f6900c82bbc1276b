"""Where arrays lie: devices of one or several processes as a mesh with one axis, "data"."""

import re
from collections import deque
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ppl_cnn import InputError


def join(coordinator: str | None, process_id: int | None, num_processes: int | None) -> None:
    """Makes this process one of several that train together; to be called before JAX is used.

    Args:
        coordinator: HOST:PORT where process 0 listens; "auto" for what the scheduler says (Slurm,
            Open MPI, Kubernetes, cloud TPUs); None for a process alone.
        process_id: this process's number, with HOST:PORT.
        num_processes: how many there are, with HOST:PORT.

    Raises:
        InputError: what was given is incomplete, or no scheduler or coordinator was found.
    """
    alone = process_id is None and num_processes is None
    if coordinator is None and alone:
        return
    if coordinator == "auto" and alone:
        given: dict[str, Any] = {}
    elif coordinator not in (None, "auto") and process_id is not None and num_processes is not None:
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"Process {process_id} of {num_processes} can't be; they are numbered from 0 to "
                f"{num_processes - 1}."
            )
        given = dict(
            zip(
                ("coordinator_address", "num_processes", "process_id"),
                (coordinator, num_processes, process_id),
                strict=True,
            )
        )
    else:
        raise InputError(
            "Several processes need --coordinator HOST:PORT, --process-id and --num-processes, or "
            "just --coordinator auto under a scheduler that says all three."
        )
    try:
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        reason = re.split(r"[.!?]\s", f"{error} ")[0]
        raise InputError(f"The processes can't come together ({reason}).") from None


def data_mesh() -> Mesh:
    """All devices of all processes in a row."""
    return Mesh(np.asarray(jax.devices()), ("data",))


def in_parts(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """An array cut along its largest axis that the devices divide; whole on each if none is."""
    axes = [axis for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    if not axes:
        return NamedSharding(mesh, PartitionSpec())
    axis = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def put[T](tree: T, shardings: T) -> T:
    """Arrays that every process has, placed as a tree of shardings says."""

    def one(x: Any, sharding: NamedSharding) -> Array:
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree, shardings)


def local[T](tree: T, mesh: Mesh) -> T:
    """This process's own whole copy of arrays that may lie in parts."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    whole = jax.jit(lambda tree: tree, out_shardings=everywhere)(tree)
    return jax.tree.map(lambda x: jax.numpy.asarray(x.addressable_data(0)), whole)


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
