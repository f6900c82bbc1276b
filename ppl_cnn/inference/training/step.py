"""One step of training: state, optimizer and the pure update.

The batch is global: all devices of all processes compute parts of one gradient.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.training.gradient import gradient_of
from ppl_cnn.inference.training.losses import (
    Bank,
    class_ess,
    generative_bound,
    hybrid_loss,
    importance_ess,
    separated_ess,
)
from ppl_cnn.inference.training.networks.trainable import Averages, Trainable
from ppl_cnn.inference.training.placement import in_parts
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.schedule import learning_rate
from ppl_cnn.inference.training.stages import Stage
from ppl_cnn.models.networks.graph import Params

type LayerNorms = dict[str, Float[Array, ""]]
"""Layer name -> Euclidean norm over all its weights."""

ESS_STEPS = 20
"""Time constant, in steps, of the smoothed ESS, and the steps between two looks at it that may end
a stage."""


class TrainState(NamedTuple):
    """What a step changes, and what a checkpoint holds besides the data's position."""

    params: Params
    averages: Averages
    """What the forward pass changes besides, such as a BatchNorm's running averages."""
    optimizer: optax.OptState
    alpha: Float[Array, " c"]
    """Class offsets, estimated at the end of the last generative stage; zeros before."""
    bank: Bank | None
    """Scores of earlier steps, if the recipe has a reference bank."""
    ess: Float[Array, ""]
    """Mean ESS of the generative weights as a multiple of what separation leaves of it
    (`separated_ess`), smoothed over `ESS_STEPS` of the stage."""
    step: Int[Array, ""]
    """Number of steps taken."""
    stage: Int[Array, ""]
    """Number of the current stage, from 0."""
    began: Int[Array, ""]
    """Number of steps taken when the current stage began."""


class StepInfo(NamedTuple):
    """What a step reports; it stays on the device until it is asked for.

    A step whose loss or gradient is not finite has changed nothing but the step's number.
    """

    loss: Float[Array, ""]
    bound: Float[Array, ""]
    """The least loss that scores of a batch with these labels can have."""
    ess: Float[Array, ""]
    """Effective sample size of the generative gradient's weights, in images: mean over the
    batch."""
    separated_ess: Float[Array, ""]
    """What separation leaves of the ESS, in images (see the function of that name)."""
    class_ess: Float[Array, " c"]
    """Effective sample size of each class's weights, in images."""
    gradient: LayerNorms
    """Norms of the loss's gradient, without the weight decay."""
    parameters: LayerNorms
    """Norms of the weights at which the gradient was taken."""
    update: LayerNorms
    """Norms of what was added to the weights."""


def check_fit(
    recipe: Recipe, *, images: int, classes: int, accumulate: int, devices: int | None = None
) -> None:
    """Checks that data set, batch and devices fit each other.

    Args:
        recipe: the run's.
        images: number of training images.
        classes: number of classes of the data set.
        accumulate: groups that each device's part of a batch is cut into.
        devices: their number; by default that of all of JAX's.

    Raises:
        MismatchError: they don't.
    """
    if classes < 2:
        raise MismatchError(
            f"{recipe.data} has {classes} class, where a classifier needs two or more. Give other "
            f"`data`."
        )
    if recipe.batch_size > images:
        raise MismatchError(
            f"`batch_size={recipe.batch_size}` is larger than the {images} training images of "
            f"{recipe.data}. Give a smaller one."
        )
    devices = devices or jax.device_count()
    if recipe.batch_size % (devices * accumulate):
        raise MismatchError(
            f"`batch_size={recipe.batch_size}` can't be divided evenly among {devices} device(s) "
            f"with `accumulate={accumulate}` group(s) each. Give a multiple of "
            f"{devices * accumulate}."
        )
    _check_switch(recipe, classes)


def _check_switch(recipe: Recipe, classes: int) -> None:
    """Refuses an ESS that no step has, or that the first one has.

    The classes count as even. Where some have more images, separation leaves a larger ESS, so that
    the switch is reached a little sooner.
    """
    first = even_ess(recipe.batch_size, classes)
    least = first / recipe.batch_size  # an ESS of one image
    if recipe.least_ess and not least < recipe.least_ess < first:
        raise MismatchError(
            f"`switch={recipe.switch}` never ends a stage, or at once: with "
            f"`batch_size={recipe.batch_size}` and {classes} classes the effective sample size "
            f"begins at {first:.3g} times what separation leaves, and is at least {least:.2g}. "
            f"Give a number between, such as ess:1.5."
        )


def even_ess(batch_size: int, classes: int) -> float:
    """The ESS of equal scores, as a multiple of what separation leaves of it: n / E[n_y].

    Args:
        batch_size: images of a batch, n, whose ESS that is.
        classes: number of classes, of even probability: an image's class has
            1 + (n - 1)/classes images in its batch, on average.
    """
    return batch_size / (1 + (batch_size - 1) / classes)


def optimizer(recipe: Recipe, stage: Stage, steps: int) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum m and weight decay d, on the stage's own learning rate.

        v_t = m v_{t-1} + gradient_t + d w_t,        w_{t+1} = w_t - rate(t) v_t

    Its `update` takes `finite`, whether the gradient is. If it isn't, w and v stay as they are.

    Args:
        recipe: gives m and d.
        stage: gives the peak rate and the schedule.
        steps: the stage's length in updates.
    """
    rate = learning_rate(stage.schedule, peak=stage.rate, steps=steps)
    rule = optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.chain(_momentum(recipe.momentum), optax.scale_by_learning_rate(rate)),
    )

    def update(
        gradient: Params,
        state: Any,
        params: Params | None = None,
        *,
        finite: Bool[Array, ""],
        **_: Any,
    ) -> tuple[Params, Any]:
        updates, (decay, (trace, count)) = rule.update(gradient, state, params, finite=finite)
        updates = jax.tree.map(lambda each: jnp.where(finite, each, jnp.zeros_like(each)), updates)
        return updates, (decay, (trace, kept_unless(finite, count, state[1][1])))

    return optax.GradientTransformationExtraArgs(rule.init, update)


def _momentum(decay: float) -> optax.GradientTransformationExtraArgs:
    """`optax.trace`, whose trace stays as it is where the gradient is not finite.

    The barriers let new weights be computed from the new trace. Without them XLA computes both from
    old weights and old trace, of which it then makes copies.
    """
    plain = optax.trace(decay)

    def update(
        gradient: Params,
        state: Any,
        params: Params | None = None,
        *,
        finite: Bool[Array, ""],
        **_: Any,
    ) -> tuple[Params, optax.TraceState]:
        moved, _state = plain.update(gradient, state, params)
        trace = kept_unless(finite, moved, state.trace)
        return jax.tree.map(jax.lax.optimization_barrier, trace), optax.TraceState(trace)

    return optax.GradientTransformationExtraArgs(plain.init, update)


def kept_unless[T](finite: Bool[Array, ""], new: T, old: T) -> T:
    """The new values of a tree where a step is finite, and the old ones where it isn't."""
    kept: T = jax.tree.map(partial(jnp.where, finite), new, old)
    return kept


def initial_state(
    network: Trainable, recipe: Recipe, *, rule: optax.GradientTransformation, key: PRNGKeyArray
) -> TrainState:
    """The state before the first step.

    Args:
        network: gives the weights.
        recipe: the run's.
        rule: the first stage's optimizer.
        key: the run's random key.
    """
    params, averages = network.initial(key)
    classes, zero = network.classes, jnp.zeros((), jnp.int32)
    return TrainState(
        params,
        averages,
        rule.init(params),
        alpha=jnp.zeros(classes),
        bank=Bank.empty(recipe.reference_bank, classes) if recipe.reference_bank else None,
        ess=jnp.asarray(even_ess(recipe.batch_size, classes)),
        step=zero,
        stage=zero,
        began=zero,
    )


def next_stage(state: TrainState, recipe: Recipe, rule: optax.GradientTransformation) -> TrainState:
    """The state at the start of the next stage.

    A stage is a run of the solver of its own, as in Caffe: momentum, bank and smoothed ESS start
    anew.

    Args:
        state: the state at the end of the stage before.
        recipe: the run's.
        rule: the next stage's optimizer.
    """
    return state._replace(
        optimizer=rule.init(state.params),
        bank=state.bank and Bank.empty(*state.bank.scores.shape),
        ess=jnp.asarray(even_ess(recipe.batch_size, len(state.alpha))),
        stage=state.stage + 1,
        began=state.step,
    )


def state_shardings(state: TrainState, mesh: Mesh, shard_params: bool) -> TrainState:
    """Where the arrays of a state lie, as a tree of the state's structure.

    Args:
        state: the state, or its shapes.
        mesh: the devices.
        shard_params: whether weights and momentum are cut into parts; all else is a copy on each.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    everything: TrainState = jax.tree.map(lambda _: whole, state)
    if not shard_params:
        return everything
    params, rule_state = jax.tree.map(
        lambda x: in_parts(mesh, x.shape), (state.params, state.optimizer)
    )
    return everything._replace(params=params, optimizer=rule_state)


def jitted_step(
    network: Trainable,
    recipe: Recipe,
    *,
    stage: Stage,
    rule: optax.GradientTransformationExtraArgs,
    mesh: Mesh,
    accumulate: int,
    places: TrainState,
) -> jax.stages.Wrapped:
    """`training_step`, compiled, as a function of (state, images, labels, key).

    It takes over the state's buffers: the state that was given can't be used afterwards.

    Args:
        network: see `training_step`, as for all but the last.
        recipe: see there.
        stage: see there.
        rule: see there.
        mesh: see there.
        accumulate: see there.
        places: where the new state's arrays lie, from `state_shardings`.
    """
    step = partial(
        training_step,
        network=network,
        recipe=recipe,
        stage=stage,
        rule=rule,
        mesh=mesh,
        accumulate=accumulate,
    )
    return jax.jit(step, out_shardings=(places, None), donate_argnums=0)


def training_step(
    state: TrainState,
    images: UInt8[Array, "n row col channel"],
    labels: Int[Array, " n"],
    key: PRNGKeyArray,
    *,
    network: Trainable,
    recipe: Recipe,
    stage: Stage,
    rule: optax.GradientTransformationExtraArgs,
    mesh: Mesh,
    accumulate: int,
) -> tuple[TrainState, StepInfo]:
    """One update on one global batch; pure, to be jitted.

    Args:
        state: the state before the step.
        images: photographs (0..255), spread over the mesh along n.
        labels: their classes.
        key: the run's random key; the step's number is folded in for its dropout.
        network: the network.
        recipe: gives number format and decay of the bank.
        stage: gives the objective.
        rule: the stage's optimizer.
        mesh: the devices that share the work.
        accumulate: groups, one after the other, of each device's part of the batch.
    """

    def objective(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
        return hybrid_loss(F, labels, alpha=state.alpha, share=stage.share, bank=state.bank)

    noise = network.noise(jax.random.fold_in(key, state.step), len(labels))
    loss, F, gradient, averages = gradient_of(
        state.params,
        state.averages,
        (images, labels, noise),
        network=network,
        objective=objective,
        mesh=mesh,
        accumulate=accumulate,
        dtype=recipe.dtype,
    )
    norms, weights = layer_norms(gradient), layer_norms(state.params)
    # The weights' norms too, so that weights are read before they change: XLA would copy them.
    finite = jnp.isfinite(loss + sum(norms.values()) + sum(weights.values()))
    updates, rule_state = rule.update(gradient, state.optimizer, state.params, finite=finite)
    ess, separated = importance_ess(F, labels), separated_ess(labels, F.shape[1])
    rest = state._replace(params={}, optimizer=())  # the rule keeps these by itself
    applied = rest._replace(
        averages=averages, ess=state.ess + (ess / separated - state.ess) / ESS_STEPS
    )
    if state.bank and stage.share < 1:
        applied = applied._replace(bank=state.bank.push(F, recipe.reference_decay))
    info = StepInfo(
        loss,
        (1 - stage.share) * generative_bound(labels, F.shape[1], state.bank),
        ess,
        separated,
        class_ess(F),
        norms,
        weights,
        layer_norms(updates),
    )
    kept = kept_unless(finite, applied, rest)
    params = optax.apply_updates(state.params, updates)
    return kept._replace(params=params, optimizer=rule_state, step=state.step + 1), info


def layer_norms(params: Params) -> LayerNorms:
    """The Euclidean norm over each layer's arrays."""
    return {name: optax.tree.norm(weights) for name, weights in params.items()}
