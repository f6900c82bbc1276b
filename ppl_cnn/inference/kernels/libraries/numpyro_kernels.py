"""NumPyro's kernels as kernels of the chain driver, on the whitened model of a target.

The reference is standard normal in z, so the mass matrix is the identity and stays so: a diagonal
estimated from a few hundred draws would only add noise. The driver adapts the step size
(`adaptation.StepSize`), from the step that suits the reference.
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
from jaxtyping import Array, Float
from numpyro.infer.ensemble import EnsembleSampler
from numpyro.infer.hmc import HMCState
from numpyro.infer.mcmc import MCMCKernel

from ppl_cnn.errors import ArgumentError, unknown
from ppl_cnn.inference.kernels.adaptation import Feedback, Tuned
from ppl_cnn.inference.kernels.kernel import (
    Kernel,
    Statistic,
    Target,
    Transition,
    acceptance,
    at_least_one,
    reported,
    with_settings,
)
from ppl_cnn.inference.kernels.libraries.foreign import Foreign, ForeignKernel
from ppl_cnn.inference.kernels.moves.trajectory import van_der_corput
from ppl_cnn.numeric import positive

SITE = "image_base"
"""z in a target's whitened model."""
QUARTER = math.pi / 2
"""A quarter turn of the Gaussian's rotation forgets the start."""
DEEPEST = 10
"""Doublings of a NUTS tree at most, NumPyro's default."""


class JitteredHMC(numpyro.infer.HMC):
    """NumPyro's HMC, with trajectory lengths spread evenly over 0.5 to 1.5 times the given one.

    On a Gaussian, trajectories of one length resonate with some direction, and those of
    NumPyro's default 2 pi return to their start. The lengths follow the van der Corput
    sequence of the transition's number: chains that run side by side have the same lengths and
    needn't wait for the longest.

    Source: Hoffman, Radul, Sountsov, An adaptive-MCMC scheme for setting trajectory lengths in
    Hamiltonian Monte Carlo, AISTATS 2021, section 3.1.
    """

    def sample(self, state: HMCState, model_args: Any, model_kwargs: Any) -> HMCState:
        """One transition."""
        length = self._trajectory_length * (0.5 + van_der_corput(state.i))
        return super().sample(state._replace(trajectory_length=length), model_args, model_kwargs)


def gaussian_step_size(dimensions: int) -> float:
    """The leapfrog step that accepts 0.8 of long trajectories on N(0, I), at most 1.

    On N(0, 1) leapfrog conserves p^2/2 + (1 - h^2/4) q^2/2 to leading order, so that the energy
    changes by h^2/8 (q'^2 - q^2). Between independent states of d dimensions that is normal
    with variance v = h^4 d/16 and mean v/2; the mean acceptance 2 Phi(-sqrt(v)/2) is 0.8 where
    h^2 = 2.03/sqrt(d).

    Args:
        dimensions: d.
    """
    return min(1.0, 1.42 * math.pow(dimensions, -0.25))


class _OfNumPyro(Kernel):
    """What HMC and NUTS share."""

    _kernel: MCMCKernel | None = None
    """NumPyro's kernel, once there is a target."""

    def __init__(self, target_accept_prob: float) -> None:
        self.target_accept_prob = acceptance("target_accept_prob", target_accept_prob)

    @abstractmethod
    def _made(self, **common: Any) -> MCMCKernel:
        """NumPyro's kernel of these settings."""

    def bind(self, target: Target) -> Self:
        """A kernel of the same settings for the target's whitened model."""
        bound = copy.copy(self)
        bound._kernel = self._made(
            model=target.whitened,
            adapt_mass_matrix=False,
            adapt_step_size=False,
            step_size=gaussian_step_size(math.prod(target.latent_shape)),
        )
        return bound

    @property
    def kernel(self) -> MCMCKernel:
        """NumPyro's kernel.

        Raises:
            ArgumentError: the kernel has no target yet.
        """
        if self._kernel is None:
            raise ArgumentError(
                f"Kernel {str(self)!r} has no target to sample. Give the kernel to `ppl_cnn.draw`, "
                f"or give numpyro.infer's own kernels a density's `whitened` model.",
                argument="kernel",
            )
        return self._kernel

    def start(self, key: Array, z: Float[Array, "..."], params: Any) -> HMCState:
        """One chain's first state."""
        return self.kernel.init(key, 0, {SITE: z}, model_args=(params,), model_kwargs={})

    def move(self, state: HMCState, params: Any) -> HMCState:
        """One chain's state after another transition, without adaptation."""
        return self.kernel.sample(state, (params,), {})

    def latent(self, state: HMCState) -> Float[Array, "..."]:
        """Where the chain is: z."""
        z: Array = state.z[SITE]
        return z

    def tilt_gradient(self, state: HMCState) -> Float[Array, "..."]:
        """The gradient of g where the chain is."""
        # The state holds the potential's gradient, z - grad g(z).
        gradient: Array = state.z[SITE] - state.z_grad[SITE]
        return gradient

    def transition(self, state: HMCState) -> Transition:
        """The statistics of the last transition."""
        return reported(state)

    def feedback(self, state: HMCState) -> Feedback:
        """The acceptance probability."""
        return Feedback(state.accept_prob)

    def tuned(self, state: HMCState) -> Tuned:
        """The step size."""
        return Tuned(state.adapt_state.step_size)

    def retuned(self, state: HMCState, tuned: Tuned) -> HMCState:
        """The state with another step size."""
        adapted = state.adapt_state._replace(step_size=tuned.step_size)
        return state._replace(adapt_state=adapted)


class HMC(_OfNumPyro):
    """NumPyro's HMC with jittered trajectories, as a kernel of `ppl_cnn.draw`.

    Args:
        trajectory_length: mean length of a trajectory; lengths spread evenly over 0.5 to 1.5 times
            that. On N(0, I) a length of pi/2 forgets the start.
        target_accept_prob: mean acceptance probability that the step size is adapted to.

    Raises:
        ArgumentError: a setting is out of range.

    Examples:
        >>> print(HMC())
        hmc
    """

    name = "hmc"

    def __init__(
        self, *, trajectory_length: float = QUARTER, target_accept_prob: float = 0.8
    ) -> None:
        super().__init__(target_accept_prob)
        self._length = positive("trajectory_length", trajectory_length)

    def __str__(self) -> str:
        """`hmc`, with the settings that are not the defaults."""
        return with_settings(self.name, {"trajectory_length": (self._length, QUARTER)})

    def _made(self, **common: Any) -> MCMCKernel:
        return JitteredHMC(**common, trajectory_length=self._length)


class NUTS(_OfNumPyro):
    """NumPyro's NUTS, as a kernel of `ppl_cnn.draw`.

    Args:
        max_tree_depth: largest number of doublings of a trajectory, at least 1.
        target_accept_prob: mean acceptance probability that the step size is adapted to.

    Raises:
        ArgumentError: a setting is out of range.

    Examples:
        >>> print(NUTS(max_tree_depth=6))
        nuts(max_tree_depth=6)
    """

    name = "nuts"
    own_statistics: ClassVar[Mapping[str, Statistic]] = {"tree_depth": Statistic(np.int32)}

    def __init__(self, *, max_tree_depth: int = DEEPEST, target_accept_prob: float = 0.8) -> None:
        super().__init__(target_accept_prob)
        self._deepest = at_least_one("max_tree_depth", max_tree_depth)

    def __str__(self) -> str:
        """`nuts`, with the settings that are not the defaults."""
        return with_settings(self.name, {"max_tree_depth": (self._deepest, DEEPEST)})

    def _made(self, **common: Any) -> MCMCKernel:
        return numpyro.infer.NUTS(**common, max_tree_depth=self._deepest)

    def transition(self, state: HMCState) -> Transition:
        """The statistics of the last transition, with the depth of its tree."""
        depth = jnp.floor(jnp.log2(state.num_steps)).astype(jnp.int32) + 1
        return {**reported(state), "tree_depth": depth}


_TARGETS = {"BarkerMH": 0.4}
"""Mean acceptance probabilities that suit kernels of NumPyro, where they aren't 0.8."""


class ExternalKernel(ForeignKernel):
    """Any of NumPyro's kernels of one chain, as a kernel of `ppl_cnn.draw`.

    It moves z of the density's `whitened` model. The kernel's own warmup is not run: the driver
    adapts `adapt_state.step_size`, if its state has one.

    Args:
        make: the kernel's class, such as `numpyro.infer.BarkerMH`, or a subclass of NumPyro's
            `MCMCKernel` of your own; it is called with `model` and the settings.
        target_accept_prob: mean acceptance probability that the step size is adapted to; by default
            0.8, and 0.4 for `BarkerMH`.
        **settings: arguments of the class. They are part of the run's record, as their text.

    Raises:
        ArgumentError: the class is no kernel of single chains, or a setting is out of range.

    Examples:
        >>> print(ExternalKernel(numpyro.infer.SA))
        numpyro:SA
    """

    name = "numpyro"

    def __init__(
        self,
        make: type[MCMCKernel],
        *,
        target_accept_prob: float | None = None,
        **settings: Any,
    ) -> None:
        if issubclass(make, EnsembleSampler):
            raise ArgumentError(
                f"{make.__name__} moves chains by each other, and the driver moves each alone. "
                f"Give a kernel of single chains, such as BarkerMH.",
                argument="make",
            )
        self._make, self._settings = make, settings
        usual = _TARGETS.get(make.__name__, 0.8)
        wanted = usual if target_accept_prob is None else target_accept_prob
        self.target_accept_prob = self.checked_acceptance("target_accept_prob", wanted)
        self._kernel: Any = None

    @classmethod
    def parse(cls, value: str) -> Self:
        """The kernel that is the class of that name in `numpyro.infer`."""
        found = {
            name: each
            for name, each in vars(numpyro.infer).items()
            if isinstance(each, type)
            and issubclass(each, MCMCKernel)
            and not issubclass(each, EnsembleSampler)
        }
        if value not in found:
            raise unknown("kernel of NumPyro", value, tuple(found))
        return cls(found[value])

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._settings.items())
        return f"{self.name}:{self._make.__name__}" + (f"({settings})" if settings else "")

    def bind(self, target: Target) -> Self:
        """A kernel of the same settings for the target's whitened model."""
        bound = super().bind(target)
        bound._kernel = self._make(model=target.whitened, **self._settings)
        return bound

    def start(self, key: Array, z: Float[Array, "..."], params: Any) -> Foreign:
        """One chain's first state."""
        key, key_init = jax.random.split(key)
        inner = self._kernel.init(key_init, 0, {SITE: z}, model_args=(params,), model_kwargs={})
        return self._read(inner, params, key, moved=0)

    def move(self, state: Foreign, params: Any) -> Foreign:
        """One chain's state after another transition, without adaptation."""
        inner = self._kernel.sample(state.inner, (params,), {})
        return self._read(inner, params, state.rng_key, moved=1)

    def retuned(self, state: Foreign, tuned: Tuned) -> Foreign:
        """The state with another step size, if the kernel has one."""
        adapted: Any = getattr(state.inner, "adapt_state", None)
        if not hasattr(adapted, "step_size"):
            return state
        adapted = adapted._replace(step_size=tuned.step_size)
        return (
            super().retuned(state, tuned)._replace(inner=state.inner._replace(adapt_state=adapted))
        )

    def _read(self, inner: Any, params: Any, key: Array, *, moved: int) -> Foreign:
        """The chain, from the fields that NumPyro's states have in common."""
        z = getattr(inner, self._kernel.sample_field)[SITE]
        known = getattr(inner, "z_grad", None)
        gradient = jax.grad(self.target.tilt)(z, params) if known is None else z - known[SITE]
        step = getattr(getattr(inner, "adapt_state", None), "step_size", jnp.ones(()))
        return Foreign(
            inner=inner,
            z=z,
            tilt_grad=gradient,
            potential_energy=inner.potential_energy,
            energy=getattr(inner, "energy", inner.potential_energy),
            accept_prob=getattr(inner, "accept_prob", jnp.ones(())),
            num_steps=jnp.asarray(getattr(inner, "num_steps", moved), jnp.int32),
            forward_passes=jnp.zeros((), jnp.int32),
            diverging=jnp.asarray(getattr(inner, "diverging", False)),
            adapt_state=Tuned(step),
            rng_key=key,
        )
