"""What a sampling run would need, from its compiled programs."""

import time
from collections.abc import Sequence

import jax

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.sampling.methods import with_latents
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.resampling.scorer import Density
from ppl_cnn.inference.sampling.resampling.settings import Resampling
from ppl_cnn.inference.sampling.resources import group_units
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.machines.arithmetic import IN_ORDER, Precision, products
from ppl_cnn.machines.compiled import Program as Compiled
from ppl_cnn.machines.described import Machine
from ppl_cnn.models.density import TiltedDensity


def dry_run(
    densities: Sequence[Density],
    settings: Sampling | Resampling,
    *,
    machine: Machine | None = None,
    precision: Precision = "highest",
    side_by_side: int | None = None,
    deterministic: bool = False,
) -> str:
    """Compiles each group's program; returns what they need, in lines. Nothing is drawn.

    Args:
        densities: what would be sampled.
        settings: how.
        machine: what to compile for; by default this process's devices.
        precision: how exact products are.
        side_by_side: largest number of units in one batch.
        deterministic: whether to compile for the same bits at each run, as `sample` does then.

    Raises:
        ArgumentError: the run has no program of chains, or the machine has several hosts.
        InputError: programs for the machine can't be compiled here.
    """
    if isinstance(settings, Resampling):
        raise ArgumentError(
            "`dry_run` compiles the programs of chains. Give a `kernel` that is not resample.",
            argument="dry_run",
        )
    if machine is not None and machine.hosts > 1:
        raise ArgumentError(
            f"Chains run on the GPUs of one host, not on {machine}. Give `for` a number of GPUs.",
            argument="for",
        )
    devices = None if machine is None else machine.devices()
    options = {IN_ORDER: True} if deterministic else {}
    lines = [f"{settings.kernel}, {settings.chains} chains of each unit; {machine or _here()}"]
    with products(precision, None if machine is None else "cuda"):
        for group in group_units(with_latents(densities), settings, most=side_by_side):
            program = Program(group, settings, devices=devices)
            lines += _described(program, group, options if machine is not None else {})
    return "\n".join(lines)


def _here() -> str:
    devices = jax.local_devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def _described(
    program: Program, group: Sequence[TiltedDensity], options: dict[str, bool]
) -> list[str]:
    """What a group's program needs."""
    before = time.monotonic()
    platform = program.placement.mesh.devices.flat[0].platform
    compiled = Compiled.of(program.lowered().compile(compiler_options=options), platform)
    seconds = time.monotonic() - before
    return [
        f"{', '.join(str(density.unit) for density in group)}:",
        *(
            f"  {line}"
            for line in (
                f"memory per device: {compiled.memory}",
                f"a block: {program.block} draws per chain",
                f"operations in the innermost loop: {compiled.launches(compiled.innermost)}",
                *compiled.remarks(in_order=bool(options)),
                f"compiled in {seconds:.1f} s",
            )
        ),
    ]
