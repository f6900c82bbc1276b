"""What every command does around its work: parse, run, and turn a failure into one sentence."""

import atexit
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple, cast, get_args, get_type_hints

import docstring_parser
import tyro

from ppl_cnn.errors import InputError, one_line, printable, with_options
from ppl_cnn.options.main import running_as
from ppl_cnn.options.stopping import SAYINGS, Terminated, leave, stopping
from ppl_cnn.options.terminal import flushing, speak_any_text


def run_command(
    options_type: Any,
    action: Callable[[Any], None],
    *,
    prog: str,
    description: str | None,
    defaults: Any = None,
    patience: float = 6.0,
) -> None:
    """Parses the command line, runs an action on its options and exits.

    The process exits with 0, with 2 after one sentence on stderr if the input can't be used or a
    file can't be written, with 130 if it was interrupted (Ctrl-C), with 141 and no word if what
    reads its output has ended, or with 143 if it was told to stop (SIGTERM).

    Args:
        options_type: a dataclass, or a union of dataclasses for subcommands.
        action: the work; it gets an `options_type`.
        prog: how the command is called, for the usage line.
        description: what `--help` prints first, usually the module's docstring.
        defaults: an `options_type` with the options' defaults, by default its own.
        patience: seconds after a signal in which the action may end in order; then the process ends
            all the same. Schedulers kill after 10 at the least, and most after 30.
    """
    speak_any_text()
    for kind in _dataclasses_of(options_type):
        _join_help_lines(kind)
    given = {} if defaults is None else {"default": defaults}
    with flushing():
        options = tyro.cli(
            options_type, prog=running_as.get() or prog, description=description, **given
        )
    # The failure is printed only here, where its frames are gone and their progress bars closed.
    with flushing():
        failure = _failure(action, options, patience)
    if failure is not None and failure.code > 128:
        leave(signal.Signals(failure.code - 128))
    if failure is not None:
        # Zarr's event loop would complain of a write that was cut off, and at the exit the writes
        # that waited for that one.
        logging.getLogger("asyncio").disabled = True
        atexit.register(setattr, sys, "unraisablehook", lambda unraisable: None)
        with contextlib.suppress(OSError):  # stderr may lie on the disk that is full
            print(failure.message, file=sys.stderr, flush=True)
        sys.exit(failure.code)


def flags(options_type: Any) -> set[str]:
    """The names of a command's options: its fields, but for positional ones, as they are called.

    Args:
        options_type: the class of the command's options; a field that is made by another class,
            `tyro.conf.arg(constructor=...)`, counts as that one's fields.
    """
    found = set()
    for name, hint in get_type_hints(options_type, include_extras=True).items():
        extras = getattr(hint, "__metadata__", ())
        made_by = [each for e in extras if (each := getattr(e, "constructor_factory", None))]
        if made_by:
            found |= flags(made_by[0]())
        elif _POSITIONAL not in extras:
            found.add(next((e.name for e in extras if getattr(e, "name", None)), name))
    return found


(_POSITIONAL,) = cast(Any, tyro.conf.Positional)[Any].__metadata__


class _Failure(NamedTuple):
    code: int
    message: str


def _failure(action: Callable[[Any], None], options: Any, patience: float) -> _Failure | None:
    """Runs the action; how it failed, if it did."""
    try:
        with stopping(patience):
            if not getattr(options, "processes", None):  # those join before JAX looks for devices
                _check_platform()
            action(options)
    except InputError as error:
        return _Failure(2, f"error: {printable(with_options(str(error), flags(type(options))))}")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _Failure(
            2,
            f"error: {error.strerror or error}{where}. Existing output is intact. "
            f"Fix the problem and rerun the same command to resume.",
        )
    except Terminated:
        return _Failure(128 + signal.SIGTERM, SAYINGS[signal.SIGTERM])
    except KeyboardInterrupt:
        return _Failure(128 + signal.SIGINT, SAYINGS[signal.SIGINT])
    return None


def _check_platform() -> None:
    """Refuses a platform that the user asks JAX for and that isn't there."""
    name = os.environ.get("JAX_PLATFORMS", "")
    if name in ("", "cpu"):
        return
    import jax

    try:
        jax.devices()
    except Exception as error:  # RuntimeError or AssertionError, by the platform
        raise InputError(
            f"JAX_PLATFORMS={name} asks for a platform that JAX can't use here "
            f"({one_line(error)}). Install what it needs, such as ppl_cnn[cuda12], or set "
            f"JAX_PLATFORMS=cpu."
        ) from error


def _dataclasses_of(options_type: Any) -> list[Any]:
    """The dataclass itself, or those of a union of subcommands."""
    if isinstance(options_type, types.UnionType):
        return [kind for each in get_args(options_type) for kind in _dataclasses_of(each)]
    kind = getattr(options_type, "__origin__", options_type)
    return [kind] if dataclasses.is_dataclass(kind) else []


def _join_help_lines(kind: Any) -> None:
    """Gives fields their docstrings as help, each one paragraph that fits the terminal.

    Tyro keeps the line breaks of a field's docstring where its lines are indented.
    """
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        documented = docstring_parser.parse_from_object(base).params
        texts |= {each.arg_name: each.description for each in documented if each.description}
    for field in dataclasses.fields(kind):
        if field.name in texts and "help" not in field.metadata:
            text = " ".join(texts[field.name].split())
            field.metadata = types.MappingProxyType({**field.metadata, "help": text})
