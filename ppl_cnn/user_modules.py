"""Objects of the user's own modules, which a text names as "package.module:attribute"."""

import importlib
import importlib.util
import re
from collections.abc import Callable
from functools import reduce
from typing import Any

from ppl_cnn.errors import ArgumentError, InputError, UnknownNameError, one_line

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def names_an_object(text: str) -> bool:
    """Whether a text has the form package.module:attribute; the module need not exist.

    Examples:
        >>> names_an_object("mine:generator"), names_an_object("white:10")
        (True, False)
    """
    return _FORM.fullmatch(text) is not None


def has_module(text: str) -> bool:
    """Whether the top package that package.module:attribute names is there to be imported."""
    return importlib.util.find_spec(re.split(r"[.:]", text)[0]) is not None


def named_object(text: str, *, argument: str) -> Any:
    """The object that a text names; its module is imported as Python imports any module.

    Args:
        text: "package.module:attribute".
        argument: the argument that the text was given as, for error messages.

    Raises:
        ArgumentError: the module can't be imported.
        UnknownNameError: the module has no such attribute.
    """
    name, _, attribute = text.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever a user's module raises
        raise ArgumentError(
            f"Module {name!r} can't be imported ({one_line(error)}).", argument=argument
        ) from error
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise UnknownNameError(
            f"Module {name} has no attribute {attribute!r}.", name=attribute
        ) from None


def called(factory: Callable[[], Any], text: str, *, argument: str) -> Any:
    """What a user's factory makes.

    Args:
        factory: a function or class that can be called without arguments.
        text: the text that names it.
        argument: the argument that the text was given as, for error messages.

    Raises:
        ArgumentError: it fails.
    """
    try:
        return factory()
    except InputError:
        raise
    except Exception as error:  # whatever a user's factory raises
        raise ArgumentError(
            f"{text} can't be called without arguments ({one_line(error)}).", argument=argument
        ) from error
