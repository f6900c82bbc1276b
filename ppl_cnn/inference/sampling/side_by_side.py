"""Which units are sampled side by side: their chains move together, in one batch."""

import math
from collections.abc import Hashable, Sequence
from itertools import islice

import jax

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.models.density import TiltedDensity, gradient_bytes

GROUP_BYTES = 4 * 2**30
"""Memory for a group: what its gradient needs at once, its chains' states and a block of draws. A
device that has memory of its own gives half of that, if it is more."""
_STATE = 8
"""Arrays of an image's size that a chain's kernel and block hold, at least."""


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
    own = int((jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)) // 2
    chain = gradient_bytes(density) + _STATE * 4 * math.prod(density.latent_shape)
    unit: int = settings.chains * settings.kernel.replicas * chain
    return max(1, max(GROUP_BYTES, own) // unit)
