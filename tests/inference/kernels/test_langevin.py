"""The unadjusted kernel: its law in closed form, its bias, and what it tells of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.langevin import Langevin

CURVATURES, SLOPE = (
    np.asarray([0.0, 1.0, 4.0], np.float32),
    np.asarray([1.0, -2.0, 0.5], np.float32),
)
CHAINS, TRANSITIONS = 40_000, 60


def quadratic(z):
    """p = N(b/(1 + a), 1/(1 + a)) in each coordinate."""
    return SLOPE @ z - (CURVATURES * z) @ z / 2


def stationary_variance(h):
    """sin^2 h / (1 - r^2) of the recursion z' = r z + (1 - cos h) b + sin h xi."""
    return math.sin(h) ** 2 / (1 - (math.cos(h) - (1 - math.cos(h)) * CURVATURES) ** 2)


def ends(h):
    """Where chains are that began at draws of the density."""
    kernel = Langevin(quadratic, step_size=h)
    noise = jax.random.normal(jax.random.key(1), (CHAINS, 3))
    z = (SLOPE / (1 + CURVATURES))[None] + noise / np.sqrt(1 + CURVATURES)[None]
    state = kernel.init(jax.random.split(jax.random.key(2), CHAINS), 0, z, (), {})

    @jax.jit
    def run(state):
        return jax.lax.fori_loop(0, TRANSITIONS, lambda _, at: kernel.sample(at, (), {}), state)

    return np.asarray(run(state).z, np.float64)


@pytest.mark.parametrize("h", [pytest.param(0.3, marks=pytest.mark.long), 0.6])
def test_a_quadratic_tilt_has_the_gaussian_of_the_closed_form(h):
    z, variance = ends(h), stationary_variance(h)
    # The largest of six standard normal errors exceeds 4 with probability 4e-4.
    mean = (z.mean(axis=0) - SLOPE / (1 + CURVATURES)) / np.sqrt(variance / CHAINS)
    assert np.abs(mean).max() < 4
    assert np.abs((z.var(axis=0) / variance - 1) / math.sqrt(2 / CHAINS)).max() < 4
    # The docstring's factor; at 0.6 the bias of the last is many errors large.
    cosine = 1 - math.cos(h)
    factor = (2 - cosine) / (2 - cosine * (1 + CURVATURES))
    np.testing.assert_allclose(variance * (1 + CURVATURES), factor, rtol=1e-5)


def test_the_bias_falls_like_the_square_of_the_step():
    biases = [stationary_variance(h)[2] * 5 - 1 for h in (0.2, 0.1, 0.05)]
    assert biases[0] / biases[1] == pytest.approx(4, rel=0.05)
    assert biases[1] / biases[2] == pytest.approx(4, rel=0.02)
    assert biases[2] == pytest.approx(4 * 0.05**2 / 4, rel=0.01)


def test_it_stays_where_a_step_has_no_finite_tilt():
    kernel = Langevin(lambda z: jnp.where(z[0] > 0, jnp.nan, 0.0) * z[0], step_size=0.5)
    state = kernel.init(jax.random.key(0), 0, jnp.asarray([-0.1, 0.0]), (), {})
    step = jax.jit(lambda state: kernel.sample(state, (), {}))
    diverged = 0
    for _ in range(40):
        state = step(state)
        assert state.z[0] <= 0
        assert state.diverging == (state.accept_prob == 0)
        diverged += int(state.diverging)
    assert 0 < diverged < 40


def curved_density():
    unit = ppl_cnn.ScoreFunction(lambda image: jnp.sum(image - 2 * image**2), (2, 2, 1))
    return ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(1.0))


def test_chains_of_odd_number_take_half_the_step_and_the_diagnosis_says_approximate():
    draws = ppl_cnn.draw(
        curved_density(), kernel="langevin", chains=4, draws=400, progress=False, target_accept=0.7
    )
    stats = draws["sample_stats"]
    np.testing.assert_array_equal(stats["step_share"][:, 0], [1.0, 0.5, 1.0, 0.5])
    steps = stats["step_size"].values
    np.testing.assert_allclose(steps[1::2], steps[::2] / 2, rtol=1e-6)
    assert (stats["n_steps"] == 1).all()
    found = ppl_cnn.diagnose(draws, maps=False)
    assert found.verdict.state != "good"
    assert found.verdict.headline.startswith("Approximate")
    assert "approximate" in found.verdict.sentence
    lp = next(each for each in found.step_bias.quantities if each.of == "lp")
    # Longer steps spread the draws farther, and so lower the mean of lp.
    assert lp.errors < -3
    assert found.step_bias.seen
    assert found.step_bias.steps[0] == pytest.approx(2 * found.step_bias.steps[1], rel=1e-5)


def test_a_target_that_half_of_the_chains_could_reach_alone_is_refused(refused):
    with refused("0.5", kind=ArgumentError, argument="target_accept_prob"):
        Langevin(target_accept_prob=0.5)
    with refused("0.4", kind=ArgumentError, argument="target_accept"):
        ppl_cnn.draw(curved_density(), kernel="langevin", target_accept=0.4)
