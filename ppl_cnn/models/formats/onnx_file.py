"""Reader of ONNX files, by the wire format of Protocol Buffers.

These fields are read (onnx/onnx, onnx/onnx.proto) and all others skipped:

    ModelProto         graph = 7, opset_import = 8
    OperatorSetId      domain = 1, version = 2
    Graph              node = 1, initializer = 5, input = 11, output = 12, sparse_initializer = 15
    Node               input = 1, output = 2, name = 3, op_type = 4, attribute = 5, domain = 7,
                       metadata_props = 9 (StringStringEntry: key = 1, value = 2)
    Attribute          name = 1, f = 2, i = 3, s = 4, t = 5, floats = 7, ints = 8, strings = 9,
                       type = 20
    Tensor             dims = 1, data_type = 2, float_data = 4, int32_data = 5, int64_data = 7,
                       name = 8, raw_data = 9, double_data = 10, uint64_data = 11,
                       data_location = 14
    ValueInfo          name = 1, type = 2 (tensor_type = 1: elem_type = 1, shape = 2: dim = 1,
                       dim_value = 1)
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from ppl_cnn.errors import FileError
from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.protobuf import Message

type Attribute = int | float | str | np.ndarray | tuple[int, ...] | tuple[float, ...] | None
"""The value of a node's attribute; None for a kind that no supported operator has."""

TYPES = {
    **{1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32},
    **{7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64},
    16: ml_dtypes.bfloat16,
}
"""Number of an element type in ONNX -> NumPy's type."""

_KINDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}
_AXES = 8


class Node(NamedTuple):
    """An operator of the graph, and the names of the values that it reads and makes."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    """The names of what it reads; an empty one stands for an input that is left out."""
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]
    domain: str
    """The operator set that the operator is from; empty for ONNX's own."""
    metadata: dict[str, str]


class Input(NamedTuple):
    """An input of the graph; a size is None where the file leaves it open."""

    name: str
    sizes: tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxModel:
    """The graph of an ONNX file, in its own names."""

    opset: int
    """The version of ONNX's own operator set."""
    nodes: tuple[Node, ...]
    """The operators, each after those whose results it reads."""
    constants: dict[str, np.ndarray]
    """The initializers by name."""
    inputs: tuple[Input, ...]
    """The inputs that are no initializers."""
    outputs: tuple[str, ...]


def open_model(path: Path) -> OnnxModel:
    """The graph of an ONNX file.

    Raises:
        FileError: the file is missing, damaged or no ONNX file.
    """
    try:
        return read_onnx(path.read_bytes())
    except FileNotFoundError:
        raise FileError(f"{path} is missing.", path=path) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}).", path=path) from None
    except ContentError as error:
        raise FileError(f"{path} {error.fault}", path=path) from None


def read_onnx(content: bytes) -> OnnxModel:
    """The graph of an ONNX file.

    Raises:
        ContentError: the content is damaged or no ONNX file, its weights lie in another file, or a
            tensor's numbers don't fit its shape.
    """
    message = Message("ONNX file")
    opsets: dict[str, int] = {}
    graph = None
    for number, value in message.fields(memoryview(content)):
        if number == 7 and isinstance(value, memoryview):
            graph = value
        elif number == 8 and isinstance(value, memoryview):
            found = dict(message.fields(value))
            version = found.get(2, 1)
            opsets[_text(found.get(1, b""))] = version if isinstance(version, int) else 1
    if graph is None:
        raise ContentError("is no ONNX file: it has no graph.")
    nodes, constants, inputs, outputs = [], {}, [], []
    for number, value in message.fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            nodes.append(_node(message, value))
        elif number == 5:
            name, array = _tensor(message, value)
            constants[name] = array
        elif number == 11:
            inputs.append(_input(message, value))
        elif number == 12:
            outputs.append(_input(message, value).name)
        elif number == 15:
            raise ContentError("has sparse weights. Export it with dense ones.")
    own = tuple(each for each in inputs if each.name not in constants)
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    return OnnxModel(opset, tuple(nodes), constants, own, tuple(outputs))


def _node(message: Message, part: memoryview) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    attributes: dict[str, Attribute] = {}
    metadata: dict[str, str] = {}
    for number, value in message.fields(part):
        if number in texts:
            texts[number].append(_text(value))
        elif number == 5 and isinstance(value, memoryview):
            name, attribute = _attribute(message, value)
            attributes[name] = attribute
        elif number == 9 and isinstance(value, memoryview):
            entry = dict(message.fields(value))
            metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
    name, operator, domain = ("".join(texts[number][-1:]) for number in (3, 4, 7))
    domain = "" if domain == "ai.onnx" else domain
    return Node(operator, name, tuple(texts[1]), tuple(texts[2]), attributes, domain, metadata)


def _attribute(message: Message, part: memoryview) -> tuple[str, Attribute]:
    name, kind = "", None
    found: dict[str, Attribute] = {}
    floats: list[float] = []
    ints: list[int] = []
    for number, value in message.fields(part):
        if number == 1:
            name = _text(value)
        elif number == 20 and isinstance(value, int):
            kind = _KINDS.get(value, "")
        elif number == 3 and isinstance(value, int):
            found["i"] = _signed(value)
        elif number == 8:
            ints += [_signed(each) for each in _integers(message, value)]
        elif isinstance(value, memoryview) and number == 2:
            found["f"] = _floats(message, value)[0]
        elif isinstance(value, memoryview) and number == 4:
            found["s"] = _text(value)
        elif isinstance(value, memoryview) and number == 5:
            found["t"] = _tensor(message, value)[1]
        elif isinstance(value, memoryview) and number == 7:
            floats += _floats(message, value)
    found |= {"floats": tuple(floats)} if floats else {}
    found |= {"ints": tuple(ints)} if ints else {}
    if kind is None:  # old writers leave the type out
        return name, next(iter(found.values()), None)
    # Numbers that are zero, and empty lists, need not be written.
    absent: dict[str, Attribute] = {"f": 0.0, "i": 0, "s": "", "floats": (), "ints": ()}
    return name, found.get(kind, absent.get(kind))


def _tensor(message: Message, part: memoryview) -> tuple[str, np.ndarray]:
    """The name and the array of a TensorProto."""
    name, kind, raw = "", 0, None
    sizes: list[int] = []
    numbers: dict[int, list[int]] = {5: [], 7: [], 11: []}
    packed = {4: bytearray(), 10: bytearray()}
    for number, value in message.fields(part):
        if number == 1:
            sizes += _integers(message, value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = _text(value)
        elif number == 14 and value == 1:
            raise ContentError(
                f"keeps its weights in another file, as {shown(name)}. Export it as one file "
                f"(external_data=False)."
            )
        elif number == 9 and isinstance(value, memoryview):
            raw = value
        elif number in packed and isinstance(value, memoryview):
            packed[number] += value
        elif number in numbers:
            numbers[number] += _integers(message, value)
    if kind not in TYPES:
        raise ContentError(f"has the tensor {shown(name)} of a type that isn't supported ({kind}).")
    with np.errstate(all="ignore"):  # numbers of another type than the tensor's
        flat = _flat(np.dtype(TYPES[kind]), raw, packed, numbers)
    if len(sizes) > _AXES or math.prod(sizes) != len(flat) or any(size >= 2**63 for size in sizes):
        raise ContentError(
            f"has the tensor {shown(name)} of {len(flat):,} numbers, which do not fit its shape "
            f"{tuple(sizes[:_AXES])}."
        )
    return name, flat.reshape(sizes)


def _flat(
    kind: np.dtype,
    raw: memoryview | None,
    packed: dict[int, bytearray],
    numbers: dict[int, list[int]],
) -> np.ndarray:
    """The numbers of a tensor, from whichever field they are in."""
    if raw is not None:
        whole = len(raw) - len(raw) % kind.itemsize
        return np.frombuffer(raw[:whole], kind.newbyteorder("<")).astype(kind)
    for field, itemsize in ((4, 4), (10, 8)):
        if packed[field]:
            whole = len(packed[field]) - len(packed[field]) % itemsize
            return np.frombuffer(bytes(packed[field][:whole]), f"<f{itemsize}").astype(kind)
    # The bits of a half are an integer in `int32_data`.
    if kind.itemsize == 2 and kind.kind not in "iu":
        return np.asarray(numbers[5], np.uint64).astype(np.uint16).view(kind)
    every = numbers[5] + numbers[7] + numbers[11]
    return np.asarray(every, np.uint64).astype(kind)


def _input(message: Message, part: memoryview) -> Input:
    """The name and the shape of a ValueInfoProto."""
    name, sizes = "", []
    for number, value in message.fields(part):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for dim in _inside(message, value, (1, 2)):
                size = dict(message.fields(dim)).get(1)
                sizes.append(size if isinstance(size, int) and 0 < size < 2**31 else None)
    return Input(name, tuple(sizes))


def _inside(
    message: Message, part: int | memoryview, path: tuple[int, ...]
) -> Iterator[memoryview]:
    """The messages in field 1 of the message that a path of fields leads to."""
    if not isinstance(part, memoryview):
        return
    wanted, rest = (path[0], path[1:]) if path else (1, None)
    for number, value in message.fields(part):
        if number == wanted and isinstance(value, memoryview):
            if rest is None:
                yield value
            else:
                yield from _inside(message, value, rest)


def _integers(message: Message, value: int | memoryview) -> list[int]:
    """The integers of a field, packed or not."""
    return [value] if isinstance(value, int) else message.numbers(value)


def _floats(message: Message, value: memoryview) -> list[float]:
    if not value or len(value) % 4:
        raise message.fault("it is cut short or damaged")
    return list(struct.unpack(f"<{len(value) // 4}f", value))


def _signed(value: int) -> int:
    """A 64-bit integer in two's complement."""
    value &= 2**64 - 1
    return value - 2**64 if value >> 63 else value


def _text(value: int | memoryview | bytes) -> str:
    return "" if isinstance(value, int) else bytes(value[:4000]).decode("utf-8", "replace")
