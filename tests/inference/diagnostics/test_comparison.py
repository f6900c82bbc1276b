"""Two runs of one density compared: by other methods, they come to the same."""

import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.diagnostics.comparison import Comparison

SLOPE = np.linspace(-0.4, 0.5, 6, dtype=np.float32).reshape(2, 3, 1)


def linear(image):
    return jnp.sum(jnp.asarray(SLOPE) * image)


def diagnosed(temperature=1.0, **given):
    density = ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(linear, SLOPE.shape), ppl_cnn.WhiteNoise(1.5), temperature
    )
    draws = ppl_cnn.draw(density, chains=4, draws=400, progress=False, **given)
    return ppl_cnn.diagnose(draws, maps=False)


@pytest.fixture(scope="module")
def resampled():
    return diagnosed(kernel="resample:8000")


@pytest.mark.long  # `test_weighing.py` compares such runs, `resampling/test_run.py` their draws
def test_split_and_resampling_agree(resampled):
    compared = Comparison.of(diagnosed(warmup=60), resampled)
    names = [each.name for each in compared.quantities]
    assert names[:3] == ["mean response", "sd of the response", "mean of projections[0]"]
    # 10 quantities: the largest normal error exceeds 4 with probability 6e-4.
    assert abs(compared.worst.errors) < 4


def test_two_resampled_runs_compare_log_z(resampled):
    other = diagnosed(kernel="resample:4000", seed=1)
    compared = Comparison.of(resampled, other)
    (log_z,) = [each for each in compared.quantities if each.name == "log Z"]
    assert log_z.one == resampled.weighing.weights.log_z
    assert abs(log_z.errors) < 4
    far = log_z._replace(other=log_z.other._replace(value=log_z.one.value + 1))
    differs = compared._replace(quantities=(*compared.quantities, far))
    assert not differs.agree
    assert differs.worst == far


def test_other_densities_are_refused(resampled, refused):
    with refused("temperature", 1.0, 2.0, kind=MismatchError):
        Comparison.of(resampled, diagnosed(temperature=2.0, kernel="resample:4000"))
