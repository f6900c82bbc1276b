"""The lock of a run's folder: one process at a time writes to it."""

import contextlib
import fcntl  # POSIX only, as is the whole package: Windows has no flock
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ppl_cnn.errors import RunFolderError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder, if need be, and holds its lock while the context lasts.

    The lock is on the file `.lock`, which stays. The system releases it when the process ends,
    however it ends.

    Raises:
        RunFolderError: the folder can't be written to, or another process holds its lock.
    """
    with _lock_file(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"Another run is writing to {folder}. Wait until it ends, or give another `out`.",
                path=folder,
            ) from None
        yield


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / ".lock", "w", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(
            f"{folder} can't be written to ({error.strerror}). Give another `out`.", path=folder
        ) from None
