"""The training run, from data to a folder that `ppl_cnn.load` opens; read `train` from the top."""

import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8
from tqdm import tqdm

from ppl_cnn import InputError
from ppl_cnn.data.readers import Split, batches, open_split, training_batches
from ppl_cnn.inference.losses import (
    OBJECTIVES,
    LogMeanExp,
    class_offsets,
    importance_ess,
)
from ppl_cnn.inference.recipes import Recipe, Stage
from ppl_cnn.inference.records import RunFolder, versions
from ppl_cnn.models.cnn import CNN, preprocess
from ppl_cnn.models.network import Params, he_normal, scores, shapes
from ppl_cnn.models.networks import Network, network_named
from ppl_cnn.models.weights import save, write_aside

FLUSH_EVERY = 20
"""Steps between two looks at the device's metrics: the only host sync in the loop."""
EVALUATION_BATCH = 500


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
    return (
        TrainState(params, rule_state, state.alpha, state.step + 1),
        StepInfo(loss, importance_ess(F, labels)),
    )


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
    stages = Stage.parse_all(recipe.stages, recipe.rate)
    epoch = len(data) // recipe.batch_size
    ends = np.cumsum([stage.epochs * epoch for stage in stages]).tolist()
    key = jax.random.key(recipe.seed)
    first = jax.process_index() == 0
    with RunFolder.claim(out, {"kind": "training", **asdict(recipe)}, command, first):
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
        metrics = Metrics(out / "metrics.jsonl", recipe.batch_size, int(state.step), ends[-1])
        for stage, rule, end in zip(stages, rules, ends, strict=True):
            if state.step > end:
                continue
            if state.step == end - stage.epochs * epoch:
                # A stage is a run of the solver of its own, as in Caffe: momentum starts anew.
                state = state._replace(optimizer=_replicate(rule.init(state.params), mesh))
            step = jax.jit(partial(training_step, network, stage.objective, rule), donate_argnums=0)
            for number in range(int(state.step) + 1, end + 1):
                state, info = step(state, *_shard(next(loader), mesh), key)
                metrics.add(number, stage, info)
                if number % checkpoint_every == 0 or number == end:
                    metrics.flush()
                    checkpoints.save(number, state, loader)
            params = _local(state.params)
            if stage.objective == "generative":
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


class Checkpoints:
    """Orbax checkpoints of state and data iterator, written in the background."""

    def __init__(self, folder: Path) -> None:
        import orbax.checkpoint as ocp

        self._args = ocp.args
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_names=("state", "data")
        )

    def save(self, step: int, state: TrainState, loader: Any) -> None:
        """Starts to write; the arrays are copied first, so that the state may be donated."""
        args = self._args.Composite(
            state=self._args.StandardSave(state._asdict()),
            data=self._args.JsonSave(loader.get_state()),
        )
        self._manager.save(step, args=args)

    def restore(self, state: TrainState, loader: Any) -> TrainState:
        """The last complete checkpoint's state, or the given one; sets the loader's place."""
        step = self._manager.latest_step()
        if step is None:
            return state
        args = self._args.Composite(
            state=self._args.StandardRestore(state._asdict()), data=self._args.JsonRestore()
        )
        restored = self._manager.restore(step, args=args)
        loader.set_state(restored.data)
        return TrainState(**restored.state)

    def close(self) -> None:
        """Waits until all is written."""
        self._manager.close()


class Metrics:
    """`metrics.jsonl` and the progress bar.

    A line a step, with loss, its lower bound, ESS and images per second, and a line with the
    test errors at a stage's end. A continued run drops the lines past its checkpoint.
    """

    def __init__(self, path: Path, batch_size: int, step: int, total: int) -> None:
        self._path, self._batch_size = path, batch_size
        self._pending: list[tuple[int, Stage, StepInfo]] = []
        self._since = time.monotonic()
        if path.exists():
            kept = [line for line in path.read_text().splitlines(True) if _belongs(line, step)]
            write_aside(path, "".join(kept).encode())
        quiet = jax.process_index() != 0
        self._bar = tqdm(total=total, initial=step, unit="step", disable=quiet, dynamic_ncols=True)

    def add(self, step: int, stage: Stage, info: StepInfo) -> None:
        """Takes a step's report, without waiting for it."""
        self._pending.append((step, stage, info))
        if len(self._pending) >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Waits for the steps taken so far and writes their lines.

        Raises:
            InputError: a loss is not finite.
        """
        if not self._pending:
            return
        infos = jax.device_get([info for _, _, info in self._pending])
        now = time.monotonic()
        rate = len(infos) * self._batch_size / max(now - self._since, 1e-9)
        lines = []
        for (step, stage, _), info in zip(self._pending, infos, strict=True):
            if not np.isfinite(info.loss):
                raise InputError(
                    f"The loss is {info.loss} at step {step}; its last checkpoint is whole, but "
                    f"a rate lower than {stage.rate:g} is needed, in another --out."
                )
            bound = -np.log(self._batch_size) if stage.objective == "generative" else 0.0
            lines.append(
                {
                    "step": step,
                    "stage": stage.objective,
                    "loss": float(info.loss),
                    "bound": float(bound),
                    "ess": float(info.ess),
                    "images_per_second": rate,
                }
            )
        self._write(lines)
        self._bar.update(len(infos))
        last = lines[-1]
        self._bar.set_description(last["stage"], refresh=False)
        self._bar.set_postfix_str(
            f"loss {last['loss']:.3f}, ESS {last['ess']:.1f}, {rate:.0f} images/s"
        )
        self._pending, self._since = [], now

    def add_result(self, step: int, stage: Stage, result: dict[str, float]) -> None:
        """Writes the errors at a stage's end."""
        self._write([{"step": step, "stage": stage.objective, **result}])
        if not self._bar.disable:
            self._bar.write(f"after {stage.objective}: {describe_error(result)}")
        self._since = time.monotonic()

    def _write(self, lines: list[dict[str, Any]]) -> None:
        if jax.process_index() == 0:
            with open(self._path, "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def _belongs(line: str, step: int) -> bool:
    """Whether a line of `metrics.jsonl` is about what the checkpoint at `step` holds."""
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return record["step"] < step or (record["step"] == step and "loss" in record)


def describe_error(result: dict[str, float]) -> str:
    """The test error in words."""
    return (
        f"test error {100 * result['test_error']:.2f} ± {100 * result['standard_error']:.2f} % "
        f"({100 * result['test_error_without_alpha']:.2f} % without alpha)"
    )
