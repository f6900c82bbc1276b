"""Several processes that train together."""

import re
from typing import Any

import jax

from ppl_cnn.errors import InputError


def join(coordinator: str | None, process_id: int | None, num_processes: int | None) -> None:
    """Makes this process one of several that train together; to be called before JAX is used.

    Args:
        coordinator: HOST:PORT where process 0 listens; "auto" for what the scheduler says (Slurm,
            Open MPI, Kubernetes, cloud TPUs); None for a process alone.
        process_id: this process's number, with HOST:PORT.
        num_processes: how many there are, with HOST:PORT.

    Raises:
        InputError: what was given is incomplete, or no scheduler or coordinator was found.
    """
    alone = process_id is None and num_processes is None
    if coordinator is None and alone:
        return
    if coordinator == "auto" and alone:
        given: dict[str, Any] = {}
    elif coordinator not in (None, "auto") and process_id is not None and num_processes is not None:
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"Process {process_id} of {num_processes} can't be; they are numbered from 0 to "
                f"{num_processes - 1}."
            )
        given = dict(
            zip(
                ("coordinator_address", "num_processes", "process_id"),
                (coordinator, num_processes, process_id),
                strict=True,
            )
        )
    else:
        raise InputError(
            "Several processes need --coordinator HOST:PORT, --process-id and --num-processes, or "
            "just --coordinator auto under a scheduler that says all three."
        )
    try:
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        reason = re.split(r"[.!?]\s", f"{error} ")[0]
        raise InputError(f"The processes can't come together ({reason}).") from None
