"""Files that are written aside and renamed, so that a reader never sees half of one."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_DAMAGE = (
    *(EOFError, LookupError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What NumPy and zipfile raise on a damaged file."""


def write_aside(path: Path, content: bytes) -> None:
    """Writes a file beside its place, then renames it: a reader never sees half of it."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """The arrays of an .npz file, by their names; none of them is unpickled.

    Raises:
        OSError: the file is missing or can't be opened.
        ValueError: it is damaged.
    """
    import numpy as np

    with path.open("rb") as file:  # which NumPy would leave open where it is damaged
        try:
            with np.load(file, allow_pickle=False) as found:
                return dict(found)
        except _DAMAGE as error:
            raise ValueError(f"{path} is damaged") from error
