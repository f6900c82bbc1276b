"""Kernels of other libraries as kernels of the chain driver: what they share.

The driver adapts the step size where a kernel has one, pooled over a unit's chains, and nothing
else: the mass matrix is the identity, which suits the reference N(0, I).
"""

import copy
from abc import abstractmethod
from typing import Any, NamedTuple, Self

from jaxtyping import Array, Float

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.adaptation import Feedback, Tuned
from ppl_cnn.inference.kernels.kernel import Kernel, Target, Transition, reported


class Foreign(NamedTuple):
    """A chain that another library moves; fields have the names of NumPyro's `HMCState`."""

    inner: Any
    """The library's own state."""
    z: Float[Array, "*latent"]
    tilt_grad: Float[Array, "*latent"]
    """The gradient of g at z."""
    potential_energy: Float[Array, ""]
    """-g(z) - log N(z; 0, I)."""
    energy: Float[Array, ""]
    """Potential and kinetic energy, where the kernel has a momentum; else the potential alone."""
    accept_prob: Float[Array, ""]
    num_steps: Array
    """Gradients of the last transition."""
    forward_passes: Array
    """Its forward passes without a gradient."""
    diverging: Array
    adapt_state: Tuned
    rng_key: Array


class ForeignKernel(Kernel):
    """What kernels of other libraries share."""

    _target: Target | None = None

    @property
    def target(self) -> Target:
        """The density to draw from.

        Raises:
            ArgumentError: the kernel has none yet.
        """
        if self._target is None:
            raise ArgumentError(
                f"Kernel {str(self)!r} has no target to sample. Give the kernel to `ppl_cnn.draw`.",
                argument="kernel",
            )
        return self._target

    def bind(self, target: Target) -> Self:
        """A kernel of the same settings for a target."""
        bound = copy.copy(self)
        bound._target = target
        return bound

    @abstractmethod
    def move(self, state: Foreign, params: Any) -> Foreign:
        """One chain's state after another transition, without adaptation."""

    def latent(self, state: Foreign) -> Float[Array, "..."]:
        """Where the chain is: z."""
        return state.z

    def tilt_gradient(self, state: Foreign) -> Float[Array, "..."]:
        """The gradient of g where the chain is."""
        return state.tilt_grad

    def transition(self, state: Foreign) -> Transition:
        """The statistics of the last transition."""
        own = {name: getattr(state, name) for name in self.statistics.keys() & set(state._fields)}
        return {**reported(state), **own}

    def feedback(self, state: Foreign) -> Feedback:
        """The acceptance probability."""
        return Feedback(state.accept_prob)

    def tuned(self, state: Foreign) -> Tuned:
        """The step size."""
        return state.adapt_state

    def retuned(self, state: Foreign, tuned: Tuned) -> Foreign:
        """The state with another step size."""
        return state._replace(adapt_state=Tuned(tuned.step_size))
