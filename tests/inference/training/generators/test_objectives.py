from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.inference.training.generators import objectives
from ppl_cnn.inference.training.generators.critic import GROUP, critic_weights, criticized
from ppl_cnn.inference.training.generators.recipe import GeneratorRecipe
from ppl_cnn.inference.training.generators.step import (
    TRAINED,
    initial_state,
    networks_of,
    next_stage,
    optimizers,
    training_step,
)
from ppl_cnn.inference.training.placement import data_mesh
from ppl_cnn.models.generators.refined_flow import RefinedFlow

SIZES = RefinedFlow(
    image_shape=(8, 8, 1), latent=4, noise=2, hidden=(6, 5), couplings=2, coupling_width=5,
    channels=(8, 4),
)  # fmt: skip
RECIPE = GeneratorRecipe(
    data="fashion-embedded", autoencoder="300steps", flow="300steps", adversarial="300steps"
)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def rules():
    return optimizers(RECIPE, RECIPE.stage_steps(epoch=10))


@pytest.fixture(scope="module")
def begun(rules):
    return jax.jit(lambda key: initial_state(SIZES, rules, key))(KEY)


def images(seed, n=2 * GROUP):
    """Blots of two kinds, 0..255."""
    rng = np.random.default_rng(seed)
    rows = np.arange(8)[:, None]
    left = np.exp(-((rows - 2.0) ** 2) / 4) * np.ones(8)[None]
    kinds = np.stack([left, left[::-1]])[rng.integers(0, 2, n)]
    return (255 * kinds * rng.uniform(0.6, 1, (n, 1, 1)))[..., None].astype(np.uint8)


LABELS = np.zeros(2 * GROUP, np.int32)


@pytest.fixture(scope="module")
def compiled(rules):
    """A function of a stage to its step, compiled once."""
    fixed = {"sizes": SIZES, "rules": rules, "penalty": False, "mesh": data_mesh()}
    return lru_cache(lambda stage: jax.jit(partial(training_step, stage=stage, **fixed)))


def run(state, step, steps):
    losses = []
    for number in range(steps):
        state, info = step(state, images(number), LABELS, KEY)
        losses.append(float(info["loss"]))
    return state, losses


def test_the_latent_s_divergence_is_the_gaussian_closed_form(begun):
    real = images(0) / np.float32(255)
    mean, log_variance = jax.jit(partial(objectives.encode, SIZES))(begun.params, real)
    _, kl = jax.jit(partial(objectives.encoded, SIZES))(begun.params, real, KEY)
    mean, log_variance, kl = (np.asarray(each) for each in (mean, log_variance, kl))
    noise = np.random.default_rng(0).standard_normal((4000, *mean.shape), np.float32)
    draws = noise * np.exp(log_variance / 2)[None] + mean[None]

    def log_normal(x, mean, log_variance):
        return -0.5 * ((x - mean) ** 2 / np.exp(log_variance) + log_variance).sum(axis=-1)

    ratio = log_normal(draws, mean[None], log_variance[None])
    ratio = ratio - log_normal(draws, np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))
    error = ratio.std(axis=0) / 4000**0.5
    assert (np.abs(ratio.mean(axis=0) - kl) < 5 * error + 1e-4).all()


@pytest.mark.long
def test_each_stage_learns_and_changes_its_own_networks_alone(begun, compiled):
    state = begun
    for stage, fall in (("autoencoder", 1.0), ("flow", 0.3)):
        after, losses = run(state, compiled(stage), 300)
        assert np.mean(losses[-20:]) < np.mean(losses[:20]) - fall
        for layer, weights in state.params.items():
            changes = layer.partition(".")[0] in TRAINED[stage]
            moved = bool(jnp.abs(after.params[layer]["weight"] - weights["weight"]).max() > 0)
            assert moved == changes, layer
        state = next_stage(after)
    after, _ = run(state, compiled("adversarial"), 70)
    moved = {
        layer.partition(".")[0]
        for layer, weights in state.params.items()
        if jnp.abs(after.params[layer]["weight"] - weights["weight"]).max() > 0
    }
    assert moved == {"decoder", "refiner", "critic"}
    assert set(after.average) == set(networks_of(after.params, "refiner"))


@pytest.mark.long
def test_the_critic_learns_to_tell_noise_from_images_before_the_refiner_moves(begun, compiled):
    state = next_stage(next_stage(begun))
    after, _ = run(state, compiled("adversarial"), 60)
    np.testing.assert_array_equal(
        after.params["refiner.high1"]["weight"], state.params["refiner.high1"]["weight"]
    )
    real = jnp.asarray(images(99) / np.float32(255))
    made = SIZES.apply(after.params, jax.random.normal(KEY, (2 * GROUP, 6))) / 255
    on_real, _ = criticized(after.params, real)
    on_made, _ = criticized(after.params, made)
    assert on_real.mean() > on_made.mean() + 1


def test_the_penalty_is_the_squared_gradient_at_real_images():
    params = jax.jit(partial(critic_weights, (8, 8, 1)))(KEY)
    real = jnp.asarray(images(1) / np.float32(255))
    made = jnp.asarray(images(2) / np.float32(255))
    loss = jax.jit(objectives.critic_loss, static_argnames="penalty")
    without, _ = loss(params, real, made, penalty=0.0)
    with_it, told = loss(params, real, made, penalty=0.5)
    assert told["critic_loss"] == without

    @jax.jit
    def logits(x):
        return criticized(params, x)[0].sum()

    # Central differences along random directions: E[(d f)^2] = |grad f|^2 for unit normal ones.
    half = real[:GROUP]
    gradient = np.asarray(jax.jit(jax.grad(logits))(half))
    direction = np.random.default_rng(0).standard_normal(half.shape, np.float32)
    step = 1e-3  # few rectifiers change sides on such a way
    slope = (logits(half + step * direction) - logits(half - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, (gradient * direction).sum(), rtol=0.05)
    expected = 0.25 * (gradient**2).sum(axis=(1, 2, 3)).mean()
    np.testing.assert_allclose(with_it - without, expected, rtol=1e-4)


def test_a_step_that_is_not_finite_changes_nothing(begun, compiled):
    broken = begun._replace(params={**begun.params, "encoder.0": {
        name: x * jnp.nan for name, x in begun.params["encoder.0"].items()
    }})  # fmt: skip
    after, info = compiled("autoencoder")(broken, images(0), LABELS, KEY)
    assert not np.isfinite(info["loss"])
    np.testing.assert_array_equal(
        after.params["decoder.0"]["weight"], begun.params["decoder.0"]["weight"]
    )
    assert int(after.step) == 1


def test_a_recipe_refuses_what_it_cannot_use(refused):
    for name, value in (("batch_size", 40), ("latent", 3), ("size", 30), ("flow_rate", 0.0)):
        with refused(value, argument=name):
            GeneratorRecipe(**{name: value})
    for text in ("many", "50%"):
        with refused(text, argument="flow"):
            GeneratorRecipe(flow=text)
