"""The training run, from data to a folder that `ppl_cnn.load` opens; read `train` from the top."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn.data import ImageSplit, batches, open_split, ten_view_batches, training_batches
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.record import versions
from ppl_cnn.inference.training.checkpoints import check_folder
from ppl_cnn.inference.training.evaluation import (
    ALPHA_IMAGES,
    ALPHA_IMAGES_PER_CLASS,
    Reader,
    estimate_alpha,
    evaluate,
)
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.monitoring.classifier import ClassifierWording
from ppl_cnn.inference.training.monitoring.curves import draw_curves
from ppl_cnn.inference.training.networks.named import check_trainable, trainable_named
from ppl_cnn.inference.training.networks.trainable import Trainable
from ppl_cnn.inference.training.placement import data_mesh, local, put
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.session import Session
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
from ppl_cnn.models.trained.model_folder import save
from ppl_cnn.numeric import in_float32


@in_float32
def train(
    recipe: Recipe,
    *,
    out: str | Path,
    execution: Execution | None = None,
    command: str = "ppl_cnn.train",
) -> dict[str, Any]:
    """Trains a network, or resumes a run that was stopped, to the same bits.

    On other devices, or with another `accumulate`, the weights are the same up to rounding. Where
    several processes train together, all of them call this.

    Args:
        recipe: what determines the result.
        out: the run's folder: `run.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, at
            the end, `weights.safetensors`, `model.json` and `curves.png`. A finished run is not
            trained again.
        execution: how often to save and to test, and how to use the devices; by default
            `Execution()`.
        command: how the run was started, for the record.

    Returns:
        The content of `model.json`. Its test errors are shares, each with its standard error; the
        best checkpoint that it names was chosen by the validation error where the data has images
        of validation, and elsewhere by the test error, which is then no fair estimate of it.

    Raises:
        UnknownNameError: the recipe names an unknown network or data set.
        MismatchError: network, data, batch and devices don't fit each other.
        RunFolderError: `out` holds another run, or is being written to.
        FileError: the path of `out` is not UTF-8.
        ArgumentError: the loss or its gradient is no longer finite.

    Examples:
        >>> import tempfile, ppl_cnn
        >>> recipe = ppl_cnn.Recipe.read("lenet", stages="discriminative:1steps", test="test[:50]")
        >>> out = tempfile.mkdtemp() + "/run"
        >>> ppl_cnn.train(recipe, out=out)["test_images"]
        50
        >>> ppl_cnn.load(out).unit("fc4:3").shape
        (28, 28, 1)
    """
    out, execution = Path(out), execution or Execution()
    check_folder(out)
    job = Job.prepare(recipe, execution)
    config = {"kind": "training", **asdict(recipe), **job.network.identity}
    with RunFolder.claim(out, config, command, writer=jax.process_index() == 0) as folder:
        if jax.process_index() == 0:
            print(job.train.summary(), file=sys.stderr)
        if (out / "model.json").is_file():
            return cast(dict[str, Any], json.loads((out / "model.json").read_text("utf-8")))
        with Training.begun(job, execution, out) as training:
            training.session.record(folder, command, data_record(*job.splits()))
            training.session.metrics.say(job.summary())
            result: dict[str, float] = {}
            for plan in job.plans[int(training.session.state.stage) :]:
                result = training.run_stage(plan)
            training.session.checkpoints.close()
            return publish(training, result, out, command=command)


FIRST_NAMES = 5
"""Classes that the first line of a run names."""


class Plan(NamedTuple):
    """A stage as it will be run."""

    number: int
    """Number of the stage, from 0."""
    stage: Stage
    steps: int
    """Length in updates."""
    rule: optax.GradientTransformation
    """The stage's optimizer."""


class Job(NamedTuple):
    """A recipe with all that it names: opened, and checked to fit together."""

    recipe: Recipe
    network: Trainable
    train: ImageSplit
    """Training images."""
    test: ImageSplit
    """Test images."""
    validation: ImageSplit | None
    """Images that choose the best checkpoint; None where the test images do."""
    part: ImageSplit
    """Training images from which alpha is estimated for a test within a generative stage."""
    epoch: int
    """Steps in an epoch."""
    plans: tuple[Plan, ...]
    """The stages in their order."""

    @classmethod
    def prepare(cls, recipe: Recipe, execution: Execution) -> Self:
        """Opens what the recipe names; raises as `train` does."""
        check_trainable(recipe.network)
        data = open_split(recipe.data, recipe.train, execution.data_dir)
        test = open_split(recipe.data, recipe.test, execution.data_dir)
        validation = None
        if recipe.test == "test" and "validation" in test.splits and recipe.train != "validation":
            validation = open_split(recipe.data, "validation", execution.data_dir)
        part, classes = data, len(data.classes)
        if recipe.train == "train":  # TFDS can't take a part of a part
            some = min(len(data), max(ALPHA_IMAGES, ALPHA_IMAGES_PER_CLASS * classes))
            part = open_split(recipe.data, f"train[:{some}]", execution.data_dir)
        check_fit(recipe, images=len(data), classes=classes, accumulate=execution.accumulate)
        network = trainable_named(recipe.network, classes)
        epoch = len(data) // recipe.batch_size
        plans = tuple(
            Plan(number, stage, steps, optimizer(recipe, stage, steps))
            for number, (stage, steps) in enumerate(
                zip(recipe.parsed_stages, recipe.stage_steps(epoch), strict=True)
            )
        )
        return cls(recipe, network, data, test, validation, part, epoch, plans)

    def splits(self) -> list[ImageSplit]:
        """What the run trains on, chooses by and is tested on."""
        return [each for each in (self.train, self.validation, self.test) if each is not None]

    def batches(self, readers: int | None) -> Any:
        """The endless batches of this process; see `training_batches` for its `readers`."""
        return training_batches(
            self.train,
            self.recipe.batch_size,
            self.recipe.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            augment=self.recipe.augment,
            image_shape=self.network.image_shape,
            short_side=self.network.preprocessing.short_side,
            readers=readers,
        )

    def summary(self) -> str:
        """What is trained on what, in words."""
        names = self.train.classes
        some = ", ".join(names[:FIRST_NAMES]) + (", ..." if len(names) > FIRST_NAMES else "")
        validation = f"{len(self.validation):,} validation images, " if self.validation else ""
        return (
            f"{self.network.name} on {self.recipe.data}: {len(names):,} classes ({some}), "
            f"{len(self.train):,} training images, {validation}{len(self.test):,} test images"
        )


@dataclass
class Training:
    """A run under way."""

    job: Job
    execution: Execution
    mesh: Mesh
    key: PRNGKeyArray
    places: TrainState
    """Where the state's arrays lie."""
    session: Session[TrainState]

    @classmethod
    @contextmanager
    def begun(cls, job: Job, execution: Execution, out: Path) -> Iterator[Self]:
        """The run at its last checkpoint, or at its start if it has none; see `Session.begun`."""
        recipe, mesh, key = job.recipe, data_mesh(), jax.random.key(job.recipe.seed)
        state = initial_state(job.network, recipe, rule=job.plans[0].rule, key=key)
        places = state_shardings(state, mesh, execution.shard_params)
        with Session.begun(
            put(state, places),
            job.batches(execution.readers),
            out,
            execution=execution,
            mesh=mesh,
            batch_size=recipe.batch_size,
            total=sum(plan.steps for plan in job.plans),
            wording=ClassifierWording(),
        ) as session:
            yield cls(job, execution, mesh, key, places, session)

    def run_stage(self, plan: Plan) -> dict[str, float]:
        """Runs a stage from where it stands to its end; returns the test's result there."""
        session = self.session
        if plan.number > session.state.stage:
            following = next_stage(local(session.state, self.mesh), self.job.recipe, plan.rule)
            session.state = put(following, self.places)
        step = jitted_step(
            self.job.network,
            self.job.recipe,
            stage=plan.stage,
            rule=plan.rule,
            mesh=self.mesh,
            accumulate=self.execution.accumulate,
            places=self.places,
        )
        began = int(session.state.began)
        while not self._is_over(plan, began):
            if session.test_is_due(self.job.epoch, began):
                self.test(plan.stage, self.job.part)
            session.take(step, self.key, plan.stage)
        if session.number < began + plan.steps:
            ess = float(local(session.state.ess, self.mesh))
            session.metrics.add_switch(session.number, plan.stage.objective, ess)
        alpha, result = self.test(plan.stage, self.job.train, at_end=True)
        session.state = session.state._replace(alpha=alpha)
        for split in self.job.splits():
            session.metrics.say(split.damage())
        return result

    def test(
        self, stage: Stage, images: ImageSplit, *, at_end: bool = False
    ) -> tuple[Float[Array, " c"], dict[str, float]]:
        """Saves and tests the network as it stands; returns alpha and the result.

        Args:
            stage: the current stage.
            images: training images from which alpha is estimated in a generative stage.
            at_end: whether photographs are also tested by ten views each.
        """
        session, network = self.session, self.job.network
        readers = self.execution.readers
        once = partial(batches, readers=readers)
        session.save()
        alpha, state = session.state.alpha, session.state
        weights = network.inferring(state.params, state.averages)
        if stage.share == 0:
            alpha = estimate_alpha(network, weights, images, mesh=self.mesh, read=once)
            alpha = put(alpha, self.places.alpha)

        def tested(split: ImageSplit, read: Reader = once, views: int = 1) -> dict[str, float]:
            return evaluate(
                network, weights, split, alpha=alpha, mesh=self.mesh, read=read, views=views
            )

        result = tested(self.job.test)
        deciding = result["test_error"]
        if at_end and self.job.test.varies:  # photographs, of which a network sees a part
            ten = tested(self.job.test, partial(ten_view_batches, readers=readers), views=10)
            result |= {f"ten_views_{key}": value for key, value in ten.items()}
        if self.job.validation is not None:
            validated = tested(self.job.validation)
            deciding = result["validation_error"] = validated["test_error"]
            result["validation_standard_error"] = validated["standard_error"]
        session.metrics.add_result(session.number, stage.objective, result)
        session.checkpoints.tested(session.number, deciding)
        return alpha, result

    def _is_over(self, plan: Plan, began: int) -> bool:
        """Whether a stage that began after step `began` ends here.

        The answer depends on what a checkpoint holds alone, so that a resumed run gives the same.
        The ESS is fetched from the device every `ESS_STEPS` steps, and only where it can end the
        stage.
        """
        number = self.session.number
        if number >= began + plan.steps:
            return True
        least = self.job.recipe.least_ess
        looks = number > began and number % ESS_STEPS == 0
        if not (least and plan.stage.share == 0 and looks):
            return False
        return float(self.session.state.ess.addressable_data(0)) < least


def publish(
    training: Training, result: dict[str, float], out: Path, *, command: str
) -> dict[str, Any]:
    """Writes the trained network to the run's folder; returns the content of `model.json`.

    Args:
        training: the run, at its end.
        result: its last test's result.
        out: the run's folder.
        command: how the run was started.
    """
    job, state = training.job, training.session.state
    description = {
        **result,
        "best_checkpoint": training.session.checkpoints.best,
        "data": job.recipe.data,
        "training_images": len(job.train),
        "test_images": len(job.test),
        "recipe": asdict(job.recipe),
        "command": command,
        "versions": versions(),
    }
    params, averages, alpha = local((state.params, state.averages, state.alpha), training.mesh)
    if jax.process_index() == 0:
        draw_curves(out)
        trained = job.network.trained(
            job.network.inferring(params, averages),
            alpha=alpha,
            classes=job.train.classes,
            objective=job.plans[-1].stage.objective,
        )
        save(out, trained, description, name=job.recipe.network)
    return description


def data_record(train: ImageSplit, *others: ImageSplit) -> dict[str, Any]:
    """Which images a run trains on, chooses by and is tested on."""
    return {
        "name": train.name,
        "identity": train.identity,
        "classes": len(train.classes),
        "splits": {split.split: len(split) for split in (train, *others)},
    }
