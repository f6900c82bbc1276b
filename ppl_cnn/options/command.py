"""What every command does around its work: parse, run, and turn failures into one sentence."""

import atexit
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import tyro

from ppl_cnn.errors import InputError


class _Terminated(KeyboardInterrupt):
    """SIGTERM: a stop like Ctrl-C, which libraries let through as they do that."""


def run_command(
    config_type: Any,
    action: Callable[[Any], None],
    prog: str,
    description: str | None,
    defaults: Any = None,
) -> None:
    """Parses the command line into `config_type`, runs `action` on it and exits.

    The exit code is 0, 2 after one sentence on stderr if the input can't be used or a file can't
    be written, 130 if it was interrupted (Ctrl-C), or 143 if it was told to stop (SIGTERM).

    Args:
        config_type: a dataclass, or a union of them for subcommands.
        action: the work.
        prog: how the command is called, for the usage line.
        description: what `--help` says first, usually the module's docstring.
        defaults: a `config_type` with the options' defaults, by default its own.
    """
    given = {} if defaults is None else {"default": defaults}
    config = tyro.cli(config_type, prog=prog, description=description, **given)
    # Said only here, where the failure's frames are gone and their progress bars closed.
    failure = _failure(action, config)
    if failure is not None:
        # Zarr's event loop would complain of a write that was cut off, and at the exit the writes
        # that waited for that one.
        logging.getLogger("asyncio").disabled = True
        atexit.register(setattr, sys, "unraisablehook", lambda unraisable: None)
        with contextlib.suppress(OSError):  # stderr may lie on the disk that is full
            print(failure.said, file=sys.stderr, flush=True)
        sys.exit(failure.code)


class _Failure(NamedTuple):
    code: int
    said: str


def _failure(action: Callable[[Any], None], config: Any) -> _Failure | None:
    """Runs the action; how it failed, if it did."""
    try:
        with _stopping():
            action(config)
    except InputError as error:
        return _Failure(2, f"error: {error}")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _Failure(
            2,
            f"error: {error.strerror or error}{where}: what was written before is whole; "
            f"once that is mended, the same command goes on.",
        )
    except _Terminated:
        return _Failure(128 + signal.SIGTERM, "\nStopped; the same command goes on.")
    except KeyboardInterrupt:
        return _Failure(128 + signal.SIGINT, "\nInterrupted; the same command goes on.")
    return None


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Lets SIGTERM raise in the main thread, between two steps of Python; the next one kills."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
