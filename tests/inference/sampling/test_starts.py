import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import fft

import ppl_cnn
from ppl_cnn.inference.kernels.kernel import SITE
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts import ASCENT, Starts
from ppl_cnn.models.trained.cnn import preprocess

REFERENCES = [
    ppl_cnn.WhiteNoise(10.0),
    ppl_cnn.Uniform(),
    ppl_cnn.Spectral(),
    ppl_cnn.Bounded(ppl_cnn.WhiteNoise(60.0)),
]
SOME = [
    REFERENCES[0],
    *[pytest.param(reference, marks=pytest.mark.long) for reference in REFERENCES[1:3]],
    REFERENCES[3],
]


def densities(text="conv2:3", reference=REFERENCES[0]):
    units = ppl_cnn.load("alexnet-fashion").units(text)
    return [ppl_cnn.TiltedDensity(unit, reference, 0.1) for unit in units]


def started(text, found, chains=4):
    """The images at which the chains of a program start."""
    sampling = Sampling(chains=chains)
    position = Program(found, sampling).begin(Starts(text)(found, sampling).latents)
    return np.asarray(found[0].push(position.chains.states.z[SITE]))


@pytest.fixture
def photographs(tmp_path):
    """Two files, and their pixels."""
    pixels = np.random.default_rng(0).integers(20, 235, (2, 28, 28, 3), np.uint8)
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for path, one in zip(paths, pixels, strict=True):
        Image.fromarray(one).save(path)
    return paths, pixels


@pytest.mark.parametrize("reference", REFERENCES, ids=str)
def test_chains_start_at_photographs_in_turn(reference, photographs):
    paths, pixels = photographs
    found = densities("conv2:3,conv2:9", reference)
    images = started(f"image:{paths[0]},{paths[1]}", found, chains=3)
    unit = found[0].unit
    whole = preprocess(pixels, unit.preprocessing, unit.image_shape)
    crops = np.asarray(whole[:, unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop])
    np.testing.assert_allclose(images, crops[[0, 1, 0, 0, 1, 0]], atol=0.01)


@pytest.mark.parametrize("reference", SOME, ids=str)
def test_chains_start_at_another_runs_last_draws(reference, tmp_path):
    sample_to(tmp_path, densities(), Sampling(chains=2, warmup=5), 3, progress=False)
    last = open_draws(tmp_path / "draws.zarr")["posterior/image"].values[:, -1]
    images = started(f"run:{tmp_path}", densities("conv2:7", reference), chains=3)
    np.testing.assert_allclose(images, last[[0, 1, 0]], atol=0.01)


@pytest.mark.long
def test_chains_in_a_band_start_at_the_nearest_images_in_it(photographs, tmp_path):
    paths, pixels = photographs
    reference = ppl_cnn.Band(4)
    found = densities("fc8:3", reference)
    images = started(f"image:{paths[0]}", found, chains=1)
    unit = found[0].unit
    whole = np.asarray(preprocess(pixels[:1], unit.preprocessing, unit.image_shape), np.float64)
    waves = fft.dctn(whole, norm="ortho", axes=(1, 2))
    waves[:, 4:], waves[:, :, 4:] = 0, 0
    np.testing.assert_allclose(images, fft.idctn(waves, norm="ortho", axes=(1, 2)), atol=0.01)
    # Another run's draws in the band are themselves.
    sample_to(tmp_path / "run", found, Sampling(chains=2, warmup=5), 3, progress=False)
    last = open_draws(tmp_path / "run" / "draws.zarr")["posterior/image"].values[:, -1]
    np.testing.assert_allclose(started(f"run:{tmp_path / 'run'}", found, 2), last, atol=0.01)
    z = Starts("rto")(densities("conv1:3", reference), Sampling(chains=1)).latents
    assert z.shape == (1, 4, 4, 1)


def test_a_run_of_several_units_starts_each_at_its_own_draws(tmp_path):
    found = densities("conv2:3-4")
    sample_to(tmp_path, found, Sampling(chains=1, warmup=5), 2, progress=False)
    images = started(f"run:{tmp_path}", found, chains=1)
    for image, name in zip(images, ("conv2-3-at-7,7", "conv2-4-at-7,7"), strict=True):
        last = open_draws(tmp_path / name / "draws.zarr")["posterior/image"].values[0, -1]
        np.testing.assert_allclose(image, last, atol=1e-3)


def test_zero_is_the_mean_image():
    np.testing.assert_array_equal(started("zero", densities()), 0)


def test_by_default_chains_start_at_draws_of_the_reference():
    assert Starts("prior")(densities(), Sampling()).latents is None
    sampling = Sampling(chains=64)
    z = Program(densities(), sampling).begin().chains.states.z[SITE]
    # 64 x 196 normals: mean and variance within five of their standard errors.
    assert abs(float(jnp.mean(z))) < 5 / np.sqrt(z.size)
    assert abs(float(jnp.var(z)) - 1) < 5 * np.sqrt(2 / z.size)


def test_photographs_are_named_by_what_they_show(photographs, tmp_path):
    paths, _ = photographs
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    assert Starts(f"image:{paths[0]}").text == Starts(f"image:{copy}").text
    assert Starts(f"image:{paths[0]}").text != Starts(f"image:{paths[1]}").text


@pytest.mark.parametrize("text", ["", "one", "image:", "run:", "zero:1", "prior:x", "two-sided:"])
def test_other_words_are_refused(text, refused):
    with refused("is no start", "image:FILE"):
        Starts(text)


def test_files_that_are_no_images_are_refused(tmp_path, refused):
    (tmp_path / "text.png").write_text("no image")
    with refused("is no image"):
        Starts(f"image:{tmp_path / 'text.png'}")
    with refused("There is no file"):
        Starts(f"image:{tmp_path / 'nosuch.png'}")


def test_draws_of_another_size_are_refused(tmp_path, refused):
    sample_to(tmp_path, densities("conv1:3"), Sampling(chains=1, warmup=5), 2, progress=False)
    with refused("(5, 5, 1)", "conv2:3"):
        started(f"run:{tmp_path}", densities())
    with refused("no draws"):
        started(f"run:{tmp_path / 'nosuch'}", densities())


def linear_density():
    slope = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4, 1)), jnp.float32)
    response = ppl_cnn.ScoreFunction(lambda image: jnp.sum(slope * image), slope.shape)
    return ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(2.0), 1.0), 2.0 * slope


def test_optimised_starts_of_a_linear_response_are_draws_of_the_density():
    """N(w, I) in z, w = sigma slope / T: their errors are standard normal."""
    density, mean = linear_density()
    sampling = Sampling(chains=40)
    z = Starts("rto")([density], sampling).latents
    errors = np.asarray(z) - np.asarray(mean)
    assert np.abs(errors.mean(axis=0)).max() < 4 / np.sqrt(40)
    # A chi-square of 480 degrees of freedom, within four of its standard deviations.
    assert abs((errors**2).sum() - 480) < 4 * np.sqrt(2 * 480)


def test_optimised_starts_respond_more_than_draws_of_the_reference():
    found = densities("conv2:3,conv2:9")
    responses = {}
    for text in ("prior", "rto"):
        z = Starts(text)(found, Sampling(chains=3)).latents
        z = Program(found, Sampling(chains=3)).begin(z).chains.states.z[SITE]
        responses[text] = [
            float(density.tilt(z[3 * index + chain]))
            for index, density in enumerate(found)
            for chain in range(3)
        ]
    assert min(np.subtract(responses["rto"], responses["prior"])) > 1


def test_optimised_starts_dont_learn_the_fixed_views():
    """Those of units that differ in their fixed views alone are the same, and respond more in
    views that neither of them has."""
    (unit,) = ppl_cnn.load("alexnet-fashion").units("conv2:3")
    one, other, many = (
        ppl_cnn.TiltedDensity(ppl_cnn.Averaged(unit, views, seed=seed), REFERENCES[0], 0.02)
        for views, seed in ((2, 1), (2, 2), (64, 3))
    )
    starts = [Starts("rto")([density], Sampling(chains=1)).latents[0] for density in (one, other)]
    np.testing.assert_array_equal(*starts)
    noise = jax.random.normal(jax.random.key(3), (8, *many.latent_shape))
    assert many.tilt(starts[0]) > max(map(many.tilt, noise)) + 1


def test_half_of_the_chains_of_a_two_sided_run_start_at_the_reference():
    density, mean = linear_density()
    sampling = Sampling(chains=40)
    for text in ("two-sided", "two-sided:anneal:64"):
        z = np.asarray(Starts(text)([density], sampling).latents)
        # Each side's mean over 20 chains and 12 pixels, within four standard errors.
        assert abs(z[:20].mean()) < 4 / np.sqrt(240)
        assert abs((z[20:] - np.asarray(mean)).mean()) < 4 / np.sqrt(240)
    assert np.abs(mean).max() > 1


def test_two_sides_go_with_every_other_start(photographs):
    paths, _ = photographs
    images = started(f"two-sided:image:{paths[0]}", densities("conv2:3,conv2:9"))
    alone = started(f"image:{paths[0]}", densities())
    np.testing.assert_allclose(images[[2, 3]], alone[:2], atol=1e-4)
    np.testing.assert_allclose(images[[6, 7]], alone[:2], atol=1e-4)
    rest = images[[0, 1, 4, 5]]
    assert rest.std() == pytest.approx(10, rel=0.1)
    assert Starts("two-sided").text == Starts("two-sided:rto").text == "two-sided:rto"


def test_both_sides_at_the_reference_are_refused(refused):
    with refused("Both sides", "rto"):
        Starts("two-sided:prior")


def test_an_odd_number_of_chains_has_no_two_sides(refused):
    with refused("3 chains", "even number"):
        Starts("two-sided")(densities(), Sampling(chains=3))


def test_gradients_of_the_start_are_recorded(tmp_path):
    for init, count in (("rto", 2 * ASCENT), ("two-sided:rto", ASCENT)):
        record = recorded(init, tmp_path / init)
        assert record["config"]["init"] == init
        assert record["gradients"]["start"] == count


def recorded(init, out):
    """The record of a short run that starts so."""
    sampling = Sampling(chains=2, warmup=5, init=init)
    sample_to(out, densities(), sampling, 4, starts=Starts(init), progress=False)
    return json.loads((out / "run.json").read_text())


def test_annealing_is_recorded(tmp_path):
    record = recorded("anneal:4", tmp_path)
    note, gradients = record["annealing"], record["gradients"]["start"]
    rungs = len(note["strengths"]) - 1
    assert (note["strengths"][0], note["strengths"][-1]) == (0, 1)
    assert rungs > 3
    # Sixteen particles find the ladder and four of each chain go up, a trajectory at each rung.
    assert gradients % 4 == 0
    assert 24 * (1 + rungs) <= gradients <= 24 * (1 + 32 * 1.5 * rungs)
    assert len(note["log_z"]) == 2
    assert min(note["log_z"]) <= note["value"] <= max(note["log_z"])


@pytest.mark.parametrize("text", ["anneal:", "anneal:1", "anneal:x", "anneal:2.5", "anneal:-4"])
def test_particles_are_counted(text, refused):
    with refused("is no start", "anneal:M"):
        Starts(text)


def test_a_run_recorded_as_two_sided_is_continued(tmp_path):
    """So earlier versions called what is two-sided:rto."""
    sampling = Sampling(chains=2, warmup=5, init="two-sided")
    sample_to(tmp_path, densities(), sampling, 4, starts=Starts("two-sided"), progress=False)
    now = Sampling(chains=2, warmup=5, init=Starts("two-sided").text)
    sample_to(tmp_path, densities(), now, 6, starts=Starts("two-sided"), progress=False)
    assert open_draws(tmp_path / "draws.zarr")["posterior"].sizes["draw"] == 6
    assert json.loads((tmp_path / "run.json").read_text())["config"]["init"] == "two-sided"


def test_a_run_holds_where_its_chains_start(tmp_path):
    found = densities("conv2:3,conv2:9")
    for init in ("prior", "rto"):
        sampling = Sampling(chains=2, warmup=5, init=init)
        sample_to(tmp_path / init, found, sampling, 4, starts=Starts(init), progress=False)
        images = started(init, found, chains=2)
        for unit in (0, 1):
            folder = tmp_path / init / ("conv2-3-at-7,7", "conv2-9-at-7,7")[unit]
            stored = open_draws(folder / "draws.zarr")["start/image"]
            assert stored.dims == ("chain", "row", "col", "channel")
            np.testing.assert_allclose(stored.values, images[2 * unit : 2 * unit + 2], atol=1e-4)


def test_draw_takes_a_start():
    (density,) = densities()
    draws = ppl_cnn.draw(density, chains=2, draws=4, warmup=5, start="zero", progress=False)
    np.testing.assert_array_equal(draws["start/image"].values, 0)
