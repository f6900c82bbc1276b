"""One step of training: state, optimizer and the pure update."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from ppl_cnn.errors import InputError
from ppl_cnn.inference.training.losses import Bank, class_ess, hybrid_loss, importance_ess
from ppl_cnn.inference.training.placement import in_parts
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.stages import Stage
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.forward import dropout_masks, scores
from ppl_cnn.models.networks.graph import Params, shapes
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.trained.cnn import preprocess

type LayerNorms = dict[str, Float[Array, ""]]
"""Layer name -> Euclidean norm over all its weights."""
type Objective = Callable[[Float[Array, "n c"], Int[Array, " n"]], Float[Array, ""]]

ESS_STEPS = 20
"""Over which the ESS is smoothed, and between two looks at it that may end a stage."""


class TrainState(NamedTuple):
    """What a step changes, and what a checkpoint holds besides the data's place."""

    params: Params
    optimizer: optax.OptState
    alpha: Float[Array, " c"]
    """Class offsets of the last generative stage; zeros before."""
    bank: Bank | None
    """Past scores, if the recipe has a reference bank."""
    ess: Float[Array, ""]
    """Mean ESS of the generative weights, smoothed over `ESS_STEPS` steps of the stage."""
    step: Int[Array, ""]
    stage: Int[Array, ""]
    """Number of the stage, from 0."""
    began: Int[Array, ""]
    """The step after which it began."""


class StepInfo(NamedTuple):
    """What a step reports; on the device until it is asked for.

    Where loss or gradient is not finite, the step has changed nothing but its number.
    """

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


def check_fit(recipe: Recipe, network: Network, images: int, classes: int, accumulate: int) -> None:
    """Whether network, batch and devices suit a data set.

    Args:
        recipe: of the run.
        network: the declaration.
        images: for training.
        classes: of the data set.
        accumulate: as of `training_step`.

    Raises:
        InputError: they don't.
    """
    own = shapes(network)[network.layers[-1].name][-1]
    if classes != own:
        raise InputError(f"{network.name} has {own} classes, but {recipe.data} has {classes}.")
    if recipe.batch_size > images:
        raise InputError(
            f"A batch of {recipe.batch_size} is larger than {recipe.data} with its "
            f"{images} training images."
        )
    parts = jax.device_count() * accumulate
    if accumulate < 1 or recipe.batch_size % parts:
        raise InputError(
            f"The batch of {recipe.batch_size} can't be spread evenly over "
            f"{jax.device_count()} device(s) in {accumulate} group(s) each; give a multiple of "
            f"their number, {max(parts, jax.device_count())}."
        )


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


def initial_state(
    network: Network, recipe: Recipe, rule: optax.GradientTransformation, key: PRNGKeyArray
) -> TrainState:
    """Before the first step; `rule` is the first stage's."""
    classes = shapes(network)[network.layers[-1].name][-1]
    params, zero = he_normal(network, key), jnp.zeros((), jnp.int32)
    bank = Bank.empty(recipe.reference_bank, classes) if recipe.reference_bank else None
    ess = jnp.asarray(float(recipe.batch_size))
    return TrainState(params, rule.init(params), jnp.zeros(classes), bank, ess, zero, zero, zero)


def next_stage(state: TrainState, recipe: Recipe, rule: optax.GradientTransformation) -> TrainState:
    """At the start of the next stage, whose optimizer is `rule`.

    A stage is a run of the solver of its own, as in Caffe: momentum starts anew, and so does
    what is remembered of scores.
    """
    return state._replace(
        optimizer=rule.init(state.params),
        bank=state.bank and Bank.empty(*state.bank.scores.shape),
        ess=jnp.asarray(float(recipe.batch_size)),
        stage=state.stage + 1,
        began=state.step,
    )


def state_shardings(state: TrainState, mesh: Mesh, shard_params: bool) -> TrainState:
    """Where the arrays of a state lie: weights and momentum in parts or whole, the rest whole."""
    whole = NamedSharding(mesh, PartitionSpec())
    everything = jax.tree.map(lambda _: whole, state)
    if not shard_params:
        return everything
    params, rule_state = jax.tree.map(
        lambda x: in_parts(mesh, x.shape), (state.params, state.optimizer)
    )
    return everything._replace(params=params, optimizer=rule_state)


def jitted_step(
    network: Network,
    recipe: Recipe,
    stage: Stage,
    rule: optax.GradientTransformation,
    mesh: Mesh,
    accumulate: int,
    places: TrainState,
) -> jax.stages.Wrapped:
    """`training_step`, compiled, of (state, images, labels, key); it takes the state's buffers.

    `places` is where the state's arrays lie, of `state_shardings`; the rest is as there.
    """
    return jax.jit(
        partial(training_step, network, recipe, stage, rule, mesh, accumulate),
        out_shardings=(places, None),
        donate_argnums=0,
    )


def training_step(
    network: Network,
    recipe: Recipe,
    stage: Stage,
    rule: optax.GradientTransformation,
    mesh: Mesh,
    accumulate: int,
    state: TrainState,
    images: UInt8[Array, "n row col channel"],
    labels: Int[Array, " n"],
    key: PRNGKeyArray,
) -> tuple[TrainState, StepInfo]:
    """One update on one global batch; pure, to be jitted.

    Args:
        network: the declaration.
        recipe: batch, number format and bank.
        stage: its objective.
        rule: its optimizer.
        mesh: the devices that share the work.
        accumulate: parts, one after the other, of each device's share of the batch.
        state: before the step.
        images: photographs, spread over the mesh along n.
        labels: their classes.
        key: of the run; the step's own dropout key is folded in here.
    """

    def objective(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
        return hybrid_loss(F, labels, state.alpha, stage.share, state.bank)

    keep = dropout_masks(network, jax.random.fold_in(key, state.step), len(labels))
    loss, F, gradient = gradient_of(
        network, objective, mesh, accumulate, recipe.dtype, state.params, images, labels, keep
    )
    updates, rule_state = rule.update(gradient, state.optimizer, state.params)
    ess = importance_ess(F, labels)
    applied = state._replace(
        params=optax.apply_updates(state.params, updates),
        optimizer=rule_state,
        ess=state.ess + (ess - state.ess) / ESS_STEPS,
    )
    if state.bank and stage.share < 1:
        applied = applied._replace(bank=state.bank.push(F, recipe.reference_decay))
    info = StepInfo(
        loss,
        ess,
        class_ess(F),
        layer_norms(gradient),
        layer_norms(state.params),
        layer_norms(updates),
    )
    finite = jnp.isfinite(loss) & jnp.isfinite(sum(info.gradient.values(), jnp.zeros(())))
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), applied, state)
    return kept._replace(step=state.step + 1), info


def gradient_of(
    network: Network,
    objective: Objective,
    mesh: Mesh,
    accumulate: int,
    dtype: str,
    params: Params,
    images: UInt8[Array, "n row col channel"],
    labels: Int[Array, " n"],
    keep: dict[str, Bool[Array, "n ..."]],
) -> tuple[Float[Array, ""], Float[Array, "n c"], Params]:
    """Loss of the score matrix F of a global batch, F, and the loss's gradient.

    Any loss that is a function of F has the gradient sum_i (dF_i/dparams)^T dL/dF_i. So each
    device computes the rows of F of its images, and all rows are gathered on every one; there L
    and dL/dF are taken in float32; and each device pulls its own rows of dL/dF back. With
    `accumulate` > 1 it does both image by image group, and what it holds for the way back is
    one group's: F first and then the groups again, which costs a third more multiplications.

    Args:
        network: the declaration.
        objective: L of F and the labels.
        mesh: the devices.
        accumulate: groups that each device's images are divided into.
        dtype: of the network's arithmetic; weights, F, L and the sums of gradients over groups
            and devices are float32.
        params: weights.
        images: photographs, spread over the mesh along n.
        labels: their classes.
        keep: of `dropout_masks`.
    """

    def score(params: Params, images: Array, keep: dict[str, Array]) -> Float[Array, "k c"]:
        x = preprocess(images, network.preprocessing, network.image_shape).astype(dtype)
        cast = jax.tree.map(lambda weight: weight.astype(dtype), params)
        return scores(network, cast, x, keep=keep).astype(jnp.float32)

    def of_device(params: Params, images: Array, labels: Array, keep: dict[str, Array]) -> Any:
        own, pull_back = scores_and_vjp(score, params, (images, keep), accumulate)
        F, all_labels = lax.all_gather((own, labels), "data", tiled=True)
        loss, cotangent = jax.value_and_grad(objective)(F, all_labels)
        first = lax.axis_index("data") * len(own)
        gradient = pull_back(lax.dynamic_slice_in_dim(cotangent, first, len(own)))
        return loss, F, lax.psum(gradient, "data")

    rows, whole = PartitionSpec("data"), PartitionSpec()
    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(whole, rows, rows, rows),
        out_specs=whole,
        check_vma=False,  # gathered F is the same on all devices, which types can't tell
    )(params, images, labels, keep)


def scores_and_vjp(
    score: Callable[..., Float[Array, "k c"]], params: Params, batch: Any, groups: int
) -> tuple[Float[Array, "n c"], Callable[[Float[Array, "n c"]], Params]]:
    """F = score(params, *batch) and the map from dL/dF to dL/dparams, in groups of rows.

    Args:
        score: the score matrix of any number of images.
        params: weights.
        batch: what else it takes, arrays with the images along their first axis.
        groups: 1 keeps what the way back needs; more compute it again, group by group.
    """
    if groups == 1:
        F, vjp = jax.vjp(lambda params: score(params, *batch), params)
        return F, lambda cotangent: vjp(cotangent)[0]

    def cut(x: Array) -> Array:
        return x.reshape(groups, len(x) // groups, *x.shape[1:])

    parts = jax.tree.map(cut, batch)
    F = lax.map(lambda part: score(params, *part), parts)

    def pull_back(cotangent: Float[Array, "n c"]) -> Params:
        def add(total: Params, part: Any) -> tuple[Params, None]:
            inputs, rows = part
            _, vjp = jax.vjp(lambda params: score(params, *inputs), params)
            return jax.tree.map(jnp.add, total, vjp(rows)[0]), None

        nothing = jax.tree.map(jnp.zeros_like, params)
        return lax.scan(add, nothing, (parts, cut(cotangent)))[0]

    return F.reshape(-1, F.shape[-1]), pull_back


def layer_norms(params: Params) -> LayerNorms:
    """The norm of each layer's weights, or of something of their shape."""
    return {name: optax.tree.norm(weights) for name, weights in params.items()}
