"""Exemplars are the images to which a unit responds most, cropped to what it sees of them."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import ppl_cnn
from ppl_cnn.errors import FileError, MismatchError, RunFolderError
from ppl_cnn.inference.runs.exemplars import Exemplars
from ppl_cnn.inference.runs.record import unit_folder
from ppl_cnn.inference.sampling.driver import weights_digest
from ppl_cnn.inference.sampling.exemplars.reopened import reopened
from ppl_cnn.inference.sampling.exemplars.search import find_exemplars
from ppl_cnn.inference.sampling.exemplars.sources import parse_source
from ppl_cnn.models.networks.layers import Conv, Dense

GREY = ppl_cnn.Preprocessing(mean=(100.0,), scale=(0.01,), order="grey")
RGB = ppl_cnn.Preprocessing(mean=(10.0, 20.0, 30.0), scale=(0.01,) * 3, order="BGR")
CORNER = np.asarray([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [1.0, -1.0, -1.0]], np.float32)


def network(preprocessing=GREY, channels=1):
    """A filter that looks for a corner, and its mirrored twin, under a dense layer."""
    layers = (Conv("conv1", 2, kernel=3, padding=1), Dense("fc2", 3))
    declared = ppl_cnn.Network("tiny", (12, 12, channels), preprocessing, layers=layers)
    net = ppl_cnn.CNN.random(declared)
    kernel = np.stack([CORNER, CORNER[:, ::-1]], axis=-1)[:, :, None].repeat(channels, axis=2)
    net.params["conv1"]["kernel"].set_value(jnp.asarray(kernel))
    return net


@pytest.fixture
def photographs(tmp_path):
    """Twelve photographs, each with the corner at another place and in another contrast."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(12):
        image = np.full((12, 12), 100, np.uint8)
        row, col = 1 + number % 7, 8 - number % 6
        image[row : row + 3, col : col + 3] = 100 + 5 * (number + 1) * CORNER
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


def made(folder, units, **fields):
    config = {"kind": "sampling", "units": [str(unit) for unit in units]}
    if len(units) == 1:
        config = {"kind": "sampling", "unit": str(units[0])}
    for unit in units:
        (folder / unit_folder(str(unit))).mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"config": config | fields}))
    return folder


def test_a_filter_is_found_wherever_it_responds_most(tmp_path, photographs):
    net = network()
    (unit,) = units = net.units("conv1:0")
    run = made(tmp_path / "run", units)
    find_exemplars(run, net, units, parse_source(str(photographs)), progress=False)
    found = Exemplars.read(run)
    assert found.names == tuple(f"{number:02}.png" for number in range(11, 2, -1))
    assert (found.searched, found.scored, found.labels[0]) == (12, "anywhere", "")
    for number, image, response in zip(
        range(11, 2, -1), found.images, found.responses, strict=True
    ):
        levels = 100 + 5 * (number + 1) * CORNER
        np.testing.assert_array_equal(image[..., 0], levels)
        # The response is that of the crop alone, which is what the unit's density scores.
        crop = jnp.asarray(image, jnp.float32) - 100
        assert response == pytest.approx(float(unit.score(unit.params, crop)), abs=1e-5)
        assert response == pytest.approx(9 * 5 * (number + 1) / 100, abs=1e-5)


def test_other_units_are_scored_at_their_own_place(tmp_path, photographs):
    net = network()
    units = net.units("conv1:1@0,0,conv1:0@mean,fc2:2")
    run = made(tmp_path / "run", units)
    source = parse_source(str(photographs))
    find_exemplars(run, net, units, source, progress=False)
    pixels = np.stack([np.asarray(Image.open(photographs / f"{n:02}.png")) for n in range(12)])
    x = jnp.asarray(pixels[..., None], jnp.float32) - 100
    for unit in units:
        found = Exemplars.read(run / unit_folder(str(unit)))
        seen = x[:, unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop]
        scores = np.asarray([unit.score(unit.params, image) for image in seen])
        best = np.argsort(-scores, kind="stable")[:9]
        np.testing.assert_allclose(found.responses, scores[best], atol=1e-5)
        assert found.images.shape == (9, *unit.shape)
        assert found.scored == "there"


def test_colours_are_shown_as_they_are(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.new("RGB", (12, 12), (200, 100, 50)).save(folder / "orange.png")
    net = network(RGB, channels=3)
    units = net.units("fc2:0")
    run = made(tmp_path / "run", units)
    find_exemplars(run, net, units, parse_source(str(folder)), progress=False)
    found = Exemplars.read(run)
    assert found.images.shape == (1, 12, 12, 3)
    assert (found.images == (200, 100, 50)).all()


def test_damaged_photographs_are_left_out_and_told(tmp_path, photographs, capsys):
    broken = (photographs / "11.png").read_bytes()
    (photographs / "11.png").write_bytes(broken[: len(broken) // 2])
    net = network()
    units = net.units("conv1:0")
    run = made(tmp_path / "run", units)
    find_exemplars(run, net, units, parse_source(str(photographs)))
    found = Exemplars.read(run)
    assert found.searched == 11
    assert found.names[0] == "10.png"
    assert "11.png" in capsys.readouterr().err


def test_nothing_that_can_be_read_is_refused(tmp_path, refused):
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    net = network()
    units = net.units("conv1:0")
    run = made(tmp_path / "run", units)
    with refused(str(folder), "exemplars", kind=FileError):
        find_exemplars(run, net, units, parse_source(str(folder)), progress=False)


@pytest.mark.long
def test_a_layer_of_a_trained_network_on_a_data_set(tmp_path):
    net = ppl_cnn.load("alexnet-fashion")
    units = net.units("conv2:3,conv2:40,fc8:8")
    run = made(tmp_path / "run", units)
    find_exemplars(run, net, units, parse_source("fashion-embedded@test[:120]"), progress=False)
    for unit in units:
        found = Exemplars.read(run / unit_folder(str(unit)))
        x = jnp.asarray(found.images, jnp.float32) - net.preprocessing.mean[0]
        scores = [float(unit.score(unit.params, image)) for image in x]
        # Images were rounded to whole grey levels, and the mean is none.
        np.testing.assert_allclose(found.responses, scores, atol=0.05)
        assert (np.diff(found.responses) <= 0).all()
        assert found.names[0].startswith("test[:120] ")
    assert set(found.labels[:5]) == {"Bag"}


# The network of an earlier run


def record_of(net, text, **fields):
    units = net.units(text, target="auto")
    targets = dict.fromkeys(str(unit.target) for unit in units)
    own = {"weights": weights_digest(units), "target": ", ".join(targets), "response": "pre"}
    return units, own | fields


def test_a_run_is_reopened_as_its_record_says(tmp_path):
    net = ppl_cnn.load("alexnet-fashion")
    units, fields = record_of(net, "conv2:3,class:Bag", model="alexnet-fashion")
    assert fields["target"] == "logit, log-prob"
    run = made(tmp_path / "run", units, **fields)
    found = reopened(run)
    assert [str(unit) for unit in found.units] == ["conv2:3@7,7", "fc8:8"]
    assert [str(unit.target) for unit in found.units] == ["logit", "log-prob"]


def test_other_weights_and_unknown_networks_are_refused(tmp_path, refused):
    net = ppl_cnn.load("alexnet-fashion")
    units, fields = record_of(net, "conv2:3", model="alexnet-fashion")
    changed = made(tmp_path / "changed", units, **fields | {"weights": "0" * 16})
    with refused("other weights", str(changed), kind=MismatchError):
        reopened(changed)
    unnamed = made(tmp_path / "unnamed", units, **fields | {"model": ""})
    with refused("which network", str(unnamed), kind=RunFolderError):
        reopened(unnamed)
