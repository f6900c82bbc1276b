"""The split kernel: HMC that turns (z, p) exactly, and kicks p with the gradient of the tilt alone.

For densities p(z) ∝ exp(g(z)) N(z; 0, I): the tilt g is f(R(z))/T of a tilted density, or any
other function. The flow of the Gaussian part of the energy |z|^2/2 + |p|^2/2 - g(z) is a rotation
of (z, p), so that the step need only suit the tilt, whatever the number of dimensions.
"""

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from ppl_cnn.errors import InputError
from ppl_cnn.inference.kernels.adaptation import Evidence, Tuned, Tuning

type Latent = PyTree[Float[Array, "..."]]
type Tilt = Callable[..., Float[Array, ""]]
"""z, and what else it is given, to g(z)."""

FIRST_STEP = 1.0
"""Radians: long steps cost few gradients, so that it is cheap to learn that they are too long."""
FIRST_ANGLE = math.pi / 2
"""Radians: a quarter turn forgets the start, where there is no tilt."""
MOST_STEPS = 1000
"""Of a trajectory; it ends before its angle is reached."""
_DIVERGING = 1000.0
"""Of the energy's error, as in NumPyro and Stan."""


class Point(NamedTuple):
    """A latent, and the tilt there."""

    z: Latent
    tilt: Float[Array, ""]
    tilt_grad: Latent


class Trajectory(NamedTuple):
    """Where a trajectory has come to."""

    point: Point
    momentum: Latent
    energy_change: Float[Array, ""]
    """Since its start. Summed over the kicks alone, as turns change nothing: the energy itself,
    which grows with the dimensions, would leave float32 with few digits of it."""


class SplitState(NamedTuple):
    """A chain, or several with a leading axis; the names are those of NumPyro's `HMCState`."""

    i: Int[Array, ""]
    """Transitions done."""
    z: Latent
    tilt: Float[Array, ""]
    tilt_grad: Latent
    potential_energy: Float[Array, ""]
    """-g(z) - log N(z; 0, I)."""
    energy: Float[Array, ""]
    """With the kinetic one."""
    num_steps: Int[Array, ""]
    """Gradients of the last transition."""
    accept_prob: Float[Array, ""]
    mean_accept_prob: Float[Array, ""]
    """Since the start or, afterwards, since the warmup's end."""
    diverging: Bool[Array, ""]
    evidence: Evidence
    """What the last transition tells the adaptation."""
    adapt_state: Tuned
    rng_key: Array


type AnyState = Any
"""`SplitState`, or that of a kernel which extends `Split`: all these names are in it."""


def integrate(
    tilt: Tilt,
    point: Point,
    momentum: Latent,
    step_size: Float[Array, ""] | float,
    steps: Int[Array, ""] | int,
    strength: Float[Array, ""] | float = 1.0,
) -> Trajectory:
    """Follows a trajectory of N(0, I) exp(b g): half a kick, a turn, half a kick, and so on.

    The map (z, p) -> (z', p') keeps volumes, and from (z', -p') it leads back to (z, -p).

    Args:
        tilt: g.
        point: its start.
        momentum: p there.
        step_size: radians between kicks.
        steps: their number, and that of the gradients.
        strength: b.

    Source: Shahbaba, Lan, Johnson, Neal, Split Hamiltonian Monte Carlo, Statistics and Computing
    24, 2014; Beskos, Pinski, Sanz-Serna, Stuart, Hybrid Monte Carlo on Hilbert spaces, Stochastic
    Processes and their Applications 121, 2011.
    """
    half = strength * jnp.asarray(step_size) / 2
    cos, sin = jnp.cos(step_size), jnp.sin(step_size)

    def step(_: Array, at: Trajectory) -> Trajectory:
        p, gained = _kicked(at.momentum, at.point.tilt_grad, half)
        z = jax.tree.map(lambda z, p: cos * z + sin * p, at.point.z, p)
        p = jax.tree.map(lambda z, p: cos * p - sin * z, at.point.z, p)
        reached = point_at(tilt, z)
        p, gained_then = _kicked(p, reached.tilt_grad, half)
        # What the kicks add to the kinetic energy, the tilt should take.
        change = gained + gained_then - strength * (reached.tilt - at.point.tilt)
        return Trajectory(reached, p, at.energy_change + change)

    start = Trajectory(point, momentum, jnp.zeros_like(point.tilt))
    return jax.lax.fori_loop(0, steps, step, start)


def point_at(tilt: Tilt, z: Latent) -> Point:
    """A latent with the tilt and its gradient."""
    return Point(z, *jax.value_and_grad(tilt)(z))


def potential_at(point: Point) -> Float[Array, ""]:
    """-g(z) - log N(z; 0, I)."""
    dimensions = sum(leaf.size for leaf in jax.tree.leaves(point.z))
    return (_dot(point.z, point.z) + dimensions * math.log(2 * math.pi)) / 2 - point.tilt


def _kicked(
    momentum: Latent, force: Latent, half: Float[Array, ""]
) -> tuple[Latent, Float[Array, ""]]:
    """The momentum after half a kick, and what kinetic energy that adds."""
    after = jax.tree.map(lambda p, force: p + half * force, momentum, force)
    middle = jax.tree.map(lambda p, force: p + half / 2 * force, momentum, force)
    return after, half * _dot(middle, force)


def _dot(a: Latent, b: Latent) -> Float[Array, ""]:
    products = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), a, b))
    return reduce(operator.add, products)


def van_der_corput(index: Int[Array, ""]) -> Float[Array, ""]:
    """The base-2 van der Corput sequence in [0, 1): 0, 1/2, 1/4, 3/4, 1/8, ..."""
    bits = (index >> jnp.arange(24)) & 1
    return bits.astype(jnp.float32) @ jnp.asarray([2.0**-place for place in range(1, 25)])


class Split(MCMCKernel):
    """HMC with exact turns, for p(z) ∝ exp(g(z)) N(z; 0, I).

    A trajectory's angle is jittered over 0.5 to 1.5 times the adapted one, by the van der Corput
    sequence of the iteration: chains side by side have the same and needn't wait for each other.
    During warmup step size and angle are adapted (`Tuning`), with `chain_method="vectorized"`
    pooled over all chains. With `MCMC.run` give `init_params`, N(0, I) draws for example, with a
    leading axis if there are several chains.

    Args:
        tilt: g, a function of z (an array or a tree of arrays) and of the arguments that `run`
            is given, to a scalar.
        target_accept_prob: mean acceptance probability that the step size is adapted to.
        step_size: in radians, where adaptation starts, or for good without warmup.
        angle: likewise, of trajectories.
    """

    sample_field = "z"

    def __init__(
        self,
        tilt: Tilt,
        target_accept_prob: float = 0.8,
        step_size: float = FIRST_STEP,
        angle: float = FIRST_ANGLE,
    ) -> None:
        for name, value in (("step size", step_size), ("angle", angle)):
            if not 0 < value < math.inf:
                raise InputError(f"The {name} must be positive and finite, not {value}.")
        if not 0 < target_accept_prob < 1:
            raise InputError(
                f"The target acceptance must be between 0 and 1, not {target_accept_prob}."
            )
        self._tilt, self._target = tilt, target_accept_prob
        self._step_size, self._angle = step_size, angle
        self._warmup = 0

    @property
    def default_fields(self) -> tuple[str, ...]:
        """What `MCMC` collects beside the latents."""
        return ("z", "diverging")

    def get_diagnostics_str(self, state: AnyState) -> str:
        """For `MCMC`'s progress bar."""
        steps, step = jnp.mean(state.num_steps), jnp.mean(state.adapt_state.step_size)
        acceptance = jnp.mean(state.mean_accept_prob)
        return f"{steps:.0f} steps of {step:.2e} radians. acc. prob={acceptance:.2f}"

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Latent,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any],
    ) -> AnyState:
        """The first state; of several chains if there are several keys.

        Raises:
            InputError: there is no latent to start at.
        """
        if init_params is None:
            raise InputError("The split kernel needs init_params, for example draws of N(0, I).")
        self._warmup = num_warmup

        def begin(key: Array, z: Latent) -> AnyState:
            return self._begin(key, z, model_args, model_kwargs)

        return (begin if is_prng_key(rng_key) else jax.vmap(begin))(rng_key, init_params)

    def _begin(
        self, key: Array, z: Latent, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AnyState:
        point = point_at(lambda z: self._tilt(z, *args, **kwargs), z)
        step, angle = jnp.asarray(self._step_size), jnp.asarray(self._angle)
        potential, zero = potential_at(point), jnp.zeros(())
        return SplitState(
            i=jnp.zeros((), jnp.int32),
            z=z,
            tilt=point.tilt,
            tilt_grad=point.tilt_grad,
            potential_energy=potential,
            energy=potential,
            num_steps=jnp.zeros((), jnp.int32),
            accept_prob=zero,
            mean_accept_prob=zero,
            diverging=jnp.zeros((), bool),
            evidence=Evidence.none(functions=2),
            adapt_state=self._tuned(Tuned(step, angle)),
            rng_key=key,
        )

    def _tuned(self, first: Tuned) -> Tuned:
        """What chains begin with; with where the adaptation stands if this kernel adapts."""
        return first._replace(tuning=Tuning.around(first)) if self._warmup else first

    def sample(
        self, state: AnyState, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]
    ) -> AnyState:
        """One transition, of each chain; in warmup, an adaptation."""

        def move(state: AnyState) -> AnyState:
            return self._move(lambda z: self._tilt(z, *model_args, **model_kwargs), state)

        several = state.i.ndim > 0
        state = jax.vmap(move)(state) if several else move(state)
        started = jnp.where(state.i > self._warmup, state.i - self._warmup, state.i)
        change = (state.accept_prob - state.mean_accept_prob) / started
        state = state._replace(mean_accept_prob=state.mean_accept_prob + change)
        if state.adapt_state.tuning is None:
            return state
        return jax.lax.cond(jnp.all(state.i <= self._warmup), self._adapted, lambda s: s, state)

    def _move(self, tilt: Tilt, state: AnyState) -> AnyState:
        return transition(tilt, state)

    def _adapted(self, state: AnyState) -> AnyState:
        """With step and angle after a transition of the warmup, common to all chains."""
        chains = state.i.shape
        tuning: Any = state.adapt_state.tuning
        evidence = state.evidence
        if chains:
            tuning = jax.tree.map(lambda leaf: leaf[0], tuning)
            evidence = jax.tree.map(lambda leaf: leaf.mean(axis=0), evidence)
        tuning = tuning.update(evidence, self._target)
        tuned = tuning.current(jnp.max(state.i) >= self._warmup)._replace(tuning=tuning)
        tuned = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, chains + leaf.shape), tuned)
        return state._replace(adapt_state=tuned)


class Proposal(NamedTuple):
    """A trajectory's end, and what Metropolis's rule made of it."""

    point: Point
    """Where the chain is then."""
    end: Trajectory
    acceptance: Float[Array, ""]
    diverging: Bool[Array, ""]
    kinetic_energy: Float[Array, ""]
    """At the start."""
    energy_change: Float[Array, ""]
    """Of the chain: 0 if the end was refused."""


def metropolis(
    tilt: Tilt,
    start: Point,
    key: Array,
    step_size: Float[Array, ""],
    steps: Int[Array, ""],
    strength: Float[Array, ""] | float = 1.0,
) -> Proposal:
    """A trajectory with fresh momentum, accepted or refused; leaves N(0, I) exp(b g) as it is.

    Args:
        tilt: g.
        start: where the chain is.
        key: for the momentum and the decision.
        step_size: radians between kicks.
        steps: their number.
        strength: b.
    """
    key_momentum, key_accept = jax.random.split(key)
    momentum = normal_like(key_momentum, start.z)
    end = integrate(tilt, start, momentum, step_size, steps, strength)
    # NaN is no acceptance and an infinite error.
    error = jnp.where(jnp.isnan(end.energy_change), jnp.inf, end.energy_change)
    acceptance = jnp.exp(-jnp.maximum(error, 0.0))
    accepted = jax.random.uniform(key_accept) < acceptance
    point: Point = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), end.point, start)
    return Proposal(
        point,
        end,
        acceptance,
        error > _DIVERGING,
        _dot(momentum, momentum) / 2,
        jnp.where(accepted, error, 0.0),
    )


def transition(tilt: Tilt, state: SplitState) -> SplitState:
    """One Metropolis-corrected trajectory from a chain's state; without adaptation."""
    key, key_move = jax.random.split(state.rng_key)
    start = Point(state.z, state.tilt, state.tilt_grad)
    steps, step_size = divided(state.adapt_state, state.i)
    moved = metropolis(tilt, start, key_move, step_size, steps)
    return state._replace(
        i=state.i + 1,
        z=moved.point.z,
        tilt=moved.point.tilt,
        tilt_grad=moved.point.tilt_grad,
        potential_energy=potential_at(moved.point),
        energy=state.potential_energy + moved.kinetic_energy + moved.energy_change,
        num_steps=steps,
        accept_prob=moved.acceptance,
        diverging=moved.diverging,
        evidence=jump_evidence(start, moved, step_size, steps),
        rng_key=key,
    )


def divided(
    tuned: Tuned, index: Int[Array, ""]
) -> tuple[Int[Array, "*rung"], Float[Array, "*rung"]]:
    """How many steps of what size the trajectory of a transition needs.

    Args:
        tuned: step size and angle, of one density or of several rungs.
        index: the transition's number.

    Returns:
        Each rung's number of steps, and the step that divides its angle by the largest of them.
    """
    assert tuned.angle is not None
    angle = tuned.angle * (0.5 + van_der_corput(index))
    steps = jnp.clip(jnp.ceil(angle / tuned.step_size), 1, MOST_STEPS)
    return steps.astype(jnp.int32), jnp.minimum(angle / steps.max(), tuned.step_size)


def jump_evidence(
    start: Point, moved: Proposal, step_size: Float[Array, ""], steps: Int[Array, ""]
) -> Evidence:
    """How far the proposal jumped in two functions, |z|^2/2 and the tilt.

    Args:
        start: of the trajectory.
        moved: what came of it.
        step_size: radians between its kicks.
        steps: their number.
    """
    end, angle = moved.end, step_size * steps.astype(step_size.dtype)
    z, p = end.point.z, end.momentum
    jump = jnp.stack([(_dot(z, z) - _dot(start.z, start.z)) / 2, end.point.tilt - start.tilt])
    # Along the trajectory z changes by p per radian.
    slope = angle * jnp.stack([_dot(z, p), _dot(end.point.tilt_grad, p)])
    weight = jnp.where(moved.acceptance > 0, moved.acceptance, 0.0)
    squared, slope = (jnp.nan_to_num(weight * jump * each) for each in (jump, 2 * slope))
    return Evidence(moved.acceptance, squared, slope, (steps > 1).astype(jnp.float32))


def normal_like(key: Array, like: Latent) -> Latent:
    """A draw of N(0, I) of the shape of another latent."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    draws = [
        jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, draws)
