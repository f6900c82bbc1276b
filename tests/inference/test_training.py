import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

import ppl_cnn
from ppl_cnn import InputError
from ppl_cnn.data.readers import batches, open_split
from ppl_cnn.inference.recipes import Recipe
from ppl_cnn.inference.training import train

RECIPE = Recipe(
    network="lenet",
    data="fashion-embedded",
    stages="generative:1,discriminative:1",
    batch_size=500,
    rate=0.02,
    schedule="cosine",
    momentum=0.9,
    weight_decay=5e-4,
    seed=0,
)
STEPS = 24

SCRIPT = f"""
import pathlib, sys, jax
from ppl_cnn.inference.recipes import Recipe
from ppl_cnn.inference.training import train
out, devices, port, index, count = sys.argv[1], *map(int, sys.argv[2:])
jax.config.update("jax_num_cpu_devices", devices)
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{{port}}", count, index)
train({RECIPE!r}, pathlib.Path(out), "test", checkpoint_every=5)
"""


def start(out, devices=1, port=0, index=0, count=1):
    arguments = [str(value) for value in (out, devices, port, index, count)]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.DEVNULL)


def weights(out):
    return safetensors.numpy.load_file(out / "weights.safetensors")


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def timeless(lines):
    times = ("images_per_second", "seconds")
    return [{key: line[key] for key in line if key not in times} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed, on one device."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert start(out).wait() == 0
    return out


def test_the_folder_says_what_was_trained_and_opens(whole):
    description = json.loads((whole / "model.json").read_text())
    assert description["network"] == "lenet"
    assert description["data"] == "fashion-embedded"
    assert description["command"] == "test"
    assert description["preprocessing"]["scale"] == [1 / 256]
    assert len(description["classes"]) == len(description["alpha"]) == 10
    assert {"jax", "flax", "optax", "ppl_cnn"} <= set(description["versions"])
    error = description["test_error"]
    assert description["standard_error"] == pytest.approx((error * (1 - error) / 1000) ** 0.5)
    network = ppl_cnn.load(whole)
    test = open_split("fashion-embedded", "test")
    wrong = sum(
        int((np.argmax(network.logits(batch["image"]), axis=1) != batch["label"]).sum())
        for batch in batches(test, 250)
    )
    assert wrong / 1000 == error


def test_it_learns(whole):
    """Two epochs of large batches: far from chance (0.9), with alpha better than without."""
    generative, discriminative = (line for line in metrics(whole) if "test_error" in line)
    assert generative["stage"] == "generative"
    assert generative["test_error"] < 0.45
    assert discriminative["test_error"] < generative["test_error"]


def test_a_line_for_each_step_with_its_bound_and_ess(whole):
    steps = [line for line in metrics(whole) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    for line in steps:
        assert 1 <= line["ess"] <= 500.01
        assert line["loss"] >= line["bound"]
        assert line["images_per_second"] > 0
    assert steps[0]["bound"] == pytest.approx(-np.log(500))
    assert steps[-1]["bound"] == 0


@pytest.mark.parametrize("moment", [7, 14, 22])
def test_a_killed_run_continues_to_the_same_bits(whole, tmp_path, moment):
    """Killed in the generative stage, after the switch, and at the end."""
    out = tmp_path / "run"
    process = start(out)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        taken = [p.name for p in (out / "checkpoints").glob("*") if p.name.isdigit()]
        if any(int(name) >= moment - 4 for name in taken):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert start(out).wait() == 0
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(out)[name], array)
    assert timeless(metrics(out)) == timeless(metrics(whole))
    sessions = json.loads((out / "run.json").read_text())["sessions"]
    assert sessions[0]["step"] == 0
    assert sessions[1]["step"] >= moment - 4
    models = [json.loads((folder / "model.json").read_text()) for folder in (whole, out)]
    assert models[0] == models[1]


def test_two_devices_train_as_one(whole, tmp_path):
    assert start(tmp_path / "run", devices=2).wait() == 0
    for name, array in weights(whole).items():
        np.testing.assert_allclose(weights(tmp_path / "run")[name], array, atol=1e-5)


def test_two_processes_of_two_devices_train_as_one(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [start(tmp_path / "run", 2, port, index, 2) for index in (0, 1)]
    assert [process.wait() for process in pair] == [0, 0]
    for name, array in weights(whole).items():
        np.testing.assert_allclose(weights(tmp_path / "run")[name], array, atol=1e-5)


def test_a_finished_run_is_not_trained_again(whole):
    before = (whole / "weights.safetensors").stat().st_mtime_ns
    train(RECIPE, whole, "again")
    assert (whole / "weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": "resnet"}, "no network 'resnet'"),
        ({"data": "cifar"}, "no data set 'cifar'"),
        ({"network": "alexnet"}, "1000 classes"),
        ({"batch_size": 6001}, "larger than"),
        ({"rate": 0.01}, "another --out"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(whole, changes, sentence):
    with pytest.raises(InputError, match=r"^[^\n]*\.$") as error:
        train(replace(RECIPE, **changes), whole, "test")
    assert sentence in str(error.value)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    recipe = replace(RECIPE, stages="discriminative:2", rate=1e5, schedule="constant")
    with pytest.raises(InputError, match=r"The loss is nan at step \d+"):
        train(recipe, tmp_path / "run", "test")
    assert not (tmp_path / "run" / "model.json").exists()
