import math

import jax.numpy as jnp
import numpy as np
from scipy import stats

import ppl_cnn
from ppl_cnn.inference.diagnostics.replicas import Climbs, climbs_html
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.verdict import Findings
from ppl_cnn.inference.report.page import build_report
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.settings import Sampling


def linear_density(length):
    """g = length z: on rung b, g is N(b length^2, length^2)."""
    response = ppl_cnn.ScoreFunction(lambda x: length * x[0, 0, 0], (1, 2, 1))
    return ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(1.0))


def climbs_of(length, rungs, folder, draws=300):
    sampling = Sampling(f"tempered:{rungs}", chains=2, warmup=150)
    sample_to(folder, [linear_density(length)], sampling, draws, progress=False)
    return Climbs.of(read(folder))


def test_swaps_are_as_likely_as_they_should_be(tmp_path):
    """Between N(0, 1) shifted by the gap times the length: 2 Phi(-gap length / sqrt 2)."""
    climbs = climbs_of(6.0, 6, tmp_path)
    gaps = np.diff(climbs.strengths)
    truth = 2 * stats.norm.cdf(-6.0 * gaps / math.sqrt(2))
    np.testing.assert_allclose(climbs.swapped, truth, atol=0.06)
    np.testing.assert_allclose(climbs.tilts, 36 * climbs.strengths, atol=2.5)
    assert climbs.arrivals.min() > 10
    assert climbs.findings() == Findings()
    page = climbs_html(climbs, "h2")
    assert page.count("<tr>") == 8
    assert ", ".join(map(str, climbs.arrivals)) in page


def test_neighbours_that_hardly_swap_are_told(tmp_path):
    climbs = climbs_of(40.0, 2, tmp_path, draws=20)
    pair, idle = climbs.findings().shortages
    assert "hardly ever swapped" in pair
    assert "--kernel tempered:4" in pair
    assert "In 2 of 2 chains no replica has climbed" in idle
    page = build_report(tmp_path).read_text()
    assert "<h2>Replicas</h2>" in page
    assert page.count("no replica has climbed") >= 1


def test_other_kernels_have_none():
    draws = ppl_cnn.draw(linear_density(1.0), chains=2, draws=5, warmup=5, progress=False)
    assert Climbs.of(draws) is None


def test_a_replica_that_is_not_finite_is_never_swapped():
    draws = ppl_cnn.draw(
        linear_density(1.0), "tempered:2", chains=1, draws=5, warmup=5, progress=False
    )
    draws["tempering/tilt"][:, :, 0] = jnp.nan
    first, second = Climbs.of(draws).swapped
    assert first == 0
    assert second > 0
