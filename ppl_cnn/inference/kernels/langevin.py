"""The Langevin kernel: one gradient a step and no rejection, for a look before sampling.

Nothing corrects the error of a step, so that the draws are of a density near the one asked for. The
chains of odd number take half the step of the others: what parts them is the error that can be
seen.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.adaptation import Tuned
from ppl_cnn.inference.kernels.chain_state import ChainState, first_chain
from ppl_cnn.inference.kernels.kernel import Statistic, Transition, with_settings
from ppl_cnn.inference.kernels.moves.trajectory import (
    FIRST_ANGLE,
    FIRST_STEP,
    Latent,
    Tilt,
    metropolis,
)
from ppl_cnn.inference.kernels.tilt_kernel import TiltKernel
from ppl_cnn.numeric import positive


class Langevin(TiltKernel[ChainState]):
    """Unadjusted Langevin steps with exact turns, near p(z) ∝ exp(g(z)) N(z; 0, I).

    A step goes from z to cos h z + (1 - cos h) grad g(z) + sin h xi with xi from N(0, I): the
    proposal of pCNL, which is never rejected. The warmup adapts h so that the probability with
    which Metropolis's rule would have accepted, the mean over all chains, is
    `target_accept_prob`. For a linear g the draws have the density itself. For g = -a z^2/2 their
    variance is too large by the factor (2 - C)/(2 - C (1 + a)), C = 1 - cos h, which is 1 + a h^2/4
    for small h.

    In `ppl_cnn.draw` the chains 1, 3, 5, ... take steps of h/2; `ppl_cnn.diagnose` compares them
    with the others. In NumPyro's `MCMC` all steps are h.

    Args:
        tilt: g, as `Split` takes it.
        target_accept_prob: mean probability of acceptance that the step is adapted to, above 0.5:
            chains at half the step would make up half by themselves while the others overflow.
        step_size: h in radians at the start of adaptation, or for good without warmup; from a
            quarter turn on, all are a quarter turn.

    Raises:
        ArgumentError: a setting is out of range.

    Source: the proposal is from Cotter, Roberts, Stuart, White, MCMC methods for functions,
    Statistical Science 28, 2013.

    Examples:
        >>> print(Langevin(step_size=0.1))
        langevin(step_size=0.1)
    """

    name = "langevin"
    is_exact = False
    own_statistics: ClassVar[Mapping[str, Statistic]] = {"step_share": Statistic(np.float32)}

    def __init__(
        self,
        tilt: Tilt | None = None,
        *,
        target_accept_prob: float = 0.8,
        step_size: float = FIRST_STEP,
    ) -> None:
        super().__init__(tilt, target_accept_prob=target_accept_prob)
        self._step_size = positive("step_size", step_size)

    def checked_acceptance(self, name: str, value: float) -> float:
        """Refuses a mean that the chains at half the step could reach alone."""
        number = super().checked_acceptance(name, value)
        if number <= 0.5:
            raise ArgumentError(
                f"`{name}` must be above 0.5 for kernel langevin, whose errors grow without end at "
                f"long steps, not {value}.",
                argument=name,
            )
        return number

    def __str__(self) -> str:
        """`langevin`, with the step if it is not the default."""
        return with_settings(self.name, {"step_size": (self._step_size, FIRST_STEP)})

    def first_state(self, tilt: Tilt, key: Array, z: Latent) -> ChainState:
        """One chain's first state, with the whole step."""
        first, whole = Tuned(jnp.asarray(self._step_size)), {"step_share": jnp.ones(())}
        return first_chain(tilt, key, z, first, own=whole)

    def numbered(self, state: ChainState, chain: Int[Array, ""]) -> ChainState:
        """One chain's first state: half the step for every second chain."""
        return state._replace(own={"step_share": jnp.where(chain % 2 == 1, 0.5, 1.0)})

    def transition(self, state: ChainState) -> Transition:
        """The statistics of the last transition, with the step that the chain itself takes."""
        return {**super().transition(state), "step_size": _step(state)}

    def next_state(self, tilt: Tilt, state: ChainState) -> ChainState:
        """One chain's state after another step; it stays where the step ends at no finite tilt."""
        key, key_move = jax.random.split(state.rng_key)
        # Metropolis's decision is discarded; only its probability is used.
        moved = metropolis(tilt, state.point, key_move, _step(state), jnp.asarray(1))
        end, finite = moved.end, jnp.isfinite(moved.end.energy_change)
        point = jax.tree.map(lambda new, old: jnp.where(finite, new, old), end.point, state.point)
        change = moved.kinetic_energy + jnp.where(finite, end.energy_change, 0.0)
        return state.after(
            point,
            key,
            acceptance=moved.acceptance,
            energy=state.potential_energy + change,
            diverging=~finite,
        )


def _step(state: ChainState) -> Array:
    """The radians of a chain's next step; a quarter turn forgets where it was."""
    whole = jnp.minimum(state.adapt_state.step_size, FIRST_ANGLE)
    return whole * state.own["step_share"]
