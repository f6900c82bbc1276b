import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.data import open_split
from ppl_cnn.inference.training.generators.class_figures import class_figures
from ppl_cnn.inference.training.generators.figures import (
    Judge,
    frechet_distance,
    precision_recall,
)
from ppl_cnn.models.networks.catalogue import ALEXNET_FASHION
from ppl_cnn.models.trained.cnn import CNN


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    n, scales = 200_000, np.asarray([1.0, 2.0, 0.5])
    ours = rng.standard_normal((n, 3)) * scales
    theirs = rng.standard_normal((n, 3)) * 2 * scales + 1.0
    # |m|^2 + sum (s - 2 s)^2, as both covariances are diagonal
    expected = 3 + (scales**2).sum()
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-9)


def test_precision_falls_where_draws_are_strange_and_recall_where_they_are_few():
    rng = np.random.default_rng(1)
    real = rng.standard_normal((400, 2))
    assert min(precision_recall(rng.standard_normal((400, 2)), real)) > 0.9
    strange = np.concatenate([rng.standard_normal((200, 2)), 50 + rng.standard_normal((200, 2))])
    precision, _ = precision_recall(strange, real)
    assert precision == pytest.approx(0.5, abs=0.06)
    narrow = 0.2 * rng.standard_normal((400, 2))
    precision, recall = precision_recall(narrow, real)
    assert precision > 0.95
    assert recall < 0.3


@pytest.fixture(scope="module")
def judge():
    judge = Judge.named(None, "fashion-embedded")
    assert judge is not None
    return judge


def test_a_judge_sees_what_its_network_does(judge):
    split = open_split("fashion-embedded", "test[:100]")
    pixels = split.source.read(range(100))["image"]
    seen = judge.look(pixels)
    np.testing.assert_allclose(seen.logits, judge.network.logits(pixels), atol=1e-3)
    assert seen.features.shape == (100, 256)
    # The last layer reads them: fc8 of the features is the score.
    last = judge.network.arrays()["fc8"]
    scores = seen.features @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    np.testing.assert_allclose(
        scores + np.asarray(judge.network.alpha[...]), seen.logits, atol=1e-3
    )


def test_a_judge_of_other_images_is_refused(judge, refused):
    judge.check((28, 28, 1))
    with refused("alexnet-fashion", (64, 64, 3)):
        judge.check((64, 64, 3))
    assert Judge.named(None, "imagenette") is None
    assert isinstance(Judge(CNN.random(ALEXNET_FASHION)), Judge)


def test_a_class_has_its_share_and_its_log_z(judge):
    """Draws that are the images, in another order, have the images' figures."""
    split = open_split("fashion-embedded", "test[:100]")
    pixels = split.source.read(range(100))["image"]

    def some_of_them(params, z):
        return params["images"][jnp.arange(len(z)) % 100]

    found = class_figures(
        some_of_them,
        {"images": jnp.asarray(pixels[::-1], jnp.float32)},
        judge,
        latent_shape=(1,),
        images=split,
        count=100,
    )
    logits = np.asarray(judge.network.logits(pixels), np.float64)
    posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.log_z, np.log(posterior.mean(axis=0)), atol=1e-4)
    np.testing.assert_allclose(found.real_log_z, found.log_z, atol=1e-4)
    error = posterior.std(axis=0, ddof=1) / np.sqrt(100) / posterior.mean(axis=0)
    np.testing.assert_allclose(found.log_z_error, error, rtol=1e-3)
    counts = np.bincount(logits.argmax(axis=1), minlength=10)
    np.testing.assert_allclose(found.share, counts / 100)
    assert found.classes[0] == "T-shirt/top"
    assert found.target == "log-prob"


def test_a_generatively_trained_judge_gives_log_z_of_its_score(judge):
    network = judge.network
    trained = CNN(
        network.declaration,
        network.arrays(),
        network.alpha[...] + 3.0,
        classes=network.classes,
        objective="generative",
    )
    split = open_split("fashion-embedded", "test[:100]")
    pixels = split.source.read(range(100))["image"]
    found = class_figures(
        lambda params, z: params["images"][: len(z)],
        {"images": jnp.asarray(np.concatenate(5 * [pixels]), jnp.float32)},
        Judge(trained),
        latent_shape=(1,),
        images=split,
        count=100,
    )
    scores = np.asarray(network.logits(pixels) - network.alpha[...][None], np.float64)
    assert found.target == "logit"
    np.testing.assert_allclose(found.log_z, np.log(np.exp(scores).mean(axis=0)), atol=1e-3)
