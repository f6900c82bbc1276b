import json
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.data import batches, open_split, ten_view_batches
from ppl_cnn.inference.training.evaluation import (
    Predictions,
    calibration_error,
    estimate_alpha,
    evaluate,
    evaluation_batch,
    summary,
)
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.trained.cnn import CNN


def summed_calibration_error(confidence, right, bins):
    """ECE as it is defined, bin by bin."""
    total = 0.0
    for b in range(bins):
        inside = [i for i, p in enumerate(confidence) if b / bins < p <= (b + 1) / bins]
        if inside:
            accuracy = sum(right[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


def test_calibration_error_of_a_case_by_hand():
    # Bins (0, 1/2] and (1/2, 1]: |1/2 - 0.35| of 2 images and |2/3 - 0.8| of 3.
    confidence = np.asarray([0.3, 0.4, 0.7, 0.8, 0.9])
    right = np.asarray([True, False, True, False, True])
    expected = 2 / 5 * abs(1 / 2 - 0.35) + 3 / 5 * abs(2 / 3 - 0.8)
    assert calibration_error(confidence, right, 2) == pytest.approx(expected, rel=1e-12)


def test_calibration_error_is_that_of_its_definition():
    random = np.random.default_rng(0)
    # The bins' borders belong to the lower bin; 1 is in the last.
    confidence = np.concatenate([random.uniform(0.1, 1, 300), np.arange(1, 16) / 15])
    right = random.random(315) < 0.6
    expected = summed_calibration_error(confidence.tolist(), right.tolist(), 15)
    assert calibration_error(confidence, right) == pytest.approx(expected, rel=1e-9)


def test_a_calibrated_classifier_has_no_calibration_error_but_for_chance():
    random = np.random.default_rng(1)
    confidence = random.uniform(0, 1, 100_000)
    right = random.random(100_000) < confidence
    assert calibration_error(confidence, right) < 2 * np.sqrt(15 / 100_000)
    assert calibration_error(confidence, random.random(100_000) < confidence**2) == pytest.approx(
        1 / 6, abs=0.01
    )  # the mean of p - p^2


@pytest.fixture(scope="module")
def answers():
    """Scores of 400 images for 12 classes, many of them equal, and the classes."""
    random = np.random.default_rng(2)
    F = random.integers(-3, 4, (400, 12)).astype(np.float32)
    return F, random.integers(0, 12, 400).astype(np.int32)


def test_ranks_are_places_in_the_order_of_scores(answers):
    F, labels = answers
    predictions = Predictions.of(jax.nn.log_softmax(jnp.asarray(F)), jnp.asarray(labels))
    order = np.argsort(-F, axis=1, kind="stable")  # equals by index, as in argmax
    expected = [order[i].tolist().index(labels[i]) for i in range(len(F))]
    assert predictions.rank.tolist() == expected
    probs = np.exp(F.astype(float)) / np.exp(F.astype(float)).sum(1, keepdims=True)
    np.testing.assert_allclose(predictions.confidence, probs.max(1), rtol=1e-5)
    np.testing.assert_allclose(
        predictions.log_prob, np.log(probs[np.arange(400), labels]), rtol=1e-5
    )


def test_scores_that_are_not_numbers_are_never_right():
    F = jnp.full((1, 12), jnp.nan)
    assert Predictions.of(F, jnp.asarray([0])).rank.tolist() == [11]


def test_a_summary_has_errors_likelihood_and_their_standard_errors(answers):
    F, labels = answers
    predictions = Predictions.of(jax.nn.log_softmax(jnp.asarray(F)), jnp.asarray(labels)).images()
    result = summary(predictions)
    five = np.argsort(-F, axis=1, kind="stable")[:, :5]
    top5 = 1 - np.mean([label in row for label, row in zip(labels, five, strict=True)])
    top1 = np.mean(F.argmax(1) != labels)
    assert result["test_error"] == pytest.approx(top1)
    assert result["top5_error"] == pytest.approx(top5)
    assert result["standard_error"] == pytest.approx((top1 * (1 - top1) / 400) ** 0.5)
    assert result["top5_standard_error"] == pytest.approx((top5 * (1 - top5) / 400) ** 0.5)
    logs = F.astype(float) - np.log(np.exp(F.astype(float)).sum(1, keepdims=True))
    losses = -logs[np.arange(400), labels]
    assert result["log_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert result["log_loss_standard_error"] == pytest.approx(losses.std() / 20, rel=1e-4)
    right = (F.argmax(1) == labels).tolist()
    assert result["calibration_error"] == pytest.approx(
        summed_calibration_error(np.exp(logs).max(1).tolist(), right, 15), abs=1e-5
    )


def test_standard_errors_are_those_of_repeated_tests():
    """The errors of 300 test sets of 200 images; a deviation over 300 is known to 4 %."""
    random = np.random.default_rng(3)

    def drawn():
        rank = random.choice(8, 200, p=[0.5, 0.2, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05])
        return Predictions(
            rank, rank, random.gamma(2, 0.5, 200).astype(np.float32), np.full(200, 0.5, np.float32)
        )

    results = [summary(drawn()) for _ in range(300)]
    for value, error in (
        ("test_error", "standard_error"),
        ("top5_error", "top5_standard_error"),
        ("log_loss", "log_loss_standard_error"),
    ):
        spread = np.std([result[value] for result in results])
        assert spread == pytest.approx(np.mean([result[error] for result in results]), rel=0.15)


# With a network.

NETWORK = DeclaredTrainable(LENET)


@pytest.fixture
def lenet(random_params):
    return CNN(LENET, random_params(LENET))


def scores_of(network, split):
    batch = next(iter(batches(split, len(split))))
    mean = np.asarray(network.preprocessing.mean, np.float32)
    F = jax.jit(lambda x: network(x))(batch["image"] - mean)
    return np.asarray(F, np.float64), batch["label"]


def test_alpha_is_bayes_on_the_images(lenet):
    """alpha_y = log rho_y - log mean_j exp F[j,y], by explicit sums."""
    split = open_split("fashion-embedded", "train[:700]")  # not a multiple of the batch
    F, labels = scores_of(lenet, split)
    prior = np.bincount(labels, minlength=10) / 700
    alpha = estimate_alpha(NETWORK, lenet.arrays(), split)
    np.testing.assert_allclose(alpha, np.log(prior) - np.log(np.exp(F).mean(0)), rtol=1e-4)


def test_a_class_without_images_gets_a_finite_alpha(lenet):
    split = open_split("fashion-embedded", "train[:5]")
    assert np.isfinite(estimate_alpha(NETWORK, lenet.arrays(), split)).all()


def test_errors_are_counted_with_and_without_alpha(lenet):
    split = open_split("fashion-embedded", "test[:320]")
    F, labels = scores_of(lenet, split)
    # An alpha that puts everything into class 4.
    alpha = jnp.where(jnp.arange(10) == 4, 1e4, 0.0)
    result = evaluate(NETWORK, lenet.arrays(), split, alpha=alpha)
    assert result["test_error"] == pytest.approx((labels != 4).mean())
    assert result["test_error_without_alpha"] == pytest.approx((F.argmax(1) != labels).mean())
    logs = F - np.log(np.exp(F).sum(1, keepdims=True))
    assert result["log_loss_without_alpha"] == pytest.approx(
        -logs[np.arange(320), labels].mean(), rel=1e-4
    )


def test_views_are_averaged_in_probability(lenet):
    split = open_split("fashion-embedded", "test[:320]")

    def mirrored(*arguments, **shape):
        for batch in batches(*arguments, **shape):
            views = np.stack([batch["image"], batch["image"][:, :, ::-1]], axis=1)
            yield {"image": views, "label": batch["label"]}

    batch = next(iter(batches(split, 320)))
    logits = [lenet.logits(image) for image in (batch["image"], batch["image"][:, :, ::-1])]
    probs = np.mean([jax.nn.softmax(F) for F in logits], axis=0)
    result = evaluate(NETWORK, lenet.arrays(), split, alpha=jnp.zeros(10), read=mirrored)
    assert result["test_error"] == pytest.approx((probs.argmax(1) != batch["label"]).mean())
    own = probs[np.arange(320), batch["label"]]
    assert result["log_loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)


def test_the_ten_views_are_alexnets(lenet):
    """The views of 28x28 images, scaled to 32: corners, centre and these mirrored, by hand."""
    split = open_split("fashion-embedded", "test[:60]")
    (batch,) = ten_view_batches(split, 60)
    assert batch["image"].shape == (60, 10, 28, 28, 1)
    probs = np.mean([jax.nn.softmax(lenet.logits(batch["image"][:, v])) for v in range(10)], axis=0)
    result = evaluate(NETWORK, lenet.arrays(), split, alpha=jnp.zeros(10), read=ten_view_batches)
    own = probs[np.arange(60), batch["label"]]
    assert result["log_loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    centre = evaluate(NETWORK, lenet.arrays(), split, alpha=jnp.zeros(10))
    assert result["log_loss"] != centre["log_loss"]


SHARDED = """
import json, sys
import jax
index, count, port = map(int, sys.argv[1:])
jax.config.update("jax_num_cpu_devices", 2)
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
import numpy as np
from ppl_cnn.data import open_split
from ppl_cnn.inference.training.evaluation import estimate_alpha, evaluate
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.networks.catalogue import LENET

params = jax.tree.map(np.asarray, he_normal(LENET, jax.random.key(0)))
split = open_split("fashion-embedded", "test[:301]")
alpha = np.asarray(estimate_alpha(DeclaredTrainable(LENET), params, split))
print(json.dumps([alpha.tolist(), evaluate(DeclaredTrainable(LENET), params, split, alpha=alpha)]))
"""


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 2])
def test_devices_and_processes_share_the_work_and_agree(count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    params = he_normal(LENET, jax.random.key(0))
    split = open_split("fashion-embedded", "test[:301]")
    alpha = estimate_alpha(NETWORK, params, split)
    expected = evaluate(NETWORK, params, split, alpha=alpha)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(index), str(count), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for index in range(count)
    ]
    for process in started:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        other_alpha, result = json.loads(output.splitlines()[-1])  # gloo prints, too
        np.testing.assert_allclose(other_alpha, alpha, rtol=1e-5)
        assert result == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("platform", "devices", "views", "images"),
    [
        *(("cpu", 1, 1, 250), ("cpu", 8, 1, 256), ("cpu", 1, 10, 250)),
        *(("gpu", 1, 1, 250), ("gpu", 8, 1, 2_000), ("gpu", 8, 10, 200), ("tpu", 3, 10, 75)),
    ],
)
def test_batches_fill_the_devices(platform, devices, views, images):
    assert evaluation_batch(platform, devices, views) == images
