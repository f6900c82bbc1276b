"""The training run, from data to a folder that `ppl_cnn.load` opens; read `train` from the top."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn import InputError
from ppl_cnn.data.readers import Split, batches, open_split, training_batches
from ppl_cnn.inference.checkpoints import Checkpoints
from ppl_cnn.inference.losses import LogMeanExp, class_offsets
from ppl_cnn.inference.metrics import Metrics
from ppl_cnn.inference.recipes import Recipe
from ppl_cnn.inference.records import RunFolder, versions
from ppl_cnn.inference.training_step import TrainState, optimizer, training_step
from ppl_cnn.models.cnn import CNN, preprocess
from ppl_cnn.models.network import Params, he_normal, scores, shapes
from ppl_cnn.models.networks import Network, network_named
from ppl_cnn.models.weights import save

EVALUATION_BATCH = 500


def train(
    recipe: Recipe,
    out: Path,
    command: str,
    data_dir: str | None = None,
    checkpoint_every: int = 200,
) -> dict[str, Any]:
    """Trains a network, or continues a run that was stopped, to the same bits.

    Args:
        recipe: what determines the result.
        out: the run's folder: `run.json`, `metrics.jsonl`, `checkpoints/` and, at the end,
            `weights.safetensors` and `model.json`.
        command: how the run was started, for the record.
        data_dir: where prepared data sets lie, if not in TFDS's own folder.
        checkpoint_every: steps between two checkpoints: what a kill can cost.

    Returns:
        The content of `model.json`.

    Raises:
        InputError: the recipe names what isn't there, `out` holds another run, or the loss is
            no longer finite.
    """
    network = network_named(recipe.network)
    data = open_split(recipe.data, "train", data_dir)
    test = open_split(recipe.data, "test", data_dir)
    _check_fit(recipe, network, data)
    stages, lengths = recipe.parsed_stages(), recipe.stage_steps(len(data) // recipe.batch_size)
    ends = np.cumsum(lengths).tolist()
    key = jax.random.key(recipe.seed)
    first = jax.process_index() == 0
    with RunFolder.claim(out, {"kind": "training", **asdict(recipe)}, command, first):
        if (out / "model.json").is_file():
            return json.loads((out / "model.json").read_text())
        mesh = Mesh(np.asarray(jax.devices()), ("data",))
        loader = training_batches(
            data, recipe.batch_size, recipe.seed, jax.process_index(), jax.process_count()
        )
        rules = [optimizer(recipe, *part) for part in zip(stages, lengths, strict=True)]
        state = _initial_state(network, rules[0], key, mesh)
        checkpoints = Checkpoints(out / "checkpoints")
        state = checkpoints.restore(state, loader)
        metrics = Metrics(out / "metrics.jsonl", recipe.batch_size, int(state.step), ends[-1])
        for stage, rule, length, end in zip(stages, rules, lengths, ends, strict=True):
            if state.step > end:
                continue
            if state.step == end - length:
                # A stage is a run of the solver of its own, as in Caffe: momentum starts anew.
                state = state._replace(optimizer=_replicate(rule.init(state.params), mesh))
            step = jax.jit(partial(training_step, network, stage.share, rule), donate_argnums=0)
            for number in range(int(state.step) + 1, end + 1):
                state, info = step(state, *_shard(next(loader), mesh), key)
                metrics.add(number, stage, info)
                if number % checkpoint_every == 0 or number == end:
                    metrics.flush()
                    checkpoints.save(number, state, loader)
            params = _local(state.params)
            if stage.share == 0:
                alpha = estimate_alpha(network, params, data)
                state = state._replace(alpha=_replicate(alpha, mesh))
            result = evaluate(network, params, _local(state.alpha), test)
            metrics.add_result(end, stage, result)
        metrics.close()
        checkpoints.close()
        description = {
            **result,
            "data": recipe.data,
            "training_images": len(data),
            "test_images": len(test),
            "recipe": asdict(recipe),
            "command": command,
            "versions": versions(),
        }
        cnn = CNN(network, params, _local(state.alpha), data.classes)
        if first:
            save(out, cnn, description)
    return description


def _check_fit(recipe: Recipe, network: Network, data: Split) -> None:
    classes = shapes(network)[network.layers[-1].name][-1]
    if len(data.classes) != classes:
        raise InputError(
            f"{network.name} has {classes} classes, but {recipe.data} has {len(data.classes)}."
        )
    if recipe.batch_size > len(data):
        raise InputError(
            f"A batch of {recipe.batch_size} is larger than {recipe.data} with its "
            f"{len(data)} training images."
        )
    if recipe.batch_size % jax.device_count():
        raise InputError(
            f"The batch of {recipe.batch_size} can't be spread evenly over "
            f"{jax.device_count()} devices; give a multiple of that."
        )


def _initial_state(
    network: Network, rule: optax.GradientTransformation, key: PRNGKeyArray, mesh: Mesh
) -> TrainState:
    params = he_normal(network, key)
    alpha = jnp.zeros(shapes(network)[network.layers[-1].name][-1])
    return _replicate(TrainState(params, rule.init(params), alpha, jnp.zeros((), jnp.int32)), mesh)


def _replicate[T](tree: T, mesh: Mesh) -> T:
    """On every device of every process."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def _local[T](tree: T) -> T:
    """This process's copy of replicated arrays."""
    return jax.tree.map(lambda x: jnp.asarray(x.addressable_data(0)), tree)


def _shard(batch: dict[str, np.ndarray], mesh: Mesh) -> tuple[Array, Array]:
    """The global batch, of which this process holds its part."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    images, labels = (
        jax.make_array_from_process_local_data(sharding, batch[name]) for name in ("image", "label")
    )
    return images, labels


@partial(jax.jit, static_argnums=0)
def _scores(network: Network, params: Params, images: Array) -> Float[Array, "n c"]:
    return scores(network, params, preprocess(images, network.preprocessing, network.image_shape))


def estimate_alpha(network: Network, params: Params, data: Split) -> Float[Array, " c"]:
    """alpha_y = log rho_y - log Z_y, with Z_y = mean_j exp F[j,y] over all training images.

    Args:
        network: the declaration.
        params: its weights, as the generative gradient has left them.
        data: the training images.
    """
    log_partition = LogMeanExp.zero(len(data.classes))
    counts = np.zeros(len(data.classes), np.int64)
    for batch in batches(data, EVALUATION_BATCH):
        log_partition = log_partition.add(_scores(network, params, batch["image"]))
        counts += np.bincount(batch["label"], minlength=len(counts))
    if not counts.all():
        missing = data.classes[int(np.argmin(counts))]
        raise InputError(f"{data.name} has no training image of the class {missing}.")
    return class_offsets(log_partition.value(), counts)


def evaluate(
    network: Network, params: Params, alpha: Float[Array, " c"], test: Split
) -> dict[str, float]:
    """Errors on test images, as fractions, with the first one's binomial standard error.

    Args:
        network: the declaration.
        params: its weights.
        alpha: class offsets; the classifier is argmax F + alpha.
        test: the images.
    """
    wrong = np.zeros(2, np.int64)
    for batch in batches(test, EVALUATION_BATCH):
        F = _scores(network, params, batch["image"])
        for index, logits in enumerate((F + alpha[None, :], F)):
            wrong[index] += np.sum(np.argmax(np.asarray(logits), axis=1) != batch["label"])
    error, without = (wrong / len(test)).tolist()
    return {
        "test_error": error,
        "standard_error": (error * (1 - error) / len(test)) ** 0.5,
        "test_error_without_alpha": without,
    }
