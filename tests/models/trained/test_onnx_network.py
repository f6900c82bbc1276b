"""ONNX files behind `load` and the commands."""

import json
from functools import partial

import jax
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError, FileError, MismatchError
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.models.trained.pixels import PIXELS


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def content(onnx_node, onnx_content):
    nodes = [
        onnx_node("Conv", "x conv1.weight", "c", "/conv1/Conv"),
        onnx_node("Relu", "c", "r", "/relu/Relu"),
        onnx_node("GlobalAveragePool", "r", "p", "/pool/GlobalAveragePool"),
        onnx_node("Flatten", "p", "f", "/Flatten"),
        onnx_node("Gemm", "f fc.weight", "y", "/fc/Gemm", transB=1),
        onnx_node("Softmax", "y", "z", "/Softmax"),
    ]
    constants = {"conv1.weight": normal(0, 4, 3, 3, 3), "fc.weight": normal(1, 3, 4)}
    return onnx_content(nodes, constants, image=(1, 3, 8, 7), output="z")


@pytest.fixture
def file(content, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    return path


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("cat\ndog\ncar\n")
    return path


def test_load_scores_logits_of_preprocessed_photographs(file, names):
    net = ppl_cnn.load(file, pixels="torchvision", classes=str(names))
    assert (net.name, net.image_shape, net.head) == ("net", (8, 7, 3), "Softmax")
    assert net.preprocessing == PIXELS["torchvision"]
    assert net.class_of(net.unit("class:dog").name) == "dog"
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 7, 3), np.uint8)
    seen = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    kernel = normal(0, 4, 3, 3, 3)
    maps = [
        np.maximum(
            sum(
                (seen[0, i : i + 6, j : j + 5] * kernel[channel, :, i, j]).sum(-1)
                for i in range(3)
                for j in range(3)
            ),
            0,
        ).mean()
        for channel in range(4)
    ]
    np.testing.assert_allclose(net.logits(pixels)[0], normal(1, 3, 4) @ maps, rtol=1e-4)


def test_pixels_are_asked_for_and_belong_to_onnx_files(file, refused):
    with refused("net.onnx", *PIXELS, kind=ArgumentError, argument="pixels"):
        ppl_cnn.load(file)
    with refused("alexnet-fashion", kind=ArgumentError, argument="pixels"):
        ppl_cnn.load("alexnet-fashion", pixels="raw")
    with refused("w.pth", "net.onnx", kind=ArgumentError, argument="weights"):
        ppl_cnn.load(file, "w.pth", pixels="raw")


def test_classes_must_fit(file, tmp_path, refused):
    with refused("3 scores", "1000", kind=MismatchError):
        ppl_cnn.load(file, pixels="raw", classes="imagenet")
    with refused("missing.txt", kind=FileError):
        ppl_cnn.load(file, pixels="raw", classes=str(tmp_path / "missing.txt"))


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: b"no network at all", "ONNX"),
        (lambda content: b"", "no graph"),
    ],
)
def test_damaged_files_are_refused(damage, fact, file, refused):
    file.write_bytes(damage(file.read_bytes()))
    with refused(file, fact, kind=FileError, path=file):
        ppl_cnn.load(file, pixels="raw")


def test_a_network_without_fixed_sizes_is_resized(file):
    net = ppl_cnn.load(file, pixels="raw").resized(12)
    assert net.image_shape == (12, 12, 3)
    assert net.resized(12) is net
    assert net.unit("conv1:1").settings["size"] == 12


def test_units_lists_layers_without_pixels(file, command):
    said = command("ppl_cnn.units", "--model", file)
    assert said.returncode == 0, said.stderr
    assert [line.split()[0] for line in said.stdout.splitlines()[2:6]] == [
        *("conv1", "relu", "pool", "fc"),
    ]
    assert "Softmax" in said.stdout


def test_an_imported_file_has_the_same_units(file, names, tmp_path, command):
    options = ("--pixels", "mean=120 scale=1/60 order=BGR", "--classes", names)
    models = partial(command, "ppl_cnn.models", "import")
    said = models(file, *options, "--out", tmp_path / "folder")
    assert said.returncode == 0, said.stderr
    description = json.loads((tmp_path / "folder" / "model.json").read_text())
    assert description["classes"] == ["cat", "dog", "car"]
    assert description["imported_from"]["file"] == "net.onnx"
    imported = ppl_cnn.load(tmp_path / "folder")
    own = ppl_cnn.load(file, pixels=options[1], classes=str(names))
    assert imported.preprocessing == own.preprocessing
    assert (imported.name, imported.classes) == (own.name, own.classes)
    for one, other in zip(
        imported.units("class:car,conv1:2"), own.units("class:2,conv1:2"), strict=True
    ):
        assert one.program == other.program
        jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


@pytest.mark.long
def test_units_are_sampled(file, names, tmp_path, command):
    out = tmp_path / "run"
    short = ("--chains", 1, "--draws", 4, "--warmup", 2, "--beside", "none", "--out", out)
    with jax.numpy_dtype_promotion("standard"):
        said = command(
            *("ppl_cnn.sample", "--model", file, "--pixels", "raw", "--classes", names),
            *("--unit", "conv1:2@0,4", "--response", "post", *short),
        )
    assert said.returncode == 0, said.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["network"] == "net"
    assert open_draws(out / "draws.zarr")["posterior/image"].shape == (1, 4, 3, 3, 3)


@pytest.mark.parametrize(
    ("module", "options", "facts"),
    [
        ("ppl_cnn.sample", ["--unit", "conv1:0"], ["--pixels", "torchvision"]),
        ("ppl_cnn.sample", ["--unit", "conv1:9", "--pixels", "raw"], ["0 to 3"]),
        ("ppl_cnn.sample", ["--unit", "conv2:0", "--pixels", "raw"], ["conv2", "conv1"]),
        ("ppl_cnn.units", ["--data", "fashion-embedded"], ["--pixels"]),
    ],
)
def test_commands_say_what_is_missing(module, options, facts, file, command):
    said = command(module, "--model", file, *options)
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    for fact in facts:
        assert fact in said.stderr


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--as", "alexnet", "--pixels", "raw"], ["--as alexnet"]),
        ([], ["--pixels"]),
        (["--pixels", "bgr"], ["--pixels bgr"]),
    ],
)
def test_imports_say_what_is_wrong(options, facts, file, tmp_path, command):
    said = command("ppl_cnn.models", "import", file, *options, "--out", tmp_path / "out")
    assert said.returncode == 2
    for fact in facts:
        assert fact in said.stderr
    assert not (tmp_path / "out").exists()
