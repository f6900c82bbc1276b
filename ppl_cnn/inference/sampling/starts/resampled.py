"""Starts at draws by importance resampling."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.sampling.resampling.proposals import latents
from ppl_cnn.inference.sampling.resampling.scorer import at_once
from ppl_cnn.inference.sampling.starts.start import Placed, Start, UnitChains
from ppl_cnn.models.density import DensityParams, TiltedDensity
from ppl_cnn.numeric import plain_fields

DRAWS = 1000
"""Draws of the reference that are weighted, unless a number is given."""


@dataclass(frozen=True)
class Resampled(Start):
    """Each chain starts at a draw of the reference, resampled by its weight exp(f/T).

    The starts are draws of the density as far as the effective number of the weights goes; where it
    is near 1, all chains start at the best of the draws. Recorded as "resample". The record's field
    `resampling` has that number and the estimate of log Z, `forward_passes` what they took.

    Args:
        draws: of the reference, for all chains of a unit together, at least 2; recorded unless it
            is 1,000 ("resample:5000").

    Raises:
        ArgumentError: there are too few draws.
    """

    draws: int = DRAWS

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.draws < 2:
            raise ArgumentError(
                f"A start by resampling needs at least 2 draws of the reference, not {self.draws}.",
                argument="start",
            )

    def __str__(self) -> str:
        return "resample" if self.draws == DRAWS else f"resample:{self.draws}"

    def place(self, chains: UnitChains) -> Placed:
        """A weighted draw of the reference for each chain, independently."""
        keys = jax.vmap(partial(jax.random.fold_in, data=3))(chains.keys)
        key, params = jax.random.fold_in(keys[0], 1), chains.density.params
        size = at_once(chains.density)
        parts = [
            np.asarray(_tilts(chains.compiled, params, key, first + np.arange(size)))
            for first in range(0, self.draws, size)
        ]
        weights = Weights(np.concatenate(parts)[: self.draws])
        if not np.isfinite(weights.tilts).all():
            raise MismatchError(
                f"The response of {chains.density.unit} is not finite for a draw of the reference. "
                f"Check the network's weights and preprocessing, or give another `start`."
            )
        uniforms = np.asarray(jax.vmap(jax.random.uniform)(keys), np.float64)
        numbers = weights.resampled(uniforms)
        chains.bar.update(len(numbers))
        note = {
            "log_z": weights.log_z._asdict(),
            "effective": weights.effective,
            "distinct": len(np.unique(numbers)),
        }
        spent = {"resampling": note, "forward_passes": {"start": self.draws}}
        return latents(chains.density, key, jnp.asarray(numbers)), 0, spent


@partial(jax.jit, static_argnums=0)
def _tilts(
    density: TiltedDensity,
    params: DensityParams,
    key: Key[Array, ""],
    numbers: Integer[Array | np.ndarray, " n"],
) -> Float[Array, " n"]:
    z = latents(density, key, numbers)
    return jax.vmap(density.tilt, (0, None))(z, params)
