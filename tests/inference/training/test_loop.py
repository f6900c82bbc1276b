import json
import multiprocessing
import os
import random
import signal
import socket
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import safetensors.numpy

import ppl_cnn
from ppl_cnn.data import batches, open_split
from ppl_cnn.errors import ArgumentError, InputError, MismatchError
from ppl_cnn.inference.training.loop import train
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.step import even_ess

RECIPE = Recipe(
    network="lenet",
    data="fashion-embedded",
    stages="generative:12steps,discriminative:12steps",
    batch_size=120,
    rate=0.02,
    schedule="cosine",
    momentum=0.9,
    weight_decay=5e-4,
    seed=0,
)
STEPS = 24

SCRIPT = """
import json, os, signal, sys, jax
from ppl_cnn.inference.training.checkpoints import Checkpoints
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.monitoring.metrics import Metrics
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.loop import train
sys.stderr = open(os.devnull, "w")
jax.config.update("jax_num_cpu_devices", devices)
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)

def save(self, step, *arguments, original=Checkpoints.save):
    original(self, step, *arguments)
    if step == dies_after:
        self.wait()
        os.kill(os.getpid(), signal.SIGKILL)

def add(self, step, *arguments, original=Metrics.add):
    original(self, step, *arguments)
    if step == told_to_stop_at:
        os.kill(os.getpid(), signal.SIGTERM)

Checkpoints.save, Metrics.add = save, add
execution = Execution(**{"checkpoint_every": 5} | options)
train(Recipe(**recipe), out=out, execution=execution, command="test")
if count > 1:
    jax.distributed.shutdown()
"""

# Runs are forked from a process that has imported all that and has neither threads nor a backend.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["ppl_cnn.inference.training.loop", "orbax.checkpoint", "grain", "tensorflow_datasets"]
)


def start(
    out, devices=1, port=0, index=0, count=1, recipe=RECIPE, dies_after=-1, told_to_stop_at=-1,
    **options,
):  # fmt: skip
    names = {"out": str(out), "devices": devices, "port": port, "index": index, "count": count}
    names |= {"recipe": asdict(recipe), "dies_after": dies_after}
    names |= {"told_to_stop_at": told_to_stop_at, "options": options}
    process = FORKS.Process(target=exec, args=(SCRIPT, names))
    process.start()
    return process


def ended(process):
    """The exit code; of a signal, its number times -1."""
    process.join()
    return process.exitcode


def start_pair(out, **options):
    """Two processes of two devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(out, 2, port, index, 2, **options) for index in (0, 1)]


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
    assert ended(start(out)) == 0
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
    """Half an epoch: far from chance, 0.9."""
    generative, discriminative = (line for line in metrics(whole) if "test_error" in line)
    assert generative["stage"] == "generative"
    assert generative["test_error"] < 0.5
    assert discriminative["test_error"] < 0.5


def test_a_line_for_each_step_with_its_bound_and_ess(whole):
    steps = [line for line in metrics(whole) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    for line in steps:
        assert 1 <= line["ess"] <= 120.01
        assert line["loss"] >= line["bound"]
        assert line["images_per_second"] > 0
    # 120 random images of ten classes: entropy and share of a class, less and more than if even.
    assert all(-np.log(10) <= line["bound"] < -2.1 for line in steps[:12])
    assert all(12 <= line["separated_ess"] < 18 for line in steps)
    assert steps[-1]["bound"] == 0


@pytest.mark.parametrize(
    "moment",
    [pytest.param(7, marks=pytest.mark.long), 14, pytest.param(22, marks=pytest.mark.long)],
)
def test_a_killed_run_continues_to_the_same_bits(whole, tmp_path, moment):
    """Killed in the generative stage, after the switch, and at the end."""
    out = tmp_path / "run"
    process = start(out)
    deadline = time.monotonic() + 600
    while process.is_alive() and time.monotonic() < deadline:
        taken = [p.name for p in (out / "checkpoints").glob("*") if p.name.isdigit()]
        if any(int(name) >= moment - 4 for name in taken):
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    assert ended(start(out)) == 0
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(out)[name], array)
    assert timeless(metrics(out)) == timeless(metrics(whole))
    sessions = json.loads((out / "run.json").read_text())["sessions"]
    assert sessions[0]["step"] == 0
    assert sessions[1]["step"] >= moment - 4
    models = [json.loads((folder / "model.json").read_text()) for folder in (whole, out)]
    assert models[0] == models[1]


@pytest.mark.long
def test_two_devices_train_as_one(whole, tmp_path):
    assert ended(start(tmp_path / "run", devices=2)) == 0
    for name, array in weights(whole).items():
        np.testing.assert_allclose(weights(tmp_path / "run")[name], array, atol=1e-5)


def assert_close_weights(out, whole):
    for name, array in weights(whole).items():
        np.testing.assert_allclose(weights(out)[name], array, atol=1e-5)


@pytest.mark.long
def test_two_processes_of_two_devices_train_as_one(whole, tmp_path):
    """With each weight in four parts, and each device's images in five groups."""
    pair = start_pair(tmp_path / "run", accumulate=5, shard_params=True)
    assert [ended(process) for process in pair] == [0, 0]
    assert_close_weights(tmp_path / "run", whole)


FIVE = replace(RECIPE, stages="hybrid:0.5:5steps@0.01:constant", batch_size=64)


@pytest.mark.long
def test_two_processes_killed_at_step_3_go_on_as_one_with_one_device(tmp_path):
    assert ended(start(tmp_path / "whole", recipe=FIVE, checkpoint_every=1)) == 0
    spread = {"accumulate": 4, "shard_params": True}
    pair = start_pair(tmp_path / "run", recipe=FIVE, checkpoint_every=1, dies_after=3, **spread)
    killed = [ended(process) for process in pair]
    assert -signal.SIGKILL in killed  # the other may notice the first one's end before its own
    assert sorted(int(p.name) for p in (tmp_path / "run/checkpoints").iterdir())[-1] == 3
    assert ended(start(tmp_path / "run", recipe=FIVE, checkpoint_every=1)) == 0
    sessions = json.loads((tmp_path / "run/run.json").read_text())["sessions"]
    assert [session["step"] for session in sessions] == [0, 3]
    assert_close_weights(tmp_path / "run", tmp_path / "whole")


def test_told_to_stop_it_saves_the_step_it_was_at(whole, tmp_path):
    """SIGTERM, with checkpoints otherwise out of reach; then to the same bits."""
    out = tmp_path / "run"
    stopped = start(out, told_to_stop_at=3, checkpoint_every=10_000)
    assert ended(stopped) == -signal.SIGTERM  # nobody has a handler here, after which it ends
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["3"]
    assert ended(start(out, checkpoint_every=10_000)) == 0
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(out)[name], array)


SHORT = replace(
    RECIPE,
    stages="generative:40steps,discriminative:40steps@0.01",
    batch_size=50,
    reference_bank=120,
)


@pytest.mark.long
def test_killed_at_20_random_moments_it_ends_with_the_same_bits(tmp_path):
    """With a bank; a checkpoint every other step, so that many kills hit its writing."""
    recipe = replace(SHORT, stages="generative:400steps,discriminative:400steps")
    options = {"recipe": recipe, "checkpoint_every": 2}
    whole, run, moments = tmp_path / "whole", tmp_path / "run", random.Random(0)
    assert ended(start(whole, **options)) == 0

    def checkpoints():
        """Whole ones: what is being written has a longer name."""
        return {path.name for path in (run / "checkpoints").glob("*") if path.name.isdigit()}

    for _ in range(20):
        before, process = checkpoints(), start(run, **options)
        if moments.random() < 0.75:  # else while it starts
            deadline = time.monotonic() + 600
            while checkpoints() <= before and time.monotonic() < deadline:
                assert process.is_alive(), "it ended early"
                time.sleep(0.002)
            time.sleep(moments.random() * 0.5)
        else:
            time.sleep(moments.random() * 3)
        os.kill(process.pid, signal.SIGKILL)
        assert ended(process) == -signal.SIGKILL
    assert ended(start(run, **options)) == 0
    sessions = json.loads((run / "run.json").read_text())["sessions"]
    assert len({session["step"] for session in sessions}) > 10
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(run)[name], array)
    assert timeless(metrics(run)) == timeless(metrics(whole))


@pytest.mark.long
def test_a_stage_ends_once_its_ess_has_fallen_and_a_resumed_one_at_the_same_step(tmp_path):
    recipe = replace(
        SHORT, stages="generative:400steps@0.02:constant,discriminative:10steps", switch="ess:7"
    )
    for name, dies_after in (("whole", -1), ("run", 20)):
        ended(start(tmp_path / name, recipe=recipe, dies_after=dies_after))
    assert ended(start(tmp_path / "run", recipe=recipe)) == 0
    lines = metrics(tmp_path / "whole")
    (switch,) = (line for line in lines if "switched_at_ess" in line)
    assert switch["step"] % 20 == 0
    assert switch["switched_at_ess"] < 7
    smoothed = even_ess(recipe.batch_size, 10)
    for line in (line for line in lines if "loss" in line and line["step"] <= switch["step"]):
        smoothed += (line["ess"] / line["separated_ess"] - smoothed) / 20
        if line["step"] % 20 == 0 and line["step"] < switch["step"]:
            assert smoothed > 7
    assert switch["switched_at_ess"] == pytest.approx(smoothed, rel=1e-4)
    assert max(line["step"] for line in lines) == switch["step"] + 10
    assert timeless(metrics(tmp_path / "run")) == timeless(lines)


def test_a_finished_run_is_not_trained_again(whole):
    before = (whole / "weights.safetensors").stat().st_mtime_ns
    train(RECIPE, out=whole)
    assert (whole / "weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "facts", "kind"),
    [
        ({"network": "resnet"}, ["'resnet'"], InputError),
        ({"data": "cifar"}, ["'cifar'"], InputError),
        ({"batch_size": 6001}, ["`batch_size=6001`", "6000"], MismatchError),
        ({"train": "validation"}, ["'validation'"], InputError),
        ({"rate": 0.01}, ["rate", "0.01", "0.02"], InputError),
    ],
)
def test_what_does_not_fit_is_refused(whole, changes, facts, kind, refused):
    with refused(*facts, kind=kind):
        train(replace(RECIPE, **changes), out=whole)


def test_parts_of_the_splits_are_trained_and_tested_on(tmp_path):
    recipe = replace(
        RECIPE,
        train="train[:2%]",
        test="train[98%:]",
        stages="generative:1epochs",
        batch_size=24,
    )
    result = train(recipe, out=tmp_path / "run")
    assert (result["training_images"], result["test_images"]) == (120, 120)
    assert max(line["step"] for line in metrics(tmp_path / "run")) == 5
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["splits"] == {"train[:2%]": 120, "train[98%:]": 120}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, refused):
    recipe = replace(
        RECIPE, stages="discriminative:2", batch_size=12, rate=1e5, schedule="constant"
    )
    with refused("loss is nan", "step", kind=ArgumentError, argument="rate"):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run" / "model.json").exists()
