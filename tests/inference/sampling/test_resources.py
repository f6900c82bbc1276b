import json
import os
from dataclasses import replace

import arviz_stats
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import ppl_cnn
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.runs.record import unit_folder
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling import placement, resources
from ppl_cnn.inference.sampling.driver import Origin, sample_to
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.resources import group_units
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts.drawn import Rto
from ppl_cnn.models.density import gradient_bytes
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.layers import Dense
from ppl_cnn.models.trained.cnn import CNN

SIGMA, TEMPERATURE = 3.0, 0.5


def linear_cnn():
    """Three linear units, of widely different lengths, so that they want different steps."""
    weights = np.random.default_rng(0).normal(size=(20, 3))
    kernel = jnp.asarray(weights, jnp.float32) * jnp.asarray([[0.02, 0.2, 1.0]])
    network = Network(
        "linear", (4, 5, 1), Preprocessing((0.0,), (1.0,), "grey"), layers=(Dense("fc", 3),)
    )
    return CNN(network, {"fc": {"kernel": kernel, "bias": jnp.zeros(3)}})


def linear_densities(text="fc:0-2"):
    noise = ppl_cnn.WhiteNoise(SIGMA)
    return [ppl_cnn.TiltedDensity(unit, noise, TEMPERATURE) for unit in linear_cnn().units(text)]


def trained_densities(text, reference=None):
    units = ppl_cnn.load("alexnet-fashion").units(text)
    reference = reference or ppl_cnn.WhiteNoise(10.0)
    return [ppl_cnn.TiltedDensity(unit, reference, 0.1) for unit in units]


def draws_of(out, density):
    return open_draws(out / unit_folder(str(density.unit)) / "draws.zarr")


@pytest.mark.long
def test_every_unit_side_by_side_has_its_own_gaussian(tmp_path):
    """p_c = N(sigma^2 w_c / T, sigma^2 I) for a linear network's unit c."""
    densities = linear_densities()
    sample_to(densities, Sampling(chains=4), tmp_path, draws=800, progress=False)
    kernel = np.asarray(linear_cnn().arrays()["fc"]["kernel"])
    for channel, density in enumerate(densities):
        image = draws_of(tmp_path, density)["posterior/image"].load().astype(np.float64)
        truth = SIGMA**2 * kernel[:, channel].reshape(4, 5, 1) / TEMPERATURE
        error = arviz_stats.mcse(xr.Dataset({"x": image}))["x"]
        # The largest of 60 standard normal errors exceeds 4.5 with probability 4e-4.
        assert np.abs((image.mean(("chain", "draw")) - truth) / error).max() < 4.5
        stein = draws_of(tmp_path, density)["stein/image"]
        np.testing.assert_allclose(stein, np.broadcast_to(truth, stein.shape), atol=2e-4)


@pytest.mark.parametrize(
    "text", ["conv1:0,conv1:5", pytest.param("conv2:0,conv2:5", marks=pytest.mark.long)]
)
def test_units_draw_together_what_they_draw_alone(text, tmp_path):
    """The first draws agree to float accuracy; later ones may part, as chaos amplifies that."""
    sampling = Sampling(chains=2, warmup=1)
    densities = trained_densities(text)
    sample_to(densities, sampling, tmp_path / "all", draws=5, progress=False)
    for density in densities:
        alone = tmp_path / str(density.unit)
        sample_to([density], sampling, alone, draws=5, progress=False)
        one, all_ = open_draws(alone / "draws.zarr"), draws_of(tmp_path / "all", density)
        for name in ("posterior/image", "posterior/response", "sample_stats/step_size"):
            np.testing.assert_allclose(all_[name], one[name], rtol=1e-3, atol=1e-2)


@pytest.mark.long
def test_each_unit_has_its_own_step_and_its_chains_share_it(tmp_path):
    densities = trained_densities("conv2:0-3")  # conv1's tilts are linear, and take any step
    sample_to(densities, Sampling(chains=2, warmup=60), tmp_path, draws=4, progress=False)
    steps = np.stack([draws_of(tmp_path, each)["sample_stats/step_size"] for each in densities])
    assert (steps == steps[:, :1, :1]).all()
    assert len(np.unique(steps)) == len(densities)


@pytest.mark.parametrize(
    "kernel", [ppl_cnn.Langevin(), pytest.param(ppl_cnn.Split(), marks=pytest.mark.long)], ids=str
)
def test_chains_in_parts_are_the_chains_at_once(kernel, tmp_path, monkeypatch):
    densities, sampling = linear_densities(), Sampling(kernel=kernel, chains=4, warmup=5)
    sample_to(densities, sampling, tmp_path / "once", draws=10, progress=False)
    monkeypatch.setattr(placement, "_at_once", lambda *_: 2)
    sample_to(densities, sampling, tmp_path / "parts", draws=10, progress=False)
    for density in densities:
        once, parts = (draws_of(tmp_path / name, density) for name in ("once", "parts"))
        np.testing.assert_allclose(
            parts["posterior/image"], once["posterior/image"], rtol=1e-3, atol=1e-3
        )


def test_chains_that_move_at_once_fit_a_cpus_caches(monkeypatch):
    (density,), sampling = trained_densities("conv5:0"), Sampling(chains=6)
    needed = gradient_bytes(density)
    assert needed > 4 * np.prod(density.latent_shape)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for cache, most in ((needed, 2), (needed * 3 // 2, 3), (2**30, 8)):
        monkeypatch.setattr("ppl_cnn.inference.sampling.placement.CACHE_PER_CORE", cache)
        assert Program([density], sampling).placement.at_once == most


@pytest.mark.long
def test_the_records_name_all_units_and_each(tmp_path):
    densities = trained_densities("conv2:1,conv1:0")
    sample_to(
        densities, Sampling(chains=2, warmup=5), tmp_path, draws=4, origin=Origin("alexnet-fashion")
    )
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"]["units"] == ["conv2:1@7,7", "conv1:0@14,14"]
    own = json.loads((tmp_path / "conv1-0-at-14,14" / "run.json").read_text())
    assert own["config"]["unit"] == "conv1:0@14,14"
    assert own["config"]["part_of"] == tmp_path.name
    steps = draws_of(tmp_path, densities[1])["sample_stats/n_steps"]
    assert own["gradients"]["sampling"] == int(steps.sum())


@pytest.mark.long
def test_a_gradient_over_several_views_counts_as_several(tmp_path):
    unit = ppl_cnn.Averaged(ppl_cnn.ScoreFunction(jnp.sum, (4, 4, 1)), 3)
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(SIGMA))
    sample_to([density], Sampling(chains=2, warmup=5), tmp_path, draws=4, progress=False)
    spent = json.loads((tmp_path / "run.json").read_text())["gradients"]["sampling"]
    steps = open_draws(tmp_path / "draws.zarr")["sample_stats/n_steps"]
    assert spent == 3 * int(steps.sum())


def test_warmup_and_sampling_count_views_and_starts_their_one(tmp_path):
    """Langevin takes one gradient a step, and a step of randomize-then-optimize sees one view."""
    unit = ppl_cnn.Averaged(ppl_cnn.ScoreFunction(jnp.sum, (4, 4, 1)), 3)
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(SIGMA))
    sampling = Sampling(kernel=ppl_cnn.Langevin(), chains=2, warmup=5, start=Rto(7))
    sample_to([density], sampling, tmp_path, draws=4, progress=False)
    spent = json.loads((tmp_path / "run.json").read_text())["gradients"]
    assert spent == {"start": 2 * 7, "warmup": 3 * 2 * 5, "sampling": 3 * 2 * 4}


def test_groups_hold_units_of_one_layer_and_place():
    densities = trained_densities("conv3:0-4,conv2:1,conv3:7@0,0,conv3:9")
    sizes = [len(group) for group in group_units(densities, Sampling(chains=2))]
    assert sizes == [6, 1, 1]
    sizes = [len(group) for group in group_units(densities, Sampling(chains=2), most=4)]
    assert sizes == [3, 3, 1, 1]


def test_groups_are_as_large_as_memory_lets_them(monkeypatch):
    densities = trained_densities("conv3:0-15")
    assert [len(group) for group in group_units(densities, Sampling())] == [16]
    fitting = resources._fitting(densities[0], Sampling())
    monkeypatch.setattr(resources, "GROUP_BYTES", resources.GROUP_BYTES * 5 // fitting)
    assert max(len(group) for group in group_units(densities, Sampling())) <= 5
    monkeypatch.setattr(resources, "GROUP_BYTES", 1)
    assert [len(group) for group in group_units(densities, Sampling())] == [1] * 16


@pytest.mark.long
def test_a_run_goes_on_in_the_groups_that_it_began_in(tmp_path, monkeypatch):
    """Also where another machine would choose others."""
    densities, sampling = trained_densities("conv1:0-3,conv2:0-1"), Sampling(chains=1, warmup=5)
    sample_to(densities, sampling, tmp_path, draws=3, progress=False)
    monkeypatch.setattr(resources, "GROUP_BYTES", 1)
    sample_to(densities, sampling, tmp_path, draws=5, progress=False)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"]["side_by_side"] == [4, 2]
    assert draws_of(tmp_path, densities[5])["posterior"].sizes["draw"] == 5


def test_other_temperatures_are_other_groups():
    first, second = linear_densities("fc:0-1")
    second = replace(second, temperature=1.0)
    assert [len(group) for group in group_units([first, second], Sampling())] == [1, 1]


def test_no_units_at_a_time_is_refused(refused):
    with refused("at least 1", "0", kind=ArgumentError, argument="side_by_side"):
        group_units(linear_densities(), Sampling(), most=0)


def test_units_share_their_weights_in_a_group():
    program = Program(trained_densities("conv3:0-7"), Sampling(chains=2))
    assert program.placement.params.unit["conv1"]["kernel"].shape == (5, 5, 1, 32)
    assert program.placement.params.unit["conv3"]["kernel"].shape == (3, 3, 64, 8)
    assert program.placement.params.unit["unit"]["channel"].shape == (16,)


@pytest.mark.parametrize("reference", [ppl_cnn.Uniform(), ppl_cnn.Bounded(ppl_cnn.Spectral())])
@pytest.mark.long
def test_bounded_pixels_stay_in_range_and_have_no_stein_mean(reference, tmp_path):
    densities = trained_densities("conv1:3-4", reference)
    sample_to(densities, Sampling(chains=2, warmup=20), tmp_path, draws=10, progress=False)
    for density in densities:
        tree = draws_of(tmp_path, density)
        assert "stein" not in tree.children
        pixels = tree["posterior/image"].values + density.unit.preprocessing.mean[0]
        assert pixels.shape[2:] == density.unit.shape
        assert pixels.min() >= 0
        assert pixels.max() <= 255


@pytest.mark.long
def test_a_spectral_references_stein_mean_is_the_draws_mean(tmp_path):
    """E_p[x] = R R^T E_p[grad f]/T on the unit's crop of the field."""
    (density,) = trained_densities("conv3:5", ppl_cnn.Spectral())
    sample_to([density], Sampling(chains=4, warmup=150), tmp_path, draws=300, progress=False)
    tree = open_draws(tmp_path / "draws.zarr")
    image = tree["posterior/image"].load().astype(np.float64)
    stein = tree["stein/image"].weighted(tree["stein/draws"]).mean(("chain", "block"))
    along = (image * stein).sum(("row", "col", "channel")) / np.sqrt((stein**2).sum())
    truth = float(np.sqrt((stein**2).sum()))
    error = float(arviz_stats.mcse(xr.Dataset({"x": along}))["x"])
    assert abs(float(along.mean()) - truth) < 4.5 * error
    assert truth > 8 * error


@pytest.mark.parametrize(("draws", "said"), [(20, "0.2 MB"), (1_000_000, "8.0 GB")])
def test_what_many_units_take_is_said_in_fitting_bytes(draws, said):
    densities = trained_densities("conv1:0-9")  # fields of 5 x 5: 8,000 bytes a draw of all
    told = resources.told_size(densities, chains=8, draws=draws, groups=2)
    assert told.startswith("10 units, in 2 groups side by side.")
    assert f" {said} at most" in told
