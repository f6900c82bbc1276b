import math

import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.inference.diagnostics.diagnose import diagnose
from ppl_cnn.inference.diagnostics.mixing.mixing import Mixing
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.summary import scalars, summary
from ppl_cnn.inference.diagnostics.verdict import sentences as say


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def diagnosis_of(density, start, draws=300):
    tree = ppl_cnn.draw(
        density, kernel="split", chains=8, draws=draws, warmup=200, start=start, progress=False
    )
    return diagnose(tree, maps=False)


def findings(diagnosis):
    return {type(each): each for each in diagnosis.verdict.findings}


def two_hills():
    """A mixture of normals about two images, at right angles, 5 deviations from the mean."""
    one, other = jnp.asarray(np.linalg.qr(normal((16, 2)))[0].T.reshape(2, 4, 4, 1))

    def hills(x):
        return jnp.logaddexp(*(-8 * (jnp.sum(x * hill) - 5) ** 2 for hill in (one, other)))

    return ppl_cnn.TiltedDensity(ppl_cnn.ScoreFunction(hills, (4, 4, 1)), ppl_cnn.WhiteNoise(1.0))


def test_chains_that_stay_where_they_started_are_separate_samples():
    found = diagnosis_of(two_hills(), "rto")
    assert found.verdict.state == "bad"
    separate = findings(found)[say.SeparateSamples]
    assert separate.chains == 8
    assert separate.mixes_within
    assert separate.own > separate.others + 0.1
    assert say.ChainsDisagree not in findings(found)
    assert "8 separate samples" in found.verdict.sentence


@pytest.mark.long
@pytest.mark.parametrize("start", ["prior", "two-sided:rto"])
def test_chains_that_have_mixed_are_not_accused(start):
    """At T = 1, from draws of the reference and two-sided."""
    unit = ppl_cnn.load("alexnet-fashion").unit("conv2:3")
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0))
    found = diagnosis_of(density, start, draws=400)
    assert found.verdict.state == "good", found.verdict.sentence
    assert found.mixing.end is not None


def test_sides_that_differ_are_in_the_verdict(tmp_path, write_run):
    response = normal((4, 200)) + np.asarray([0, 0, 1, 1])[:, None]
    image = normal((4, 200, 5, 5, 1), 1)
    folder = write_run(tmp_path, image, config={"init": "two-sided"}, response=response)
    found = diagnose(folder, maps=False)
    assert found.verdict.state == "bad"
    assert findings(found)[say.SidesDisagree].rhat == found.sides.rhat
    assert found.sides.rhat.of == "response"


def test_burn_in_is_in_the_verdict(tmp_path, write_run):
    response = normal((4, 200)) + np.linspace(0, 1, 200, dtype=np.float32)
    found = diagnose(write_run(tmp_path, normal((4, 200, 5, 5, 1), 1), response=response))
    assert found.verdict.state == "bad"
    burn_in = findings(found)[say.BurnIn]
    assert burn_in.quantity == "response"
    assert burn_in.second > burn_in.first
    assert "the mean of response rises" in burn_in.sentence


def test_one_chain_has_no_other_to_compare(tmp_path, write_run):
    tree = read(write_run(tmp_path, normal((1, 40, 5, 5, 1))))
    quantities = scalars(tree)
    found = Mixing.of(tree, quantities, summary(quantities), two_sided=False)
    assert (found.end, found.disagree, found.near) == (None, False, False)
    assert math.isnan(found.across.value)
