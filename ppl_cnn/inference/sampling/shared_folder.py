"""The folder of a run in which several processes, one a host, write to one disk."""

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppl_cnn.errors import RunFolderError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.machines.messages import Conversation, leads

_PATIENCE = 15.0
"""Seconds after which a file of process 0 must be seen by all; network disks may take some."""


@contextlib.contextmanager
def claimed(out: Path, config: Mapping[str, Any], command: str) -> Iterator[RunFolder]:
    """Makes a run's folder, or opens it, and locks it, for all processes together.

    Process 0 holds the lock, until all have left, and is the one that writes the record.

    Args:
        out: the folder.
        config: what determines the run's result, as JSON.
        command: how the run was started, for the record.

    Raises:
        RunFolderError: see `RunFolder.claim`; or the processes don't share the folder's disk.
    """
    talk = Conversation()
    with RunFolder.claim(out, config, command, writer=leads()) as folder:
        folder.record = talk.agreed(folder.record)
        _check_seen(out, talk)
        yield folder
        talk.meet()


def _check_seen(out: Path, talk: Conversation) -> None:
    """Refuses a folder in which not every process sees what process 0 writes."""
    token, file = talk.agreed(secrets.token_hex()), out / ".processes"
    try:
        if leads():
            write_aside(file, token.encode())
        blind = [index for index, saw in enumerate(talk.gathered(_sees(file, token))) if not saw]
    finally:
        if leads():
            file.unlink(missing_ok=True)
    if blind:
        raise RunFolderError(
            f"Process {blind[0]} doesn't see what process 0 writes to {out.absolute()}. Give an "
            f"`out` on a disk that all processes share.",
            path=out,
        )


def _sees(file: Path, token: str) -> bool:
    end = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if file.read_bytes() == token.encode():
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
