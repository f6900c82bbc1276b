import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.models.networks.catalogue import SQUEEZENET
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.model_folder import EMBEDDED
from ppl_cnn.models.trained.suited_target import last_objective, suited_target
from ppl_cnn.models.units.targets import Logit, LogProb

JOINT = np.random.default_rng(0).dirichlet(np.full(15, 2.0)).reshape(5, 3)
"""P(image, class) of five images and three classes."""


def fitted(objective):
    """A table of scores (image, class) that minimises the objective, from a random start."""
    share = {"generative": 0.0, "hybrid:0.3": 0.3, "discriminative": 1.0}[objective]
    joint, log_q = jnp.asarray(JOINT, jnp.float32), jnp.log(jnp.asarray(JOINT.sum(1), jnp.float32))

    def loss(scores):
        column = scores - jax.nn.logsumexp(scores + log_q[:, None], axis=0)[None, :]
        row = jax.nn.log_softmax(scores, axis=1)
        return -jnp.sum(joint * ((1 - share) * column + share * row))

    def step(_, scores):
        return scores - 2.0 * jax.grad(loss)(scores)

    start = jax.random.normal(jax.random.key(1), JOINT.shape) * 2
    return np.asarray(jax.lax.fori_loop(0, 20_000, step, start))


def tilted(scores, target):
    """exp(target) q, normalised, for each class."""
    unnormalised = np.exp(jax.vmap(target)(jnp.asarray(scores))) * JOINT.sum(1)[:, None]
    return unnormalised / unnormalised.sum(0)


@pytest.mark.parametrize("objective", ["generative", "hybrid:0.3", "discriminative"])
def test_the_suited_target_tilts_the_images_to_those_of_the_class(objective):
    """To q(x|y), exactly, when q is the training images and T = 1."""
    target, reason = suited_target(objective)
    scores, images_of_class = fitted(objective), JOINT / JOINT.sum(0)
    np.testing.assert_allclose(tilted(scores, target), images_of_class, atol=1e-4)
    assert reason.endswith(objective)
    other = LogProb() if target == Logit() else Logit()
    # Both objectives of the hybrid hold at its minimum, so that there both targets will do.
    differs = np.abs(tilted(scores, other) - images_of_class).max() > 0.05
    assert differs == (objective != "hybrid:0.3")


@pytest.mark.parametrize(
    ("stages", "objective"),
    [
        ("generative:8,discriminative:12", "discriminative"),
        ("discriminative:8, generative:500steps@0.003:constant", "generative"),
        ("hybrid:0.25:4epochs", "hybrid:0.25"),
        ("generative:65%,hybrid:0.5:35%@0.01", "hybrid:0.5"),
        ("contrastive:3", None),
        (7, None),
        (None, None),
    ],
)
def test_the_last_stage_is_read_from_the_record(stages, objective):
    assert last_objective({"recipe": {"stages": stages}}) == objective


def test_a_record_without_a_recipe_tells_nothing():
    assert last_objective({"imported_from": {"file": "a.pth"}}) is None
    assert last_objective({"recipe": "lenet"}) is None
    target, reason = suited_target(None)
    assert target == LogProb()
    assert "assumed" in reason


def test_a_folder_tells_how_its_network_was_trained(tmp_path):
    network = ppl_cnn.load("alexnet-fashion")
    assert network.objective == "discriminative"
    shutil.copytree(EMBEDDED / "alexnet-fashion", tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    description["recipe"]["stages"] = "discriminative:3,generative:8"
    path.write_text(json.dumps(description))
    other = ppl_cnn.load(tmp_path / "model")
    assert other.objective == "generative"
    assert other.unit("class:3", target="auto").target == Logit()


def test_auto_is_the_suited_target_for_classes_and_the_score_for_filters():
    network = ppl_cnn.load("alexnet-fashion")
    units = network.units("conv5:3,class:Bag,fc7:1", target="auto")
    assert [unit.target for unit in units] == [Logit(), LogProb(), Logit()]
    named = network.unit("class:Bag", target="log-prob")
    image = jnp.full(named.shape, 20.0)
    assert units[1].settings == named.settings
    assert units[1].score(units[1].params, image) == named.score(named.params, image)


def test_a_network_of_another_size_was_trained_alike():
    random = CNN.random(SQUEEZENET)
    assert random.objective is None
    trained = CNN(SQUEEZENET, random.arrays(), objective="generative")
    assert trained.resized(64).objective == "generative"
