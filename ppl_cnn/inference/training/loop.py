"""The training run, from data to a folder that `ppl_cnn.load` opens; read `train` from the top."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from ppl_cnn.data import ImageSplit, open_split, ten_view_batches, training_batches
from ppl_cnn.errors import InputError
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.provenance import session
from ppl_cnn.inference.runs.record import versions
from ppl_cnn.inference.training.batches_ahead import Ahead
from ppl_cnn.inference.training.checkpoints import Checkpoints, whole_steps
from ppl_cnn.inference.training.curves import draw_curves
from ppl_cnn.inference.training.evaluation import ALPHA_IMAGES, estimate_alpha, evaluate
from ppl_cnn.inference.training.metrics import Metrics
from ppl_cnn.inference.training.placement import data_mesh, local, put
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.stages import Stage
from ppl_cnn.inference.training.step import (
    ESS_STEPS,
    TrainState,
    check_fit,
    initial_state,
    jitted_step,
    next_stage,
    optimizer,
    state_shardings,
)
from ppl_cnn.models.networks.catalogue import network_named
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.model_folder import save


def train(
    recipe: Recipe,
    out: Path,
    command: str,
    data_dir: str | None = None,
    checkpoint_every: int = 200,
    evaluate_every: int = 1,
    keep: int = 2,
    accumulate: int = 1,
    shard_params: bool = False,
) -> dict[str, Any]:
    """Trains a network, or continues a run that was stopped, to the same bits.

    On other devices, or in other groups (`accumulate`), it goes on to the same weights up to
    rounding.

    Args:
        recipe: what determines the result.
        out: the run's folder: `run.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, at
            the end, `weights.safetensors`, `model.json` and `curves.png`.
        command: how the run was started, for the record.
        data_dir: where prepared data sets lie, if not in TFDS's own folder.
        checkpoint_every: steps between two checkpoints: what a kill can cost.
        evaluate_every: epochs between two tests within a stage; 0 for none but at its end.
        keep: the last checkpoints that are kept, besides that of the least test error, which
            `model.json` names (chosen by that error, it is no fair estimate of the network's).
        accumulate: groups that each device's part of a batch goes through the network in.
        shard_params: whether weights and momentum lie in parts on the devices, not whole on each.

    Returns:
        The content of `model.json`.

    Raises:
        InputError: the recipe names what isn't there, `out` holds another run, or the loss is
            no longer finite.
    """
    if min(checkpoint_every, keep) < 1 or evaluate_every < 0:
        raise InputError(
            f"Checkpoints are written every 1 or more steps, not {checkpoint_every}, 1 or more are "
            f"kept, not {keep}, and tests are made every 0 or more epochs, not {evaluate_every}."
        )
    network = network_named(recipe.network)
    data = open_split(recipe.data, recipe.train, data_dir)
    test = open_split(recipe.data, recipe.test, data_dir)
    some = min(len(data), max(ALPHA_IMAGES, 50 * len(data.classes)))
    whole = recipe.train == "train"  # a part has no parts
    part = open_split(recipe.data, f"train[:{some}]", data_dir) if whole else data
    check_fit(recipe, network, len(data), len(data.classes), accumulate)
    epoch = len(data) // recipe.batch_size
    stages, lengths = recipe.parsed_stages(), recipe.stage_steps(epoch)
    rules = [optimizer(recipe, *of) for of in zip(stages, lengths, strict=True)]
    key = jax.random.key(recipe.seed)
    first = jax.process_index() == 0
    with (
        RunFolder.claim(
            out, {"kind": "training", **asdict(recipe)}, command, writer=first
        ) as folder,
        ExitStack() as closed_after,
    ):
        if (out / "model.json").is_file():
            return json.loads((out / "model.json").read_text())
        mesh = data_mesh()
        state = initial_state(network, recipe, rules[0], key)
        places = state_shardings(state, mesh, shard_params)
        loader = Ahead(
            training_batches(
                data,
                recipe.batch_size,
                recipe.seed,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                augment=recipe.augment,
                image_shape=network.image_shape,
                short_side=network.preprocessing.short_side,
            ),
            mesh,
        )
        checkpoints = Checkpoints(out / "checkpoints", keep)
        closed_after.callback(checkpoints.wait)  # a failure must not cut off what is being written
        state = checkpoints.restore(put(state, places), loader)
        metrics = closed_after.enter_context(
            Metrics(out, recipe.batch_size, int(state.step), sum(lengths), recipe.reference_bank)
        )
        if first:
            begun = folder.record.get("sessions", [])
            folder.update(
                data=data_record(data, test), sessions=[*begun, session(int(state.step), command)]
            )
        for index, (stage, rule, length) in enumerate(zip(stages, rules, lengths, strict=True)):
            if index < state.stage:
                continue
            if index > state.stage:
                state = put(next_stage(local(state, mesh), recipe, rule), places)
            step = jitted_step(network, recipe, stage, rule, mesh, accumulate, places)
            number, began = int(state.step), int(state.began)
            before: Any = None
            while not _is_over(recipe, stage, length, state, number, began):
                if number > began and evaluate_every and number % (evaluate_every * epoch) == 0:
                    metrics.flush()
                    checkpoints.save(number, state, loader)
                    alpha = state.alpha
                    if stage.share == 0:
                        alpha = estimate_alpha(network, state.params, part, mesh)
                    result = evaluate(network, state.params, alpha, test, mesh)
                    metrics.add_result(number, stage, result)
                    checkpoints.tested(number, result["test_error"])
                number += 1
                with whole_steps(number) as stopping:
                    state, info = step(state, *next(loader), key)
                    # One step works and one waits: batches must not pile up on the devices.
                    jax.block_until_ready(before)
                    before = info.loss
                    metrics.add(number, stage, info)
                    if number % checkpoint_every == 0 or stopping():
                        metrics.flush()
                        checkpoints.save(number, state, loader)
                    if stopping():
                        checkpoints.wait()
            if number < began + length:
                metrics.add_switch(number, stage, float(local(state.ess, mesh)))
            metrics.flush()
            checkpoints.save(number, state, loader)
            if stage.share == 0:
                alpha = estimate_alpha(network, state.params, data, mesh)
                state = state._replace(alpha=put(alpha, places.alpha))
            result = evaluate(network, state.params, state.alpha, test, mesh)
            if None in test.image_shape:  # photographs, of which a network sees but a part
                views = evaluate(network, state.params, state.alpha, test, mesh, ten_view_batches)
                result |= {f"ten_views_{key}": value for key, value in views.items()}
            metrics.add_result(number, stage, result)
            checkpoints.tested(number, result["test_error"])
            for split in (data, test):
                metrics.say(split.damage())
        checkpoints.close()
        description = {
            **result,
            "best_checkpoint": checkpoints.best,
            "data": recipe.data,
            "training_images": len(data),
            "test_images": len(test),
            "recipe": asdict(recipe),
            "command": command,
            "versions": versions(),
        }
        cnn = CNN(network, local(state.params, mesh), local(state.alpha, mesh), classes=data.classes)
        if first:
            draw_curves(out)
            save(out, cnn, description)
    return description


def data_record(train: ImageSplit, test: ImageSplit) -> dict[str, Any]:
    """Which images a run has trained on and was tested on."""
    return {
        "name": train.name,
        "identity": train.identity,
        "classes": len(train.classes),
        "splits": {split.split: len(split) for split in (train, test)},
    }


def _is_over(
    recipe: Recipe, stage: Stage, length: int, state: TrainState, number: int, began: int
) -> bool:
    """Whether a stage ends at the step `number`: a function of what its checkpoint holds.

    Only every `ESS_STEPS` steps is the device asked for the ESS, and only if that can matter.
    """
    if number >= began + length:
        return True
    looks = number > began and number % ESS_STEPS == 0
    if not (recipe.least_ess() and stage.share == 0 and looks):
        return False
    return float(state.ess.addressable_data(0)) < recipe.least_ess()
