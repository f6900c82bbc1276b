import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import fft

import ppl_cnn
from ppl_cnn.errors import (
    ArgumentError,
    FileError,
    MismatchError,
    RunFolderError,
    UnknownNameError,
)
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts import drawn
from ppl_cnn.inference.sampling.starts.drawn import Annealed, Prior, Rto, TwoSided
from ppl_cnn.inference.sampling.starts.images import FromRun, Images, Zero
from ppl_cnn.inference.sampling.starts.optimum import STEPS
from ppl_cnn.inference.sampling.starts.registry import FORMS, as_start, parse_start
from ppl_cnn.models.density import gradient_bytes
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


def densities(text="conv1:3", reference=REFERENCES[0]):
    units = ppl_cnn.load("alexnet-fashion").units(text)
    return [ppl_cnn.TiltedDensity(unit, reference, 0.1) for unit in units]


def latents(start, found, chains=4):
    """The latents at which chains start."""
    return as_start(start).latents(found, Sampling(chains=chains)).latents


def started(start, found, chains=4):
    """The images at which the chains of a program start."""
    z = latents(start, found, chains)
    position = Program(found, Sampling(chains=chains)).begin(z)
    return np.asarray(found[0].push(position.chains.states.z))


def run(out, found, start="prior", draws=4, chains=2):
    """Samples to a folder; its record."""
    begin = as_start(start)
    sampling = Sampling(kernel=ppl_cnn.Langevin(), chains=chains, warmup=5, start=begin)
    sample_to(found, sampling, out, draws=draws, progress=False)
    return json.loads((out / "run.json").read_text())


@pytest.fixture
def photographs(tmp_path):
    """Two files, and their pixels."""
    pixels = np.random.default_rng(0).integers(20, 235, (2, 28, 28, 3), np.uint8)
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for path, one in zip(paths, pixels, strict=True):
        Image.fromarray(one).save(path)
    return paths, pixels


@pytest.mark.parametrize("reference", SOME, ids=str)
def test_chains_start_at_photographs_in_turn(reference, photographs):
    paths, pixels = photographs
    found = densities("conv1:3,conv1:9", reference)
    images = started(f"image:{paths[0]},{paths[1]}", found, chains=3)
    unit = found[0].unit
    whole = preprocess(pixels, unit.preprocessing, unit.image_shape)
    crops = np.asarray(whole[:, unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop])
    np.testing.assert_allclose(images, crops[[0, 1, 0, 0, 1, 0]], atol=0.01)


def test_photographs_have_names_of_any_kind(photographs, tmp_path):
    odd = [tmp_path / name for name in ("a,b #1, 50%.png", "caf\udce9.png")]
    for path, place in zip(photographs[0], odd, strict=True):
        path.rename(place)
    start = as_start(f"image:{odd[0]},{odd[1]}")
    np.testing.assert_array_equal(start.photographs, photographs[1])


@pytest.mark.parametrize("reference", SOME, ids=str)
@pytest.mark.long
def test_chains_start_at_another_runs_last_draws(reference, tmp_path):
    run(tmp_path, densities(), draws=3)
    last = open_draws(tmp_path / "draws.zarr")["posterior/image"].values[:, -1]
    images = started(f"run:{tmp_path}", densities("conv1:7", reference), chains=3)
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
    run(tmp_path / "run", found, draws=3)
    last = open_draws(tmp_path / "run" / "draws.zarr")["posterior/image"].values[:, -1]
    np.testing.assert_allclose(started(f"run:{tmp_path / 'run'}", found, 2), last, atol=0.01)
    z = latents("rto", densities("conv1:3", reference), chains=1)
    assert z.shape == (1, 4, 4, 1)


@pytest.mark.long
def test_a_run_of_several_units_starts_each_at_its_own_draws(tmp_path):
    found = densities("conv2:3-4")
    run(tmp_path, found, draws=2, chains=1)
    images = started(f"run:{tmp_path}", found, chains=1)
    for image, name in zip(images, ("conv2-3-at-7,7", "conv2-4-at-7,7"), strict=True):
        last = open_draws(tmp_path / name / "draws.zarr")["posterior/image"].values[0, -1]
        np.testing.assert_allclose(image, last, atol=1e-3)


def test_zero_is_the_mean_image():
    np.testing.assert_array_equal(started("zero", densities()), 0)


def test_by_default_chains_start_at_draws_of_the_reference():
    assert latents("prior", densities()) is None
    sampling = Sampling(chains=64)
    z = Program(densities(), sampling).begin().chains.states.z
    # 64 x 25 normals: mean and variance within five of their standard errors.
    assert abs(float(jnp.mean(z))) < 5 / np.sqrt(z.size)
    assert abs(float(jnp.var(z)) - 1) < 5 * np.sqrt(2 / z.size)


def test_photographs_are_named_by_what_they_show(photographs, tmp_path):
    paths, _ = photographs
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    assert str(parse_start(f"image:{paths[0]}")) == str(parse_start(f"image:{copy}"))
    assert str(parse_start(f"image:{paths[0]}")) != str(parse_start(f"image:{paths[1]}"))


OTHERS = ["", "one", "image:", "run:", "zero:1", "prior:x", "rto:x", "rto:", "two-sided:"]
OTHERS += ["anneal:", "anneal:x", "anneal:2.5", "anneal:-4"]


@pytest.mark.parametrize("text", OTHERS)
def test_other_words_are_refused(text, refused):
    name = text.removeprefix("two-sided:")
    with refused("image:FILE", "anneal:PARTICLES", kind=UnknownNameError, name=name, known=FORMS):
        parse_start(text)


@pytest.mark.parametrize(
    ("text", "start", "recorded"),
    [
        ("prior", Prior(), "prior"),
        ("zero", Zero(), "zero"),
        ("rto", Rto(), "rto"),
        ("rto:600", Rto(600), "rto"),
        ("rto:50", Rto(steps=50), "rto:50"),
        ("anneal", Annealed(), "anneal"),
        ("anneal:16", Annealed(16), "anneal"),
        ("anneal:64", Annealed(particles=64), "anneal:64"),
        ("run:runs/one/", FromRun("runs/one/"), "run:runs/one/"),
        ("two-sided", TwoSided(Rto()), "two-sided:rto"),
        ("two-sided:anneal:4", TwoSided(Annealed(4)), "two-sided:anneal:4"),
        ("two-sided:run:a:b", TwoSided(FromRun("a:b")), "two-sided:run:a:b"),
    ],
)
def test_a_text_is_a_start_and_a_start_its_text(text, start, recorded):
    assert parse_start(text) == start
    assert str(start) == recorded
    assert parse_start(recorded) == start


def test_every_form_in_the_list_is_known(photographs):
    paths, _ = photographs
    for form in FORMS:
        text = form.replace("FILE,...", "FILE").replace("FILE", str(paths[0]))
        text = re.sub("STEPS|PARTICLES|DRAWS", "5", text).replace("START", "zero")
        assert str(parse_start(text)).startswith(form.partition(":")[0])


@pytest.mark.parametrize(
    ("make", "argument"),
    [(lambda: parse_start("anneal:1"), "particles"), (lambda: Rto(0), "steps")],
)
def test_numbers_that_are_too_small_are_refused(make, argument, refused):
    with refused(argument, kind=ArgumentError, argument=argument):
        make()


def test_files_that_are_no_images_are_refused(tmp_path, refused):
    text, nosuch = tmp_path / "text.png", tmp_path / "nosuch.png"
    text.write_text("no image")
    for path in (text, nosuch):
        with refused(path, kind=FileError, path=path):
            parse_start(f"image:{path}")


def test_draws_of_another_size_are_refused(tmp_path, refused):
    run(tmp_path, densities("conv1:3"))
    with refused(tmp_path, "(5, 5, 1)", "conv2:3", kind=MismatchError):
        started(f"run:{tmp_path}", densities("conv2:3"))
    nosuch = tmp_path / "nosuch"
    with refused(nosuch, kind=RunFolderError, path=nosuch / "draws.zarr"):
        started(f"run:{nosuch}", densities())


@pytest.mark.parametrize("reference", SOME, ids=str)
def test_chains_start_at_images_in_memory_in_turn(reference):
    found = densities("conv1:3,conv1:9", reference)
    images = np.random.default_rng(0).uniform(-40, 40, (2, *found[0].unit.shape))
    np.testing.assert_allclose(started(images, found, 3), images[[0, 1, 0, 0, 1, 0]], atol=0.01)


def test_images_are_recorded_by_a_digest():
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 1))
    start = Images(images)
    assert re.fullmatch("images:[0-9a-f]{16}", str(start))
    # As the store has them, in float32.
    assert start == Images(jnp.asarray(images))
    others = [images[:1], images[::-1], images.reshape(2, 4, 3, 1), images + 1]
    assert len({start, *map(Images, others)}) == 5


@pytest.mark.parametrize(
    ("images", "fact"),
    [
        (np.zeros((3, 4, 1)), "(3, 4, 1)"),
        (np.zeros((0, 3, 4, 1)), "(0, 3, 4, 1)"),
        (np.zeros((1, 3, 4, 1), np.uint8), "uint8"),
        (np.full((1, 3, 4, 1), np.nan), "finite"),
    ],
)
def test_arrays_that_are_no_images_are_refused(images, fact, refused):
    with refused(fact, kind=ArgumentError, argument="start"):
        as_start(images)


def test_images_of_another_size_are_refused(refused):
    with refused("(5, 5, 1)", "conv2:3", kind=MismatchError):
        started(np.zeros((1, 5, 5, 1)), densities("conv2:3"))


def linear_density():
    slope = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4, 1)), jnp.float32)
    response = ppl_cnn.ScoreFunction(lambda image: jnp.sum(slope * image), slope.shape)
    return ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(2.0), 1.0), 2.0 * slope


def test_optimised_starts_of_a_linear_response_are_draws_of_the_density():
    """N(w, I) in z, w = sigma slope / T: their errors are standard normal."""
    density, mean = linear_density()
    z = latents("rto", [density], chains=40)
    errors = np.asarray(z) - np.asarray(mean)
    assert np.abs(errors.mean(axis=0)).max() < 4 / np.sqrt(40)
    # A chi-square of 480 degrees of freedom, within four of its standard deviations.
    assert abs((errors**2).sum() - 480) < 4 * np.sqrt(2 * 480)


def test_optimised_starts_respond_more_than_draws_of_the_reference():
    found = densities("conv2:3,conv2:9")
    responses = {}
    for text in ("prior", "rto"):
        z = latents(text, found, chains=3)
        z = Program(found, Sampling(chains=3)).begin(z).chains.states.z
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
    starts = [latents("rto", [density], chains=1)[0] for density in (one, other)]
    np.testing.assert_array_equal(*starts)
    noise = jax.random.normal(jax.random.key(3), (8, *many.latent_shape))
    assert many.tilt(starts[0]) > max(map(many.tilt, noise)) + 1


def test_half_of_the_chains_of_a_two_sided_run_start_at_the_reference():
    density, mean = linear_density()
    for text in ("two-sided", "two-sided:anneal:64"):
        z = np.asarray(latents(text, [density], chains=40))
        # Each side's mean over 20 chains and 12 pixels, within four standard errors.
        assert abs(z[:20].mean()) < 4 / np.sqrt(240)
        assert abs((z[20:] - np.asarray(mean)).mean()) < 4 / np.sqrt(240)
    assert np.abs(mean).max() > 1


def test_two_sides_go_with_every_other_start(photographs):
    paths, _ = photographs
    images = started(f"two-sided:image:{paths[0]}", densities("conv2:3,conv2:9"))
    alone = started(f"image:{paths[0]}", densities("conv2:3"))
    np.testing.assert_allclose(images[[2, 3]], alone[:2], atol=1e-4)
    np.testing.assert_allclose(images[[6, 7]], alone[:2], atol=1e-4)
    rest = images[[0, 1, 4, 5]]
    assert rest.std() == pytest.approx(10, rel=0.1)


def test_both_sides_at_the_reference_are_refused(refused):
    for text, fact in (("two-sided:prior", "Both sides"), ("two-sided:two-sided:rto", "another")):
        with refused(fact, "rto", kind=ArgumentError, argument="start"):
            parse_start(text)


def test_an_odd_number_of_chains_has_no_two_sides(refused):
    with refused("3", kind=ArgumentError, argument="chains"):
        latents("two-sided", densities(), chains=3)


@pytest.mark.long
def test_gradients_of_the_start_are_recorded(tmp_path):
    for init, count in (("rto", 2 * STEPS), ("two-sided:rto", STEPS)):
        record = run(tmp_path / init, densities(), init)
        assert record["config"]["init"] == init
        assert record["gradients"]["start"] == count


@pytest.mark.long
def test_annealing_is_recorded(tmp_path):
    record = run(tmp_path, densities("conv2:3"), "anneal:4")
    note, gradients = record["annealing"], record["gradients"]["start"]
    rungs = len(note["strengths"]) - 1
    assert (note["strengths"][0], note["strengths"][-1]) == (0, 1)
    assert rungs > 3
    # Sixteen particles find the ladder and four of each chain go up, a trajectory at each rung.
    assert gradients % 4 == 0
    assert 24 * (1 + rungs) <= gradients <= 24 * (1 + 32 * 1.5 * rungs)
    assert len(note["log_z"]) == 2
    assert min(note["log_z"]) <= note["value"] <= max(note["log_z"])


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param("two-sided", "two-sided:rto", marks=pytest.mark.long),
        ("anneal:16", "anneal"),
    ],
)
def test_a_run_is_resumed_that_recorded_its_start_otherwise(before, now, tmp_path):
    """As earlier versions did."""
    run(tmp_path, densities(), now)
    record, store = tmp_path / "run.json", tmp_path / "draws.zarr" / "zarr.json"
    for file in (record, store):
        text = file.read_text()
        assert f'"init": "{now}"' in text
        file.write_text(text.replace(f'"init": "{now}"', f'"init": "{before}"'))
    assert run(tmp_path, densities(), now, draws=6)["config"]["init"] == before
    assert open_draws(tmp_path / "draws.zarr")["posterior"].sizes["draw"] == 6


def test_a_run_holds_where_its_chains_start(tmp_path):
    found = densities("conv1:3,conv1:9")
    for init in ("prior", "rto"):
        run(tmp_path / init, found, init)
        images = started(init, found, chains=2)
        for unit in (0, 1):
            folder = tmp_path / init / ("conv1-3-at-14,14", "conv1-9-at-14,14")[unit]
            stored = open_draws(folder / "draws.zarr")["start/image"]
            assert stored.dims == ("chain", "row", "col", "channel")
            np.testing.assert_allclose(stored.values, images[2 * unit : 2 * unit + 2], atol=1e-4)


SHORT = {"kernel": "langevin", "chains": 2, "draws": 4, "warmup": 5, "progress": False}


def test_draw_takes_a_start():
    (density,) = densities()
    draws = ppl_cnn.draw(density, **SHORT, start="zero")
    np.testing.assert_array_equal(draws["start/image"].values, 0)


def test_draw_takes_images():
    (density,) = densities()
    images = np.random.default_rng(0).uniform(-40, 40, (2, *density.unit.shape))
    draws = ppl_cnn.draw(density, **SHORT, start=images)
    np.testing.assert_allclose(draws["start/image"].values, images, atol=1e-4)
    assert draws.attrs["config"]["init"] == str(Images(images))


@pytest.mark.parametrize(
    ("start", "fitting"),
    [
        (Rto(20), 100),
        (Annealed(4), 2),
        pytest.param(Rto(20), 2, marks=pytest.mark.long),
        pytest.param(Annealed(4), 100, marks=pytest.mark.long),
    ],
)
def test_on_a_gpu_as_many_chains_look_for_their_starts_as_its_memory_holds(
    start, fitting, monkeypatch
):
    """And find what each finds alone."""
    unit = ppl_cnn.load("alexnet-fashion").unit("conv1:5")
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0))
    settings = Sampling(chains=4, start=start)
    alone = start.latents([density], settings, progress=False)
    chain = gradient_bytes(density) * (4 if isinstance(start, Annealed) else 1)
    monkeypatch.setattr(drawn, "own_room", lambda: fitting * chain)
    assert drawn.together(density, 4, replicas=chain // gradient_bytes(density)) == min(fitting, 4)
    together = start.latents([density], settings, progress=False)
    np.testing.assert_allclose(together.latents, alone.latents, atol=1e-3)
    assert together.gradients == alone.gradients
    if isinstance(start, Annealed):
        found = [each.notes[0]["annealing"]["log_z"] for each in (together, alone)]
        np.testing.assert_allclose(*found, atol=1e-4)
