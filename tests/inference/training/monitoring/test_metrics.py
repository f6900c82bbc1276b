import json
import struct
from dataclasses import replace
from functools import partial

import google_crc32c
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from ppl_cnn.data import batches, open_split
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.training.losses import discriminative_loss, generative_loss
from ppl_cnn.inference.training.monitoring import metrics as module
from ppl_cnn.inference.training.monitoring.classifier import ClassifierWording, describe_error
from ppl_cnn.inference.training.monitoring.curves import draw_curves
from ppl_cnn.inference.training.monitoring.metrics import (
    FLUSH_EVERY,
    Metrics,
    Pace,
    Packed,
    read_lines,
)
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.inference.training.placement import data_mesh
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.stages import Stage
from ppl_cnn.inference.training.step import (
    StepInfo,
    initial_state,
    optimizer,
    training_step,
)
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.layers import Conv, Dense, ReLU

SMALL = replace(
    LENET,
    name="small",
    layers=(Conv("conv1", 4, kernel=5, stride=3), ReLU("relu1"), Dense("fc2", 10)),
)
GENERATIVE, DISCRIMINATIVE = Stage.parse_all("generative:1,discriminative:1", 0.1, "constant")
OBJECTIVE = {"generative": generative_loss, "discriminative": discriminative_loss}
TOTAL = 250
RESULT = {
    "test_error": 0.25,
    "standard_error": 0.01,
    "top5_error": 0.02,
    "top5_standard_error": 0.003,
    "calibration_error": 0.05,
    "test_error_without_alpha": 0.5,
    "calibration_error_without_alpha": 0.1,
}


def info(step, loss=None):
    """A step's report whose every number tells the step."""
    norms = {"conv1": jnp.float32(3 * step), "fc4": jnp.float32(4 * step)}
    return StepInfo(
        jnp.float32(1 / step if loss is None else loss),
        jnp.float32(-2.25 if step <= 150 else 0),
        jnp.float32(step),
        jnp.float32(step / 2),
        jnp.arange(1.0, 4.0) * step,
        norms,
        {layer: 2 * norm for layer, norm in norms.items()},
        {layer: norm / 2 for layer, norm in norms.items()},
    )


def test_a_step_is_one_array_to_be_read():
    """And its numbers are those of the report."""
    given = info(7)
    packed = Packed.of(given)
    assert packed.row.shape == (4 + 3 + 3 * 2,)
    found = packed.read(np.asarray(packed.row))
    assert jax.tree.structure(found) == jax.tree.structure(given)
    for one, other in zip(*map(jax.tree.leaves, (found, given)), strict=True):
        assert isinstance(one, np.ndarray)
        np.testing.assert_array_equal(one, other)


def metrics_of(folder, step=0):
    return Metrics(folder, batch_size=64, step=step, total=TOTAL, wording=ClassifierWording())


def record(folder, first=0, last=TOTAL, test_at=(100,)):
    """What a session leaves that takes the steps from `first` to `last`."""
    with metrics_of(folder, first) as metrics:
        for step in range(first + 1, last + 1):
            metrics.add(step, GENERATIVE if step <= 150 else DISCRIMINATIVE, info(step))
            if step in test_at:
                metrics.add_result(step, "generative", RESULT)
            if step == 150:
                metrics.flush()
        metrics.flush()


def timeless(folder):
    lines = list(read_lines(folder / "metrics.jsonl"))
    return [
        {key: line[key] for key in line if key not in ("seconds", "images_per_second")}
        for line in lines
    ]


def test_each_step_has_a_line(tmp_path):
    record(tmp_path)
    lines = list(read_lines(tmp_path / "metrics.jsonl"))
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, TOTAL + 1))
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    for line in steps:
        step = line["step"]
        assert line["loss"] == pytest.approx(1 / step)
        assert line["ess"] == step
        assert line["bound"] == (-2.25 if step <= 150 else 0)
        assert line["separated_ess"] == step / 2
        assert line["gradient_norm"] == pytest.approx(5 * step)  # of (3, 4)
        assert line["parameter_norm"] == pytest.approx(10 * step)
        assert line["update_norm"] == pytest.approx(2.5 * step)
        assert line["images_per_second"] > 0
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    detailed = [line for line in steps if "class_ess" in line]
    assert [line["step"] for line in detailed] == [100, 200]
    assert detailed[0]["class_ess"] == [100, 200, 300]
    assert detailed[0]["gradient_norms"] == {"conv1": 300, "fc4": 400}
    assert detailed[0]["update_norms"] == {"conv1": 150, "fc4": 200}
    (test,) = (line for line in lines if "loss" not in line)
    assert test == RESULT | {"step": 100, "stage": "generative", "seconds": test["seconds"]}


@pytest.mark.parametrize("stopped", [7, 101, 180])
def test_a_continued_run_has_the_same_lines(tmp_path, stopped):
    """The first session goes on for 15 steps past its checkpoint, and is cut off in a line."""
    record(tmp_path)
    whole = timeless(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    record(tmp_path, 0, stopped + 15)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 1')
    record(tmp_path, stopped)
    assert timeless(tmp_path) == whole


def test_a_test_after_the_checkpoints_step_is_made_again(tmp_path):
    record(tmp_path, 0, 110)
    with metrics_of(tmp_path, 100):
        pass
    assert timeless(tmp_path)[-1]["step"] == 100
    assert "loss" in timeless(tmp_path)[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": jnp.float32(np.nan)}, ("loss is nan", "step 25")),
        ({"gradient": {"fc4": jnp.float32(np.inf)}}, ("gradient's norm is inf", "step 25")),
    ],
)
def test_numbers_that_are_not_finite_stop_the_run_after_they_were_written(
    tmp_path, change, words, refused
):
    with metrics_of(tmp_path) as metrics:
        for step in range(1, 25):
            metrics.add(step, GENERATIVE, info(step))
        metrics.add(25, GENERATIVE, info(25)._replace(**change))
        with refused(*words, kind=ArgumentError, argument="rate"):
            metrics.flush()
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == list(range(1, 26))


def test_the_device_is_looked_at_now_and_then_only(tmp_path, monkeypatch):
    looks = []
    get, leaves = jax.device_get, jax.tree.leaves
    monkeypatch.setattr(jax, "device_get", lambda x: looks.append(len(leaves(x))) or get(x))
    with metrics_of(tmp_path) as metrics:
        for step in range(1, 64):
            metrics.add(step, GENERATIVE, info(step))
    assert looks == [1, 2, FLUSH_EVERY, FLUSH_EVERY, FLUSH_EVERY]


# Time left.


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_is_that_at_the_pace_so_far(clock):
    pace = Pace(1000, [])
    assert pace.seconds_left() is None
    clock[0] += 30  # compiles
    assert pace.mark(1) == 30
    assert pace.seconds_left() is None
    clock[0] += 4
    assert pace.mark(3) == 34
    assert pace.seconds_left() == pytest.approx(2 * 997)
    clock[0] += 17 * 2 + 100  # a test
    pace.mark(20)
    assert pace.seconds_left() == pytest.approx(980 * 138 / 19)


def test_the_time_left_is_known_at_once_after_a_resume_and_follows_a_new_machine(clock):
    lines = [{"step": step, "seconds": 3.0 * step} for step in range(1, 501)]
    pace = Pace(10_000, lines)
    assert pace.seconds_left() == pytest.approx(9500 * 3)
    for step in range(501, 701):
        clock[0] += 1
        seconds = pace.mark(step)
    assert seconds == 1500 + 200
    assert pace.seconds_left() == pytest.approx(9300 * 1)


def test_a_session_shows_the_time_left_and_the_last_test(tmp_path, capsys):
    record(tmp_path, 0, 200)
    capsys.readouterr()
    with metrics_of(tmp_path, 200):
        pass
    shown = capsys.readouterr().err
    assert "200/250" in shown
    assert "test error 25.00 %, 00:0" in shown


def test_results_in_words():
    assert describe_error(RESULT) == (
        "test error 25.00 ± 1.00 % (50.00 % without alpha), top-5 2.00 ± 0.30 %, "
        "calibration error 5.00 % (10.00 % without alpha)"
    )
    few = {key: value for key, value in RESULT.items() if not key.startswith("top5")}
    assert describe_error(few) == (
        "test error 25.00 ± 1.00 % (50.00 % without alpha), "
        "calibration error 5.00 % (10.00 % without alpha)"
    )


# What a step reports.


@pytest.mark.parametrize(
    "objective", ["generative", pytest.param("discriminative", marks=pytest.mark.long)]
)
def test_a_step_reports_norms_and_the_ess_of_each_class(random_params, objective):
    params = random_params(SMALL)
    recipe = Recipe.read("lenet")
    (stage,) = Stage.parse_all(f"{objective}:1", 0.5, "constant")
    rule, key = optimizer(recipe, stage, 10), jax.random.key(1)
    network = DeclaredTrainable(SMALL)
    state = jax.jit(partial(initial_state, network, recipe, rule=rule))(key=key)
    state = state._replace(params=params)
    batch = next(iter(batches(open_split("fashion-embedded", "train"), 40)))
    images, labels = jnp.asarray(batch["image"]), jnp.asarray(batch["label"])
    step = jax.jit(
        partial(
            training_step,
            network=network,
            recipe=recipe,
            stage=stage,
            rule=rule,
            mesh=data_mesh(),
            accumulate=1,
        )
    )
    state, _ = step(state, images, labels, key)  # the rate rises from 0
    after, told = step(state, images, labels, key)

    def norm(weights):
        return np.sqrt(sum(np.sum(np.asarray(array, np.float64) ** 2) for array in weights))

    for layer, weights in state.params.items():
        change = [np.asarray(after.params[layer][name]) - weights[name] for name in weights]
        assert told.parameters[layer] == pytest.approx(norm(weights.values()), rel=1e-5)
        # Weights of order 0.1 to 1 are rounded to 1e-8.
        assert told.update[layer] == pytest.approx(norm(change), rel=1e-3)
    x = jnp.asarray(batch["image"] - np.asarray(SMALL.preprocessing.mean, np.float32))
    F = np.asarray(jax.jit(partial(scores, SMALL))(state.params, x), np.float64)
    W = np.exp(F - F.max(0))
    W /= W.sum(0)
    ess = 1 / (W**2).sum(0)
    np.testing.assert_allclose(told.class_ess, ess, rtol=1e-3)
    assert told.ess == pytest.approx(ess[batch["label"]].mean(), rel=1e-3)
    counts = np.bincount(batch["label"], minlength=10)
    assert told.separated_ess == pytest.approx(np.sum(counts**2) / 40)
    entropy = -sum(c / 40 * np.log(c / 40) for c in counts if c)
    assert told.bound == pytest.approx(-entropy if objective == "generative" else 0, rel=1e-5)
    # The loss's own gradient, without the weight decay, by autodiff of the whole batch at once.
    gradient = jax.jit(
        jax.grad(lambda params: OBJECTIVE[objective](scores(SMALL, params, x), labels))
    )(state.params)
    for layer, weights in gradient.items():
        assert told.gradient[layer] == pytest.approx(norm(weights.values()), rel=1e-3)


# TensorBoard's files.


def events(folder):
    """The events of all files, with both checksums of each record checked."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            assert checksum(content[:8]) == content[8:12]
            data = content[12 : 12 + size]
            assert checksum(data) == content[12 + size : 16 + size]
            found.append(Event.FromString(data))
            content = content[16 + size :]
    return found


def checksum(data):
    """TFRecord's: a CRC-32C, turned by 15 bits and shifted."""
    crc = google_crc32c.value(data)
    turned = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return struct.pack("<I", (turned + 0xA282EAD8) & 0xFFFFFFFF)


def test_tensorboard_gets_means_tests_and_histograms(tmp_path):
    record(tmp_path)
    found = [event for event in events(tmp_path / "tensorboard") if event.HasField("summary")]
    scalars = {}
    for event in found:
        for value in event.summary.value:
            scalars.setdefault(value.tag, {})[event.step] = value
    assert scalars["step/ess"][23].simple_value == pytest.approx(np.mean(range(4, 24)))
    assert scalars["loss/generative"][1].simple_value == 1
    assert set(scalars["loss/discriminative"]) == {170, 190, 210, 230, 250}
    assert scalars["test/test_error"][100].simple_value == 0.25
    assert scalars["gradient_norms/fc4"][100].simple_value == 400
    histogram = scalars["class_ess"][100].histo
    assert (histogram.num, histogram.min, histogram.max, histogram.sum) == (3, 100, 300, 600)


def test_tensorboard_drops_what_a_continued_run_repeats(tmp_path):
    record(tmp_path, 0, 60)
    record(tmp_path, 43)
    starts = [
        event.step
        for event in events(tmp_path / "tensorboard")
        if event.HasField("session_log") and event.session_log.status == 1
    ]
    assert starts == [1, 44]


# The picture.


def test_the_curves_are_drawn_from_the_lines(tmp_path):
    from PIL import Image

    record(tmp_path)
    draw_curves(tmp_path)
    with Image.open(tmp_path / "curves.png") as picture:
        assert min(picture.size) > 600
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(0, 0x72, 0xB2), (0xD9, 0x77, 0x06)} <= colours  # a stage each


def test_lines_are_json_that_others_read(tmp_path):
    record(tmp_path, 0, 30)
    for text in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
