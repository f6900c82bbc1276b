"""Modules of one's own in training, against NNX and sums by hand."""

import hashlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ppl_cnn
from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.inference.training.gradient import gradient_of
from ppl_cnn.inference.training.losses import generative_loss, hybrid_loss
from ppl_cnn.inference.training.networks.module import ModuleTrainable
from ppl_cnn.inference.training.networks.named import trainable_named
from ppl_cnn.inference.training.placement import data_mesh
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.step import initial_state, optimizer, training_step

N, C = 12, 3
SHAPE = (6, 6, 1)


class Normed(nnx.Module):
    """With running averages."""

    image_shape = SHAPE

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.75, rngs=rngs)
        self.out = nnx.Linear(4, C, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.conv(x / 64))).mean((1, 2)))


class Dropping(nnx.Module):
    image_shape = SHAPE

    def __init__(self):
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        self.out = nnx.Linear(36, C, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.out(self.drop(x).reshape(len(x), -1))


class Told(Normed):
    """Its call is told that it trains."""

    def __call__(self, x, train=False):
        return self.out(nnx.relu(self.norm(self.conv(x), use_running_average=not train))[:, 0, 0])


class Counting(Dropping):
    """With state of two other kinds."""

    def __init__(self):
        super().__init__()
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))
        self.brightness = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        if not self.drop.deterministic:
            self.calls[...] += 1
            self.brightness[...] = jnp.mean(x)
        return self.out(x.reshape(len(x), -1))


class Short(Dropping):
    """Its weights have half the digits."""

    def __init__(self):
        self.out = nnx.Linear(36, C, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.out(x.reshape(len(x), -1))


def network_of(kind):
    return ppl_cnn.ModuleNetwork(kind(), SHAPE)


def trainable(kind):
    return ModuleTrainable.of(network_of(kind))


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (N, *SHAPE), np.uint8)
    return jnp.asarray(images), jnp.asarray([0, 1, 2] * 4, jnp.int32)


def gradient(kind, batch, *, groups=1, params=None):
    network = trainable(kind)
    first, averages = network.initial(jax.random.key(0))
    noise = network.noise(jax.random.key(5), N)
    function = partial(
        gradient_of,
        network=network,
        objective=generative_loss,
        mesh=data_mesh(),
        accumulate=groups,
        dtype="float32",
    )
    return jax.jit(function)(params or first, averages, (*batch, noise))


@pytest.mark.parametrize("groups", [1, 3])
def test_batchnorm_normalises_a_group_and_averages_run_on(batch, groups):
    """F, gradient and averages, against the module called on each group in NNX."""
    images, labels = batch
    x = jnp.asarray(images, jnp.float32)
    graph, params, rest = nnx.split(Normed(), nnx.Param, ...)

    def by_hand(params):
        scores, means = [], []
        for group in jnp.split(x, groups):
            module = nnx.merge(graph, params, jax.tree.map(jnp.copy, rest))
            module.train()
            scores.append(module(group))
            means.append(module.norm.mean[...])
        F = jnp.concatenate(scores)
        return generative_loss(F, labels), (F, jnp.stack(means).mean(0))

    (loss, (F, mean)), wanted = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(params)
    found = gradient(Normed, batch, groups=groups)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(found.F, F, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.averages["norm.mean"], mean, rtol=1e-5)
    for layer, own in (("conv", "kernel"), ("norm", "scale"), ("out", "kernel")):
        array = wanted[layer][own][...]
        np.testing.assert_allclose(found.gradient[layer][own], array, rtol=1e-3, atol=1e-6)
    # In float32 the rounding of zero: the loss is blind to a constant in a column.
    assert np.abs(found.gradient["out"]["bias"]).max() < 1e-6


def test_a_group_of_images_is_normalised_alone_so_that_groups_differ(batch):
    whole, parts = (gradient(Normed, batch, groups=groups).F for groups in (1, 3))
    assert np.abs(whole - parts).max() > 1e-3


@pytest.mark.parametrize(
    "objective",
    [
        "generative",
        pytest.param("hybrid:0.5", marks=pytest.mark.long),
        pytest.param("discriminative", marks=pytest.mark.long),
    ],
)
def test_steps_train_weights_and_leave_tests_the_running_averages(batch, objective):
    network, recipe = trainable(Normed), Recipe.read("lenet", batch_size=N, rate=0.5)
    (stage,) = Recipe.read("lenet", rate=0.5, stages=f"{objective}:9").parsed_stages
    rule = optimizer(recipe, stage, 40)
    state = jax.jit(partial(initial_state, network, recipe, rule=rule))(key=jax.random.key(0))
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
    losses = []
    for _ in range(40):
        state, info = step(state, *batch, jax.random.key(1))
        losses.append(float(info.loss))
        assert info.loss >= info.bound - 1e-5
    assert losses[-1] < losses[0] - 0.05
    assert {*info.gradient} == {"conv", "norm", "out"}
    weights = network.inferring(state.params, state.averages)
    x = jnp.asarray(batch[0], jnp.float32)
    F = network.scores(weights, x)
    np.testing.assert_allclose(F[:1], network.scores(weights, x[:1]), rtol=1e-4, atol=1e-5)
    # The batch is always the same, so that the averages have become its mean and variance.
    trained, _ = network.train_scores(
        state.params, state.averages, x, network.noise(jax.random.key(2), N)
    )
    loss = hybrid_loss(F, batch[1], alpha=jnp.zeros(C), share=stage.share)
    in_training = hybrid_loss(trained, batch[1], alpha=jnp.zeros(C), share=stage.share)
    assert loss == pytest.approx(float(in_training), abs=0.05)
    finished = network.trained(
        weights, alpha=jnp.ones(C), classes=("a", "b", "c"), objective=objective
    )
    np.testing.assert_array_equal(finished(x), F)
    assert (finished.objective, finished.classes) == (objective, ("a", "b", "c"))


def test_dropout_takes_its_key_from_the_step_and_inference_has_none():
    network = trainable(Dropping)
    params, averages = network.initial(jax.random.key(0))
    x = jnp.ones((N, *SHAPE))

    def scores(seed):
        noise = network.noise(jax.random.key(seed), N)
        return network.train_scores(params, averages, x, noise)[0]

    np.testing.assert_array_equal(scores(1), scores(1))
    assert np.abs(scores(1) - scores(2)).max() > 1e-3
    assert np.abs(scores(1)[0] - scores(1)[1]).max() > 1e-3  # equal images
    inferred = network.scores(network.inferring(params, averages), x)
    np.testing.assert_array_equal(inferred[0], inferred[1])


def test_a_call_that_can_be_told_is_told_that_it_trains(batch):
    assert trainable(Told).arguments == {"train": True}
    found = gradient(Told, batch)
    assert np.abs(found.averages["norm.mean"]).max() > 1e-3  # zeros before


@pytest.mark.parametrize("groups", [1, 4])
def test_other_state_is_what_the_call_leaves(batch, groups):
    found = gradient(Counting, batch, groups=groups)
    assert found.averages["calls"] == 1
    mean = np.asarray(batch[0], np.float64).mean()
    assert found.averages["brightness"] == pytest.approx(mean, rel=1e-6)
    assert {*found.gradient} == {"out"}


def test_short_weights_are_trained_in_float32_and_computed_short():
    network = trainable(Short)
    params, averages = network.initial(jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    weights = network.inferring(params, averages)
    assert {x.dtype for x in weights.values()} == {jnp.dtype("bfloat16")}


def with_weights_of(array):
    class Kind(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(array) if array is not None else None

        def __call__(self, x):
            w = jnp.ones((36, C)) if self.w is None else self.w[...].astype(jnp.float32)
            return x.reshape(len(x), -1) @ w

    return Kind


class Failing(Dropping):
    def __call__(self, x):
        assert self.drop.deterministic, "no training here"
        return super().__call__(x)


class Tupled(Dropping):
    def __call__(self, x):
        F = super().__call__(x)
        return F if self.drop.deterministic else (F, x)


@pytest.mark.parametrize(
    ("kind", "facts", "error"),
    [
        (with_weights_of(None), ["nnx.Param", "`network`"], MismatchError),
        (with_weights_of(jnp.ones((36, C), jnp.int32)), ["w", "int32"], MismatchError),
        (Failing, ["Failing", "no training here"], ArgumentError),
        (Tupled, ["Tupled", "(n, class)"], ArgumentError),
    ],
)
def test_what_cannot_be_trained_is_refused(kind, facts, error, refused):
    with refused(*facts, kind=error):
        trainable(kind)


def test_a_recipe_names_a_factory_whose_classes_are_the_datas(tmp_path, monkeypatch, refused):
    (tmp_path / "mine_named.py").write_text(
        "from flax import nnx\n"
        "class Net(nnx.Module):\n"
        "    image_shape = (2, 3, 1)\n"
        "    def __init__(self): self.out = nnx.Linear(6, 5, rngs=nnx.Rngs(0))\n"
        "    def __call__(self, x): return self.out(x.reshape(len(x), -1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = trainable_named("mine_named:Net", 5)
    assert (network.name, network.classes, network.multiplications) == ("Net", 5, None)
    arrays = "out.bias (5,) float32\nout.kernel (6, 5) float32"
    digest = hashlib.sha256(arrays.encode()).hexdigest()[:12]
    assert network.identity == {"module": f"Net of 2 arrays, {digest}"}
    with refused("mine_named:Net", "5 scores", "37 classes", kind=MismatchError):
        trainable_named("mine_named:Net", 37)
    assert trainable_named("lenet", 37).classes == 37
