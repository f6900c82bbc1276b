"""Class folders and modules of one's own, from `pretrain` to draws."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ppl_cnn
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.training.loop import Job

MODULE = """
from flax import nnx

class Net(nnx.Module):
    image_shape = (9, 8, 3)
    preprocessing = None

    def __init__(self, classes=3):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x / 255))).mean((1, 2))
        return self.out(self.drop(x))

def wider():
    return Net(4)
"""


@pytest.fixture
def trained(tmp_path, monkeypatch, command):
    """A function: `pretrain` on a folder of so many classes, in this folder with the module."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_training.py").write_text(MODULE)

    def run(classes, *arguments, out="run"):
        random = np.random.default_rng(0)
        for index in range(classes):
            for split, count in (("train", 2), ("val", 1)):
                folder = tmp_path / "tree" / split / f"kind{index:02d}"
                folder.mkdir(parents=True, exist_ok=True)
                for number in range(count):
                    pixels = random.integers(0, 256, (10, 12, 3), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number}.png")
        data = ("--data", "folder:tree", "--batch-size", "4", "--out", out)
        return command("ppl_cnn.pretrain", *data, *arguments)

    return run


def draws(command, *model):
    settings = ("--draws", "4", "--chains", "2", "--warmup", "2", "--out", "draws")
    done = command("ppl_cnn.sample", *model, *settings)
    assert done.returncode == 0, done.stderr
    return open_draws(Path("draws/draws.zarr"))["posterior/image"]


@pytest.mark.long
@pytest.mark.parametrize("classes", [2, 37])
def test_a_declared_network_gets_the_folders_number_of_classes(trained, command, classes):
    done = trained(classes, "--stages", "generative:1steps,discriminative:1steps")
    assert done.returncode == 0, done.stderr
    assert f"lenet on folder:tree: {classes} classes (kind00, kind01" in done.stderr
    network = ppl_cnn.load("run")
    assert network.classes == tuple(f"kind{index:02d}" for index in range(classes))
    assert len(network.alpha[...]) == classes
    assert len(network.units("class:kind00,class:kind01")) == 2
    if classes == 2:
        image = draws(
            command, "--model", "run", "--unit", "class:kind01", "--reference", "white:10"
        )
        assert image.shape == (2, 4, 28, 28, 1)


@pytest.mark.long
def test_a_module_of_ones_own_is_trained_and_sampled(trained, command, tmp_path, refused):
    network = ("--network", "own_training:Net")
    stages = ("--stages", "generative:3steps,hybrid:0.5:2steps,discriminative:2steps")
    done = trained(3, *network, *stages)
    assert done.returncode == 0, done.stderr
    assert "--model own_training:Net --weights run" in done.stdout
    description = json.loads((tmp_path / "run/model.json").read_text())
    assert description["network"] == "own_training:Net"
    own = ppl_cnn.load("own_training:Net", weights="run")
    assert own.classes == ("kind00", "kind01", "kind02")
    assert own.objective == "discriminative"
    assert np.any(own.alpha)
    assert np.any(own.weights["norm.mean"])
    # A folder doesn't say what code is run.
    with refused("`model=own_training:Net`", "`weights=run`", argument="model"):
        ppl_cnn.load("run")
    # The same command takes the finished run, and another module is another run.
    assert trained(3, *network, *stages).returncode == 0
    done = trained(4, "--network", "own_training:wider", *stages)
    assert done.returncode == 2
    assert "network own_training:Net, not own_training:wider" in done.stderr
    image = draws(command, "--model", "own_training:Net", "--weights", "run", "--unit", "class:1")
    assert image.shape == (2, 4, 9, 8, 3)


@pytest.mark.parametrize(
    ("classes", "arguments", "facts"),
    [
        (1, (), ["1 class", "two or more"]),
        (4, ("--network", "own_training:Net"), ["3 scores", "4 classes", "4 wide"]),
        (3, ("--network", "own_training:nosuch"), ["own_training", "'nosuch'"]),
        (3, ("--out", os.fsdecode(b"caf\xe9")), ["--out caf\\xe9", "UTF-8"]),
        (3, ("--switch", "ess:3"), ["--switch ess:3", "begins at 2 times"]),
        (3, ("--switch", "ess:0.05"), ["--switch ess:0.05", "at least 0.5"]),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(trained, classes, arguments, facts):
    done = trained(classes, *arguments)
    assert done.returncode == 2
    for fact in facts:
        assert fact in done.stderr
    assert "Traceback" not in done.stderr


def test_validation_chooses_the_checkpoint_and_test_gives_the_error(tmp_path):
    """The images of validation are those of test, with the classes swapped."""
    for split, names in (("train", "ab"), ("val", "ba"), ("test", "ab")):
        for level, name in enumerate(names):
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("L", (28, 28), 200 * level + number).save(folder / f"{number}.png")
    stages = "discriminative:1steps,discriminative:1steps"
    recipe = ppl_cnn.Recipe.read(
        "lenet", data=f"folder:{tmp_path / 'tree'}", batch_size=8, stages=stages, rate=1e-3
    )
    execution = ppl_cnn.Execution(data_dir=tmp_path / "data")
    result = ppl_cnn.train(recipe, out=tmp_path / "run", execution=execution)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    tests = [test for test in map(json.loads, lines) if "test_error" in test]
    assert [each["validation_error"] for each in tests] == [
        1 - each["test_error"] for each in tests
    ]
    best = min(tests, key=lambda test: test["validation_error"])
    assert result["best_checkpoint"] == (best["step"], best["validation_error"])
    assert result["test_error"] == tests[-1]["test_error"]
    data = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert data["splits"] == {"train": 8, "validation": 8, "test": 8}
    job = Job.prepare(replace(recipe, test="validation"), execution)
    assert (job.test.split, job.validation) == ("validation", None)
