"""One step of training: state, optimizer and the pure update."""

from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from ppl_cnn.inference.losses import OBJECTIVES, class_ess, importance_ess
from ppl_cnn.inference.recipes import Recipe, Stage
from ppl_cnn.models.cnn import preprocess
from ppl_cnn.models.network import Params, scores
from ppl_cnn.models.networks import Network

type LayerNorms = dict[str, Float[Array, ""]]
"""Layer name -> Euclidean norm over all its weights."""


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
    """Effective sample size of the generative gradient's weights, mean over the batch."""
    class_ess: Float[Array, " c"]
    """Likewise, of every class."""
    gradient: LayerNorms
    """Norm of the loss's gradient, without the weight decay."""
    parameters: LayerNorms
    """Of the weights at which it was taken."""
    update: LayerNorms
    """Of what was added to them."""


def optimizer(recipe: Recipe, stage: Stage, steps: int) -> optax.GradientTransformation:
    """SGD with momentum and weight decay, on the stage's schedule, counted from its start."""
    rise = max(1, steps // 50)
    rates: list[optax.Schedule] = [optax.linear_schedule(0.0, stage.rate, rise)]
    if recipe.schedule == "cosine":
        rates.append(optax.cosine_decay_schedule(stage.rate, max(1, steps - rise)))
    else:
        rates.append(optax.constant_schedule(stage.rate))
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(optax.join_schedules(rates, [rise]), momentum=recipe.momentum),
    )


def training_step(
    network: Network,
    objective: str,
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
        objective: a key of `OBJECTIVES`.
        rule: the stage's optimizer.
        state: before the step.
        images: photographs, sharded over devices along n.
        labels: their classes.
        key: of the run; the step's own dropout key is folded in here.
    """
    x = preprocess(images, network.preprocessing, network.image_shape)

    def loss_of(params: Params) -> tuple[Array, Array]:
        F = scores(network, params, x, jax.random.fold_in(key, state.step))
        return OBJECTIVES[objective](F + state.alpha[None, :], labels), F

    (loss, F), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, rule_state = rule.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    info = StepInfo(
        loss,
        importance_ess(F, labels),
        class_ess(F),
        layer_norms(gradient),
        layer_norms(state.params),
        layer_norms(updates),
    )
    return TrainState(params, rule_state, state.alpha, state.step + 1), info


def layer_norms(params: Params) -> LayerNorms:
    """The norm of each layer's weights, or of something of their shape."""
    return {name: optax.tree.norm(weights) for name, weights in params.items()}
