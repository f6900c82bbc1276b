"""Annealing: particles that climb from the reference to the tilted density.

At the strength b the density is proportional to exp(b g(z)) N(z; 0, I) with g = f/T. At b = 0 it is
the reference, where draws are exact; at b = 1 it is the tilted density. On the way up, particles
gather weights, which make up for what their moves don't reach.

With resampling (sequential Monte Carlo), one of the particles is an approximate draw of the
density, where a chain starts. Without it (annealed importance sampling), the mean weight is an
estimate of log Z. Both move particles by `step`.
"""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import logsumexp

from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.kernels.adaptation import LONGEST, Tuned
from ppl_cnn.inference.kernels.moves.trajectory import (
    FIRST_ANGLE,
    FIRST_STEP,
    Point,
    Proposal,
    divided,
    metropolis,
    point_at,
)
from ppl_cnn.models.density import DensityParams, TiltedDensity

PARTICLES = 16
"""Particles of each chain that starts by annealing."""
_KEPT = 0.9
"""The share of the particles' effective number that a schedule's next strength leaves: the log
weights then vary by about 0.1."""
RESAMPLED = 0.5
"""Particles are resampled when their effective number falls below this share."""
_ACCEPTANCE = 0.8
"""The mean acceptance probability that step sizes of a schedule aim at."""
_MOST_KICKS = 32
"""Steps of a trajectory of middle length, at most. Where steps are so small that a quarter turn
needs more, it turns less."""
_MOVED = 0.5
"""Trajectories that a particle is expected to accept at each strength, at least."""
_AHEAD = 2
"""Steps that wait on the device while the host goes on."""
_MOST_TRIES = 20
"""Trajectories at each strength, at most."""


class Particles(NamedTuple):
    """Weighted particles at one strength."""

    points: Point
    logs: Float[Array, " particle"]
    """Log weights; the log of the mean weight estimates log Z of the density reached."""


class AnnealingSchedule(NamedTuple):
    """The strengths that particles climb through, with a trajectory's length at each."""

    strengths: Float[np.ndarray, " step_and_reference"]
    """b, from 0 to 1; some strengths come more than once."""
    step_sizes: Float[np.ndarray, " step"]
    """The integrator's step at each strength above the reference, in radians."""
    angles: Float[np.ndarray, " step"]
    """The trajectory's whole turn at each strength above the reference, in radians."""


@partial(jax.jit, static_argnums=0)
def first_particles(density: TiltedDensity, params: DensityParams, keys: Array) -> Particles:
    """Particles at draws of the reference, with equal weights.

    Args:
        density: the target, or one with the same program.
        params: the density's weights.
        keys: a key for each particle.
    """

    def begin(key: Array) -> Point:
        z = jax.random.normal(key, density.latent_shape)
        return point_at(partial(density.tilt, params=params), z)

    return Particles(jax.vmap(begin)(keys), jnp.zeros(len(keys)))


@partial(jax.jit, static_argnums=0)
def step(
    density: TiltedDensity,
    params: DensityParams,
    particles: Particles,
    keys: Array,
    index: Int[Array, ""],
    strengths: Float[Array, " 2"],
    tuned: Tuned,
    fewest: Float[Array, ""],
) -> tuple[Particles, Float[Array, ""], Int[Array, ""]]:
    """Takes particles to the next strength: weights them, may resample them, and moves them.

    Args:
        density: the target, or one with the same program.
        params: the density's weights.
        particles: those at the strength before.
        keys: a key for each particle, the same at all strengths.
        index: the number of the step.
        strengths: b before and now.
        tuned: step size and angle of the trajectory.
        fewest: particles are resampled if their effective number is less than this; each then
            has the mean weight. 0 never resamples.

    Returns:
        The particles, their mean acceptance probability, and the gradients that each took.
    """
    tilt = partial(density.tilt, params=params)
    points, logs = particles
    logs = logs + (strengths[1] - strengths[0]) * points.tilt
    keys = jax.vmap(partial(jax.random.fold_in, data=index))(keys)
    poor = 1 / (jax.nn.softmax(logs) ** 2).sum() < fewest
    # A key of its own: `metropolis` splits 0 and 1 off the same.
    offset = jax.random.uniform(jax.random.fold_in(keys[0], 2))
    order = jnp.where(poor, systematic_resampling(logs, offset), jnp.arange(len(logs)))
    points = jax.tree.map(lambda leaf: leaf[order], points)
    logs = jnp.where(poor, jax.nn.logsumexp(logs) - math.log(len(logs)), logs)
    steps, step_size = divided(tuned, index)
    move: Callable[..., Proposal] = jax.vmap(
        lambda point, key: metropolis(tilt, point, key, step_size, steps, strengths[1])
    )
    proposal = move(points, keys)
    acceptance = jnp.nan_to_num(proposal.acceptance).mean()
    return Particles(proposal.point, logs), acceptance, steps


@partial(jax.jit, static_argnums=0)
def _first_of_chains(density: TiltedDensity, params: DensityParams, keys: Array) -> Particles:
    """`first_particles` of several chains; all arrays have an axis of chains in front."""
    found: Particles = jax.vmap(partial(first_particles, density, params))(keys)
    return found


@partial(jax.jit, static_argnums=0)
def _step_of_chains(
    density: TiltedDensity,
    params: DensityParams,
    particles: Particles,
    keys: Array,
    *at: Array | Tuned,
) -> tuple[Particles, Float[Array, " chain"], Int[Array, " chain"]]:
    """`step` of several chains, side by side."""

    def move(particles: Particles, keys: Array) -> tuple[Particles, Array, Array]:
        moved: tuple[Particles, Array, Array] = step(density, params, particles, keys, *at)
        return moved

    return jax.vmap(move)(particles, keys)


def systematic_resampling(
    logs: Float[Array, " particle"], offset: Array
) -> Int[Array, " particle"]:
    """The index of the particle that each is replaced by.

    Each particle is expected in proportion to its weight.

    Args:
        logs: log weights.
        offset: a draw of the uniform distribution on [0, 1).
    """
    places = (jnp.arange(len(logs)) + offset) / len(logs)
    ends = jnp.cumsum(jax.nn.softmax(logs))
    return jnp.searchsorted(ends, places, side="right").clip(0, len(logs) - 1)


def climb(
    density: TiltedDensity,
    params: DensityParams,
    keys: Array,
    schedule: AnnealingSchedule,
    *,
    fewest: float = 0.0,
    show: Callable[[float], object] = lambda strength: None,
) -> tuple[Particles, int]:
    """Particles that climb a schedule from the reference, and the gradients that all took.

    Args:
        density: the target, or one with the same program, for which functions are compiled.
        params: the density's weights.
        keys: a key for each particle; with an axis of chains in front, those of several chains,
            which resample apart, and so have all arrays of the result.
        schedule: made without these particles; then their mean weight is unbiased.
        fewest: particles are resampled if their effective number is less than this; 0 leaves
            them independent.
        show: called with each strength.
    """
    first, move = (first_particles, step) if keys.ndim == 1 else (_first_of_chains, _step_of_chains)
    particles, gradients = first(density, params, keys), keys.size
    waiting = deque[Array]()
    for index, (size, angle) in enumerate(zip(schedule.step_sizes, schedule.angles, strict=True)):
        strengths = np.asarray(schedule.strengths[index : index + 2], np.float32)
        tuned = Tuned(jnp.float32(size), jnp.float32(angle))
        at = (keys, np.int32(index), strengths, tuned, np.float32(fewest))
        particles, _, taken = move(density, params, particles, *at)
        waiting.append(taken)
        if len(waiting) > _AHEAD:
            gradients += _gradients(keys, waiting.popleft())
        show(float(strengths[1]))
    return particles, gradients + sum(_gradients(keys, each) for each in waiting)


def _gradients(keys: Array, taken: Array) -> int:
    """What particles with these keys took together, of what each did, in one chain or several."""
    return keys.size // taken.size * int(taken.sum())


def find_schedule(
    density: TiltedDensity,
    params: DensityParams,
    keys: Array,
    *,
    show: Callable[[float], object] = lambda strength: None,
) -> tuple[AnnealingSchedule, int]:
    """A schedule for a density, and the gradients that finding it took.

    Particles climb to find it and are not used again. The next strength is where the incremental
    weights leave 0.9 of the particles' effective number, and at most twice the last. At each
    strength the particles move by trajectories of about a quarter turn, of 32 steps at most, until
    each is expected to have accepted half a trajectory. The step size follows their acceptance.

    Args:
        density: the target, or one with the same program, for which functions are compiled.
        params: the density's weights.
        keys: a key for each particle.
        show: called with each strength.

    Raises:
        MismatchError: a particle's score is not finite.

    Source: Zhou, Johansen, Aston, Toward automatic model comparison: an adaptive sequential Monte
    Carlo approach, JCGS 25, 2016.
    """
    particles, gradients = first_particles(density, params, keys), len(keys)
    strengths, sizes, angles = [0.0], list[float](), list[float]()
    size, fewest = FIRST_STEP, np.float32(RESAMPLED * len(keys))
    while strengths[-1] < 1:
        strength = strengths[-1] + next_gap(particles, strengths[-1])
        if not math.isfinite(strength):
            raise MismatchError(
                "The score at or near a draw of the reference is not finite. Check the weights "
                "and the preprocessing."
            )
        accepted, tries = 0.0, 0
        while accepted < _MOVED and tries < _MOST_TRIES:
            sizes.append(size)
            angles.append(min(FIRST_ANGLE, _MOST_KICKS * size))
            strengths.append(min(1.0, strength))
            pair = np.asarray(strengths[-2:], np.float32)
            tuned = Tuned(jnp.float32(sizes[-1]), jnp.float32(angles[-1]))
            at = (keys, np.int32(len(sizes) - 1), pair, tuned, fewest)
            particles, acceptance, taken = step(density, params, particles, *at)
            size = min(size * math.exp(float(acceptance) - _ACCEPTANCE), LONGEST)
            accepted, tries = accepted + float(acceptance), tries + 1
            gradients += len(keys) * int(taken)
        show(strengths[-1])
    found = AnnealingSchedule(np.asarray(strengths), np.asarray(sizes), np.asarray(angles))
    return found, gradients


def next_gap(particles: Particles, strength: float) -> float:
    """The gap to the next strength: the largest that leaves 0.9 of the effective number.

    The incremental weights are w = exp(gap g). With the particles' normalised weights W they leave
    the share (sum W w)^2 / sum W w^2 of the effective number.

    Args:
        particles: those at the strength before.
        strength: b there.

    Returns:
        The gap, at most 1 - b and at most b (if b > 0); NaN if a tilt isn't finite.
    """
    logs, tilts = (np.asarray(each, np.float64) for each in (particles.logs, particles.points.tilt))
    if not np.isfinite(tilts).all():
        return math.nan
    logs = logs - logsumexp(logs)

    def left(gap: float) -> float:
        first, second = (float(logsumexp(logs + power * gap * tilts)) for power in (1, 2))
        return math.exp(2 * first - second)

    # Draws of the reference are exact. Later particles may lag behind, so b at most doubles.
    low, high = 0.0, min(1 - strength, strength or 1.0)
    if left(high) >= _KEPT:
        return high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) >= _KEPT else (low, middle)
    return high


class Arrival(NamedTuple):
    """Where the particles of a chain, or of several, have arrived."""

    z: Float[Array, "..."]
    """The latent of one particle of each, an approximate draw of the density."""
    log_z: Float[np.ndarray, "..."]
    """The log of each chain's unbiased estimate of Z."""
    gradients: int
    """Gradients that all particles took."""


def anneal(
    density: TiltedDensity,
    params: DensityParams,
    key: Array,
    schedule: AnnealingSchedule,
    *,
    particles: int = PARTICLES,
    show: Callable[[float], object] = lambda strength: None,
) -> Arrival:
    """An approximate draw of a density by sequential Monte Carlo, where a chain can start.

    Particles are resampled when their effective number falls below half of them. The error in the
    distribution of the draw is of the order of 1/particles.

    Args:
        density: the target, or one with the same program, for which functions are compiled.
        params: the density's weights.
        key: the chain's, or those of several chains, which climb side by side.
        schedule: from `find_schedule`.
        particles: how many climb.
        show: called with each strength.

    Source: Del Moral, Doucet, Jasra, Sequential Monte Carlo samplers, JRSS B 68, 2006.
    """
    fewest = RESAMPLED * particles
    split = partial(_keys, particles=particles)
    keys, key_choice = (split if key.ndim == 0 else jax.vmap(split))(key)
    end, gradients = climb(density, params, keys, schedule, fewest=fewest, show=show)
    logs = np.asarray(end.logs, np.float64)
    log_z = np.asarray(logsumexp(logs, axis=-1) - math.log(particles))
    choose = _chosen if key.ndim == 0 else jax.vmap(_chosen)
    return Arrival(choose(key_choice, end.logs, end.points.z), log_z, gradients)


def _keys(key: Array, particles: int) -> tuple[Array, Array]:
    """The keys of a chain's particles, and that of the choice among them."""
    key_climb, key_choice = jax.random.split(key)
    return jax.random.split(key_climb, particles), key_choice


def _chosen(key: Array, logs: Array, z: Array) -> Array:
    """One of a chain's particles, by their weights."""
    return z[jax.random.categorical(key, logs)]
