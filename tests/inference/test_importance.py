"""Importance weights: known log Z and effective numbers, tails, and resampling."""

import math

import numpy as np
import pytest

from ppl_cnn.inference.importance import Weights


@pytest.mark.parametrize("variance", [0.1, 0.5, 1.0])
def test_lognormal_weights_have_a_known_mean_and_effective_share(variance):
    """log w ~ N(0, v): log Z = v/2, and E[w]^2 / E[w^2] = exp(-v)."""
    count = 100_000
    weights = Weights(np.random.default_rng(0).normal(0, math.sqrt(variance), count))
    log_z = weights.log_z
    assert log_z.error == pytest.approx(math.sqrt(math.expm1(variance) / count), rel=0.1)
    assert abs(log_z.value - variance / 2) < 4 * log_z.error
    assert weights.effective / count == pytest.approx(math.exp(-variance), rel=0.05)
    assert weights.pareto_k < weights.largest_k


def test_draws_come_as_often_as_they_weigh():
    weights = Weights(np.log(np.asarray([1.0, 2.0, 5.0, 0.5, 1.5])))
    drawn = weights.resampled(np.random.default_rng(0).random((4, 25_000)))
    shares = np.bincount(drawn.ravel(), minlength=5) / drawn.size
    errors = np.sqrt(weights.shares * (1 - weights.shares) / drawn.size)
    assert np.abs((shares - weights.shares) / errors).max() < 4
    assert weights.resampled(np.asarray([0.0, np.nextafter(1.0, 0.0)])).tolist() == [0, 4]


def test_the_heaviest_come_first_and_carry_their_shares():
    weights = Weights(np.log(np.asarray([1.0, 4.0, 3.0, 2.0])))
    assert weights.heaviest(3).tolist() == [1, 2, 3]
    assert weights.heaviest(9).tolist() == [1, 2, 3, 0]
    np.testing.assert_allclose(weights.concentration, [0.4, 0.7, 0.9, 1.0])
    assert weights.largest == pytest.approx(0.4)


def test_huge_tilts_do_not_overflow():
    weights = Weights(np.asarray([1e4, 1e4 + math.log(3.0)], np.float32))
    assert weights.log_z.value == pytest.approx(1e4 + math.log(2.0))
    np.testing.assert_allclose(weights.shares, [0.25, 0.75], rtol=1e-3)


def test_heavy_tails_are_known_by_their_index():
    """w = U^(-k) has a Pareto tail of index k; its mean is infinite from k = 1 on."""
    uniform = np.random.default_rng(0).random(20_000)
    heavy, light = (Weights(-k * np.log(uniform)) for k in (1.2, 0.3))
    assert heavy.pareto_k == pytest.approx(1.2, abs=0.25)
    assert heavy.pareto_k > heavy.largest_k
    assert light.pareto_k == pytest.approx(0.3, abs=0.15)
    assert Weights(np.zeros(100)).largest_k == pytest.approx(0.5)


def test_a_plateau_of_weights_has_no_tail():
    """As of probabilities near 1: a tenth of the draws share all of the weight."""
    random = np.random.default_rng(0)
    logs = np.where(random.random(5000) < 0.1, -1e-4 * random.exponential(size=5000), -9.0)
    assert Weights(logs).pareto_k == 0
    assert Weights(np.zeros(50)).pareto_k == 0


def test_repeats_are_worth_less_than_draws():
    """The variance of a mean of resampled draws is that of the weighted mean and their own."""
    random, draws, means = np.random.default_rng(1), 200, []
    for _ in range(2000):
        x = random.normal(size=300)
        drawn = Weights(0.5 * x).resampled(random.random(draws))
        means.append(x[drawn].mean())
    worth = Weights(0.5 * random.normal(size=300)).worth(draws)
    assert np.var(means) == pytest.approx(1 / worth, rel=0.25)
    assert worth < 200 / 1.5
