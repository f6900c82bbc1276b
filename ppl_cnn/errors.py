"""The errors that tell a user what to change. They import nothing of the package.

A message says what was wrong, what was received and what to do, in one or two short sentences. It
names a function's arguments in backticks, alone (`draws`) or with a value (`draws=2000`); a command
prints them as its options (`--draws`, `--draws 2000`).
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """What the user gave can't be used; the base of the errors below.

    The message says what was wrong, what was received and what to do. Commands print it and exit
    with 2. Programs tell kinds apart by the subclass and its attributes, not by the words.

    Examples:
        >>> import ppl_cnn
        >>> try:
        ...     ppl_cnn.WhiteNoise(-1.0)
        ... except ppl_cnn.InputError as error:
        ...     print(type(error).__name__)
        ArgumentError
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors pass between processes, which Python's own way can't do for keywords."""
        return _again, (type(self), self.args, vars(self))


def _again(kind: type[InputError], args: tuple[Any, ...], attributes: dict[str, Any]) -> InputError:
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class ArgumentError(InputError):
    """An argument's value can't be used, whatever else is given.

    Args:
        message: what is wrong, and what would be right.
        argument: the argument's name.
    """

    def __init__(self, message: str, *, argument: str) -> None:
        super().__init__(message)
        self.argument = argument


class UnknownNameError(InputError):
    """There is nothing of that name: no such kernel, layer, class, data set or model.

    Args:
        message: what is wrong, and what would be right.
        name: the name that was given.
        known: the names that there are, as far as they can be listed.
    """

    def __init__(self, message: str, *, name: str, known: Collection[str] = ()) -> None:
        super().__init__(message)
        self.name, self.known = name, tuple(known)


class FileError(InputError):
    """A file or folder is missing, damaged, or not of the kind that was expected.

    Args:
        message: what is wrong, and what would be right.
        path: the file or folder.
    """

    def __init__(self, message: str, *, path: str | Path) -> None:
        super().__init__(message)
        self.path = Path(path)


class MismatchError(InputError):
    """Things that were given don't fit each other: weights and network, batch and classes."""


class RunFolderError(FileError):
    """A run's folder can't be used: another run made it, writes to it now, or lost a part of it."""


_ARGUMENT = re.compile(r"`(\w+)(?:=([^`]*))?`")


def with_options(text: str, options: Collection[str] | None = None) -> str:
    """A message with its arguments as a command's options: `draws=9` becomes --draws 9.

    Args:
        text: the message; arguments stand in backticks.
        options: the arguments that the command has options for; by default all.

    Examples:
        >>> with_options("Give `target_accept=0.9`, or another `seed`.")
        'Give --target-accept 0.9, or another --seed.'
    """

    def one(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if options is not None and name not in options:
            return found[0]
        flag = f"--{name.replace('_', '-')}"
        return flag if value is None else f"{flag} {value}"

    return _ARGUMENT.sub(one, text)


def unknown(what: str, name: Any, known: Collection[str]) -> UnknownNameError:
    """An error that lists what there is: Unknown kernel 'hm'. Known: split, tempered, hmc, nuts.

    Args:
        what: the kind of thing, such as "kernel".
        name: the name that was given.
        known: the names that there are.
    """
    return UnknownNameError(
        f"Unknown {what} {name!r}. Known: {', '.join(known)}.", name=str(name), known=known
    )


def one_line(error: Exception) -> str:
    """An exception's type and the first line of its text, for the end of a sentence."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(".: ")


def shown(path: str | Path) -> str:
    """A path as text on one line: what can't be printed, or isn't UTF-8, is escaped.

    Examples:
        >>> shown("two\\nlines")
        'two\\\\nlines'
    """
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """A text on one line: line breaks, control characters and bytes that aren't UTF-8 are escaped.

    Examples:
        >>> printable("dog\\ncat")
        'dog\\\\ncat'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
