import numpy as np
import pytest

from ppl_cnn.inference.diagnostics.mixing.two_sides import two_sides
from ppl_cnn.inference.diagnostics.scan import read, scan
from ppl_cnn.inference.diagnostics.summary import scalars

SHAPE = (4, 200, 5, 5, 1)


def sides_of(folder):
    tree = read(folder)
    images = scan(tree)
    response = scalars(tree, images)["posterior/response"].values
    return two_sides(response, images.projections)


def noise(seed):
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def test_chains_of_one_density_agree(tmp_path, write_run):
    response = noise(1)[..., 0, 0, 0] + 3
    sides = sides_of(write_run(tmp_path, noise(0), response=response))
    assert sides.state == "agree"
    # For 51 quantities of 2 x 400 draws, R-hat^2 - 1 is about F/400.
    assert 1 <= sides.rhat.value < 1.03
    assert sides.response == pytest.approx((response[:2].mean(), response[2:].mean()))
    assert sides.error == pytest.approx((1 / 20, 1 / 20), rel=0.3)


def test_sides_that_differ_in_the_response_disagree(tmp_path, write_run):
    response = noise(1)[..., 0, 0, 0] + np.asarray([0, 0, 1, 1])[:, None]
    sides = sides_of(write_run(tmp_path, noise(0), response=response))
    assert sides.state == "apart"
    assert sides.rhat.of == "response"


def test_sides_that_differ_in_the_images_alone_disagree(tmp_path, write_run):
    image = noise(0)
    image[2:] += 2
    sides = sides_of(write_run(tmp_path, image))
    assert sides.state != "agree"
    assert sides.rhat.of.startswith("projections[")


def test_short_runs_are_not_called_apart(tmp_path, write_run):
    """With eight draws a side, R-hat exceeds 1.05 by chance."""
    sides = sides_of(write_run(tmp_path, noise(0)[:, :4], response=noise(1)[:, :4, 0, 0, 0]))
    assert sides.state == "unclear"


def test_differences_within_a_side_are_none_between_them(tmp_path, write_run):
    response = noise(1)[..., 0, 0, 0] + np.asarray([0, 1, 0, 1])[:, None]
    sides = sides_of(write_run(tmp_path, noise(0), response=response))
    assert sides.response[0] == pytest.approx(sides.response[1], abs=0.2)


def test_a_trend_within_the_draws_is_told(tmp_path, write_run):
    response = noise(1)[..., 0, 0, 0] + np.linspace(0, 2, 200)[None]
    sides = sides_of(write_run(tmp_path, noise(0), response=response))
    assert sides.halves == pytest.approx((1, 1), abs=0.2)
