"""The split kernel: HMC that turns (z, p) exactly, so that more dimensions need no shorter step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ppl_cnn.inference.kernels.adaptation import Tuned
from ppl_cnn.inference.kernels.chain_state import ChainState, first_chain
from ppl_cnn.inference.kernels.kernel import with_settings
from ppl_cnn.inference.kernels.tilt_kernel import TiltKernel
from ppl_cnn.inference.kernels.trajectory import (
    FIRST_ANGLE,
    FIRST_STEP,
    Latent,
    Tilt,
    divided,
    jump_feedback,
    metropolis,
)
from ppl_cnn.numeric import positive

TARGET_ACCEPT = 0.65
"""Under a strong tilt the kinks of ReLU and max-pooling make the energy's error grow like the step,
not like its square, so that longer steps pay that accept less often."""


class Split(TiltKernel[ChainState]):
    """HMC with exact turns, for p(z) ∝ exp(g(z)) N(z; 0, I).

    The angle of a trajectory with several steps is jittered over 0.5 to 1.5 times the adapted one,
    by the van der Corput sequence of the transition's number: chains side by side have the same
    angle and needn't wait for each other. The warmup adapts step size and angle
    (`adaptation.Tuning`). With `MCMC.run` give `init_params`: an array or a tree of arrays, with a
    leading axis if there are several chains.

    Args:
        tilt: g, a function of z (an array or a tree of arrays) and of the arguments that `run`
            is given, to a scalar. Leave it out for `ppl_cnn.draw`, which takes the density's.
        target_accept_prob: mean acceptance probability that the step size is adapted to.
        step_size: radians between kicks at the start of adaptation, or for good without warmup.
        angle: radians of a trajectory at the start of adaptation, or for good without warmup.

    Raises:
        ArgumentError: a setting is out of range.

    Source: see `trajectory.integrate`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from numpyro.infer import MCMC
        >>> kernel = Split(lambda z: 2.0 * z[0])  # N((2, 0), I)
        >>> mcmc = MCMC(kernel, num_warmup=100, num_samples=400, progress_bar=False)
        >>> mcmc.run(jax.random.key(0), init_params=jnp.zeros(2))
        >>> bool(abs(mcmc.get_samples().mean(axis=0) - jnp.asarray([2.0, 0.0])).max() < 0.3)
        True
    """

    name = "split"

    def __init__(
        self,
        tilt: Tilt | None = None,
        *,
        target_accept_prob: float = TARGET_ACCEPT,
        step_size: float = FIRST_STEP,
        angle: float = FIRST_ANGLE,
    ) -> None:
        super().__init__(tilt, target_accept_prob=target_accept_prob)
        self._step_size = positive("step_size", step_size)
        self._angle = positive("angle", angle)

    def __str__(self) -> str:
        """`split`, with the settings that are not the defaults."""
        settings = {
            "step_size": (self._step_size, FIRST_STEP),
            "angle": (self._angle, FIRST_ANGLE),
        }
        return with_settings(self.name, settings)

    def first_state(self, tilt: Tilt, key: Array, z: Latent) -> ChainState:
        """One chain's first state."""
        first = Tuned(jnp.asarray(self._step_size), jnp.asarray(self._angle))
        return first_chain(tilt, key, z, first)

    def next_state(self, tilt: Tilt, state: ChainState) -> ChainState:
        """One chain's state after another transition."""
        return transition(tilt, state)


def transition(tilt: Tilt, state: ChainState) -> ChainState:
    """One Metropolis-corrected trajectory from a chain's state, without adaptation.

    Args:
        tilt: g.
        state: of one chain.
    """
    key, key_move = jax.random.split(state.rng_key)
    steps, step_size = divided(state.adapt_state, state.i)
    moved = metropolis(tilt, state.point, key_move, step_size, steps)
    return state.after(
        moved.point,
        key,
        acceptance=moved.acceptance,
        energy=state.potential_energy + moved.kinetic_energy + moved.energy_change,
        num_steps=steps,
        diverging=moved.diverging,
        feedback=jump_feedback(state.point, moved, step_size, steps),
    )
