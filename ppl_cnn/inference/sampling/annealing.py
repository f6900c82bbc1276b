"""Annealing: particles that climb from the reference to the tilted density.

At the strength b the density is proportional to exp(b g(z)) N(z; 0, I), g = f/T: the reference at
0, where draws are exact, and the tilted density at 1. On the way up particles gather weights, which
make up for what their moves don't reach. With resampling (sequential Monte Carlo) their end is an
approximate draw of the density, where chains start; without it (annealed importance sampling)
the mean weight is an estimate of log Z that `evidence` takes. Both move particles by `moved`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import logsumexp

from ppl_cnn.errors import InputError
from ppl_cnn.inference.kernels.adaptation import LONGEST, Tuned
from ppl_cnn.inference.kernels.trajectory import (
    FIRST_ANGLE,
    FIRST_STEP,
    Point,
    divided,
    metropolis,
    point_at,
)
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.graph import Params

PARTICLES = 16
"""Of each chain that starts by annealing."""
_KEPT = 0.9
"""What a rung leaves of the effective number of particles: its log weights have a variance of
about 0.1."""
RESAMPLED = 0.5
"""From this share of the particles' effective number down, they are resampled."""
_ACCEPTANCE = 0.8
_MOST_KICKS = 32
"""Of a trajectory of middle length; where steps are so small that a quarter turn needs more, it
turns less."""
_MOVED = 0.5
"""Trajectories that a particle is expected to accept on each rung, at least."""
_MOST_TRIES = 20


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.error:.2g}"


def mean_weight(logs: Float[np.ndarray, " particle"]) -> tuple[Estimate, float]:
    """The log of the mean of independent weights with these logs, and their effective number."""
    largest = logs.max()
    relative = np.exp(logs - largest)
    mean = relative.mean()
    error = relative.std(ddof=1) / np.sqrt(len(logs)) / mean
    effective = relative.sum() ** 2 / (relative**2).sum()
    return Estimate(float(largest + np.log(mean)), float(error)), float(effective)


class Particles(NamedTuple):
    """Climbing side by side."""

    points: Point
    logs: Float[Array, " particle"]
    """Log weights; the log of their mean estimates log Z of the density that they have reached."""


class Ladder(NamedTuple):
    """The strengths that particles go through, each by a trajectory; some more than once."""

    strengths: Float[np.ndarray, " rung_and_reference"]
    """b, from 0 to 1."""
    step_sizes: Float[np.ndarray, " rung"]
    """Radians, of the trajectory at each strength above the reference."""
    angles: Float[np.ndarray, " rung"]
    """Likewise."""


@partial(jax.jit, static_argnums=0)
def begun(density: TiltedDensity, params: Params, keys: Array) -> Particles:
    """Particles at draws of the reference."""

    def begin(key: Array) -> Point:
        z = jax.random.normal(key, density.latent_shape)
        return point_at(partial(density.tilt, params=params), z)

    return Particles(jax.vmap(begin)(keys), jnp.zeros(len(keys)))


@partial(jax.jit, static_argnums=0)
def risen(
    density: TiltedDensity,
    params: Params,
    particles: Particles,
    keys: Array,
    index: Int[Array, ""],
    strengths: Float[Array, " 2"],
    tuned: Tuned,
    fewest: Float[Array, ""],
) -> tuple[Particles, Float[Array, ""], Int[Array, ""]]:
    """Particles on the next rung: weighed, perhaps resampled, and moved by a trajectory.

    Args:
        density: of whose program the unit is.
        params: the unit's weights.
        particles: with the density of the rung below.
        keys: of each, the same on all rungs.
        index: the rung's number.
        strengths: b below and here.
        tuned: step size and angle here.
        fewest: effective particles; if there are fewer, they are resampled, and each then has
            the mean of the weights. 0 for never.

    Returns:
        The particles, their mean acceptance probability, and the gradients of each.
    """
    tilt = partial(density.tilt, params=params)
    points, logs = particles
    logs = logs + (strengths[1] - strengths[0]) * points.tilt
    keys = jax.vmap(partial(jax.random.fold_in, data=index))(keys)
    poor = 1 / (jax.nn.softmax(logs) ** 2).sum() < fewest
    # A key of its own: `metropolis` splits 0 and 1 off the same.
    offset = jax.random.uniform(jax.random.fold_in(keys[0], 2))
    order = jnp.where(poor, resampled(logs, offset), jnp.arange(len(logs)))
    points = jax.tree.map(lambda leaf: leaf[order], points)
    logs = jnp.where(poor, jax.nn.logsumexp(logs) - math.log(len(logs)), logs)
    steps, step_size = divided(tuned, index)
    move = jax.vmap(lambda point, key: metropolis(tilt, point, key, step_size, steps, strengths[1]))
    proposal = move(points, keys)
    acceptance = jnp.nan_to_num(proposal.acceptance).mean()
    return Particles(proposal.point, logs), acceptance, steps


def resampled(logs: Float[Array, " particle"], offset: Array) -> Int[Array, " particle"]:
    """Which particle each is replaced by, systematically: each is expected as often as it weighs.

    Args:
        logs: log weights.
        offset: uniform in [0, 1).
    """
    places = (jnp.arange(len(logs)) + offset) / len(logs)
    ends = jnp.cumsum(jax.nn.softmax(logs))
    return jnp.searchsorted(ends, places, side="right").clip(0, len(logs) - 1)


def climb(
    density: TiltedDensity,
    params: Params,
    keys: Array,
    ladder: Ladder,
    fewest: float = 0.0,
    told: Callable[[float], object] = lambda strength: None,
) -> tuple[Particles, int]:
    """Particles that have gone up a ladder from the reference, and the gradients of them all.

    Args:
        density: of whose program the unit is; what was compiled for one serves all.
        params: the unit's weights.
        keys: of the particles.
        ladder: on which the weights depend in no way, so that their mean is an unbiased estimate.
        fewest: effective particles, below which they are resampled; 0 for independent ones.
        told: each strength.
    """
    particles, gradients = begun(density, params, keys), len(keys)
    for index, (step, angle) in enumerate(zip(ladder.step_sizes, ladder.angles, strict=True)):
        strengths = np.asarray(ladder.strengths[index : index + 2], np.float32)
        tuned = Tuned(jnp.float32(step), jnp.float32(angle))
        at = (keys, np.int32(index), strengths, tuned, np.float32(fewest))
        particles, _, steps = risen(density, params, particles, *at)
        gradients += len(keys) * int(steps)
        told(float(strengths[1]))
    return particles, gradients


def scouted(
    density: TiltedDensity,
    params: Params,
    keys: Array,
    told: Callable[[float], object] = lambda strength: None,
) -> tuple[Ladder, int]:
    """A ladder for a unit, found by particles that go up and aren't used again; their gradients.

    The next strength is where the incremental weights leave 0.9 of the particles' effective
    number, and at most twice the last. At each they move by trajectories of about a quarter
    turn, of 32 steps at most, until each is expected to have accepted half a one; the step follows
    their acceptance.

    Args:
        density: of whose program the unit is; what was compiled for one serves all.
        params: the unit's weights.
        keys: of the particles.
        told: each strength.

    Raises:
        InputError: the response of one isn't finite.

    Source: Zhou, Johansen, Aston, Toward automatic model comparison: an adaptive sequential Monte
    Carlo approach, JCGS 25, 2016.
    """
    particles, gradients = begun(density, params, keys), len(keys)
    strengths, steps, angles = [0.0], list[float](), list[float]()
    step, fewest = FIRST_STEP, np.float32(RESAMPLED * len(keys))
    while strengths[-1] < 1:
        strength = strengths[-1] + next_gap(particles, strengths[-1])
        if not math.isfinite(strength):
            raise InputError(
                "The response at a draw of the reference, or near one, is not finite: the "
                "network's weights or preprocessing can't be right."
            )
        accepted, tries = 0.0, 0
        while accepted < _MOVED and tries < _MOST_TRIES:
            steps.append(step)
            angles.append(min(FIRST_ANGLE, _MOST_KICKS * step))
            strengths.append(min(1.0, strength))
            pair = np.asarray(strengths[-2:], np.float32)
            tuned = Tuned(jnp.float32(steps[-1]), jnp.float32(angles[-1]))
            at = (keys, np.int32(len(steps) - 1), pair, tuned, fewest)
            particles, acceptance, taken = risen(density, params, particles, *at)
            step = min(step * math.exp(float(acceptance) - _ACCEPTANCE), LONGEST)
            accepted, tries = accepted + float(acceptance), tries + 1
            gradients += len(keys) * int(taken)
        told(strengths[-1])
    return Ladder(np.asarray(strengths), np.asarray(steps), np.asarray(angles)), gradients


def next_gap(particles: Particles, strength: float) -> float:
    """How much stronger the next rung is: as much as the incremental weights bear.

    These are w = exp(gap g). With the particles' normalised weights W, the share that they leave
    of the effective number is (sum W w)^2 / sum W w^2.

    Args:
        particles: on the rung before.
        strength: there.

    Returns:
        NaN if a tilt isn't finite.
    """
    logs, tilts = (np.asarray(each, np.float64) for each in (particles.logs, particles.points.tilt))
    if not np.isfinite(tilts).all():
        return math.nan
    logs = logs - logsumexp(logs)

    def left(gap: float) -> float:
        first, second = (float(logsumexp(logs + power * gap * tilts)) for power in (1, 2))
        return math.exp(2 * first - second)

    # Draws of the reference say how far; later particles may lag behind, so at most twice as far.
    low, high = 0.0, min(1 - strength, strength or 1.0)
    if left(high) >= _KEPT:
        return high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) >= _KEPT else (low, middle)
    return high


class Arrival(NamedTuple):
    """What a chain's particles have come to."""

    z: Float[Array, "row col channel"]
    """Of one of them, an approximate draw of the density."""
    log_z: float
    """The log of an unbiased estimate of Z."""
    gradients: int
    """Of all particles."""


def anneal(
    density: TiltedDensity,
    params: Params,
    key: Array,
    ladder: Ladder,
    particles: int = PARTICLES,
    told: Callable[[float], object] = lambda strength: None,
) -> Arrival:
    """A chain's start by sequential Monte Carlo.

    Args:
        density: of whose program the unit is; what was compiled for one serves all.
        params: the unit's weights.
        key: of the chain.
        ladder: as `scouted` finds it.
        particles: resampled below a half of their effective number; the error in the start's
            distribution is of the order of their inverse.
        told: each strength.

    Source: Del Moral, Doucet, Jasra, Sequential Monte Carlo samplers, JRSS B 68, 2006.
    """
    key_climb, key_choice = jax.random.split(key)
    keys = jax.random.split(key_climb, particles)
    end, gradients = climb(density, params, keys, ladder, RESAMPLED * particles, told)
    chosen = jax.random.categorical(key_choice, end.logs)
    log_z = float(logsumexp(np.asarray(end.logs, np.float64)) - math.log(particles))
    return Arrival(end.points.z[chosen], log_z, gradients)
