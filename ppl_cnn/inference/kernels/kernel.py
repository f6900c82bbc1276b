"""The kernels for whitened tilted densities, ours and NumPyro's, and what their states report."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer import HMC, NUTS
from numpyro.infer.hmc import HMCState
from numpyro.infer.mcmc import MCMCKernel

from ppl_cnn.errors import InputError
from ppl_cnn.inference.kernels.adaptation import Evidence, Tuned, Tuning
from ppl_cnn.inference.kernels.split import Split, SplitState, van_der_corput
from ppl_cnn.inference.kernels.tempered import RUNGS, Tempered, TemperedState
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.graph import Params

KERNELS = ("split", "tempered", "hmc", "nuts")
SITE = "image_base"
"""The whitened model's site, z."""

type State = SplitState | TemperedState | HMCState


class JitteredHMC(HMC):
    """HMC whose trajectory lengths spread evenly over 0.5 to 1.5 times the given one.

    On a Gaussian, trajectories of one length resonate with some direction, and those of
    NumPyro's default 2 pi return to their start. The lengths follow the van der Corput
    sequence of the iteration: chains that run side by side have the same ones and needn't
    wait for the longest.

    Source: Hoffman, Radul, Sountsov, An adaptive-MCMC scheme for setting trajectory lengths in
    Hamiltonian Monte Carlo, AISTATS 2021, section 3.1.
    """

    def sample(self, state: HMCState, model_args: Any, model_kwargs: Any) -> HMCState:
        """One transition."""
        length = self._trajectory_length * (0.5 + van_der_corput(state.i))
        return super().sample(state._replace(trajectory_length=length), model_args, model_kwargs)


def make_kernel(name: str, density: TiltedDensity) -> MCMCKernel:
    """A kernel for the density in z; it is given the unit's weights as the model's argument.

    The reference is standard normal in z, so the mass matrix is the identity and stays so: a
    diagonal estimated from a few hundred draws would only add noise. The step size is that of
    the reference, for the driver to adapt (`StepSize`).

    Args:
        name: one of `KERNELS`; tempered:R has R rungs.
        density: the target.

    Raises:
        InputError: there is no such kernel.
    """
    if name == "split":
        return Split(lambda z, params: density.tilt(z[SITE], params))
    if name.partition(":")[0] == "tempered":
        return Tempered(lambda z, params: density.tilt(z[SITE], params), replicas(name))
    common = {
        "model": density.whitened,
        "adapt_mass_matrix": False,
        "adapt_step_size": False,
        "step_size": gaussian_step_size(math.prod(density.latent_shape)),
    }
    if name == "hmc":
        # A quarter turn of the Gaussian's rotation forgets the start.
        return JitteredHMC(**common, trajectory_length=math.pi / 2)
    if name == "nuts":
        return NUTS(**common)
    raise InputError(f"There is no kernel {name!r}; give one of {', '.join(KERNELS)}.")


def replicas(name: str) -> int:
    """How many images a chain of that kernel moves at once.

    Raises:
        InputError: it says no number of rungs.
    """
    kind, colon, rungs = name.partition(":")
    if kind != "tempered" or not colon:
        return RUNGS if kind == "tempered" else 1
    if not (rungs.isascii() and rungs.isdigit() and int(rungs) > 0):
        raise InputError(f"{name!r} is no kernel: write tempered:R with R rungs, at least 1.")
    return int(rungs)


def gaussian_step_size(dimensions: int) -> float:
    """The leapfrog step that accepts 0.8 of long trajectories on N(0, I), at most 1.

    On N(0, 1) leapfrog conserves p^2/2 + (1 - h^2/4) q^2/2 to leading order, so that the energy
    changes by h^2/8 (q'^2 - q^2). Between independent states of d dimensions that is normal
    with variance v = h^4 d/16 and mean v/2; the mean acceptance 2 Phi(-sqrt(v)/2) is 0.8 where
    h^2 = 2.03/sqrt(d).
    """
    return min(1.0, 1.42 * dimensions**-0.25)


class Transition(NamedTuple):
    """What the last transition of one chain reports, under ArviZ's names."""

    lp: Float[Array, ""]
    """Log density in z, up to log Z."""
    energy: Float[Array, ""]
    acceptance_rate: Float[Array, ""]
    diverging: Array
    n_steps: Array
    """Gradients."""
    step_size: Float[Array, ""]
    tree_depth: Array
    """Of NUTS; for HMC, of a tree with that many steps."""
    restarts: Array
    """Of tempered: how many replicas came to the top that have climbed from the reference."""

    @classmethod
    def of(cls, state: State) -> "Transition":
        """From a kernel's state; of tempered, the step size on the top rung."""
        step = state.adapt_state.step_size
        return cls(
            lp=-state.potential_energy,
            energy=state.energy,
            acceptance_rate=state.accept_prob,
            diverging=state.diverging,
            n_steps=state.num_steps,
            step_size=step if step.ndim == 0 else step[-1],
            tree_depth=jnp.floor(jnp.log2(state.num_steps)).astype(jnp.int32) + 1,
            restarts=state.restarts
            if isinstance(state, TemperedState)
            else jnp.zeros((), jnp.int32),
        )

    def then(self, later: "Transition") -> "Transition":
        """Both in a row: counts and acceptance rates add up, the rest is last."""
        return later._replace(
            n_steps=self.n_steps + later.n_steps,
            diverging=self.diverging | later.diverging,
            acceptance_rate=self.acceptance_rate + later.acceptance_rate,
            restarts=self.restarts + later.restarts,
        )

    def averaged(self, count: Array) -> "Transition":
        """With the mean acceptance rate of `count` transitions."""
        return self._replace(acceptance_rate=self.acceptance_rate / count)


def tilt_gradient(state: State) -> Float[Array, "row col channel"]:
    """grad_z f(R(z))/T."""
    if isinstance(state, SplitState | TemperedState):
        return state.tilt_grad[SITE]
    # NumPyro's states hold the potential's gradient, z - grad_z f(R(z))/T.
    return state.z[SITE] - state.z_grad[SITE]


class Rungs(NamedTuple):
    """The ladder of replicas, the reference first."""

    strength: Float[Array, "chain rung"]
    """How much of the tilt each has, from 0 to 1."""
    step_size: Float[Array, "chain rung"]
    """In radians, at most; the reference is drawn anew, as after a quarter turn."""
    angle: Float[Array, "chain rung"]
    """Of trajectories, in radians."""


def rungs_of(states: State) -> Rungs | None:
    """The ladders of these chains; None if they have none."""
    if not isinstance(states, TemperedState):
        return None
    tuned = states.adapt_state
    assert tuned.strengths is not None
    assert tuned.angle is not None
    first = ((0, 0), (1, 0))
    step, angle = (
        jnp.pad(leaf, first, constant_values=math.pi / 2) for leaf in (tuned.step_size, tuned.angle)
    )
    return Rungs(jnp.pad(tuned.strengths, first), step, angle)


def statistics(kernel: str) -> dict[str, type[np.generic]]:
    """The names of the `sample_stats` that a kernel has, and their types."""
    types: dict[str, type[np.generic]] = dict.fromkeys(Transition._fields, np.float32)
    types |= {"diverging": np.bool_, "n_steps": np.int32, "tree_depth": np.int32}
    types["restarts"] = np.int32
    if kernel != "nuts":
        del types["tree_depth"]
    if kernel.partition(":")[0] != "tempered":
        del types["restarts"]
    return types


def start(
    kernel: MCMCKernel,
    density: TiltedDensity,
    params: Params,
    key: Array,
    z: Float[Array, "row col channel"] | None = None,
) -> State:
    """One chain's first state, at z or at a draw of the reference."""
    key_start, key_chain = jax.random.split(key)
    if z is None:
        z = jax.random.normal(key_start, density.latent_shape)
    return kernel.init(key_chain, 0, {SITE: z}, model_args=(params,), model_kwargs={})


def first_tuning(states: State) -> Tuning:
    """Where the adaptation of chains begins that have just started."""
    adapted = states.adapt_state
    return Tuning.around(adapted if isinstance(adapted, Tuned) else Tuned(adapted.step_size))


def evidence_of(state: State) -> Evidence:
    """What a chain's last transition tells the adaptation."""
    if isinstance(state, SplitState | TemperedState):
        return state.evidence
    return Evidence(state.accept_prob)


def retuned(states: State, tuned: Tuned) -> State:
    """The states of several chains with what adaptation has found for each."""
    found = {name: value for name, value in tuned._asdict().items() if value is not None}
    return states._replace(adapt_state=states.adapt_state._replace(**found))
