"""Arrays that are spread over the devices of all processes, and work that processes share."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

EVERYWHERE = PartitionSpec()
"""Arrays of which each device has the whole."""


def even_devices(
    count: int | None = None, devices: Sequence[jax.Device] | None = None
) -> list[jax.Device]:
    """As many devices as divide a number of things evenly, equally many of each process.

    Args:
        count: the number, which the number of processes divides; None if there may be any number.
        devices: where to choose from; by default all devices of all processes. All those given
            count as one process's.
    """
    if devices is None:
        each = [jax.local_devices(process) for process in range(jax.process_count())]
    else:
        each = [list(devices)]
    most = min(map(len, each))
    part = most if count is None else count // len(each)
    used = max(n for n in range(1, most + 1) if part % n == 0)
    return [device for own in each for device in own[:used]]


def spread[T](tree: T, places: Any) -> T:
    """Arrays, placed on devices of all processes; each process must hold the same ones.

    Args:
        tree: the arrays.
        places: a `NamedSharding` for each part of the tree.
    """
    if jax.process_count() == 1:
        there: T = jax.device_put(tree, places)
        return there

    def part(place: NamedSharding, arrays: Any) -> Any:
        return jax.tree.map(lambda leaf: _placed(leaf, place), arrays)

    placed: T = jax.tree.map(part, places, tree)
    return placed


def _placed(leaf: Any, place: NamedSharding) -> Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(jax.random.key_data(leaf), place))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])


def own_part(tree: Any) -> Any:
    """This process's part of arrays that are spread along their first axis, as NumPy's."""
    if jax.process_count() == 1:
        # In whole: a part would be cut on the devices, after their queue.
        return jax.device_get(tree)

    def part(leaf: Array) -> np.ndarray:
        shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
        return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])

    return jax.tree.map(part, tree)


def whole(array: Array) -> np.ndarray:
    """An array as NumPy's, wherever its parts are; all processes must ask for it."""
    if jax.process_count() > 1 and not array.is_fully_replicated:
        mesh = cast(NamedSharding, array.sharding).mesh
        array = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, EVERYWHERE))(array)
    return np.asarray(array)


def in_turn[T](work: Callable[[Any], T], items: Sequence[Any] | Array) -> list[T]:
    """The results of some work on each item; processes take the items in turn.

    Args:
        work: takes an item. Its result is a tree of numbers and arrays, of one shape for all items.
        items: the same in all processes.
    """
    index, count = jax.process_index(), jax.process_count()
    if count == 1:
        return [work(item) for item in items]
    rounds = -(-len(items) // count)
    # Who has no item left in the last round takes the first one again.
    places = [place if place < len(items) else 0 for place in range(index, rounds * count, count)]
    done = {place: work(items[place]) for place in dict.fromkeys(places)}
    each = [jax.tree.flatten(done[place]) for place in places]
    shared = [_gathered(np.stack(leaves)) for leaves in zip(*(own for own, _ in each), strict=True)]
    return [
        jax.tree.unflatten(each[0][1], [leaf[i % count, i // count] for leaf in shared])
        for i in range(len(items))
    ]


def _gathered(own: np.ndarray) -> np.ndarray:
    """All processes' arrays, stacked: as bytes, since 64 bits would become 32 on the devices."""
    from jax.experimental.multihost_utils import process_allgather

    raw = np.frombuffer(own.tobytes(), np.uint8)
    return np.asarray(process_allgather(raw)).view(own.dtype).reshape(-1, *own.shape)
