"""A writer of ONNX files, independent of the reader."""

import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

KINDS = {"float32": 1, "int64": 7, "float64": 11, "float16": 10, "int32": 6, "bool": 9}


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message of Protocol Buffers."""

    def varint(rest: int) -> bytes:
        head = bytearray()
        while rest > 0x7F:
            head.append(rest & 0x7F | 0x80)
            rest >>= 7
        return bytes(head) + bytes([rest])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, array: Any) -> bytes:
    """A TensorProto."""
    array = np.asarray(array)
    sizes = b"".join(field(1, size) for size in array.shape)
    kind = field(2, KINDS[array.dtype.name])
    return sizes + kind + field(8, name.encode()) + field(9, array.tobytes())


def node(
    operator: str,
    inputs: str,
    outputs: str,
    name: str = "",
    domain: str = "",
    scopes: list[str] | None = None,
    **attributes: Any,
) -> bytes:
    """A NodeProto; the names of its inputs and outputs have spaces between."""
    words = [(1, each) for each in inputs.split(" ")] if inputs else []
    words += [(2, each) for each in outputs.split()]
    words += [(3, name), (4, operator), (7, domain)]
    content = b"".join(field(number, word.encode()) for number, word in words)
    for key, value in attributes.items():
        content += field(5, _attribute(key, value))
    if scopes is not None:
        key_of_scopes = field(1, b"pkg.torch.onnx.name_scopes")
        content += field(9, key_of_scopes + field(2, repr(scopes).encode()))
    return content


def _attribute(name: str, value: Any) -> bytes:
    start = field(1, name.encode())
    if isinstance(value, str):
        return start + field(4, value.encode()) + field(20, 3)
    if isinstance(value, int):
        return start + field(3, value % 2**64) + field(20, 2)
    if isinstance(value, float):
        return start + b"\x15" + struct.pack("<f", value) + field(20, 1)
    if isinstance(value, np.ndarray):
        return start + field(5, tensor("", value)) + field(20, 4)
    if all(isinstance(each, int) for each in value):
        integers = b"".join(field(8, each % 2**64) for each in value)
        return start + integers + field(20, 7)
    floats = field(7, struct.pack(f"<{len(value)}f", *value))
    return start + floats + field(20, 6)


def content(
    nodes: Iterable[bytes],
    constants: Mapping[str, Any] = MappingProxyType({}),
    image: tuple[int | None, ...] = (1, 3, 8, 8),
    opset: int = 17,
    **others: Any,
) -> bytes:
    """A ModelProto whose input x is an image, and whose output is y."""

    def value(name: str, sizes: tuple[int | None, ...]) -> bytes:
        dims = b"".join(
            field(1, field(2, b"n") if size is None else field(1, size)) for size in sizes
        )
        kind = field(1, field(1, 1) + field(2, dims))
        return field(1, name.encode()) + field(2, kind)

    graph = b"".join(field(1, each) for each in nodes)
    graph += b"".join(field(5, tensor(name, array)) for name, array in constants.items())
    inputs = {"x": image, **others.get("inputs", {})}
    graph += b"".join(field(11, value(*each)) for each in inputs.items())
    graph += field(12, value(others.get("output", "y"), (1,)))
    return field(1, 8) + field(7, graph) + field(8, field(2, opset))
