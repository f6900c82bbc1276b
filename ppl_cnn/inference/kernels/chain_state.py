"""The state of a chain that a `TiltKernel` moves."""

from typing import NamedTuple, Protocol, Self, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.inference.kernels.adaptation import Feedback, Tuned
from ppl_cnn.inference.kernels.kernel import Transition
from ppl_cnn.inference.kernels.moves.pool import Pool
from ppl_cnn.inference.kernels.moves.trajectory import Latent, Point, Tilt, point_at, potential_at


class ChainState(NamedTuple):
    """The state of a chain, or of several with a leading axis.

    Fields and properties have the names of NumPyro's `HMCState`, so that `MCMC` finds them.
    """

    i: Int[Array, "*chain"]
    """Number of transitions done."""
    point: Point
    potential_energy: Float[Array, "*chain"]
    """-g(z) - log N(z; 0, I)."""
    energy: Float[Array, "*chain"]
    """Potential and kinetic energy."""
    num_steps: Int[Array, "*chain"]
    """Gradients of the last transition."""
    accept_prob: Float[Array, "*chain"]
    mean_accept_prob: Float[Array, "*chain"]
    """Mean since the start or, after the warmup, since its end."""
    diverging: Bool[Array, "*chain"]
    feedback: Feedback
    """What the last transition tells the adaptation."""
    adapt_state: Tuned
    rng_key: Array
    own: Transition
    """The last transition's values of the kernel's `own_statistics`; empty for one without."""
    pool: Pool | None = None
    """The fresh draws that it draws from; None for kernels that never do."""

    @property
    def z(self) -> Latent:
        """Where the chain is."""
        return self.point.z

    @property
    def tilt(self) -> Float[Array, "*chain"]:
        """g(z)."""
        return self.point.tilt

    @property
    def tilt_grad(self) -> Latent:
        """The gradient of g at z."""
        return self.point.tilt_grad

    @property
    def chain(self) -> "ChainState":
        """The state itself; a state with replicas has that of its top rung here."""
        return self

    def with_chain(self, chain: "ChainState") -> "ChainState":
        """The state with another `chain`."""
        return chain

    def after(
        self,
        point: Point,
        key: Array,
        *,
        acceptance: Float[Array, ""],
        energy: Float[Array, ""] | None = None,
        num_steps: Int[Array, ""] | int = 1,
        diverging: Bool[Array, ""] | bool = False,
        feedback: Feedback | None = None,
        own: Transition | None = None,
    ) -> "ChainState":
        """The state after a transition.

        Args:
            point: where the chain is now.
            key: random key of the next transition.
            acceptance: probability with which the proposal was accepted.
            energy: potential and kinetic energy; by default the potential alone.
            num_steps: gradients that the transition took.
            diverging: whether the energy error was too large.
            feedback: what the adaptation is told; by default the acceptance.
            own: values of the kernel's `own_statistics`; by default those before.
        """
        potential = potential_at(point)
        return self._replace(
            i=self.i + 1,
            point=point,
            potential_energy=potential,
            energy=potential if energy is None else energy,
            num_steps=jnp.asarray(num_steps, jnp.int32),
            accept_prob=acceptance,
            diverging=jnp.asarray(diverging),
            feedback=Feedback(acceptance) if feedback is None else feedback,
            rng_key=key,
            own=self.own if own is None else own,
        )


def first_chain(
    tilt: Tilt,
    key: Array,
    z: Latent,
    tuned: Tuned,
    *,
    own: Transition | None = None,
    pool: Pool | None = None,
) -> ChainState:
    """A chain's state before its first transition.

    Args:
        tilt: g.
        key: random key of the first transition.
        z: where the chain starts.
        tuned: step size, and what else the kernel adapts, to start with.
        own: zeros for the kernel's `own_statistics`; by default it has none in the state.
        pool: for a kernel that may draw from fresh draws, one with nothing left.
    """
    point = point_at(tilt, z)
    potential, zero = potential_at(point), jnp.zeros(())
    return ChainState(
        i=jnp.zeros((), jnp.int32),
        point=point,
        potential_energy=potential,
        energy=potential,
        num_steps=jnp.zeros((), jnp.int32),
        accept_prob=zero,
        mean_accept_prob=zero,
        diverging=jnp.zeros((), bool),
        feedback=Feedback.none(tuned),
        adapt_state=tuned,
        rng_key=key,
        own={} if own is None else own,
        pool=pool,
    )


@runtime_checkable
class HasChain(Protocol):
    """What a state of a `TiltKernel` must have; `ChainState` has it."""

    @property
    def chain(self) -> ChainState:
        """The chain that draws from the density itself."""
        ...

    def with_chain(self, chain: ChainState) -> Self:
        """The state with another `chain`."""
        ...
