"""Trains a network with the generative gradient, the discriminative one, or both in turn.

The generative gradient is a softmax over the batch for each class, the discriminative one a
softmax over the classes for each image. The run's folder holds metrics.jsonl, checkpoints/ and at
the end weights.safetensors and model.json, which `python -m ppl_cnn.sample --model` opens.

Examples:
    python -m ppl_cnn.pretrain
    python -m ppl_cnn.pretrain --stages discriminative:12 --out runs/plain
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppl_cnn.command import run_command
from ppl_cnn.inference.recipes import Recipe


@dataclass(frozen=True)
class Pretrain:
    """Options; what isn't given here comes from the recipe."""

    config: str = "lenet"
    """Recipe: lenet (6,000 embedded images, minutes on a laptop), alexnet-fashion (60,000; half an
    hour on two cores), or a TOML file of your own."""
    network: str | None = None
    """Network: lenet, alexnet-fashion, alexnet."""
    data: str | None = None
    """Data set: fashion-embedded, or fashion_mnist once `python -m ppl_cnn.data prepare` has made
    it."""
    stages: str | None = None
    """objective:epochs[@rate] in turn, e.g. generative:8,discriminative:4@0.003."""
    batch_size: int | None = None
    """Images per step over all devices. The generative gradient takes the batch for the reference
    distribution: it must be larger than the number of classes, and larger is better."""
    rate: float | None = None
    """Peak learning rate of stages that don't give their own."""
    schedule: Literal["cosine", "constant"] | None = None
    """Of the rate within a stage."""
    momentum: float | None = None
    """Of SGD."""
    weight_decay: float | None = None
    """L2 penalty, added to the gradient."""
    seed: int | None = None
    """Of weights, data order and dropout: the same seed gives the same bits."""
    out: Path | None = None
    """The run's folder (default: runs/ and the recipe's name). The same command continues a run
    that was stopped."""
    checkpoint_every: int = 200
    """Steps between two checkpoints: what a kill can cost. Changes no bit of the result."""
    evaluate_every: int = 1
    """Epochs between two tests within a stage; 0 for none but at its end. Changes no bit of the
    result."""
    data_dir: str | None = None
    """Where prepared data sets lie (default: TFDS's own folder)."""


def main(options: Pretrain) -> None:
    """Trains and prints the test error and the folder."""
    recipe = Recipe.read(
        options.config,
        network=options.network,
        data=options.data,
        stages=options.stages,
        batch_size=options.batch_size,
        rate=options.rate,
        schedule=options.schedule,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        seed=options.seed,
    )
    out = options.out or Path("runs") / Path(options.config).stem
    from ppl_cnn.inference.metrics import describe_error
    from ppl_cnn.inference.training import train

    command = shlex.join(["python", "-m", "ppl_cnn.pretrain", *sys.argv[1:]])
    result = train(
        recipe, out, command, options.data_dir, options.checkpoint_every, options.evaluate_every
    )
    print(f"{recipe.network} on {recipe.data}: {describe_error(result)}")
    print(f"python -m ppl_cnn.sample --model {out} --unit ...    samples its units")


if __name__ == "__main__":
    run_command(Pretrain, main, "python -m ppl_cnn.pretrain", __doc__)
