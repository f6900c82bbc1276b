"""What a training run would need, from its compiled steps; nothing is allocated or trained."""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ppl_cnn.data import DATA_SETS, open_split
from ppl_cnn.errors import InputError
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
from ppl_cnn.models.networks.catalogue import network_named
from ppl_cnn.models.networks.declaration import IMAGE, Network
from ppl_cnn.models.networks.slab import Slab


class Need(NamedTuple):
    """What one stage's step needs, as its compiled program says."""

    parameters: int
    """Weights with values, of the network."""
    arguments: int
    """Bytes on each device: weights, optimizer, the device's part of the batch."""
    temporaries: int
    """Bytes on each device, while the step runs."""
    outputs: int
    """Bytes on each device that are not written where arguments were."""
    operations: float
    """Floating-point additions and multiplications of each device."""
    seconds: float
    """That compiling took."""

    @property
    def memory(self) -> int:
        """Bytes on each device, in all."""
        return self.arguments + self.temporaries + self.outputs

    @property
    def multiplications(self) -> float:
        """Of each device: half of the operations, as nearly all are multiply-adds."""
        return self.operations / 2


def dry_run(
    recipe: Recipe, data_dir: str | None = None, accumulate: int = 1, shard_params: bool = False
) -> str:
    """Compiles each stage's step for this process's devices; what they need, in lines.

    Args:
        recipe: of the run.
        data_dir: where prepared data sets lie. One that isn't prepared has its published size.
        accumulate: as of `train`.
        shard_params: likewise.

    Raises:
        InputError: the recipe names what there isn't, or its parts don't fit.
    """
    network = network_named(recipe.network)
    images, classes = _size(recipe, data_dir)
    check_fit(recipe, network, images, classes, accumulate)
    devices = jax.devices()
    epoch = images // recipe.batch_size
    lines = [
        f"{network.name} on {recipe.data}: {images:,} images in {classes:,} classes, "
        f"{epoch:,} steps an epoch; {len(devices)} x {devices[0].device_kind}",
    ]
    operations, steps = 0.0, 0
    for stage, length in zip(recipe.parsed_stages(), recipe.stage_steps(epoch), strict=True):
        need = compiled_need(network, recipe, stage, length, accumulate, shard_params)
        operations += length * need.multiplications * len(devices)
        steps += length
        if len(lines) == 1:
            lines.append(f"{need.parameters:,} parameters, {_size_text(4 * need.parameters)}")
        lines += [
            f"{stage.objective}, {length:,} steps of {recipe.batch_size} images:",
            f"  memory per device: {_size_text(need.memory)}, of which "
            f"{_size_text(need.arguments)} weights, optimizer and images, "
            f"{_size_text(need.temporaries)} temporaries",
            f"  multiplications per step: {need.multiplications * len(devices):.4g}; of the "
            f"declared layers, forward and back, {declared(network) * recipe.batch_size:.4g}",
            f"  compiled in {need.seconds:.1f} s",
        ]
    lines.append(f"in all: {steps:,} steps, {operations:.3g} multiplications")
    return "\n".join(lines)


def compiled_need(
    network: Network,
    recipe: Recipe,
    stage: Stage,
    steps: int,
    accumulate: int = 1,
    shard_params: bool = False,
) -> Need:
    """Compiles a stage's step for all devices, from shapes alone.

    Args:
        network: the declaration.
        recipe: of the run.
        stage: the stage.
        steps: its length.
        accumulate: as of `train`.
        shard_params: likewise.
    """
    mesh = data_mesh()
    rows = NamedSharding(mesh, PartitionSpec("data"))
    rule, key = optimizer(recipe, stage, steps), jax.random.key(recipe.seed)
    shape = jax.eval_shape(lambda: initial_state(network, recipe, rule, key))
    places = state_shardings(shape, mesh, shard_params)
    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shape,
        places,
    )
    n = recipe.batch_size
    images = jax.ShapeDtypeStruct((n, *network.image_shape), jnp.uint8, sharding=rows)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32, sharding=rows)
    before = time.monotonic()
    step = jitted_step(network, recipe, stage, rule, mesh, accumulate, places)
    compiled = step.lower(state, images, labels, key).compile()
    seconds = time.monotonic() - before
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return Need(
        sum(math.prod(weights.shape) for weights in jax.tree.leaves(state.params)),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.output_size_in_bytes - memory.alias_size_in_bytes,
        cost["flops"] * accumulate,  # XLA counts one round of a loop
        seconds,
    )


def declared(network: Network) -> int:
    """Multiplications of a training step for one image, of the layers with weights.

    One pass forward, one for the gradient of the weights, and one for that of what the layer reads,
    unless that is the image.
    """
    steps = Slab.whole(network).steps
    first = sum(
        step.multiplications
        for step in steps
        if any(reading.name == IMAGE for reading in step.readings)
    )
    return 3 * sum(step.multiplications for step in steps) - first


def _size(recipe: Recipe, data_dir: str | None) -> tuple[int, int]:
    """Training images and classes of its data set: as prepared, or else, all, as published."""
    base = recipe.data.partition("/")[0]
    try:
        data = open_split(recipe.data, recipe.train, data_dir)
    except InputError:
        if base not in DATA_SETS or recipe.train != "train":
            raise
        return DATA_SETS[base].images["train"], DATA_SETS[base].classes
    return len(data), len(data.classes)


def _size_text(count: float) -> str:
    """Bytes, in a unit that suits them."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
