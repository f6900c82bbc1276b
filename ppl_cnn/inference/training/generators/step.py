"""One step of a generator's training: state, optimizers and the pure updates.

The batch is global: all devices of all processes compute parts of one gradient.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from ppl_cnn.inference.training.generators.critic import critic_weights
from ppl_cnn.inference.training.generators.objectives import (
    PENALTY,
    autoencoder_loss,
    critic_loss,
    flow_loss,
    refiner_loss,
)
from ppl_cnn.inference.training.generators.recipe import GeneratorRecipe
from ppl_cnn.inference.training.schedule import learning_rate
from ppl_cnn.models.generators.layers import Weights
from ppl_cnn.models.generators.refined_flow import RefinedFlow, encoder_weights

type Networks = dict[str, Weights]

TRAINED: Mapping[str, tuple[str, ...]] = {
    "autoencoder": ("encoder", "decoder"),
    "flow": ("flow",),
    "refiner": ("decoder", "refiner"),
    "critic": ("critic",),
}
"""Optimizer -> the networks that it trains; the last two take turns in the adversarial stage."""
PENALTY_STEPS = 8
"""Steps from one with the critic's penalty to the next; its factor makes up for the others
(Karras et al., Analyzing and improving the image quality of StyleGAN, 2020, arXiv 1912.04958)."""
_CRITIC_ALONE = 60
"""First steps of the adversarial stage in which the critic learns alone."""
_RISE = 100
"""Steps over which the refiner's rate then rises."""
_MEMORY = 0.999
"""Share of the running average that the next step leaves."""
_LARGEST_GRADIENT = 50.0
"""Norm above which a likelihood's gradient is scaled down."""


class GeneratorState(NamedTuple):
    """What a step changes, and what a checkpoint holds besides the data's position."""

    params: Networks
    """The weights of all networks: encoder, decoder, flow, refiner and critic."""
    average: Networks
    """The running average of decoder and refiner over the adversarial stage: the result."""
    optimizers: dict[str, Any]
    """Name in `TRAINED` -> the optimizer's state."""
    step: Int[Array, ""]
    """Number of steps taken."""
    stage: Int[Array, ""]
    """Number of the current stage, from 0."""
    began: Int[Array, ""]
    """Number of steps taken when the current stage began."""


type Info = dict[str, Float[Array, ""]]
"""What a step reports: `loss`, `gradient_norm` and the parts of the loss."""


def networks_of(params: Networks, name: str) -> Networks:
    """The layers of the networks that an optimizer trains.

    Args:
        params: all weights.
        name: in `TRAINED`.
    """
    kinds = TRAINED[name]
    return {layer: each for layer, each in params.items() if layer.partition(".")[0] in kinds}


def optimizers(
    recipe: GeneratorRecipe, steps: tuple[int, ...]
) -> dict[str, optax.GradientTransformation]:
    """Adam for each of `TRAINED`; those that take turns with a critic have no momentum.

    Args:
        recipe: gives the rates.
        steps: the stages' lengths in updates.
    """
    likelihood, flow, adversarial = steps
    rates = {
        "autoencoder": learning_rate("cosine", peak=recipe.autoencoder_rate, steps=likelihood),
        "flow": learning_rate("cosine", peak=recipe.flow_rate, steps=flow),
    }
    rules = {
        name: optax.chain(optax.clip_by_global_norm(_LARGEST_GRADIENT), optax.adam(rate))
        for name, rate in rates.items()
    }
    refiner = learning_rate("cosine", peak=recipe.refiner_rate, steps=adversarial)
    critic = learning_rate("cosine", peak=recipe.critic_rate, steps=adversarial)

    def late(step: Array) -> Array:
        gate = jnp.clip((step - _CRITIC_ALONE) / _RISE, 0.0, 1.0)
        return gate * jnp.asarray(refiner(step))

    rules["refiner"] = optax.adam(late, b1=0.0, b2=0.99)
    rules["critic"] = optax.adam(critic, b1=0.0, b2=0.99)
    return rules


def initial_state(
    sizes: RefinedFlow, rules: Mapping[str, optax.GradientTransformation], key: PRNGKeyArray
) -> GeneratorState:
    """The state before the first step.

    Args:
        sizes: the generator's.
        rules: from `optimizers`.
        key: the run's random key.
    """
    encoder, decoder, flow, refiner, critic = jax.random.split(key, 5)
    params = {
        **encoder_weights(sizes, encoder),
        **sizes.decoder_weights(decoder),
        **sizes.flow.weights(flow),
        **sizes.refiner_weights(refiner),
        **critic_weights(sizes.image_shape, critic),
    }
    states = {name: rule.init(networks_of(params, name)) for name, rule in rules.items()}
    zero = jnp.zeros((), jnp.int32)
    average = jax.tree.map(jnp.copy, networks_of(params, "refiner"))
    return GeneratorState(params, average, states, zero, zero, zero)


def next_stage(state: GeneratorState) -> GeneratorState:
    """The state at the start of the next stage: the average begins at what there is.

    Args:
        state: the state at the end of the stage before.
    """
    average = jax.tree.map(jnp.copy, networks_of(state.params, "refiner"))
    return state._replace(average=average, stage=state.stage + 1, began=state.step)


def jitted_steps(
    sizes: RefinedFlow,
    rules: Mapping[str, optax.GradientTransformation],
    *,
    stage: str,
    mesh: Mesh,
) -> dict[bool, jax.stages.Wrapped]:
    """The compiled steps of a stage, with the critic's penalty and without.

    They are functions of (state, images, labels, key) and take over the state's buffers. Two
    programs are quicker than one with a branch: XLA's CPU backend runs branches on one core.

    Args:
        sizes: the generator's.
        rules: from `optimizers`.
        stage: in `STAGES`.
        mesh: the devices; weights lie on each, images are spread.
    """
    whole = NamedSharding(mesh, PartitionSpec())

    def compiled(penalty: bool) -> jax.stages.Wrapped:
        step = partial(
            training_step, sizes=sizes, rules=rules, stage=stage, penalty=penalty, mesh=mesh
        )
        return jax.jit(step, out_shardings=whole, donate_argnums=0)

    if stage != "adversarial":
        return dict.fromkeys((False, True), compiled(False))
    return {penalty: compiled(penalty) for penalty in (False, True)}


def training_step(
    state: GeneratorState,
    images: UInt8[Array, "n row col channel"],
    labels: Int[Array, " n"],
    key: PRNGKeyArray,
    *,
    sizes: RefinedFlow,
    rules: Mapping[str, optax.GradientTransformation],
    stage: str,
    penalty: bool,
    mesh: Mesh,
) -> tuple[GeneratorState, Info]:
    """One update on one global batch; pure, to be jitted.

    A step whose loss or gradient is not finite changes nothing but the step's number.

    Args:
        state: the state before the step.
        images: 0..255, spread over the mesh along n.
        labels: their classes, which are not used.
        key: the run's random key; the step's number is folded in.
        sizes: the generator's.
        rules: from `optimizers`.
        stage: in `STAGES`.
        penalty: whether the critic's penalty is taken, in the adversarial stage.
        mesh: the devices that share the work.
    """
    del labels
    real = images.astype(jnp.float32) / 255
    key = jax.random.fold_in(key, state.step)
    began = state.step - state.began
    if stage == "autoencoder":
        loss = partial(autoencoder_loss, sizes=sizes, step=began)
        applied, info = _improved(state, "autoencoder", rules, lambda p: loss(p, real, key))
    elif stage == "flow":
        loss = partial(flow_loss, sizes=sizes)
        applied, info = _improved(state, "flow", rules, lambda p: loss(p, real, key))
    else:
        applied, info = _adversarial(
            state, real, key, sizes=sizes, rules=rules, penalty=penalty, mesh=mesh
        )
        share = jnp.minimum(_MEMORY, (began + 1) / (began + 20))
        average = jax.tree.map(
            lambda old, new: share * old + (1 - share) * new,
            state.average,
            networks_of(applied.params, "refiner"),
        )
        applied = applied._replace(average=average)
    finite = jnp.isfinite(info["loss"]) & jnp.isfinite(info["gradient_norm"])
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), applied, state)
    return kept._replace(step=state.step + 1), info


def _improved(
    state: GeneratorState,
    name: str,
    rules: Mapping[str, optax.GradientTransformation],
    loss: Any,
) -> tuple[GeneratorState, Info]:
    """The state after an update of the networks of one optimizer.

    Args:
        state: the state before.
        name: the optimizer's, in `TRAINED`.
        rules: from `optimizers`.
        loss: a function of all weights to the loss and its parts.
    """
    trained = networks_of(state.params, name)
    value_and_grad = jax.value_and_grad(lambda own: loss({**state.params, **own}), has_aux=True)
    (value, parts), gradient = value_and_grad(trained)
    updates, rule_state = rules[name].update(gradient, state.optimizers[name], trained)
    params = {**state.params, **optax.apply_updates(trained, updates)}
    states = {**state.optimizers, name: rule_state}
    info = {"loss": value, "gradient_norm": optax.tree.norm(gradient), **parts}
    return state._replace(params=params, optimizers=states), info


def _adversarial(
    state: GeneratorState,
    real: Float[Array, "n row col channel"],
    key: PRNGKeyArray,
    *,
    sizes: RefinedFlow,
    rules: Mapping[str, optax.GradientTransformation],
    penalty: bool,
    mesh: Mesh,
) -> tuple[GeneratorState, Info]:
    """The state after a turn of the critic and one of the refiner."""
    key_made, key_refiner = jax.random.split(key)
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def spread(x: Array) -> Array:
        # Otherwise each device might make all draws.
        spread_out: Array = jax.lax.with_sharding_constraint(x, rows)
        return spread_out

    z = spread(jax.random.normal(key_made, (len(real), *sizes.latent_shape)))
    made = jax.lax.stop_gradient(sizes.apply(state.params, z) / 255)
    factor = PENALTY * PENALTY_STEPS if penalty else 0.0
    state, of_critic = _improved(
        state, "critic", rules, lambda p: critic_loss(p, real, made, penalty=factor)
    )
    state, info = _improved(
        state,
        "refiner",
        rules,
        lambda p: refiner_loss(p, state.params, real, key_refiner, sizes=sizes, spread=spread),
    )
    norm = jnp.hypot(info["gradient_norm"], of_critic["gradient_norm"])
    return state, {
        **info,
        "critic_loss": of_critic["critic_loss"],
        "gradient_norm": norm,
    }
