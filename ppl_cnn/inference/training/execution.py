"""How a recipe is executed: how often it saves and tests, on what devices, in how many processes.

Free of heavy imports, for the command line's sake.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl_cnn.errors import ArgumentError, InputError
from ppl_cnn.numeric import plain_fields


@dataclass(kw_only=True, frozen=True)
class Execution:
    """How a recipe is executed.

    No field changes the trained weights, except that `accumulate` and `shard_params` change
    their rounding. A run may be resumed with another execution. In a module of your own,
    `accumulate` also changes what dropout drops and what BatchNorm normalises by: each group has
    its own.

    Raises:
        ArgumentError: a value is out of its range.

    Examples:
        >>> Execution(accumulate=4).checkpoint_every
        200
    """

    checkpoint_every: int = 200
    """Steps between two checkpoints, at least 1: the most work that a kill can cost."""
    checkpoint_seconds: float = 0.0
    """Seconds between two checkpoints at least, for steps so short that checkpoints would take more
    time than they; a kill then costs that much."""
    evaluate_every: int = 1
    """Epochs between two tests within a stage; 0 tests at the stage's end only."""
    keep: int = 2
    """Number of latest checkpoints to keep, at least 1. The checkpoint with the lowest test error
    is kept too; model.json names it."""
    accumulate: int = 1
    """Number of groups into which each device's part of a batch is cut, to save memory: the
    groups pass through the network in turn, first for the scores, then for the gradient. The
    gradient is still the whole batch's, for every objective. With 16 groups a batch of 4,096 needs
    the memory of 256, for a third more multiplications."""
    shard_params: bool = False
    """Shards weights and momentum over the devices instead of replicating them."""
    deterministic: bool = False
    """On a GPU, compute to the same bits at each run, which takes longer; CPUs do so in any case.
    Compiled programs are kept in the run's folder."""
    data_dir: str | Path | None = None
    """Folder of the prepared data sets; by default TFDS's own."""

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, least in (
            ("checkpoint_every", 1),
            ("checkpoint_seconds", 0),
            ("evaluate_every", 0),
            ("keep", 1),
            ("accumulate", 1),
        ):
            if (value := getattr(self, name)) < least:
                raise ArgumentError(
                    f"`{name}` must be at least {least}, not {value}.", argument=name
                )


@dataclass(frozen=True)
class Processes:
    """The processes, one a host, that train one network together."""

    coordinator: str | None = None
    """HOST:PORT of process 0, to train in several processes, one a host; or auto, to take all
    three from the scheduler (Slurm, Open MPI, Kubernetes, cloud TPUs)."""
    process_id: int | None = None
    """Number of this process, from 0; needed with HOST:PORT."""
    num_processes: int | None = None
    """Number of processes; needed with HOST:PORT."""

    def join(self) -> None:
        """Connects this process with the others; call it before JAX is used.

        A process alone, with no field given, connects to nothing.

        Raises:
            ArgumentError: the description is incomplete, or the number is out of range.
            InputError: no scheduler or coordinator was found.
        """
        described = (self.coordinator, self.process_id, self.num_processes)
        if described == (None, None, None):
            return
        _initialize(_arguments(*described))


def _initialize(given: dict[str, Any]) -> None:
    """Calls `jax.distributed.initialize`, whose failure becomes one sentence."""
    import jax

    try:
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        reason = re.split(r"[.!?]\s", f"{error} ")[0]
        raise InputError(
            f"The processes can't be connected ({reason}). Check `coordinator`, and that all "
            f"processes are running."
        ) from None


def _arguments(
    coordinator: str | None, process_id: int | None, num_processes: int | None
) -> dict[str, Any]:
    """What JAX is told of the processes."""
    if coordinator == "auto" and process_id is None and num_processes is None:
        return {}
    if coordinator in (None, "auto") or process_id is None or num_processes is None:
        raise ArgumentError(
            "Several processes need `coordinator=HOST:PORT`, `process_id` and `num_processes`, "
            "or `coordinator=auto` alone under a scheduler.",
            argument="coordinator",
        )
    if not 0 <= process_id < num_processes:
        raise ArgumentError(
            f"`process_id` must be from 0 to {num_processes - 1} for {num_processes} processes, "
            f"not {process_id}.",
            argument="process_id",
        )
    return {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
