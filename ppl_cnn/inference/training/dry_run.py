"""What a training run would need, from its compiled steps."""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ppl_cnn.data import DATA_SETS, open_split
from ppl_cnn.errors import InputError
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.networks.named import check_trainable, trainable_named
from ppl_cnn.inference.training.networks.trainable import Trainable
from ppl_cnn.inference.training.placement import data_mesh
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.stages import Stage
from ppl_cnn.inference.training.step import (
    check_fit,
    initial_state,
    jitted_step,
    optimizer,
    state_shardings,
)
from ppl_cnn.machines.arithmetic import DETERMINISTIC
from ppl_cnn.machines.compiled import Program, size_text
from ppl_cnn.machines.described import Machine


class Need(NamedTuple):
    """What one stage's step needs, as its compiled program says."""

    parameters: int
    """Number of the network's weights."""
    arguments: int
    """Bytes on each device for weights, optimizer and the device's part of the batch."""
    temporaries: int
    """Bytes on each device while the step runs, besides the arguments."""
    outputs: int
    """Bytes on each device for results that don't take an argument's place."""
    operations: float
    """Floating-point additions and multiplications of each device; NaN for described devices."""
    seconds: float
    """Seconds that compiling took."""
    launches: int = 0
    """Operations that each device launches."""
    remarks: tuple[str, ...] = ()
    """What the program's text says of collectives and of the order of additions."""

    @classmethod
    def of(
        cls,
        step: jax.stages.Wrapped,
        arguments: tuple[Any, ...],
        *,
        parameters: Any,
        platform: str = "cpu",
        options: dict[str, bool] | None = None,
        accumulate: int = 1,
    ) -> Self:
        """Compiles a step for shapes.

        Args:
            step: a jitted function of the state, images, labels and key.
            arguments: these, as shapes with their places.
            parameters: the part of the state that is the weights.
            platform: what is compiled for.
            options: XLA's flags.
            accumulate: how often its outermost loop runs.
        """
        before = time.monotonic()
        compiled = step.lower(*arguments).compile(compiler_options=options)
        seconds = time.monotonic() - before
        program = Program.of(compiled, platform)
        cost: Any = compiled.cost_analysis()
        return cls(
            sum(math.prod(weights.shape) for weights in jax.tree.leaves(parameters)),
            *program.memory,
            accumulate * (cost["flops"] + program.uncounted(accumulate)) if cost else math.nan,
            seconds,
            program.launches(),
            tuple(program.remarks(deterministic=bool(options))),
        )

    @property
    def memory(self) -> int:
        """Bytes on each device, in all."""
        return self.arguments + self.temporaries + self.outputs

    @property
    def multiplications(self) -> float:
        """Multiplications of each device: half of the operations, as most are multiply-adds."""
        return self.operations / 2


def dry_run(
    recipe: Recipe, execution: Execution | None = None, machine: Machine | None = None
) -> str:
    """Compiles each stage's step; returns what they need, in lines.

    Nothing is allocated or trained. A data set that isn't prepared is taken at its published size.

    Args:
        recipe: what would be trained.
        execution: how; by default `Execution()`.
        machine: what to compile for; by default the devices here.

    Raises:
        UnknownNameError: the recipe names an unknown network or data set.
        MismatchError: network, data, batch and devices don't fit each other.
        InputError: programs for the machine can't be compiled here.
    """
    execution = execution or Execution()
    check_trainable(recipe.network)
    images, classes = _size(recipe, execution.data_dir)
    devices = jax.devices() if machine is None else machine.devices()
    check_fit(
        recipe,
        images=images,
        classes=classes,
        accumulate=execution.accumulate,
        devices=len(devices),
    )
    network = trainable_named(recipe.network, classes)
    epoch = images // recipe.batch_size
    lines = [
        f"{network.name} on {recipe.data}: {images:,} images in {classes:,} classes, "
        f"{epoch:,} steps an epoch; {len(devices)} x {devices[0].device_kind}",
    ]
    work, steps = 0.0, 0
    for stage, length in zip(recipe.parsed_stages, recipe.stage_steps(epoch), strict=True):
        need = compiled_need(
            network,
            recipe,
            stage,
            steps=length,
            accumulate=execution.accumulate,
            shard_params=execution.shard_params,
            mesh=data_mesh(devices),
            options=DETERMINISTIC if machine and execution.deterministic else None,
        )
        work += length * need.multiplications * len(devices)
        steps += length
        if len(lines) == 1:
            lines.append(f"{need.parameters:,} parameters, {size_text(4 * need.parameters)}")
        lines.append(f"{stage.objective}, {length:,} steps of {recipe.batch_size} images:")
        lines += _described(need, len(devices), declared=_declared(network, recipe))
    in_all = "" if math.isnan(work) else f", {work:.3g} multiplications"
    lines.append(f"in all: {steps:,} steps{in_all}")
    return "\n".join(lines)


def _described(need: Need, devices: int, *, declared: str) -> list[str]:
    """What a stage's step needs, in lines."""
    work = need.multiplications * devices
    counted = "" if math.isnan(work) else f"{work:.4g}"
    multiplications = "; ".join(filter(None, (counted, declared)))
    return [
        f"  memory per device: {size_text(need.memory)}, of which {size_text(need.arguments)} "
        f"weights, optimizer and images, {size_text(need.temporaries)} temporaries",
        f"  multiplications per step: {multiplications or 'not known'}",
        f"  operations launched per step: {need.launches}",
        *(f"  {remark}" for remark in need.remarks),
        f"  compiled in {need.seconds:.1f} s",
    ]


def compiled_need(
    network: Trainable,
    recipe: Recipe,
    stage: Stage,
    *,
    steps: int,
    accumulate: int = 1,
    shard_params: bool = False,
    mesh: Mesh | None = None,
    options: dict[str, bool] | None = None,
) -> Need:
    """Compiles a stage's step for all devices, from shapes alone.

    Args:
        network: the network.
        recipe: gives batch and number format.
        stage: gives objective and learning rate.
        steps: the stage's length in updates.
        accumulate: groups that each device's part of a batch is cut into.
        shard_params: whether weights and momentum are cut into parts over the devices.
        mesh: the devices; by default all of JAX's.
        options: XLA's flags.
    """
    mesh = mesh or data_mesh()
    rows = NamedSharding(mesh, PartitionSpec("data"))
    rule, key = optimizer(recipe, stage, steps), jax.random.key(recipe.seed)
    shape = jax.eval_shape(lambda: initial_state(network, recipe, rule=rule, key=key))
    places = state_shardings(shape, mesh, shard_params)
    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shape,
        places,
    )
    n = recipe.batch_size
    images = jax.ShapeDtypeStruct((n, *network.image_shape), jnp.uint8, sharding=rows)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32, sharding=rows)
    step = jitted_step(
        network,
        recipe,
        stage=stage,
        rule=rule,
        mesh=mesh,
        accumulate=accumulate,
        places=places,
    )
    arguments = state, images, labels, key
    platform = mesh.devices.flat[0].platform
    return Need.of(
        step,
        arguments,
        parameters=state.params,
        platform=platform,
        options=options,
        accumulate=accumulate,
    )


def _declared(network: Trainable, recipe: Recipe) -> str:
    """The multiplications of a step that follow from a network's declaration, in words."""
    if network.multiplications is None:
        return ""
    count = network.multiplications * recipe.batch_size
    return f"{count:.4g} for the declared layers alone, forward and back"


def _size(recipe: Recipe, data_dir: str | Path | None) -> tuple[int, int]:
    """Number of training images and of classes: as prepared, or else as published."""
    try:
        data = open_split(recipe.data, recipe.train, data_dir)
    except InputError:
        published = DATA_SETS.get(recipe.data.partition("/")[0])
        if published is None or recipe.train != "train":
            raise
        return published.images["train"], published.classes
    return len(data), len(data.classes)
