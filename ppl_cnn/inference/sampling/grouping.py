"""Which units are sampled side by side, in one batch of chains."""

import math
from collections.abc import Hashable, Sequence
from itertools import islice

from ppl_cnn.errors import InputError
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.models.density import TiltedDensity, gradient_bytes

BATCH_BYTES = 4 * 2**30
"""Of a batch: what its gradient needs at once, its chains' states and its draws of a block."""
_STATE = 8
"""Arrays of an image's size that a chain's kernel and block hold at least."""


def together(
    densities: Sequence[TiltedDensity],
    sampling: Sampling,
    most: int | None = None,
    sizes: Sequence[int] | None = None,
) -> list[list[TiltedDensity]]:
    """Divides densities into batches.

    Those of a batch differ in their units' weights alone, so that one compiled program moves
    the chains of all of them: images pass the shared layers as one batch.

    Args:
        densities: of a run.
        sampling: how each is sampled.
        most: units in a batch; by default as many as fit into `BATCH_BYTES`.
        sizes: of the batches, where another machine has found them for these densities.

    Raises:
        InputError: `most` is less than 1.
    """
    if most is not None and most < 1:
        raise InputError(f"At least 1 unit must be sampled at a time, not {most}.")
    groups: dict[Hashable, list[TiltedDensity]] = {}
    for density in densities:
        alike = density.unit.program, density.reference, density.temperature
        groups.setdefault(alike, []).append(density)
    if sizes is not None:
        ordered = iter([density for group in groups.values() for density in group])
        return [list(islice(ordered, size)) for size in sizes]
    batches = []
    for group in groups.values():
        size = most or (_fitting(group[0], sampling) if len(group) > 1 else 1)
        # Batches of about one size: the last is not left with a few.
        size = math.ceil(len(group) / math.ceil(len(group) / size))
        batches += [group[first : first + size] for first in range(0, len(group), size)]
    return batches


def _fitting(density: TiltedDensity, sampling: Sampling) -> int:
    """How many units like this one `BATCH_BYTES` hold."""
    chain = gradient_bytes(density) + _STATE * 4 * math.prod(density.latent_shape)
    return max(1, BATCH_BYTES // (sampling.chains * sampling.kernel.replicas * chain))
