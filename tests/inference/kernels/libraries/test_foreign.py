"""Kernels of other libraries through the chain driver, by a closed form."""

import arviz_stats
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro.infer import BarkerMH

import ppl_cnn
from ppl_cnn.inference.kernels.libraries.blackjax_kernels import BLACKJAX
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.methods import parse_method
from ppl_cnn.inference.sampling.settings import Sampling

CURVATURE, SLOPE, TEMPERATURE = 1.5, 2.0, 0.5
MEAN = SLOPE / TEMPERATURE / (1 + CURVATURE / TEMPERATURE)
DEVIATION = (1 + CURVATURE / TEMPERATURE) ** -0.5
"""b, a and T of each pixel's p = N(0, 1) exp((b x - a x^2/2)/T)."""


def density():
    unit = ppl_cnn.ScoreFunction(
        lambda image: jnp.sum(SLOPE * image - CURVATURE * image**2 / 2), (2, 2, 1)
    )
    return ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(1.0), TEMPERATURE)


long = pytest.mark.long
BRIEF = ("mgrad_gaussian", "elliptical_slice", "mala")
NAMES = [pytest.param(name, marks=() if name in BRIEF else long) for name in BLACKJAX]


def check(draws, evaluations):
    image = xr.Dataset({"x": draws["posterior/image"].astype(np.float64)})
    dims = ("chain", "draw")
    mean = (image.mean(dims) - MEAN) / arviz_stats.mcse(image)
    deviation = (image.std(dims) - DEVIATION) / arviz_stats.mcse(image, method="sd")
    # The largest of eight standard normal errors exceeds 4 with probability 5e-4.
    assert np.abs(mean["x"]).max() < 4
    assert np.abs(deviation["x"]).max() < 4
    stats = draws["sample_stats"]
    x = image["x"].sum(("row", "col", "channel")), (image["x"] ** 2).sum(("row", "col", "channel"))
    log_density = SLOPE / TEMPERATURE * x[0] - (1 + CURVATURE / TEMPERATURE) / 2 * x[1]
    np.testing.assert_allclose(stats["lp"], log_density - 2 * np.log(2 * np.pi), atol=1e-3)
    assert (stats["n_steps"] >= 2 * evaluations).all()
    # The tilt's gradient is (b - a x)/T, whose mean over all draws Stein's identity knows.
    gradient = (SLOPE - CURVATURE * image["x"].mean("draw")) / TEMPERATURE
    np.testing.assert_allclose(draws["stein/image"].mean("block"), gradient, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.long
def test_kernels_of_blackjax_draw_the_other_gaussian(name):
    draws = ppl_cnn.draw(
        density(), kernel=f"blackjax:{name}", chains=4, draws=1000, thin=2, progress=False
    )
    check(draws, 1)
    stats = draws["sample_stats"]
    assert ("forward_passes" in stats) == (name == "elliptical_slice")
    if name != "elliptical_slice":
        target = BLACKJAX[name].target
        assert stats["acceptance_rate"].mean() == pytest.approx(target, abs=0.15)


def test_a_kernel_of_numpyro_draws_it_too():
    kernel = ppl_cnn.ExternalKernel(BarkerMH, target_accept_prob=0.5)
    draws = ppl_cnn.draw(density(), kernel=kernel, chains=4, draws=1000, thin=2, progress=False)
    check(draws, 1)
    assert draws["sample_stats/acceptance_rate"].mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    "kernel", ["blackjax:mgrad_gaussian", pytest.param("numpyro:BarkerMH", marks=long)]
)
def test_a_run_resumes_to_the_same_bits(kernel, tmp_path):
    settings = Sampling(kernel=parse_method(kernel), chains=2, warmup=20)
    for draws in (20, 40):
        sample_to([density()], settings, tmp_path / "cut", draws=draws, progress=False)
    sample_to([density()], settings, tmp_path / "whole", draws=40, progress=False)
    cut, whole = (open_draws(tmp_path / name / "draws.zarr") for name in ("cut", "whole"))
    np.testing.assert_array_equal(cut["posterior/image"], whole["posterior/image"])
