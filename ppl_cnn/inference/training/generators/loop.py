"""A generator's training, from data to a folder that `load_generator` opens; read
`train_generator` from the top."""

import contextlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from ppl_cnn.data import ImageSplit, open_split, training_batches
from ppl_cnn.errors import MismatchError, UnknownNameError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.provenance import session
from ppl_cnn.inference.runs.record import versions
from ppl_cnn.inference.training.checkpoints import Checkpoints, whole_steps
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.generators.exhibits import exhibits_of
from ppl_cnn.inference.training.generators.figures import Judge, figures_of
from ppl_cnn.inference.training.generators.recipe import STAGES, GeneratorRecipe
from ppl_cnn.inference.training.generators.step import (
    PENALTY_STEPS,
    GeneratorState,
    initial_state,
    jitted_steps,
    next_stage,
    optimizers,
)
from ppl_cnn.inference.training.generators.wording import GeneratorWording
from ppl_cnn.inference.training.monitoring.metrics import Metrics
from ppl_cnn.inference.training.placement import BatchesAhead, data_mesh, local, put
from ppl_cnn.models.generators.generator_folder import rounded, save_generator
from ppl_cnn.models.generators.refined_flow import RefinedFlow

_LOOKS = 2000
"""Draws, and images, by which a generator is tested within a stage."""
_COMPARED = 10_000
"""Draws, and images, by which it is tested at the end."""


def train_generator(
    recipe: GeneratorRecipe,
    *,
    out: str | Path,
    execution: Execution | None = None,
    judge: Judge | None = None,
    command: str = "ppl_cnn.train_generator",
) -> dict[str, Any]:
    """Trains a generator of images, or resumes a run that was stopped, to the same bits.

    On other devices the weights are the same up to rounding. Where several processes train
    together, all of them call this.

    Args:
        recipe: what determines the result.
        out: the run's folder: `run.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, at
            the end, `weights.safetensors`, `generator.json` and `exhibits.npz`, which
            `generator_page` shows. A finished run is not trained again.
        execution: how often to save and to test, and how to use the devices; by default
            `Execution()`.
        judge: a network by whose features draws are compared with images; without one there are
            no such figures.
        command: how the run was started, for the record.

    Returns:
        The content of `generator.json`.

    Raises:
        UnknownNameError: the recipe names an unknown data set.
        MismatchError: data, batch, judge and devices don't fit each other.
        RunFolderError: `out` holds another run, or is being written to.
        ArgumentError: the loss or its gradient is no longer finite.
    """
    out, execution = Path(out), execution or Execution()
    job = Job.prepare(recipe, execution, judge)
    writes = jax.process_index() == 0
    config = {"kind": "generator", **recipe.record()}
    with RunFolder.claim(out, config, command, writer=writes) as folder:
        if (out / "generator.json").is_file():
            return cast(dict[str, Any], json.loads((out / "generator.json").read_text()))
        with Training.begun(job, execution, out) as training:
            if writes:
                earlier = folder.record.get("sessions", [])
                now = session(int(training.state.step), command)
                data = {"name": job.images.name, "identity": job.images.identity}
                folder.update(data={**data, "images": len(job.images)}, sessions=[*earlier, now])
            for stage in range(int(training.state.stage), len(STAGES)):
                training.run_stage(stage)
            training.checkpoints.close()
            return publish(training, out, command=command)


class Job(NamedTuple):
    """A recipe with all that it names: opened, and checked to fit together."""

    recipe: GeneratorRecipe
    sizes: RefinedFlow
    images: ImageSplit
    held_out: ImageSplit | None
    """The data set's test images, if it has any."""
    judge: Judge | None
    epoch: int
    """Steps in an epoch."""
    steps: tuple[int, ...]
    """Length of each stage in updates."""
    rules: dict[str, optax.GradientTransformation]

    @classmethod
    def prepare(cls, recipe: GeneratorRecipe, execution: Execution, judge: Judge | None) -> Self:
        """Opens what the recipe names; raises as `train_generator` does."""
        images = open_split(recipe.data, recipe.train, execution.data_dir)
        rows, cols, channels = images.image_shape
        shape = (rows or recipe.size, cols or recipe.size, channels)
        sizes = RefinedFlow(image_shape=shape, latent=recipe.latent, noise=recipe.noise)
        devices = jax.device_count()
        if recipe.batch_size > len(images) or recipe.batch_size % devices:
            raise MismatchError(
                f"`batch_size={recipe.batch_size}` must be at most the {len(images)} images of "
                f"{recipe.data}, and a multiple of the {devices} device(s)."
            )
        epoch = len(images) // recipe.batch_size
        steps = recipe.stage_steps(epoch)
        if judge is not None:
            judge.check(shape)
        held_out = None
        with contextlib.suppress(UnknownNameError):  # not every data set has a test split
            held_out = open_split(recipe.data, "test", execution.data_dir)
        rules = optimizers(recipe, steps)
        return cls(recipe, sizes, images, held_out, judge, epoch, steps, rules)

    def batches(self) -> Any:
        """The endless batches of this process."""
        return training_batches(
            self.images,
            self.recipe.batch_size,
            self.recipe.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            augment=self.recipe.augment,
            image_shape=self.sizes.image_shape,
        )


@dataclass
class Training:
    """A run under way."""

    job: Job
    execution: Execution
    mesh: Mesh
    key: PRNGKeyArray
    state: GeneratorState
    loader: BatchesAhead
    checkpoints: Checkpoints
    metrics: Metrics

    @classmethod
    @contextmanager
    def begun(cls, job: Job, execution: Execution, out: Path) -> Iterator[Self]:
        """The run at its last checkpoint, or at its start if it has none.

        What is being written when the block ends or fails is written to its end.
        """
        mesh, key = data_mesh(), jax.random.key(job.recipe.seed)
        state = initial_state(job.sizes, job.rules, jax.random.fold_in(key, 0))
        loader = BatchesAhead(job.batches(), mesh)
        with ExitStack() as closing:
            checkpoints = Checkpoints(out / "checkpoints", execution.keep)
            closing.callback(checkpoints.wait)
            state = checkpoints.restore(_everywhere(state, mesh), loader)
            metrics = Metrics(
                out,
                batch_size=job.recipe.batch_size,
                step=int(state.step),
                total=sum(job.steps),
                wording=GeneratorWording(),
            )
            closing.enter_context(metrics)
            steps_key = jax.random.fold_in(key, 1)
            yield cls(job, execution, mesh, steps_key, state, loader, checkpoints, metrics)

    def run_stage(self, stage: int) -> None:
        """Runs a stage from where it stands to its end."""
        if stage > self.state.stage:
            self.state = _everywhere(next_stage(local(self.state, self.mesh)), self.mesh)
        name = STAGES[stage]
        steps = jitted_steps(self.job.sizes, self.job.rules, stage=name, mesh=self.mesh)
        number, end = int(self.state.step), int(self.state.began) + self.job.steps[stage]
        before: Any = None
        while number < end:
            if name == "adversarial" and self._test_is_due(number):
                self.test(number)
            number += 1
            with whole_steps(number) as stopping:
                step = steps[number % PENALTY_STEPS == 0]
                self.state, info = step(self.state, *next(self.loader), self.key)
                # One step works and one waits: batches must not pile up on the devices.
                jax.block_until_ready(before)
                before = info["loss"]
                self.metrics.add(number, name, info)
                due = number % self.execution.checkpoint_every == 0
                due = due and self.checkpoints.is_due(self.execution.checkpoint_seconds)
                if due or stopping():
                    self._save(number)
                if stopping():
                    self.checkpoints.wait()
        self._save(number)
        self.metrics.say(self.job.images.damage())

    def test(self, number: int) -> None:
        """Compares a few draws with images, and notes the figures.

        Args:
            number: steps taken.
        """
        if self.job.judge is None:
            return
        found = figures_of(
            self.job.sizes.apply,
            self.result(),
            self.job.judge,
            latent_shape=self.job.sizes.latent_shape,
            images=self.job.images,
            count=_LOOKS,
        )
        self.metrics.add_result(number, "adversarial", found)

    def result(self) -> dict[str, Any]:
        """The generator's weights as they stand: the flow's, and averages of the others."""
        state = local(self.state, self.mesh)
        flow = {k: v for k, v in state.params.items() if k.startswith("flow.")}
        return {**flow, **state.average}

    def _save(self, number: int) -> None:
        # Lines up to the checkpoint must be there when a resumed run needs them.
        self.metrics.flush()
        self.checkpoints.save(number, self.state, self.loader)

    def _test_is_due(self, number: int) -> bool:
        every = self.execution.evaluate_every * self.job.epoch
        return every > 0 and number > int(self.state.began) and number % every == 0


def publish(training: Training, out: Path, *, command: str) -> dict[str, Any]:
    """Writes the trained generator to the run's folder; returns the content of `generator.json`.

    Args:
        training: the run, at its end.
        out: the run's folder.
        command: how the run was started.
    """
    job, params = training.job, training.result()
    description: dict[str, Any] = {
        "data": job.recipe.data,
        "training_images": len(job.images),
        "recipe": job.recipe.record(),
        "command": command,
        "versions": versions(),
    }
    if jax.process_index() == 0:
        params = rounded(params)
        if job.judge is not None:
            description |= {
                "judge": job.judge.network.name,
                "figures": figures_of(
                    job.sizes.apply,
                    params,
                    job.judge,
                    latent_shape=job.sizes.latent_shape,
                    images=job.images,
                    count=_COMPARED,
                ),
            }
        exhibits = exhibits_of(
            job.sizes.apply,
            params,
            latent_shape=job.sizes.latent_shape,
            image_shape=job.sizes.image_shape,
            train=job.images,
            held_out=job.held_out,
        )
        write_aside(out / "exhibits.npz", exhibits.saved())
        save_generator(out, job.sizes, params, description)
    return description


def _everywhere[T](tree: T, mesh: Mesh) -> T:
    """A copy on each device."""
    whole = NamedSharding(mesh, PartitionSpec())
    places: T = jax.tree.map(lambda _: whole, tree)
    return put(tree, places)
