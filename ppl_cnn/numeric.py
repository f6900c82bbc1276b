"""Numbers at the border: NumPy's and JAX's scalars become Python's, and 64 bits become 32.

Networks, runs and training are float32, also where JAX's 64-bit mode is on.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any

from ppl_cnn.errors import ArgumentError

if TYPE_CHECKING:
    from jax import Array

_NARROWER = {"float64": "float32", "int64": "int32", "uint64": "uint32"}


def single(x: "Array") -> "Array":
    """The array in 32 bits if its numbers have 64, or else itself."""
    return x.astype(_NARROWER[x.dtype.name]) if x.dtype.name in _NARROWER else x


def in_float32[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The function, run as if JAX's 64-bit mode were off.

    Weights, stored draws and compiled programs are float32, so that a run has the same bits in
    both modes (`JAX_ENABLE_X64=1`, `numpyro.enable_x64()`).
    """

    @wraps(function)
    def alike(*args: P.args, **kwargs: P.kwargs) -> R:
        import jax

        if not jax.config.read("jax_enable_x64"):
            return function(*args, **kwargs)
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return alike


def plain(value: Any) -> Any:
    """A scalar of NumPy or JAX, or an array without axes, as Python's number; else the value.

    Examples:
        >>> import numpy as np
        >>> plain(np.int64(3)), plain(np.asarray(0.5)), plain("split")
        (3, 0.5, 'split')
    """
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except NotImplementedError:  # a random key of JAX has no number
        return value


def plain_fields(record: Any) -> None:
    """Makes the fields of a frozen dataclass `plain`, and tuples of what its type says are tuples.

    So they can be hashed, compared and written as JSON whatever library they come from.
    """
    for field in fields(record):
        value = getattr(record, field.name)
        if getattr(field.type, "__origin__", None) is tuple and isinstance(value, Iterable):
            made: Any = tuple(map(plain, value))
        else:
            made = plain(value)
        object.__setattr__(record, field.name, made)


def whole(name: str, value: Any) -> int:
    """A whole number, of any library.

    Raises:
        ArgumentError: it is none, such as 2.5, "2" or True; `name` is the argument's name.
    """
    number = plain(value)
    try:
        if not isinstance(number, bool):
            return operator.index(number)
    except TypeError:
        pass
    raise ArgumentError(f"`{name}` must be a whole number, not {_said(value)}.", argument=name)


def real(name: str, value: Any) -> float:
    """A real number, of any library.

    Raises:
        ArgumentError: it is none, such as "2" or 1j; `name` is the argument's name.
    """
    number = plain(value)
    if not isinstance(number, int | float):
        raise ArgumentError(f"`{name}` must be a number, not {_said(value)}.", argument=name)
    return number


def positive(name: str, value: Any) -> float:
    """A positive finite number, of any library.

    Raises:
        ArgumentError: it is none; `name` is the argument's name.
    """
    number = real(name, value)
    if not 0 < number < float("inf"):
        raise ArgumentError(f"`{name}` must be positive and finite, not {value}.", argument=name)
    return number


def _said(value: Any) -> str:
    """What was received, on one line."""
    return " ".join(repr(value).split())
