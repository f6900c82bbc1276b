"""Files that are written aside and renamed, so that a reader never sees half of one."""

import os
from pathlib import Path


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
