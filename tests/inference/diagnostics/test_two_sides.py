import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.inference.diagnostics.scan import read, scan
from ppl_cnn.inference.diagnostics.summary import scalars
from ppl_cnn.inference.diagnostics.two_sides import sides_html, two_sides
from ppl_cnn.inference.report.page import build_report
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts import Starts

SHAPE = (4, 200, 5, 5, 1)


def sides_of(folder):
    tree = read(folder)
    images = scan(tree)
    return two_sides(scalars(tree, images), images)


def noise(seed):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def test_chains_of_one_density_agree(tmp_path, write_run):
    response = noise(1)[..., 0, 0, 0] + 3
    sides = sides_of(write_run(tmp_path, noise(0), response=response))
    assert sides.agree
    # Of 51 quantities of 2 x 400 draws: R-hat^2 - 1 is about F/400.
    assert 1 <= sides.rhat.value < 1.03
    assert sides.response == pytest.approx((response[:2].mean(), response[2:].mean()))
    assert sides.error == pytest.approx((1 / 20, 1 / 20), rel=0.3)
    assert "can't be told apart" in sides_html(sides, "h2")


def test_sides_that_differ_in_the_response_disagree(tmp_path, write_run):
    response = noise(1)[..., 0, 0, 0] + np.asarray([0, 0, 1, 1])[:, None]
    sides = sides_of(write_run(tmp_path, noise(0), response=response))
    assert not sides.agree
    assert sides.apart
    assert sides.rhat.of == "response"
    assert "haven't come to the same" in sides_html(sides, "h2")


def test_sides_that_differ_in_the_images_alone_disagree(tmp_path, write_run):
    image = noise(0)
    image[2:] += 2
    sides = sides_of(write_run(tmp_path, image))
    assert not sides.agree
    assert sides.rhat.of.startswith("projections[")


def test_short_runs_are_not_called_apart(tmp_path, write_run):
    """With eight draws a side, R-hat exceeds 1.05 by chance."""
    sides = sides_of(write_run(tmp_path, noise(0)[:, :4], response=noise(1)[:, :4, 0, 0, 0]))
    assert not sides.agree
    assert not sides.apart
    assert "too few draws to tell" in sides_html(sides, "h2")


def test_differences_within_a_side_are_none_between_them(tmp_path, write_run):
    response = noise(1)[..., 0, 0, 0] + np.asarray([0, 1, 0, 1])[:, None]
    sides = sides_of(write_run(tmp_path, noise(0), response=response))
    assert sides.response[0] == pytest.approx(sides.response[1], abs=0.2)


def test_a_trend_within_the_draws_is_told(tmp_path, write_run):
    response = noise(1)[..., 0, 0, 0] + np.linspace(0, 2, 200)[None]
    sides = sides_of(write_run(tmp_path, noise(0), response=response))
    assert sides.halves == pytest.approx((1, 1), abs=0.2)


def test_a_two_sided_run_says_so_in_its_report(tmp_path):
    response = ppl_cnn.ScoreFunction(jnp.sum, (3, 3, 1))
    density = ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(1.0))
    for init in ("prior", "two-sided"):
        sampling = Sampling(chains=2, warmup=50, init=init)
        sample_to(tmp_path / init, [density], sampling, 20, starts=Starts(init), progress=False)
    assert "Two sides" not in build_report(tmp_path / "prior").read_text()
    page = build_report(tmp_path / "two-sided").read_text()
    assert "<h2>Two sides</h2>" in page
    assert "from optima" in page
