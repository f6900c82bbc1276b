"""One use of an operator: its attributes, and what operators need of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ppl_cnn.models.formats.onnx_file import Attribute

type Operator = Callable[..., Any]
"""A function of a `Call` and of arrays, None for an input that is left out."""

LARGEST = 2**27
"""The largest number of values of an array that a file may have computed from constants."""


class UnsupportedError(Exception):
    """An operator is used in a way that isn't supported; the text says in which."""


class Call(NamedTuple):
    """The attributes of an operator, and the version of its set."""

    attributes: Mapping[str, Attribute]
    opset: int

    def number(self, name: str, default: float) -> float:
        """A number among the attributes."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int | float):
            raise UnsupportedError(f"{name} isn't a number")
        return value

    def whole(self, name: str, default: int) -> int:
        """A whole number among the attributes."""
        return int(self.number(name, default))

    def text(self, name: str, default: str) -> str:
        """A text among the attributes."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, str) else default

    def integers(self, name: str, given: Any = None) -> list[int] | None:
        """Whole numbers that are an attribute or, in later versions, an input; None if neither.

        Raises:
            UnsupportedError: the input is computed from the image.
        """
        value = self.attributes.get(name)
        value = given if value is None else value
        if value is None:
            return None
        if isinstance(value, jnp.ndarray):
            raise UnsupportedError(f"{name} depend on the image")
        return [int(each) for each in np.asarray(value).reshape(-1)]

    def axes(self, rank: int, given: Any = None) -> tuple[int, ...] | None:
        """The axes, counted from the first; None for all."""
        found = self.integers("axes", given)
        return None if found is None else tuple(axis_of(axis, rank) for axis in found)


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the first."""
    if not -rank <= axis < rank:
        raise UnsupportedError(f"axis {axis} of an array of {rank} axes")
    return axis % rank


def library(*values: Any) -> Any:
    """NumPy for constants, which keep their 64-bit integers; JAX for what depends on an image."""
    constant = all(value is None or isinstance(value, np.ndarray | np.generic) for value in values)
    return np if constant else jnp


def aligned(*values: Any) -> list[Any]:
    """The arrays with leading axes of length 1, so that all have as many axes."""
    rank = max(np.ndim(value) for value in values)
    return [
        value.reshape((1,) * (rank - np.ndim(value)) + np.shape(value))
        for value in map(_as_array, values)
    ]


def _as_array(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, np.generic) else value


def checked_size(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape itself.

    Raises:
        UnsupportedError: an array of that shape would be too large.
    """
    if any(not 0 <= size <= LARGEST for size in shape) or math.prod(shape) > LARGEST:
        raise UnsupportedError(f"an array of shape {tuple(shape)}")
    return tuple(shape)
