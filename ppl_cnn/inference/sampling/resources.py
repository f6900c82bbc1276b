"""What a run takes of a machine: memory, by which units are sampled together; disk; time.

What no machine has, or this one hasn't, is refused before anything is compiled.
"""

import math
import os
import shutil
from collections.abc import Hashable, Sequence
from itertools import islice
from pathlib import Path

import jax

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.sampling.resampling.scorer import Density
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.machines.memory import own_room
from ppl_cnn.models.density import TiltedDensity, gradient_bytes

GROUP_BYTES = 4 * 2**30
"""Memory for a group: what its gradient needs at once, its chains' states and a block of draws. A
device that has memory of its own gives half of that, if it is more."""
_STATE = 8
"""Arrays of an image's size that a chain's kernel and block hold, at least."""
_COMPRESSED = 0.5
"""The share of their bytes that images take on disk, at least; those of noise take 0.9."""
_GRADIENTS_PER_DAY = 86_400 * 1e6
"""More than any machine makes of the smallest network."""
_LONGEST_DAYS = 30
MANY_UNITS = 33
"""Units from which on a run says what it takes before it begins."""


def group_units(
    densities: Sequence[TiltedDensity],
    settings: Sampling,
    *,
    most: int | None = None,
    sizes: Sequence[int] | None = None,
) -> list[list[TiltedDensity]]:
    """Divides densities into groups that are sampled side by side.

    The densities of a group differ in their units' weights alone, so that one compiled program
    moves the chains of all of them, and images pass the shared layers as one batch.

    Args:
        densities: a run's.
        settings: how each is sampled.
        most: units in a group; by default as many as memory suggests (`GROUP_BYTES`).
        sizes: the groups' sizes, where an earlier run of these densities has recorded them.

    Raises:
        ArgumentError: `most` is less than 1.
    """
    if most is not None and most < 1:
        raise ArgumentError(
            f"`side_by_side` must be at least 1 unit, not {most}.", argument="side_by_side"
        )
    alike: dict[Hashable, list[TiltedDensity]] = {}
    for density in densities:
        key = density.unit.program, density.reference, density.temperature
        alike.setdefault(key, []).append(density)
    if sizes is not None:
        ordered = iter([density for some in alike.values() for density in some])
        return [list(islice(ordered, size)) for size in sizes]
    groups = []
    for some in alike.values():
        size = most or (_fitting(some[0], settings) if len(some) > 1 else 1)
        # Groups of about one size, so that the last is not left with a few units.
        size = math.ceil(len(some) / math.ceil(len(some) / size))
        groups += [some[first : first + size] for first in range(0, len(some), size)]
    return groups


def _fitting(density: TiltedDensity, settings: Sampling) -> int:
    """How many units like this one fit into a group's memory, at least 1."""
    chain = gradient_bytes(density) + _STATE * 4 * math.prod(density.latent_shape)
    unit = settings.chains * settings.kernel.replicas * chain
    return max(1, max(GROUP_BYTES, own_room()) // unit)


def told_size(densities: Sequence[Density], *, chains: int, draws: int, groups: int) -> str:
    """What a run of many units takes, in a sentence.

    Args:
        densities: the run's.
        chains: of each density.
        draws: per chain, in all.
        groups: of units that are sampled side by side.
    """
    return (
        f"{len(densities)} units, in {groups} {'group' if groups == 1 else 'groups'} side by side. "
        f"The images of their draws take {_told(_store_bytes(densities, chains, draws))} at most."
    )


def _store_bytes(densities: Sequence[Density], chains: int, draws: int) -> int:
    values = sum(math.prod(density.unit.shape) for density in densities)
    return 4 * chains * draws * values


def check_store(densities: Sequence[Density], *, chains: int, draws: int, out: Path) -> None:
    """Refuses draws that the disk has no room for.

    Args:
        densities: a run's.
        chains: of each density.
        draws: per chain, in all.
        out: the run's folder, which may hold some of them already.

    Raises:
        ArgumentError: even compressed to half, they take more than what is free.
    """
    need = _store_bytes(densities, chains, draws)
    if _COMPRESSED * need < 2**20:
        return
    there = next(each for each in (out, *out.absolute().parents) if each.exists())
    room = shutil.disk_usage(there).free
    room += sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if _COMPRESSED * need > room:
        raise ArgumentError(
            f"The images of `draws={draws}` of {chains} chains take about {_told(need)} in all, "
            f"and {there} has room for {_told(room)}. Give fewer `draws` or `chains`, or another "
            f"`out`.",
            argument="draws",
        )


def check_chains(densities: Sequence[TiltedDensity], settings: Sampling, *, draws: int) -> None:
    """Refuses chains that no memory holds, and transitions that no machine ends in a month.

    Args:
        densities: a run's.
        settings: how each is sampled.
        draws: per chain, in all.

    Raises:
        ArgumentError: the estimate, which is far below the truth, is beyond that.
    """
    chains = settings.chains * settings.kernel.replicas
    largest = max(math.prod(density.latent_shape) for density in densities)
    need, room = _STATE * 4 * largest * chains // jax.process_count(), _memory()
    if need > room:
        raise ArgumentError(
            f"The states of `chains={settings.chains}` with `kernel={settings.kernel}` take "
            f"{_told(need)} at least, and there are {_told(room)} of memory. Give fewer `chains`.",
            argument="chains",
        )
    transitions = settings.warmup + draws * settings.thin
    days = len(densities) * chains * transitions / _GRADIENTS_PER_DAY
    if days > _LONGEST_DAYS:
        raise ArgumentError(
            f"{transitions:,} transitions of each chain (`warmup={settings.warmup}` and "
            f"`draws={draws}` times `thin={settings.thin}`) would take {days:,.0f} days even at a "
            f"million gradients a second. Give smaller numbers.",
            argument="draws",
        )


def _memory() -> int:
    """Bytes of memory of this process's devices, which on CPUs is the machine's."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    limits = [each.get("bytes_limit", 0) for each in found]
    return sum(limits) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _told(size: float) -> str:
    """Bytes in words: 2.4 GB."""
    if size < 1e8:
        return f"{size / 1e6:,.1f} MB"
    return f"{size / 1e9:,.1f} GB" if size < 1e12 else f"{size / 1e12:,.1f} TB"
