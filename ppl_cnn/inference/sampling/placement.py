"""Where the chains of some densities lie: over the devices of all processes, in parts on each."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.kernel import State
from ppl_cnn.machines.spreading import even_devices, spread
from ppl_cnn.models.density import DensityParams, TiltedDensity, gradient_bytes

CHAINS_PER_CORE = {"cpu": 4}
"""Platform -> largest number of chains per core that move at once; elsewhere all chains do. More
chains gain little, and would wait for the longest trajectory of more chains."""
CACHE_PER_CORE = 16 * 2**20
"""Bytes that the gradients of chains that move at once may need, unless the weights that they share
are larger. On two cores, 8 chains of a SqueezeNet class took 1.56 times as long each as 2 chains,
and 8 of AlexNet's conv5 1.24 times; but 8 of its fc8, mostly weights, 0.87 times."""

CHAIN = PartitionSpec("chain")
"""Arrays with a leading axis of chains are split over the devices."""
EVERYWHERE = PartitionSpec()
"""Other arrays are on all devices."""


class Placement:
    """The chains of densities side by side, spread over the devices of all processes.

    The chains of all densities, those of the first first, are one batch. Each process has a part of
    it, the first one the first.

    Args:
        densities: of units whose programs are equal.
        chains: number of chains of each density.
        replicas: number of latents that a chain moves at once.
        devices: where to place them; by default on the devices of all processes. On devices that
            are only described, programs can be compiled, but nothing is placed.

    Raises:
        ArgumentError: processes can't have equally many chains.
    """

    def __init__(
        self,
        densities: Sequence[TiltedDensity],
        chains: int,
        replicas: int,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.members = np.repeat(np.arange(len(densities)), chains)
        """Chain -> index of its density."""
        described, count = devices is not None, len(self.members)
        self.own = _own_part(count, len(densities), chains)
        """The chains of this process."""
        self.mesh = Mesh(np.asarray(even_devices(count, devices)), ("chain",))
        # The densities' references are equal, but their arrays may be read from a file twice.
        shared = densities[0].reference.params
        weights = [DensityParams(density.unit.params, shared) for density in densities]
        self._own = jax.tree.map(
            lambda *leaves: any(leaf is not leaves[0] for leaf in leaves), *weights
        )
        self.axes = jax.tree.map(lambda own: 0 if own else None, self._own)
        """Axis of chains of each of the weights: None for those that all units share."""
        self.specs = jax.tree.map(lambda own: CHAIN if own else EVERYWHERE, self._own)
        """How each of the weights is spread over the devices."""
        together = partial(_together, chains=chains)
        params = partial(jax.tree.map, together)
        self.params: DensityParams = (
            self.shapes(jax.eval_shape(params, *weights), self.specs)
            if described
            else spread(params(*weights), self.placed(self.specs))
        )
        """The weights of all units, those that differ once for each chain."""
        self.at_once = _at_once(densities[0], count, replicas, self.mesh.devices.flat[0].platform)
        """Largest number of chains that move at once on a device."""

    def placed(self, specs: Any) -> Any:
        """Where arrays with these partition specifications lie."""
        return jax.tree.map(partial(NamedSharding, self.mesh), specs)

    def shapes[T](self, arrays: T, specs: Any) -> T:
        """Shapes and types of arrays, with where they lie.

        Args:
            arrays: or their shapes and types.
            specs: their partition specifications, each for a part of the tree.
        """

        def placed(place: NamedSharding, part: Any) -> Any:
            like = partial(jax.ShapeDtypeStruct, sharding=place)
            return jax.tree.map(lambda leaf: like(leaf.shape, leaf.dtype), part)

        found: T = jax.tree.map(placed, self.placed(specs), arrays)
        return found

    def in_parts(
        self, move: Callable[[DensityParams, State], State], params: DensityParams, states: State
    ) -> State:
        """Moves chains of one device, as many at once as is fastest.

        Args:
            move: moves several chains.
            params: the weights.
            states: of the device's chains.
        """
        count = len(jax.tree.leaves(states)[0])
        size = max(n for n in range(1, min(self.at_once, count) + 1) if count % n == 0)
        if size == count or size < self.at_once // 2:
            return move(params, states)

        def part(index: Array) -> State:
            cut = partial(jax.lax.dynamic_slice_in_dim, start_index=index * size, slice_size=size)
            own = jax.tree.map(lambda leaf, own: cut(leaf) if own else leaf, params, self._own)
            return move(own, jax.tree.map(cut, states))

        parts = jax.lax.map(part, jnp.arange(count // size))
        return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), parts)


def _own_part(count: int, units: int, chains: int) -> slice:
    """The chains of this process, of `count` in all."""
    processes, index = jax.process_count(), jax.process_index()
    if count % processes:
        beside = f" of {units} units side by side" if units > 1 else ""
        raise ArgumentError(
            f"`chains={chains}`{beside} can't be spread evenly over {processes} processes. Give a "
            f"multiple of {processes}, or another number of processes.",
            argument="chains",
        )
    part = count // processes
    return slice(index * part, (index + 1) * part)


def _at_once(density: TiltedDensity, chains: int, replicas: int, platform: str) -> int:
    if chains == 1 or platform not in CHAINS_PER_CORE:
        return chains
    cores = os.cpu_count() or 1
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(density.params))
    room = max(cores * CACHE_PER_CORE, weights)
    fitting: int = room // max(1, gradient_bytes(density))
    images = min(cores * CHAINS_PER_CORE[platform], fitting)
    return max(1, images // replicas)


def _together(*leaves: Array, chains: int) -> Array:
    """One array that all units share, or each chain's own of arrays that differ."""
    if all(leaf is leaves[0] for leaf in leaves):
        return leaves[0]
    return jnp.repeat(jnp.stack(leaves), chains, axis=0)
