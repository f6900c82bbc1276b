"""The training run, from data to a folder that `ppl_cnn.load` opens; read `train` from the top."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PRNGKeyArray

from ppl_cnn import InputError
from ppl_cnn.data.readers import Split, open_split, training_batches
from ppl_cnn.inference.checkpoints import Checkpoints
from ppl_cnn.inference.evaluation import ALPHA_IMAGES, estimate_alpha, evaluate
from ppl_cnn.inference.metrics import Metrics
from ppl_cnn.inference.provenance import data_record, session
from ppl_cnn.inference.recipes import Recipe, Stage
from ppl_cnn.inference.records import RunFolder, versions
from ppl_cnn.inference.training_step import TrainState, optimizer, training_step
from ppl_cnn.models.cnn import CNN
from ppl_cnn.models.network import he_normal, shapes
from ppl_cnn.models.networks import Network, network_named
from ppl_cnn.models.weights import save


def train(
    recipe: Recipe,
    out: Path,
    command: str,
    data_dir: str | None = None,
    checkpoint_every: int = 200,
    evaluate_every: int = 1,
) -> dict[str, Any]:
    """Trains a network, or continues a run that was stopped, to the same bits.

    Args:
        recipe: what determines the result.
        out: the run's folder: `run.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, at
            the end, `weights.safetensors`, `model.json` and `curves.png`.
        command: how the run was started, for the record.
        data_dir: where prepared data sets lie, if not in TFDS's own folder.
        checkpoint_every: steps between two checkpoints: what a kill can cost.
        evaluate_every: epochs between two tests within a stage; 0 for none but at its end.

    Returns:
        The content of `model.json`.

    Raises:
        InputError: the recipe names what isn't there, `out` holds another run, or the loss is
            no longer finite.
    """
    network = network_named(recipe.network)
    data = open_split(recipe.data, "train", data_dir)
    test = open_split(recipe.data, "test", data_dir)
    some = min(len(data), max(ALPHA_IMAGES, 50 * len(data.classes)))
    part = open_split(recipe.data, f"train[:{some}]", data_dir)
    _check_fit(recipe, network, data)
    stages = Stage.parse_all(recipe.stages, recipe.rate)
    epoch = len(data) // recipe.batch_size
    ends = np.cumsum([stage.epochs * epoch for stage in stages]).tolist()
    key = jax.random.key(recipe.seed)
    first = jax.process_index() == 0
    with (
        RunFolder.claim(out, {"kind": "training", **asdict(recipe)}, command, first) as folder,
        ExitStack() as closed_after,
    ):
        if (out / "model.json").is_file():
            return json.loads((out / "model.json").read_text())
        mesh = Mesh(np.asarray(jax.devices()), ("data",))
        loader = training_batches(
            data, recipe.batch_size, recipe.seed, jax.process_index(), jax.process_count()
        )
        rules = [optimizer(recipe, stage, stage.epochs * epoch) for stage in stages]
        state = _initial_state(network, rules[0], key, mesh)
        checkpoints = Checkpoints(out / "checkpoints")
        state = checkpoints.restore(state, loader)
        metrics = closed_after.enter_context(
            Metrics(out, recipe.batch_size, int(state.step), ends[-1])
        )
        if first:
            begun = folder.record.get("sessions", [])
            folder.update(
                data=data_record(data, test), sessions=[*begun, session(int(state.step), command)]
            )
        for stage, rule, end in zip(stages, rules, ends, strict=True):
            if state.step > end:
                continue
            start = end - stage.epochs * epoch
            number = int(state.step)
            if number == start:
                # A stage is a run of the solver of its own, as in Caffe: momentum starts anew.
                state = state._replace(optimizer=_replicate(rule.init(state.params), mesh))
            step = jax.jit(partial(training_step, network, stage.objective, rule), donate_argnums=0)
            while number < end:
                if number > start and evaluate_every and number % (evaluate_every * epoch) == 0:
                    alpha = state.alpha
                    if stage.objective == "generative":
                        alpha = estimate_alpha(network, state.params, part, mesh)
                    metrics.add_result(
                        number, stage, evaluate(network, state.params, alpha, test, mesh)
                    )
                state, info = step(state, *_shard(next(loader), mesh), key)
                number += 1
                metrics.add(number, stage, info)
                if number % checkpoint_every == 0 or number == end:
                    metrics.flush()
                    checkpoints.save(number, state, loader)
            if stage.objective == "generative":
                alpha = estimate_alpha(network, state.params, data, mesh)
                state = state._replace(alpha=_replicate(alpha, mesh))
            result = evaluate(network, state.params, state.alpha, test, mesh)
            metrics.add_result(end, stage, result)
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
        cnn = CNN(network, _local(state.params), _local(state.alpha), data.classes)
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
