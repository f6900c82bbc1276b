"""Trains a generator of images, without labels, that serves as a learned reference q.

The run's folder gets run.json, metrics.jsonl, tensorboard/, checkpoints/ and at the end
weights.safetensors, generator.json and generator.html, which shows draws, their nearest training
images and figures. `--reference generator:FOLDER` of ppl_cnn.sample opens it.

Examples:
    python -m ppl_cnn.generator --data fashion_mnist --out runs/clothes
    python -m ppl_cnn.generator --data folder:photos --size 64 --augment resized-crop+flip
"""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.generators.recipe import GeneratorRecipe
from ppl_cnn.machines.arithmetic import keep_programs, repeatable
from ppl_cnn.machines.processes import Processes
from ppl_cnn.options.command import run_command
from ppl_cnn.options.overrides import overrides_of


@dataclass(frozen=True)
class GeneratorOptions:
    """What to learn, and how to execute it."""

    recipe: Annotated[
        dict[str, Any], tyro.conf.arg(constructor=overrides_of(GeneratorRecipe), name="")
    ] = field(default_factory=dict)
    """What is given of a `GeneratorRecipe`."""
    out: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: runs/generator-DATA)")
    ] = None
    """Folder of the run. The same command resumes a run that was stopped."""
    judge: str | None = None
    """The model whose features tell how like images the draws are: an embedded network or the
    folder of a run of ppl_cnn.pretrain. By default alexnet-fashion for Fashion-MNIST, and none
    for other data."""
    execution: Annotated[
        dict[str, Any], tyro.conf.arg(constructor=overrides_of(Execution), name="")
    ] = field(default_factory=dict)
    """What is given of an `Execution`."""
    processes: Annotated[
        dict[str, Any], tyro.conf.arg(constructor=overrides_of(Processes), name="")
    ] = field(default_factory=dict)
    """What is given of `Processes`."""
    dry_run: bool = False
    """Compile the training steps for the devices here and print what they need, without
    training."""


def main(options: GeneratorOptions) -> None:
    """Trains and prints the figures and the folder, or prints what training would need."""
    recipe, execution = GeneratorRecipe(**options.recipe), Execution(**options.execution)
    if options.dry_run:
        from ppl_cnn.inference.training.generators.dry_run import dry_run

        print(dry_run(recipe, execution))
        return
    if execution.deterministic:
        repeatable()
    Processes(**options.processes).join()
    import jax

    from ppl_cnn.inference.training.generators.figures import Judge
    from ppl_cnn.inference.training.generators.loop import train_generator

    name = recipe.data.removeprefix("folder:").rstrip("/").rpartition("/")[2]
    out = options.out or Path("runs") / f"generator-{name}"
    if execution.deterministic:
        keep_programs(out / ".programs")
    command = shlex.join(["python", "-m", "ppl_cnn.generator", *sys.argv[1:]])
    judge = Judge.named(options.judge, recipe.data)
    train_generator(recipe, out=out, execution=execution, judge=judge, command=command)
    if jax.process_index() == 0:
        print(out / "generator.html")
        reference = shlex.quote(f"generator:{out}")
        print(f"python -m ppl_cnn.sample --reference {reference} --unit ...    samples under it")


if __name__ == "__main__":
    # A step under way and its checkpoint have this long.
    run_command(
        GeneratorOptions,
        main,
        prog="python -m ppl_cnn.generator",
        description=__doc__,
        patience=25.0,
    )
