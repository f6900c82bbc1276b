"""Where arrays lie: devices of one or several processes as a mesh with one axis, "data"."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array


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
