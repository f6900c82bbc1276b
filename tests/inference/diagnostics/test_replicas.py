import math

import numpy as np
import pytest
from scipy import stats

import ppl_cnn
from ppl_cnn.inference.diagnostics.diagnose import diagnose
from ppl_cnn.inference.diagnostics.replicas import Climbs
from ppl_cnn.inference.diagnostics.verdict import sentences as say


def linear_density(length):
    """g = length z: on rung b, g is N(b length^2, length^2)."""
    response = ppl_cnn.ScoreFunction(lambda x: length * x[0, 0, 0], (1, 2, 1))
    return ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(1.0))


def drawn(length, rungs, draws=300):
    return ppl_cnn.draw(
        linear_density(length),
        kernel=f"tempered:{rungs}",
        chains=2,
        draws=draws,
        warmup=150,
        progress=False,
    )


@pytest.fixture(scope="module")
def climbing():
    """Draws whose replicas swap often; not to be written to."""
    return drawn(6.0, 6)


def test_swaps_are_as_likely_as_they_should_be(climbing):
    """Between N(0, 1) shifted by the gap times the length: 2 Phi(-gap length / sqrt 2)."""
    climbs = Climbs.of(climbing)
    gaps = np.diff(climbs.strengths)
    truth = 2 * stats.norm.cdf(-6.0 * gaps / math.sqrt(2))
    np.testing.assert_allclose(climbs.swapped, truth, atol=0.06)
    np.testing.assert_allclose(climbs.tilts, 36 * climbs.strengths, atol=2.5)
    assert climbs.arrivals.min() > 10
    assert climbs.findings() == ()


def test_neighbours_that_hardly_swap_are_told():
    found = diagnose(drawn(40.0, 2, draws=20), maps=False)
    pair, idle = found.climbs.findings()
    assert isinstance(pair, say.RareSwaps)
    assert pair.share < 0.1
    assert "Use 4 rungs" in pair.sentence
    assert idle == say.NoClimbs(count=2, chains=2)
    if found.verdict.state == "short":
        assert {pair, idle} <= set(found.verdict.findings)


def test_other_kernels_have_none(climbing):
    """Their stores have no such group."""
    assert Climbs.of(climbing.filter(lambda node: node.name != "tempering")) is None


def test_a_replica_that_is_not_finite_is_never_swapped(climbing):
    draws = climbing.copy(deep=True)
    draws["tempering/tilt"][:, :, 0] = np.nan
    first, *others = Climbs.of(draws).swapped
    assert first == 0
    assert min(others) > 0
