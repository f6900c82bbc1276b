"""Trajectories that turn (z, p) exactly and kick p with the gradient of the tilt alone.

They serve densities p(z) ∝ exp(g(z)) N(z; 0, I). The tilt g is f(R(z))/T of a tilted density, or
any other function. The flow of the Gaussian part of the energy |z|^2/2 + |p|^2/2 - g(z) is a
rotation of (z, p); so the step need only suit the tilt, whatever the number of dimensions.
"""

import math
import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ppl_cnn.inference.kernels.adaptation import Feedback, Tuned

type Latent = PyTree[Float[Array, "..."]]
"""z: an array or a tree of arrays."""
type Tilt = Callable[..., Float[Array, ""]]
"""g, a function of z and perhaps of other arguments."""

FIRST_STEP = 1.0
"""Radians. Long steps cost few gradients, so that learning that they are too long is cheap."""
FIRST_ANGLE = math.pi / 2
"""Radians. Without a tilt, a quarter turn forgets the start."""
MOST_STEPS = 1000
"""Steps of a trajectory at most; with more needed, it ends before its angle is reached."""
_DIVERGING = 1000.0
"""Energy error from which a transition diverges, as in NumPyro and Stan."""


class Point(NamedTuple):
    """A latent with the tilt and its gradient there."""

    z: Latent
    tilt: Float[Array, ""]
    tilt_grad: Latent


class Trajectory(NamedTuple):
    """The end of a trajectory."""

    point: Point
    momentum: Latent
    energy_change: Float[Array, ""]
    """Energy minus that of the start. It is summed over the kicks alone, as turns change nothing:
    the energy itself grows with the dimensions and would leave float32 few digits of it."""


class Proposal(NamedTuple):
    """A trajectory's end and Metropolis's decision about it."""

    point: Point
    """Where the chain is after the decision."""
    end: Trajectory
    acceptance: Float[Array, ""]
    """Probability of acceptance."""
    diverging: Bool[Array, ""]
    kinetic_energy: Float[Array, ""]
    """|p|^2/2 at the start."""
    energy_change: Float[Array, ""]
    """The chain's change of energy: 0 if the end was rejected."""


def point_at(tilt: Tilt, z: Latent) -> Point:
    """A latent with the tilt and its gradient there."""
    return Point(z, *jax.value_and_grad(tilt)(z))


def potential_at(point: Point) -> Float[Array, ""]:
    """-g(z) - log N(z; 0, I)."""
    dimensions = sum(leaf.size for leaf in jax.tree.leaves(point.z))
    potential: Array = (_dot(point.z, point.z) + dimensions * math.log(2 * math.pi)) / 2
    return potential - point.tilt


def integrate(
    tilt: Tilt,
    point: Point,
    momentum: Latent,
    step_size: Float[Array, ""] | float,
    steps: Int[Array, ""] | int,
    strength: Float[Array, ""] | float = 1.0,
) -> Trajectory:
    """Follows a trajectory of N(0, I) exp(b g): half a kick, a turn, half a kick, and so on.

    The map (z, p) -> (z', p') keeps volumes, and from (z', -p') it leads back to (z, -p). A kick in
    the middle of a turn by h is 2 tan(h/2) grad g, which is h grad g up to h^3: then a linear
    tilt's trajectory has no error, whatever h. One step goes to cos h z + (1 - cos h) grad g +
    sin h xi, the proposal of pCNL, and for a linear tilt its quarter turn is an independent draw.

    Args:
        tilt: g.
        point: where the trajectory starts.
        momentum: p at the start.
        step_size: radians between kicks.
        steps: number of turns; also the number of gradients.
        strength: b.

    Source: Shahbaba, Lan, Johnson, Neal, Split Hamiltonian Monte Carlo, Statistics and Computing
    24, 2014; Beskos, Pinski, Sanz-Serna, Stuart, Hybrid Monte Carlo on Hilbert spaces, Stochastic
    Processes and their Applications 121, 2011. pCNL: Cotter, Roberts, Stuart, White, MCMC methods
    for functions, Statistical Science 28, 2013.
    """
    half = strength * jnp.tan(jnp.asarray(step_size) / 2)
    turn = jnp.cos(step_size), jnp.sin(step_size)

    def step(_: Array, at: Trajectory) -> Trajectory:
        return stepped(tilt, at, half, turn, half, strength)

    start = Trajectory(point, momentum, jnp.zeros_like(point.tilt))
    end: Trajectory = jax.lax.fori_loop(0, steps, step, start)
    return end


def stepped(
    tilt: Tilt,
    at: Trajectory,
    before: Float[Array, ""],
    turn: tuple[Float[Array, ""], Float[Array, ""]],
    after: Float[Array, ""],
    strength: Float[Array, ""] | float = 1.0,
) -> Trajectory:
    """The trajectory after a kick, a turn of (z, p), and another kick.

    Args:
        tilt: g.
        at: where it has come to.
        before: size of the first kick, by the gradient that is known there.
        turn: cosine and sine of the angle.
        after: size of the other kick.
        strength: b, with which changes of the tilt count.
    """
    p, gained = _kicked(at.momentum, at.point.tilt_grad, before)
    z, p = rotated(at.point.z, p, turn)
    reached = point_at(tilt, z)
    p, gained_then = _kicked(p, reached.tilt_grad, after)
    # What the kicks add to the kinetic energy, the tilt should take.
    change = gained + gained_then - strength * (reached.tilt - at.point.tilt)
    return Trajectory(reached, p, at.energy_change + change)


def rotated(
    z: Latent, p: Latent, turn: tuple[Float[Array, ""], Float[Array, ""]]
) -> tuple[Latent, Latent]:
    """Latent and momentum after a turn, of which cosine and sine are given."""
    cos, sin = turn
    after = jax.tree.map(lambda z, p: cos * z + sin * p, z, p)
    return after, jax.tree.map(lambda z, p: cos * p - sin * z, z, p)


def _kicked(
    momentum: Latent, force: Latent, half: Float[Array, ""]
) -> tuple[Latent, Float[Array, ""]]:
    """The momentum after half a kick, and the kinetic energy that it adds."""
    after = jax.tree.map(lambda p, force: p + half * force, momentum, force)
    middle = jax.tree.map(lambda p, force: p + half / 2 * force, momentum, force)
    return after, half * _dot(middle, force)


def _dot(a: Latent, b: Latent) -> Float[Array, ""]:
    products: list[Array] = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), a, b))
    return reduce(operator.add, products)


def metropolis(
    tilt: Tilt,
    start: Point,
    key: Array,
    step_size: Float[Array, ""],
    steps: Int[Array, ""],
    strength: Float[Array, ""] | float = 1.0,
) -> Proposal:
    """A trajectory with fresh momentum, accepted or rejected; N(0, I) exp(b g) is invariant.

    Args:
        tilt: g.
        start: where the chain is.
        key: random key of the momentum and the decision.
        step_size: radians between kicks.
        steps: number of kicks.
        strength: b.
    """
    key_momentum, key_accept = jax.random.split(key)
    momentum = normal_like(key_momentum, start.z)
    end = integrate(tilt, start, momentum, step_size, steps, strength)
    return decided(start, momentum, end, key_accept)


def decided(start: Point, momentum: Latent, end: Trajectory, key: Array) -> Proposal:
    """Metropolis's decision about a trajectory's end.

    Args:
        start: where it began.
        momentum: p there.
        end: its end.
        key: random key of the decision.
    """
    # NaN is never accepted and counts as an infinite error.
    error = jnp.where(jnp.isnan(end.energy_change), jnp.inf, end.energy_change)
    acceptance = jnp.exp(-jnp.maximum(error, 0.0))
    accepted = jax.random.uniform(key) < acceptance
    point: Point = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), end.point, start)
    return Proposal(
        point,
        end,
        acceptance,
        error > _DIVERGING,
        _dot(momentum, momentum) / 2,
        jnp.where(accepted, error, 0.0),
    )


class Turns(NamedTuple):
    """What turns without kicks have come to."""

    point: Point
    """Where the chain is, with the gradient of where it was before."""
    acceptance: Float[Array, ""]
    """Mean probability of acceptance."""
    jump: Float[Array, " function"]
    """Mean of what the turns `jumped`."""
    proposed: Float[Array, ""]
    """g where the last turn led to, accepted or not."""


def turned(
    tilt: Tilt,
    start: Point,
    key: Array,
    angle: Float[Array, ""],
    count: Int[Array, ""],
    doublings: Int[Array, ""] | int = 0,
) -> Turns:
    """Turns of z alone, each accepted or rejected by the tilt; N(0, I) exp(g) is invariant.

    A turn goes from z to cos(a) z + sin(a) xi, xi ~ N(0, I). It takes a forward pass, no gradient.

    Args:
        tilt: g.
        start: where the chain is.
        key: random key of the turns and the decisions.
        angle: the smallest a.
        count: number of turns; none stays.
        doublings: how often an angle is doubled at most. Each turn draws how often its own is.
    """

    def turn(index: Array, at: Turns) -> Turns:
        here = at.point
        each = jax.random.fold_in(key, index)
        key_noise, key_accept = jax.random.split(each)
        # Two isn't among what the key is split in.
        doubled = jax.random.randint(jax.random.fold_in(each, 2), (), 0, doublings + 1)
        own = angle * 2.0**doubled
        cos, sin = jnp.cos(own), jnp.sin(own)
        noise = normal_like(key_noise, here.z)
        z = jax.tree.map(lambda z, xi: cos * z + sin * xi, here.z, noise)
        reached = here._replace(z=z, tilt=tilt(z))
        gain = reached.tilt - here.tilt
        # A tilt that isn't a number is never accepted.
        acceptance = jnp.where(jnp.isnan(gain), 0.0, jnp.exp(jnp.minimum(gain, 0.0)))
        accepted = jax.random.uniform(key_accept) < acceptance
        point: Point = jax.tree.map(partial(jnp.where, accepted), reached, here)
        jump = at.jump + jumped(here, reached, acceptance)
        return Turns(point, at.acceptance + acceptance, jump, reached.tilt)

    first = Turns(start, jnp.zeros(()), jnp.zeros(2), start.tilt)
    total: Turns = jax.lax.fori_loop(0, count, turn, first)
    each = jnp.maximum(count, 1).astype(jnp.float32)
    return total._replace(acceptance=total.acceptance / each, jump=total.jump / each)


def jumped(start: Point, end: Point, acceptance: Float[Array, ""]) -> Float[Array, " function"]:
    """Half the squared jumps that are expected: a |z' - z|^2 / 2d and a (g(z') - g(z))^2 / 2.

    Args:
        start: z.
        end: z'.
        acceptance: probability a of going there.
    """
    apart = jax.tree.map(jnp.subtract, end.z, start.z)
    squared = jnp.stack([mean_square(apart), (end.tilt - start.tilt) ** 2])
    half: Array = jnp.where(acceptance > 0, acceptance * squared / 2, 0.0)
    return half


def mean_square(z: Latent) -> Float[Array, ""]:
    """|z|^2 / d."""
    mean: Array = _dot(z, z) / sum(leaf.size for leaf in jax.tree.leaves(z))
    return mean


def divided(
    tuned: Tuned, index: Int[Array, ""]
) -> tuple[Int[Array, "*rung"], Float[Array, "*rung"]]:
    """Number and size of the steps of a transition's trajectory.

    Where a quarter turn or less takes one step, that step is taken, never more than a quarter turn:
    without a tilt, it forgets the start, and half a turn comes back to its mirror image. A longer
    trajectory is jittered over 0.5 to 1.5 times the adapted angle, by the van der Corput sequence
    of the transition's number: trajectories of one length may come back to where they began.

    Args:
        tuned: step size and angle, of one density or of several rungs.
        index: the transition's number.

    Returns:
        Each rung's number of steps, and the step that divides its angle by them.
    """
    assert tuned.angle is not None
    once = jnp.minimum(tuned.angle, FIRST_ANGLE)
    several = once > tuned.step_size
    angle = jnp.where(several, tuned.angle * (0.5 + van_der_corput(index)), once)
    steps = jnp.clip(jnp.ceil(angle / tuned.step_size), 1, MOST_STEPS)
    return steps.astype(jnp.int32), jnp.minimum(angle / steps, tuned.step_size)


def van_der_corput(index: Int[Array, ""]) -> Float[Array, ""]:
    """The base-2 van der Corput sequence in [0, 1): 0, 1/2, 1/4, 3/4, 1/8, ..."""
    bits = (index >> jnp.arange(24)) & 1
    return bits.astype(jnp.float32) @ jnp.asarray([2.0**-place for place in range(1, 25)])


def jump_feedback(
    start: Point, moved: Proposal, step_size: Float[Array, ""], steps: Int[Array, ""]
) -> Feedback:
    """How far the proposal jumped in two functions of z: |z|^2/2 and the tilt.

    Args:
        start: where the trajectory started.
        moved: its end.
        step_size: radians between kicks.
        steps: number of kicks.
    """
    end, angle = moved.end, step_size * steps.astype(step_size.dtype)
    z, p = end.point.z, end.momentum
    jump = jnp.stack([(_dot(z, z) - _dot(start.z, start.z)) / 2, end.point.tilt - start.tilt])
    # Along the trajectory z changes by p per radian.
    slope = angle * jnp.stack([_dot(z, p), _dot(end.point.tilt_grad, p)])
    weight = jnp.where(moved.acceptance > 0, moved.acceptance, 0.0)
    squared, slope = (jnp.nan_to_num(weight * jump * each) for each in (jump, 2 * slope))
    return Feedback(moved.acceptance, squared, slope, (steps > 1).astype(jnp.float32))


def normal_like(key: Array, like: Latent) -> Latent:
    """A draw of N(0, I) that has the structure of another latent."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    draws = [
        jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, draws)
