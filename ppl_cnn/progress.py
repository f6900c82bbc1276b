"""Progress bars: live ones on a terminal and in a notebook, plain lines in a file or a pipe."""

import math
import re
import sys
import time
from typing import Any

from tqdm import tqdm

PAUSE = 10.0
"""Seconds between two plain lines."""

_MOVES = re.compile(r"\r|\x1b\[A|\n")


class Bar(tqdm):
    """tqdm's bar; where nobody watches, a line every `PAUSE` seconds, without carriage returns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        file = kwargs.get("file") or sys.stderr
        self._pause, self._said = 0.0, -math.inf
        if not _is_live(file):
            self._pause = PAUSE
            kwargs |= {"file": _Lines(file), "dynamic_ncols": False}
            if form := kwargs.get("bar_format"):
                kwargs["bar_format"] = form.replace("|{bar}|", " ")
            else:
                kwargs["ncols"] = 0  # no bar
        super().__init__(*args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Shows the state, unless the last plain line is too new; the end is shown by `close`."""
        now = time.monotonic()
        if now - self._said < self._pause:
            return None
        self._said = now
        return super().refresh(*args, **kwargs)


def _is_live(file: Any) -> bool:
    """Whether what is written can be overwritten: on a terminal, and in a notebook's cell."""
    return file.isatty() or type(file).__module__.startswith("ipykernel")


class _Lines:
    """A text stream that gets each state of a bar as a line."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._last = ""
        self.encoding = getattr(file, "encoding", "utf-8")

    def write(self, text: str) -> None:
        """Writes what is left of a state without its moves of the cursor."""
        line = _MOVES.sub("", text).rstrip()
        if line and line != self._last:
            self._last = line
            self._file.write(f"{line}\n")

    def flush(self) -> None:
        """Flushes the stream."""
        self._file.flush()

    def isatty(self) -> bool:
        """It is no terminal."""
        return False
