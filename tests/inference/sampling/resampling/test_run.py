"""Runs by resampling: known answers, brute force over images, refusals, and the same bits."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import ppl_cnn
from ppl_cnn.data import batches
from ppl_cnn.errors import MismatchError, RunFolderError
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.runs.record import unit_folder
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.resampling import run
from ppl_cnn.inference.sampling.resampling.settings import Resample, Resampling

SIGMA, TEMPERATURE = 3.0, 2.0
SLOPE = np.random.default_rng(1).normal(size=(3, 4, 1)).astype(np.float32) / 6
QUIET = {"progress": False}


def linear(image):
    return jnp.sum(jnp.asarray(SLOPE) * image)


def linear_density(temperature=TEMPERATURE):
    """p = N(sigma^2 w / T, sigma^2 I)."""
    score = ppl_cnn.ScoreFunction(linear, SLOPE.shape)
    return ppl_cnn.TiltedDensity(score, ppl_cnn.WhiteNoise(SIGMA), temperature)


def test_a_linear_response_has_known_weights_and_draws():
    """g ~ N(0, v) under q, v = s^2 |w|^2 / T^2: log Z = v/2, and a share exp(-v) is effective."""
    count, draws = 20_000, 500
    tree = ppl_cnn.draw(
        linear_density(), kernel=f"resample:{count}", chains=4, draws=draws, **QUIET
    )
    weights = Weights(tree["weights/tilt"].values)
    variance = SIGMA**2 * float((SLOPE**2).sum()) / TEMPERATURE**2
    assert abs(weights.log_z.value - variance / 2) < 4 * weights.log_z.error
    assert weights.effective / count == pytest.approx(math.exp(-variance), rel=0.1)
    image = tree["posterior/image"].values.reshape(-1, SLOPE.size)
    error = SIGMA / math.sqrt(weights.worth(4 * draws))
    # The largest of 12 standard normal errors exceeds 4 with probability 8e-4.
    assert np.abs(image.mean(axis=0) - SIGMA**2 * SLOPE.ravel() / TEMPERATURE).max() < 4 * error
    np.testing.assert_allclose(
        tree["posterior/response"].values.ravel(), image @ SLOPE.ravel(), rtol=1e-4, atol=1e-3
    )
    logs = np.log(weights.shares[tree["sample_stats/proposal"].values])
    np.testing.assert_allclose(tree["sample_stats/log_weight"].values, logs, rtol=1e-5)
    # What the store keeps of q and of the heaviest proposals are proposals.
    heaviest = tree["heaviest/image"].values.reshape(-1, SLOPE.size) @ SLOPE.ravel() / TEMPERATURE
    np.testing.assert_allclose(heaviest, np.sort(weights.tilts)[: -len(heaviest) - 1 : -1], 1e-4)
    assert abs(tree["prior/image"].values.std() - SIGMA) < 4 * SIGMA / math.sqrt(2 * 32 * 12)


def curved(image):
    """A nonlinear score of two pixels."""
    return 2 * jnp.sin(image[0, 0, 0]) - 0.3 * (image[0, 1, 0] - image[0, 0, 0] ** 2 / 4) ** 2


def test_it_agrees_with_split_and_with_quadrature():
    """A latent of two dimensions."""
    density = ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(curved, (1, 2, 1)), ppl_cnn.WhiteNoise(1.5), 0.8
    )
    axis = np.linspace(-8.0, 8.0, 401, dtype=np.float32)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 1, 2, 1)
    tilts = np.asarray(jax.jit(jax.vmap(density.tilt))(z), np.float64)
    logs = tilts - (z**2).sum(axis=(1, 2, 3)) / 2 - math.log(2 * math.pi)
    log_z = logsumexp(logs) + 2 * math.log(16 / 400)
    shares = np.exp(logs - logsumexp(logs))
    scores = tilts * 0.8
    mean = (shares * scores).sum()
    sd = math.sqrt((shares * (scores - mean) ** 2).sum())
    tree = ppl_cnn.draw(density, kernel="resample:20000", chains=4, draws=500, **QUIET)
    weights = Weights(tree["weights/tilt"].values)
    assert abs(weights.log_z.value - log_z) < 4 * weights.log_z.error
    error = sd / math.sqrt(weights.worth(2000))
    assert abs(tree["posterior/response"].values.mean() - mean) < 4 * error
    chains = ppl_cnn.diagnose(
        ppl_cnn.draw(density, chains=4, draws=500, warmup=60, **QUIET), maps=False
    )
    found = chains.summary.loc["response"]
    assert abs(found["mean"] - mean) < 4 * found["mcse_mean"]


@pytest.fixture(scope="module")
def images():
    """100 images, their labels, and each one's score for two classes and a filter."""
    network = ppl_cnn.load("alexnet-fashion")
    q = ppl_cnn.Empirical("fashion-embedded", "test[:100]")
    (batch,) = batches(q.images, 100)
    x = batch["image"].astype(np.float32) - network.preprocessing.mean[0]
    return network, q, batch["label"], x


def test_under_images_everything_is_brute_force(images, tmp_path):
    network, q, labels, x = images
    units = network.units("class:Bag,class:Coat,conv2:3")
    densities = [ppl_cnn.EmpiricalDensity(unit, q, 3.0) for unit in units]
    sample_to(densities, Resampling(chains=2), tmp_path / "run", draws=40, **QUIET)
    scores = np.asarray(jax.jit(lambda x: network(x))(x))
    wanted = [scores[:, 8], scores[:, 4]]
    filter_ = units[2]
    seen = x[:, filter_.rows.start : filter_.rows.stop, filter_.cols.start : filter_.cols.stop]
    score = jax.jit(jax.vmap(filter_.score, (None, 0)))
    wanted.append(np.asarray(score(filter_.params, jnp.asarray(seen))))
    for unit, truth in zip(units, wanted, strict=True):
        folder = tmp_path / "run" / unit_folder(str(unit))
        tree = open_draws(folder / "draws.zarr")
        np.testing.assert_allclose(tree["weights/tilt"].values * 3, truth, rtol=1e-3, atol=2e-3)
        np.testing.assert_array_equal(tree["weights/label"].values, labels)
        weights = Weights(tree["weights/tilt"].values)
        exact = logsumexp(truth.astype(np.float64) / 3) - math.log(100)
        assert weights.log_z.value == pytest.approx(exact, abs=2e-3)
        record = json.loads((folder / "run.json").read_text())
        assert record["importance"]["log_z"]["value"] == weights.log_z.value
        assert record["importance"]["effective"] == weights.effective
        assert record["forward_passes"] == {"sampling": 100}
        assert record["labels"][8] == "Bag"
        # A draw is one of the images.
        number = int(tree["sample_stats/proposal"][1, 7])
        whole = (unit.rows.start, unit.rows.stop), (unit.cols.start, unit.cols.stop)
        own = x[number, slice(*whole[0]), slice(*whole[1])]
        np.testing.assert_allclose(tree["posterior/image"][1, 7].values, own, atol=1e-4)
    diagnosis = ppl_cnn.diagnose(tmp_path / "run" / "fc8-8")
    shares = np.exp(wanted[0] / 3 - logsumexp(wanted[0] / 3))
    bag = diagnosis.weighing.labels[0]
    assert bag.label == "Bag"
    assert bag.weight == pytest.approx(shares[labels == 8].sum(), abs=1e-3)
    assert bag.images == pytest.approx(np.mean(labels == 8))


def test_units_share_proposals_and_passes(tmp_path):
    """Each unit's weights and draws are those of a run of its own, to rounding."""
    network = ppl_cnn.load("alexnet-fashion")
    units = network.units("conv1:0,conv1:1")
    densities = [ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0), 1.0) for unit in units]
    settings = Resampling(kernel=Resample(600), chains=2)
    passes = []
    spied = run.Scorer.weighed

    def weighed(scorer, **given):
        scored = spied(scorer, **given)
        passes.append(scored.tilts.shape)
        return scored

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Scorer, "weighed", weighed)
        sample_to(densities, settings, tmp_path / "both", draws=6, **QUIET)
    assert passes == [(2, 600)]
    sample_to(densities[1:], settings, tmp_path / "one", draws=6, **QUIET)
    both = open_draws(tmp_path / "both" / unit_folder(str(units[1])) / "draws.zarr")
    one = open_draws(tmp_path / "one" / "draws.zarr")
    for name in ("weights/tilt", "prior/image"):
        np.testing.assert_allclose(both[name].values, one[name].values, rtol=1e-4, atol=1e-4)


def content(folder):
    tree = open_draws(folder / "draws.zarr")
    names = ("posterior/image", "posterior/response", "sample_stats/proposal", "weights/tilt")
    return [tree[name].values for name in names]


def test_a_run_resumes_and_grows_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "LONGEST_BLOCK", 8)
    density = linear_density()
    settings = Resampling(kernel=Resample(1000), chains=3, seed=4)
    sample_to([density], settings, tmp_path / "whole", draws=30, **QUIET)

    killed = run.DrawStore.write

    def write(store, draws, *given):
        if draws >= 16:
            raise KeyboardInterrupt
        killed(store, draws, *given)

    with monkeypatch.context() as patch:
        patch.setattr(run.DrawStore, "write", write)
        with pytest.raises(KeyboardInterrupt):
            sample_to([density], settings, tmp_path / "parts", draws=30, **QUIET)
    assert open_draws(tmp_path / "parts" / "draws.zarr")["posterior"].sizes["draw"] == 16
    monkeypatch.setattr(run.Scorer, "weighed", None)  # that is not done again
    for draws in (19, 30, 30):
        sample_to([density], settings, tmp_path / "parts", draws=draws, **QUIET)
    for one, other in zip(content(tmp_path / "whole"), content(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(one, other)
    records = [
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "parts")
    ]
    assert records[0]["importance"] == records[1]["importance"]


def test_other_seeds_give_other_draws():
    one, other = (
        ppl_cnn.draw(linear_density(), kernel="resample:500", chains=1, draws=9, seed=seed, **QUIET)
        for seed in (0, 1)
    )
    assert not np.isin(one["posterior/image"].values, other["posterior/image"].values).any()


def test_a_strong_tilt_is_refused_before_anything_is_drawn(tmp_path, refused):
    density = linear_density(temperature=0.2)
    facts = ("white:3", "linear", "resample:", "temperature", "split", f"{run.FEWEST_EFFECTIVE:g}")
    with refused(*facts, kind=MismatchError):
        sample_to([density], Resampling(kernel=Resample(400)), tmp_path / "run", draws=5, **QUIET)
    assert open_draws(tmp_path / "run" / "draws.zarr")["posterior"].sizes["draw"] == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["importance"]["effective"] < run.FEWEST_EFFECTIVE
    # The weights of images are the density, however few carry it.
    score = ppl_cnn.ScoreFunction(jnp.mean, (28, 28, 1))
    images = ppl_cnn.EmpiricalDensity(score, ppl_cnn.Empirical("fashion-embedded", "test[:9]"), 1.0)
    assert ppl_cnn.draw(images, chains=1, draws=4, **QUIET)["posterior"].sizes["draw"] == 4


def test_a_response_that_is_not_finite_is_refused(refused):
    score = ppl_cnn.ScoreFunction(lambda image: jnp.log(image[0, 0, 0]), (2, 2, 1))
    density = ppl_cnn.TiltedDensity(score, ppl_cnn.WhiteNoise(1.0))
    with refused("not finite", "white:1", kind=MismatchError):
        ppl_cnn.draw(density, kernel="resample:50", draws=5, **QUIET)


def test_a_folder_of_another_run_is_refused(tmp_path, refused):
    ppl_cnn.draw(linear_density(), kernel="resample:500", draws=5, out=tmp_path / "run", **QUIET)
    with refused("resample:500", "resample:600", kind=RunFolderError):
        ppl_cnn.draw(
            linear_density(), kernel="resample:600", draws=5, out=tmp_path / "run", **QUIET
        )
