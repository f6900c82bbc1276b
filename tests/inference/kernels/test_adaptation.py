import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.inference.kernels.adaptation import StepSize
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import gaussian_step_size


@pytest.mark.parametrize("best", [0.02, 0.2, 1.5])
def test_it_finds_the_step_that_accepts_as_wanted(best):
    """For an acceptance exp(-(step/best)^2 log(1/0.8)), 0.8 at `best`, from a start at 0.2."""
    rng = np.random.default_rng(0)
    step = StepSize.around(jnp.asarray(0.2))
    for _ in range(200):
        acceptance = 0.8 ** (float(jnp.exp(step.log_step)) / best) ** 2
        noisy = np.clip(acceptance + rng.normal() / 10, 0, 1)
        step = step.update(jnp.asarray(noisy, jnp.float32), 0.8)
    assert float(jnp.exp(step.log_average)) == pytest.approx(best, rel=0.15)


def test_a_step_that_is_always_accepted_grows_no_longer_than_makes_sense():
    step = StepSize.around(jnp.asarray(0.2))
    for _ in range(50):
        step = step.update(jnp.asarray(1.0), 0.8, longest=3.0)
    assert float(jnp.exp(step.log_step)) == pytest.approx(3)
    for _ in range(20):
        step = step.update(jnp.asarray(0.0), 0.8, longest=3.0)
    assert float(jnp.exp(step.log_step)) < 1


def test_the_gaussian_step_accepts_four_fifths():
    """Leapfrog on N(0, I) in 4,096 dimensions, over a quarter turn: independent states."""
    d, h, trials = 4096, gaussian_step_size(4096), 400
    q, p = (jax.random.normal(key, (trials, d)) for key in jax.random.split(jax.random.key(0)))
    energy = jnp.sum(q**2 + p**2, axis=1) / 2
    for _ in range(round(math.pi / 2 / h)):
        p = p - h / 2 * q
        q = q + h * p
        p = p - h / 2 * q
    change = jnp.sum(q**2 + p**2, axis=1) / 2 - energy
    acceptance = jnp.mean(jnp.minimum(1.0, jnp.exp(-change)))
    # Three standard errors of the mean of 400 acceptances, whose deviation is about 0.25.
    assert float(acceptance) == pytest.approx(0.8, abs=3 * 0.25 / 20)
