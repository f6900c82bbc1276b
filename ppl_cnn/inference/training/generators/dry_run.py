"""What a generator's training would need, from its compiled steps."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ppl_cnn.inference.training.dry_run import Need
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.generators.loop import Job
from ppl_cnn.inference.training.generators.recipe import STAGES, GeneratorRecipe
from ppl_cnn.inference.training.generators.step import initial_state, jitted_steps
from ppl_cnn.inference.training.placement import data_mesh
from ppl_cnn.machines.compiled import size_text


def dry_run(recipe: GeneratorRecipe, execution: Execution | None = None) -> str:
    """Compiles each stage's step for the devices here; returns what they need, in lines.

    Nothing is trained. The data set must be prepared.

    Args:
        recipe: what would be trained.
        execution: how; by default `Execution()`.

    Raises:
        UnknownNameError: the recipe names an unknown data set.
        MismatchError: data, batch and devices don't fit each other.
    """
    job = Job.prepare(recipe, execution or Execution(), judge=None)
    devices = jax.devices()
    shape = "x".join(map(str, job.sizes.image_shape))
    lines = [
        f"{recipe.data}: {len(job.images):,} images of {shape}, {job.epoch:,} steps an epoch; "
        f"{len(devices)} x {devices[0].device_kind}"
    ]
    total = 0.0
    for number, name in enumerate(STAGES):
        need = _need(job, name)
        steps = job.steps[number]
        total += steps * need.multiplications * len(devices)
        if not number:
            lines.append(f"{need.parameters:,} parameters, critic and encoder included")
        lines += [
            f"{name}, {steps:,} steps of {recipe.batch_size} images:",
            f"  memory per device: {size_text(need.memory)}",
            f"  multiplications per step: {need.multiplications * len(devices):.4g}",
            f"  compiled in {need.seconds:.1f} s",
        ]
    lines.append(f"in all: {sum(job.steps):,} steps, {total:.3g} multiplications")
    return "\n".join(lines)


def _need(job: Job, stage: str) -> Need:
    """Compiles a stage's usual step, from shapes alone."""
    mesh, key = data_mesh(), jax.random.key(job.recipe.seed)
    whole = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec("data"))
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
        jax.eval_shape(lambda: initial_state(job.sizes, job.rules, key)),
    )
    n = job.recipe.batch_size
    images = jax.ShapeDtypeStruct((n, *job.sizes.image_shape), jnp.uint8, sharding=rows)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32, sharding=rows)
    step = jitted_steps(job.sizes, job.rules, stage=stage, mesh=mesh)[False]
    platform = mesh.devices.flat[0].platform
    arguments = state, images, labels, key
    return Need.of(step, arguments, parameters=state.params, platform=platform)
