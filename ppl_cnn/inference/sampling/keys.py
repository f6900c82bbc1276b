"""The random keys of chains."""

from collections.abc import Sequence
from functools import partial
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Array, Key

from ppl_cnn.models.density import TiltedDensity


def reference_key(seed: int) -> Key[Array, ""]:
    """The key of the draws of the reference that a run of chains shows beside its own.

    Args:
        seed: the run's.
    """
    return jax.random.fold_in(jax.random.key(seed), crc32(b"reference"))


def chain_keys(
    densities: Sequence[TiltedDensity], seed: int, chains: int
) -> Key[Array, " unit_and_chain"]:
    """A key for each chain of each density, those of the first density first.

    The keys of a unit's chains depend on its text and the seed, not on the units beside it.

    Args:
        densities: the targets.
        seed: the run's.
        chains: chains of each density.
    """
    units = [crc32(str(density.unit).encode()) for density in densities]
    fold = partial(jax.random.fold_in, jax.random.key(seed))
    keys = jax.vmap(fold)(np.asarray(units, np.uint32))
    return jax.vmap(lambda key: jax.random.split(key, chains))(keys).ravel()
