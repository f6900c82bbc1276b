"""One step of training: state, optimizer and the pure update."""

from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from ppl_cnn.inference.losses import hybrid_loss, importance_ess
from ppl_cnn.inference.recipes import Recipe, Stage
from ppl_cnn.models.cnn import preprocess
from ppl_cnn.models.network import Params, scores
from ppl_cnn.models.networks import Network


class TrainState(NamedTuple):
    """What a step changes, and what a checkpoint holds besides the data's place."""

    params: Params
    optimizer: optax.OptState
    alpha: Float[Array, " c"]
    """Class offsets of the last generative stage; zeros before."""
    step: Int[Array, ""]


class StepInfo(NamedTuple):
    """What a step reports; on the device until it is asked for."""

    loss: Float[Array, ""]
    ess: Float[Array, ""]
    """Mean effective sample size of the generative gradient's importance weights."""


def optimizer(recipe: Recipe, stage: Stage, steps: int) -> optax.GradientTransformation:
    """SGD with momentum and weight decay, on the stage's schedule, counted from its start."""
    rise = max(1, steps // 50)
    rates: list[optax.Schedule] = [optax.linear_schedule(0.0, stage.rate, rise)]
    if stage.schedule == "cosine":
        rates.append(optax.cosine_decay_schedule(stage.rate, max(1, steps - rise)))
    else:
        rates.append(optax.constant_schedule(stage.rate))
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(optax.join_schedules(rates, [rise]), momentum=recipe.momentum),
    )


def training_step(
    network: Network,
    share: float,
    rule: optax.GradientTransformation,
    state: TrainState,
    images: UInt8[Array, "n row col channel"],
    labels: Int[Array, " n"],
    key: PRNGKeyArray,
) -> tuple[TrainState, StepInfo]:
    """One update on one global batch; pure, to be jitted.

    The discriminative loss is that of F + alpha, the classifier that the generative stage
    before it has left; the generative one is blind to alpha.

    Args:
        network: the declaration.
        share: of the discriminative loss, see `hybrid_loss`.
        rule: the stage's optimizer.
        state: before the step.
        images: photographs, sharded over devices along n.
        labels: their classes.
        key: of the run; the step's own dropout key is folded in here.
    """
    x = preprocess(images, network.preprocessing, network.image_shape)

    def loss_of(params: Params) -> tuple[Array, Array]:
        F = scores(network, params, x, jax.random.fold_in(key, state.step))
        return hybrid_loss(F, labels, state.alpha, share), F

    (loss, F), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, rule_state = rule.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return (
        TrainState(params, rule_state, state.alpha, state.step + 1),
        StepInfo(loss, importance_ess(F, labels)),
    )
