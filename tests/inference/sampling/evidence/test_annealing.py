import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.importance import mean_weight
from ppl_cnn.inference.kernels.adaptation import Tuned
from ppl_cnn.inference.kernels.moves.trajectory import Point
from ppl_cnn.inference.sampling.evidence.annealing import (
    AnnealingSchedule,
    Particles,
    anneal,
    climb,
    find_schedule,
    first_particles,
    next_gap,
    step,
    systematic_resampling,
)
from ppl_cnn.models.density import DensityParams

SHAPE = (2, 3, 1)
SIGMA, TEMPERATURE = 2.0, 0.4
CHAINS = 100
NO_WEIGHTS = DensityParams({}, {})


def slope():
    return np.random.default_rng(0).normal(size=6)


def matrix():
    root = np.random.default_rng(1).normal(size=(6, 6))
    return root @ root.T / 6


def linear(x):
    return jnp.asarray(slope(), jnp.float32) @ x.ravel()


def quadratic(x):
    return linear(x) - x.ravel() @ jnp.asarray(matrix(), jnp.float32) @ x.ravel() / 2


def density_of(function, temperature=TEMPERATURE):
    response = ppl_cnn.ScoreFunction(function, SHAPE)
    return ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(SIGMA), temperature)


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize("function", [quadratic, pytest.param(linear, marks=pytest.mark.long)])
def test_starts_are_draws_and_weights_give_log_z(function):
    """In z, p = N(C b, C) with C^-1 = I + s^2 A/T, b = s w/T; Z = |C|^(1/2) exp(b C b / 2)."""
    precision = np.eye(6) + SIGMA**2 * matrix() / TEMPERATURE * (function is quadratic)
    covariance = np.linalg.inv(precision)
    along = SIGMA * slope() / TEMPERATURE
    mean = covariance @ along
    truth = along @ mean / 2 - np.linalg.slogdet(precision)[1] / 2

    density = density_of(function)
    schedule, _ = find_schedule(density, density.params, keys_of(32))
    found = [
        anneal(density, density.params, key, schedule, particles=32) for key in keys_of(CHAINS, 1)
    ]
    z = np.asarray([each.z for each in found], np.float64).reshape(CHAINS, 6)
    white = (z - mean) @ np.linalg.cholesky(precision)
    assert np.abs(white.mean(axis=0)).max() < 4 / math.sqrt(CHAINS)
    # Means of chi-squares, whose variance is 2.
    assert np.abs((white**2).mean(axis=0) - 1).max() < 4 * math.sqrt(2 / CHAINS)
    estimate, effective = mean_weight(np.asarray([each.log_z for each in found]))
    assert effective > 20
    assert estimate.error < 0.2
    assert abs(estimate.value - truth) < 4 * estimate.error


def test_two_hills_are_found_as_often_as_they_weigh():
    """A chain's moves don't cross between the hills; its particles climb both."""

    def hills(x):
        # exp(f) N(x; 0, 1) is a mixture of N(+-3, 1/4), e times as often above.
        def at(side):
            return -2 * (x[0, 0, 0] - 3 * side) ** 2 + x[0, 0, 0] ** 2 / 2

        return jnp.logaddexp(at(1.0) + 1, at(-1.0))

    response = ppl_cnn.ScoreFunction(hills, (1, 1, 1))
    density = ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(1.0))
    schedule, _ = find_schedule(density, density.params, keys_of(32))
    z = np.asarray(
        [
            anneal(density, density.params, key, schedule, particles=32).z
            for key in keys_of(CHAINS, 1)
        ]
    ).ravel()
    share = 1 / (1 + math.exp(-1))
    assert abs((z > 0).mean() - share) < 4 * math.sqrt(share * (1 - share) / CHAINS)
    np.testing.assert_allclose(np.abs(z), 3, atol=4 * 0.5)


def test_resampling_leaves_log_z_unbiased():
    """With too few strengths and particles that are resampled at every one."""
    density = density_of(linear, temperature=4.0)
    truth = SIGMA**2 * (slope() ** 2).sum() / (2 * 4.0**2)
    schedule = AnnealingSchedule(np.asarray([0.0, 0.5, 1.0]), np.full(2, 0.7), np.full(2, 1.5))
    ends = [
        climb(density, density.params, keys, schedule, fewest=5.0)[0] for keys in keys_of((300, 4))
    ]
    logs = np.asarray([end.logs for end in ends])
    # Resampled at the strength 1: all have the mean weight.
    np.testing.assert_allclose(logs, logs[:, :1].repeat(4, axis=1))
    estimate, _ = mean_weight(logs[:, 0].astype(np.float64))
    assert abs(estimate.value - truth) < 4 * estimate.error
    assert estimate.error < 0.1


def test_moves_owe_nothing_to_the_resampling():
    """Pairs are resampled at each strength, and then often refused. Over many pairs, the mean
    weight and the weighted mean are exact: Z = exp(1/4)/sqrt(2), N(1/2, 1/2)."""
    pairs, every = 200_000, (0.0, 0.3, 0.6, 1.0)
    response = ppl_cnn.ScoreFunction(lambda x: jnp.sum(x - x**2 / 2), (1, 1, 1))
    density = ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(1.0))
    keys = keys_of((pairs, 2))
    particles = jax.vmap(lambda keys: first_particles(density, density.params, keys))(keys)
    tuned, always = Tuned(jnp.float32(2.5), jnp.float32(2.5)), jnp.float32(3.0)
    for index, strengths in enumerate(itertools.pairwise(every)):
        at = (jnp.int32(index), jnp.asarray(strengths), tuned, always)
        rise = jax.vmap(
            lambda particles, keys, at=at: step(density, density.params, particles, keys, *at)
        )
        particles, acceptance, _ = rise(particles, keys)
    assert acceptance.mean() < 0.9
    weights = np.exp(np.asarray(particles.logs, np.float64)).mean(axis=1)
    weights *= math.sqrt(2) / math.exp(0.25)
    z = np.asarray(particles.points.z, np.float64).reshape(pairs, 2).mean(axis=1)
    for values in (weights - 1, weights * (z - 0.5)):
        error = values.std() / math.sqrt(pairs)
        assert error < 0.005
        assert abs(values.mean()) < 4 * error


def test_a_schedule_keeps_the_weights_together():
    """For g = L z, the log weights' variance is (gap L)^2, which leaves exp(-that) of the effective
    number: gap L = 0.32."""
    density = density_of(linear)
    length = SIGMA / TEMPERATURE * np.linalg.norm(slope())
    schedule, gradients = find_schedule(density, density.params, keys_of(200))
    gaps = np.diff(schedule.strengths)
    assert (gaps >= 0).all()
    assert (schedule.strengths[0], schedule.strengths[-1]) == (0, 1)
    rising = gaps[(gaps > 0)][:-1] * length
    assert np.median(rising) == pytest.approx(math.sqrt(-math.log(0.9)), rel=0.15)
    assert gradients >= 200 * len(schedule.strengths)


def test_no_tilt_takes_one_step_and_a_strong_one_at_most_doubles():
    flat, _ = find_schedule(density_of(lambda x: 0.0 * jnp.sum(x)), NO_WEIGHTS, keys_of(8))
    np.testing.assert_array_equal(flat.strengths, [0, 1])
    schedule, _ = find_schedule(density_of(linear, 0.05), NO_WEIGHTS, keys_of(8))
    strengths = np.unique(schedule.strengths)[1:]
    assert (strengths[1:] / strengths[:-1]).max() < 2.001


def test_the_gap_leaves_what_it_should():
    tilts = np.random.default_rng(0).normal(size=100)
    logs = np.random.default_rng(1).normal(size=100)
    z = jnp.zeros((100, 1))
    particles = Particles(Point(z, jnp.asarray(tilts), z), jnp.asarray(logs))
    gap = next_gap(particles, 0.5)
    weights, rising = np.exp(logs) / np.exp(logs).sum(), np.exp(gap * tilts)
    left = (weights @ rising) ** 2 / (weights @ rising**2)
    assert left == pytest.approx(0.9, abs=1e-4)


def test_resampling_takes_each_as_often_as_it_weighs():
    logs = jnp.log(jnp.asarray([0.5, 0.25, 0.125, 0.125]))
    counts = np.zeros(4)
    for offset in np.linspace(0.0005, 0.9995, 1000):
        order = np.asarray(systematic_resampling(logs, jnp.float32(offset)))
        here = np.bincount(order, minlength=4)
        # Systematically: the whole part at least, and at most one more.
        assert (here >= [2, 1, 0, 0]).all()
        assert (here <= [2, 1, 1, 1]).all()
        counts += here
    np.testing.assert_allclose(counts / 1000, [2, 1, 0.5, 0.5], atol=2e-3)


def test_a_response_that_is_not_finite_is_refused(refused):
    with refused("not finite", kind=MismatchError):
        find_schedule(density_of(lambda x: jnp.sum(x) * jnp.nan), NO_WEIGHTS, keys_of(4))
