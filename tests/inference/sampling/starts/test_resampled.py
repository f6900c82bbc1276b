"""Starts by importance resampling."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.sampling.resampling.settings import Resampling
from ppl_cnn.inference.sampling.starts.registry import parse_start

SIGMA = 2.0
SLOPE = np.linspace(-0.3, 0.4, 6, dtype=np.float32).reshape(2, 3, 1)


def density():
    """p = N(sigma^2 w, sigma^2 I), log Z = sigma^2 |w|^2 / 2."""
    score = ppl_cnn.ScoreFunction(lambda image: jnp.sum(jnp.asarray(SLOPE) * image), SLOPE.shape)
    return ppl_cnn.TiltedDensity(score, ppl_cnn.WhiteNoise(SIGMA))


@pytest.mark.parametrize("text", ["resample", "resample:50", "two-sided:resample:50"])
def test_a_text_gives_it_back(text):
    assert str(parse_start(text)) == text
    assert str(parse_start("resample:1000")) == "resample"


def test_starts_are_draws_of_the_density_each_of_its_own():
    settings, count = Resampling(chains=400), 20_000
    started = parse_start(f"resample:{count}").latents([density()], settings, progress=False)
    images = np.asarray(density().push(started.latents)).reshape(400, -1)
    error = SIGMA / math.sqrt(400)
    # The largest of 6 standard normal errors exceeds 4 with probability 4e-4.
    assert np.abs(images.mean(axis=0) - SIGMA**2 * SLOPE.ravel()).max() < 4 * error
    assert len(np.unique(images[:, 0])) > 350
    (note,) = started.notes
    assert note["forward_passes"] == {"start": count}
    log_z = note["resampling"]["log_z"]
    assert abs(log_z["value"] - SIGMA**2 * float((SLOPE**2).sum()) / 2) < 4 * log_z["error"]
    assert started.gradients == [0]


@pytest.mark.usefixtures("unplotted")
def test_half_of_the_chains_start_there(tmp_path):
    out = tmp_path / "run"
    given = {"chains": 4, "draws": 12, "warmup": 5, "start": "two-sided:resample:500", "out": out}
    tree = ppl_cnn.draw(density(), **given, progress=False)
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["init"] == "two-sided:resample:500"
    assert record["forward_passes"] == {"start": 500}
    assert 1 <= record["resampling"]["effective"] <= 500
    assert tree["start/image"].sizes["chain"] == 4
    assert "start" not in record["gradients"]
    page = ppl_cnn.report(out).read_text()
    assert "resampled draws of the reference" in page
    assert "forward passes, start" in page


def test_too_few_draws_are_refused(refused):
    with refused("1", kind=ArgumentError, argument="start"):
        parse_start("resample:1")
