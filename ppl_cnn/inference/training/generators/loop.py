"""A generator's training, from data to a folder that `load_generator` opens; read
`train_generator` from the top."""

import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
from ppl_cnn.inference.runs.record import versions
from ppl_cnn.inference.training.checkpoints import check_folder
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.generators.class_figures import class_figures
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
from ppl_cnn.inference.training.placement import data_mesh, local, put
from ppl_cnn.inference.training.session import Session
from ppl_cnn.models.generators.generator_folder import rounded, save_generator
from ppl_cnn.models.generators.refined_flow import RefinedFlow
from ppl_cnn.numeric import in_float32

_LOOKS = 2000
"""Draws, and images, by which a generator is tested within a stage."""
_COMPARED = 10_000
"""Draws, and images, by which it is tested at the end."""


@in_float32
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
        FileError: the path of `out` is not UTF-8.
        ArgumentError: the loss or its gradient is no longer finite.
    """
    out, execution = Path(out), execution or Execution()
    check_folder(out)
    job = Job.prepare(recipe, execution, judge)
    config = {"kind": "generator", **recipe.record()}
    with RunFolder.claim(out, config, command, writer=jax.process_index() == 0) as folder:
        if jax.process_index() == 0:
            print(job.images.summary(), file=sys.stderr)
        if (out / "generator.json").is_file():
            return cast(dict[str, Any], json.loads((out / "generator.json").read_text("utf-8")))
        with Training.begun(job, execution, out) as training:
            training.session.record(folder, command, job.data_record())
            for stage in range(int(training.session.state.stage), len(STAGES)):
                training.run_stage(stage)
            training.session.checkpoints.close()
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

    def data_record(self) -> dict[str, Any]:
        """Which images the run learns from."""
        images = self.images
        return {"name": images.name, "identity": images.identity, "images": len(images)}

    def batches(self, readers: int | None) -> Any:
        """The endless batches of this process; see `training_batches` for its `readers`."""
        return training_batches(
            self.images,
            self.recipe.batch_size,
            self.recipe.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            augment=self.recipe.augment,
            image_shape=self.sizes.image_shape,
            readers=readers,
        )


@dataclass
class Training:
    """A run under way."""

    job: Job
    mesh: Mesh
    key: PRNGKeyArray
    session: Session[GeneratorState]

    @classmethod
    @contextmanager
    def begun(cls, job: Job, execution: Execution, out: Path) -> Iterator[Self]:
        """The run at its last checkpoint, or at its start if it has none; see `Session.begun`."""
        mesh, key = data_mesh(), jax.random.key(job.recipe.seed)
        state = initial_state(job.sizes, job.rules, jax.random.fold_in(key, 0))
        with Session.begun(
            _everywhere(state, mesh),
            job.batches(execution.readers),
            out,
            execution=execution,
            mesh=mesh,
            batch_size=job.recipe.batch_size,
            total=sum(job.steps),
            wording=GeneratorWording(),
        ) as session:
            yield cls(job, mesh, jax.random.fold_in(key, 1), session)

    def run_stage(self, stage: int) -> None:
        """Runs a stage from where it stands to its end."""
        session = self.session
        if stage > session.state.stage:
            session.state = _everywhere(next_stage(local(session.state, self.mesh)), self.mesh)
        name, began = STAGES[stage], int(session.state.began)
        steps = jitted_steps(self.job.sizes, self.job.rules, stage=name, mesh=self.mesh)
        while session.number < began + self.job.steps[stage]:
            if name == "adversarial" and session.test_is_due(self.job.epoch, began):
                self.test()
            session.take(steps[(session.number + 1) % PENALTY_STEPS == 0], self.key, name)
        session.save()
        session.metrics.say(self.job.images.damage())

    def test(self) -> None:
        """Compares a few draws with images, and notes the figures."""
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
        self.session.metrics.add_result(self.session.number, "adversarial", found)

    def result(self) -> dict[str, Any]:
        """The generator's weights as they stand: the flow's, and averages of the others."""
        state = local(self.session.state, self.mesh)
        flow = {k: v for k, v in state.params.items() if k.startswith("flow.")}
        return {**flow, **state.average}


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
            compared: dict[str, Any] = {
                "latent_shape": job.sizes.latent_shape,
                "images": job.images,
                "count": _COMPARED,
            }
            classes = class_figures(job.sizes.apply, params, job.judge, **compared)
            description |= {
                "judge": job.judge.network.name,
                "figures": figures_of(job.sizes.apply, params, job.judge, **compared),
                "classes": classes._asdict(),
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
