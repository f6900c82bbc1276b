"""Trains a network with the generative gradient, the discriminative one, or both in turn.

The generative gradient is a softmax over the batch for each class, the discriminative one a
softmax over the classes for each image. The run's folder holds run.json, metrics.jsonl,
tensorboard/, checkpoints/ and at the end curves.png, weights.safetensors and model.json, which
`python -m ppl_cnn.sample --model` opens.

Examples:
    python -m ppl_cnn.pretrain
    python -m ppl_cnn.pretrain --stages discriminative:12 --out runs/plain
    python -m ppl_cnn.pretrain --config alexnet-imagenet --dry-run
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.options.command import run_command


@dataclass(frozen=True)
class Pretrain:
    """Options; what isn't given here comes from the recipe."""

    config: str = "lenet"
    """Recipe: lenet (6,000 embedded images, minutes on a laptop), alexnet-fashion (60,000; half an
    hour on two cores), alexnet-imagenet (the paper's; never run so far), or a TOML file of your
    own."""
    network: str | None = None
    """Network: lenet, alexnet-fashion, alexnet."""
    data: str | None = None
    """Data set: fashion-embedded, or one that `python -m ppl_cnn.data prepare` has made
    (fashion_mnist, mnist, imagenette, imagenet2012), or folder:PATH, class folders of images."""
    train: str | None = None
    """The images trained on, by default all of train; train[:80%] for a part of them."""
    test: str | None = None
    """Those that tests are made on, by default test; train[80%:] while settings are chosen."""
    augment: str | None = None
    """What is done to the training images: none, or parts joined by +, such as crop+flip+colour
    (AlexNet's) or resized-crop+flip. Without a crop, photographs' centre is seen."""
    stages: str | None = None
    """objective:length[@rate[:schedule]] in turn, e.g. generative:8,discriminative:4@0.003 or
    generative:65%,hybrid:0.5:35%@0.01:cosine. Objectives: generative, discriminative and
    hybrid:LAMBDA, which is (1 - LAMBDA) * generative + LAMBDA * discriminative. Lengths: 8
    (epochs), 500steps, 50000images, 65% (of --total)."""
    total: str | None = None
    """What per cent in --stages are of: 70 (epochs), 5000steps, 1000000images."""
    batch_size: int | None = None
    """Images per step over all devices. The generative gradient takes the batch for the reference
    distribution: it must be larger than the number of classes, and larger is better."""
    rate: float | None = None
    """Peak learning rate of stages that don't give their own."""
    schedule: Literal["cosine", "constant"] | None = None
    """Of the rate within a stage, for stages that don't give their own."""
    momentum: float | None = None
    """Of SGD."""
    weight_decay: float | None = None
    """L2 penalty, added to the gradient."""
    switch: str | None = None
    """ess:SHARE ends a generative stage early, once the effective sample size of its weights has
    fallen under that share of the batch (ess:0.05); none lets it run. Looked at every 20 steps."""
    reference_bank: int | None = None
    """Widens the generative sum with so many rows of earlier steps' scores. They come from older
    weights: log Z lags behind, and the loss is no longer blind to a constant added to a class's
    scores. The effective reference is larger than a batch; 0 for none."""
    reference_decay: float | None = None
    """What a row's weight in the bank is multiplied by for each step of its age, in (0, 1]."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the network's arithmetic. Weights, scores, losses and the sums of gradients over groups
    and devices are float32."""
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
    keep: int = 2
    """Last checkpoints that are kept, besides that of the least test error, which model.json
    names."""
    accumulate: int = 1
    """Passes each device's part of a batch through the network in so many groups, twice: scores
    first, then gradients. The gradient is the whole batch's, of either objective, and memory is
    a group's: with 16, a batch of 4,096 fits where 256 do. Costs a third more multiplications."""
    shard_params: bool = False
    """Keeps weights and momentum in parts on the devices instead of whole on each."""
    coordinator: str | None = None
    """To train in several processes, one a host: HOST:PORT of process 0, with --process-id and
    --num-processes, or `auto` for what the scheduler says (Slurm, Open MPI, Kubernetes, TPUs)."""
    process_id: int | None = None
    """This process's number, from 0."""
    num_processes: int | None = None
    """How many there are."""
    data_dir: str | None = None
    """Where prepared data sets lie (default: TFDS's own folder)."""
    dry_run: bool = False
    """Only compiles the training steps, for the devices here, and says what they need; the data
    need not be prepared. JAX_NUM_CPU_DEVICES=8 in the environment makes eight devices of a CPU."""


def main(options: Pretrain) -> None:
    """Trains and prints the test error and the folder, or says what training would need."""
    recipe = Recipe.read(
        options.config,
        network=options.network,
        data=options.data,
        train=options.train,
        test=options.test,
        augment=options.augment,
        stages=options.stages,
        total=options.total,
        switch=options.switch,
        reference_bank=options.reference_bank,
        reference_decay=options.reference_decay,
        dtype=options.dtype,
        batch_size=options.batch_size,
        rate=options.rate,
        schedule=options.schedule,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        seed=options.seed,
    )
    if options.dry_run:
        from ppl_cnn.inference.training.dry_run import dry_run

        print(dry_run(recipe, options.data_dir, options.accumulate, options.shard_params))
        return
    out = options.out or Path("runs") / Path(options.config).stem
    import jax

    from ppl_cnn.inference.training.loop import train
    from ppl_cnn.inference.training.metrics import describe_error
    from ppl_cnn.inference.training.processes import join

    join(options.coordinator, options.process_id, options.num_processes)
    result = train(
        recipe,
        out,
        shlex.join(["python", "-m", "ppl_cnn.pretrain", *sys.argv[1:]]),
        options.data_dir,
        options.checkpoint_every,
        options.evaluate_every,
        options.keep,
        options.accumulate,
        options.shard_params,
    )
    if jax.process_index() == 0:
        print(f"{recipe.network} on {recipe.data}: {describe_error(result)}")
        print(f"python -m ppl_cnn.sample --model {out} --unit ...    samples its units")


if __name__ == "__main__":
    run_command(Pretrain, main, prog="python -m ppl_cnn.pretrain", description=__doc__)
