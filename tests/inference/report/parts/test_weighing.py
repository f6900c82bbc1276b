"""The page of a run by resampling, and of a run beside another."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import MismatchError

SLOPE = np.linspace(-0.4, 0.5, 6, dtype=np.float32).reshape(2, 3, 1)


def linear(image):
    return jnp.sum(jnp.asarray(SLOPE) * image)


def sampled(out, temperature=1.0, **given):
    density = ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(linear, SLOPE.shape), ppl_cnn.WhiteNoise(1.5), temperature
    )
    ppl_cnn.draw(density, chains=2, draws=30, out=out, progress=False, **given)
    return out


@pytest.fixture(scope="module")
def resampled(tmp_path_factory):
    return sampled(tmp_path_factory.mktemp("runs") / "resampled", kernel="resample:500")


def test_the_page_shows_the_weights_and_no_chains(resampled):
    page = ppl_cnn.report(resampled).read_text()
    headings = re.findall(r"<h2>(?:<span[^>]*>.</span> )?(.*?)</h2>", page)
    assert "What the tilt changed" in headings
    assert "Weights" in headings
    assert "The draws of the reference that carry the weight" in headings
    assert "ArviZ's plots" not in headings
    assert "Within and across starts" not in headings
    assert "independent draws" in page
    assert "Pareto k" in page
    assert "forward passes, sampling" in page
    assert (resampled / "summary.csv").exists()


@pytest.mark.usefixtures("unplotted")
def test_a_run_is_shown_beside_another(resampled, tmp_path, command, refused):
    split = sampled(tmp_path / "split", warmup=30)
    done = command("ppl_cnn.report", split, "--against", resampled)
    assert done.returncode == 0, done.stderr
    page = (split / "report.html").read_text()
    assert "Beside another run" in page
    assert str(resampled) in page
    assert "sd of the response" in page
    other = sampled(tmp_path / "other", temperature=3.0, kernel="resample:500")
    with refused("temperature", kind=MismatchError):
        ppl_cnn.report(split, against=other)
