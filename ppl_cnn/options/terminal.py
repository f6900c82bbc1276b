"""What commands print, whatever the terminal's encoding is."""

import codecs
import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator


def speak_any_text() -> None:
    """Lets standard output and standard error take any text.

    A terminal that lacks a character, as those in ASCII or Latin-1 lack ∝, shows ? for it. A
    file name that isn't UTF-8 is written as the bytes that it has on disk. Where the shell has
    closed one (>&-), what is printed goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # The file also takes the closed one's number, which the next one would have got.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # to the end
    codecs.register_error("ppl_cnn", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ppl_cnn")


@contextlib.contextmanager
def flushing() -> Iterator[None]:
    """Writes out at the block's end what was printed, and ends the process if that can't be.

    Where the reader has ended first, as `head` does, the process ends without a word, with the code
    of a program that SIGPIPE kills. After another failure it ends with one sentence and 2.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Python flushes once more when it ends.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(128 + signal.SIGPIPE)
        reason = error.strerror or error
        print(f"error: Standard output can't be written ({reason}).", file=sys.stderr)
        sys.exit(2)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python writes a byte that it can't decode
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return "?", error.start + 1
