import math

import numpy as np
import pytest

from ppl_cnn.inference.diagnostics.mixing.trend import trend


def normal(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_a_drift_is_told_in_its_errors():
    values = normal((4, 1000))
    values[:, 500:] += 0.3
    found = trend("lp", values)
    assert found.drifts
    assert found.halves == pytest.approx((0, 0.3), abs=0.1)
    # The error is that of two means of 2,000 draws, and itself 1.
    assert found.errors == pytest.approx(0.3 / math.sqrt(2 / 2000), abs=3)


def test_a_drift_of_one_chain_is_told():
    values = normal((8, 400))
    values[5] += np.linspace(0, 2, 400)
    found = trend("response", values)
    assert found.worst_drifts
    assert found.worst.of == "chain 5"


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_stationary_chains_rarely_drift(phi, autoregressive):
    rng = np.random.default_rng(1)
    found = [trend("lp", autoregressive(rng, phi, 4, 300)) for _ in range(60)]
    scores = np.asarray([each.errors for each in found])
    assert sum(each.drifts or each.worst_drifts for each in found) <= 1
    assert np.std(scores) == pytest.approx(1, abs=0.35)


def test_halves_too_short_for_effective_draws_show_no_drift(autoregressive):
    rng = np.random.default_rng(1)
    found = [trend("lp", autoregressive(rng, 0.9, 4, 18)) for _ in range(60)]
    assert not any(each.drifts or each.worst_drifts for each in found)
