"""Trains a network with the generative gradient, the discriminative one, or both in turn.

The generative gradient is a softmax over the batch for each class; the discriminative gradient is a
softmax over the classes for each image. The run's folder gets run.json, metrics.jsonl,
tensorboard/, checkpoints/ and at the end curves.png, weights.safetensors and model.json, which
`python -m ppl_cnn.sample --model` opens. The network's last layer has as many channels as the data
has classes.

Examples:
    python -m ppl_cnn.pretrain
    python -m ppl_cnn.pretrain --data folder:PATH
    python -m ppl_cnn.pretrain --network mine:factory --data folder:PATH
    python -m ppl_cnn.pretrain --stages discriminative:12 --out runs/plain
    python -m ppl_cnn.pretrain --config alexnet-imagenet --dry-run --for h100:8
"""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.recipe import Recipe, recipe_summaries
from ppl_cnn.machines.arithmetic import keep_programs, repeatable
from ppl_cnn.machines.described import Machine
from ppl_cnn.machines.processes import Processes
from ppl_cnn.machines.profile import traced
from ppl_cnn.options.command import run_command
from ppl_cnn.options.overrides import overrides_of
from ppl_cnn.user_modules import names_an_object

_RECIPES = " ".join(f"{name}: {summary}." for name, summary in recipe_summaries().items())


@dataclass(frozen=True)
class PretrainOptions:
    """Which recipe to train, what to change in it, and how to execute it."""

    config: Annotated[
        str,
        tyro.conf.arg(help=f"Name of a recipe, or path of a TOML file of your own. {_RECIPES}"),
    ] = "lenet"
    recipe: Annotated[
        dict[str, Any],
        tyro.conf.arg(constructor=overrides_of(Recipe, unset="(default: the recipe's)"), name=""),
    ] = field(default_factory=dict)
    """What is given of a `Recipe`."""
    out: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: runs/ and the recipe's name)")
    ] = None
    """Folder of the run. The same command resumes a run that was stopped."""
    execution: Annotated[
        dict[str, Any], tyro.conf.arg(constructor=overrides_of(Execution), name="")
    ] = field(default_factory=dict)
    """What is given of an `Execution`."""
    processes: Annotated[
        dict[str, Any], tyro.conf.arg(constructor=overrides_of(Processes), name="")
    ] = field(default_factory=dict)
    """What is given of `Processes`."""
    dry_run: bool = False
    """Compile the training steps for the devices here and print what they need, without training.
    The data need not be prepared. JAX_NUM_CPU_DEVICES=8 in the environment makes eight devices of a
    CPU."""
    profile: bool = False
    """Trace what devices and host do, into the run's folder profile/, for TensorBoard, XProf or
    Perfetto. The trace of a long run is large: give few steps, as by
    --stages discriminative:20steps."""
    machine: Annotated[str | None, tyro.conf.arg(name="for", metavar="GPU")] = None
    """With --dry-run: compile for this machine in place of the devices here: a100, h100 or h200,
    with a number of GPUs such as h100:8, or h100:2x8 for two hosts of eight. That needs
    ppl_cnn[cuda-compile], but no GPU."""


def main(options: PretrainOptions) -> None:
    """Trains and prints the test error and the folder, or prints what training would need."""
    recipe, execution = (
        Recipe.read(options.config, **options.recipe),
        Execution(**options.execution),
    )
    machine = None if options.machine is None else Machine.parse(options.machine)
    if options.dry_run:
        from ppl_cnn.inference.training.dry_run import dry_run

        print(dry_run(recipe, execution, machine))
        return
    if machine is not None:
        raise ArgumentError("`for` needs `dry_run`: a run takes the devices here.", argument="for")
    if execution.deterministic:
        repeatable()
    Processes(**options.processes).join()
    import jax

    from ppl_cnn.inference.training.loop import train
    from ppl_cnn.inference.training.monitoring.classifier import describe_error

    out = options.out or Path("runs") / Path(options.config).stem
    if execution.deterministic:
        keep_programs(out / ".programs")
    command = shlex.join(["python", "-m", "ppl_cnn.pretrain", *sys.argv[1:]])
    with traced(out / "profile" if options.profile else None):
        result = train(recipe, out=out, execution=execution, command=command)
    if jax.process_index() == 0:
        own = names_an_object(recipe.network)
        folder = shlex.quote(str(out))
        model = f"{recipe.network} --weights {folder}" if own else folder
        print(f"{recipe.network} on {recipe.data}: {describe_error(result)}")
        print(f"python -m ppl_cnn.sample --model {model} --unit ...    samples its units")


if __name__ == "__main__":
    # A step under way and its checkpoint have this long.
    run_command(
        PretrainOptions,
        main,
        prog="python -m ppl_cnn.pretrain",
        description=__doc__,
        patience=25.0,
    )
