"""Reader of Caffe's `.caffemodel`, by the wire format of Protocol Buffers.

These fields are read (BVLC/caffe, src/caffe/proto/caffe.proto) and all others skipped:

    NetParameter       layers = 2 (V1LayerParameter, deprecated), layer = 100 (LayerParameter)
    LayerParameter     name = 1, blobs = 7
    V1LayerParameter   name = 4, blobs = 6
    BlobProto          num, channels, height, width = 1 ... 4 (deprecated), data = 5 (float),
                       shape = 7 (BlobShape), double_data = 8
    BlobShape          dim = 1

Source of the wire format: protobuf.dev/programming-guides/encoding.
"""

import math
from collections.abc import Iterator

import numpy as np

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown

FIELDS = 500_000
"""Largest number of fields; published files have some thousands, as numbers are packed."""

_LAYERS = {2: (4, 6), 100: (1, 7)}
"""Field of a layer in NetParameter -> the layer's fields of name and blobs."""


def read_caffemodel(content: bytes) -> dict[str, np.ndarray]:
    """The blobs of a network's layers by name: blob 0 of layer X is X.weight, blob 1 is X.bias.

    Raises:
        ContentError: the content is damaged, a blob's numbers do not fit its shape, or two layers
            with blobs have one name.
    """
    message = Message()
    tensors: dict[str, np.ndarray] = {}
    for number, layer in message.fields(memoryview(content)):
        if number not in _LAYERS or not isinstance(layer, memoryview):
            continue
        name_field, blobs_field = _LAYERS[number]
        name, blobs = "", []
        for inner, value in message.fields(layer):
            if inner == name_field and isinstance(value, memoryview):
                name = bytes(value[:1000]).decode("utf-8", "replace")
            elif inner == blobs_field and isinstance(value, memoryview):
                blobs.append(_blob(message, value))
        for index, blob in enumerate(blobs):
            key = f"{name}.{('weight', 'bias')[index] if index < 2 else f'blob{index}'}"
            if key in tensors:
                raise ContentError(f"has two layers with blobs named {shown(name)}.")
            tensors[key] = blob
    return tensors


class Message:
    """Reads the fields of a message and of the messages in it, at most `FIELDS` in all."""

    def __init__(self) -> None:
        self.left = FIELDS
        """The number of fields that may still be read."""

    def fields(self, part: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """The number and value of each field of a message: an integer, or the value's bytes.

        Args:
            part: the bytes of the message.

        Raises:
            ContentError: the message is damaged, or `FIELDS` fields have been read.
        """
        at = 0
        while at < len(part):
            self.left -= 1
            if self.left < 0:
                raise ContentError(f"has more than {FIELDS:,} fields.")
            tag, at = _varint(part, at)
            size = 0
            match tag & 7:
                case 0:
                    value, at = _varint(part, at)
                    yield tag >> 3, value
                    continue
                case 1:
                    size = 8
                case 2:
                    size, at = _varint(part, at)
                case 5:
                    size = 4
                case _:
                    raise ContentError("is not an intact caffemodel: a field has an unknown type.")
            if at + size > len(part):
                raise ContentError("is not an intact caffemodel: it is cut short or damaged.")
            yield tag >> 3, part[at : at + size]
            at += size


def _varint(part: memoryview, at: int) -> tuple[int, int]:
    """The integer at a position (7 bits a byte, lowest first), and the position after it."""
    value = 0
    for index, byte in enumerate(part[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ContentError("is not an intact caffemodel: it is cut short or damaged.")


def _blob(message: Message, part: memoryview) -> np.ndarray:
    """The array of a BlobProto."""
    legacy = dict.fromkeys((1, 2, 3, 4), 0)
    shape: list[int] | None = None
    # Writers usually pack all numbers into one field; a field for each number is as valid.
    numbers = {5: bytearray(), 8: bytearray()}
    for number, value in message.fields(part):
        if number in legacy and isinstance(value, int):
            legacy[number] = value
        elif number in numbers and isinstance(value, memoryview):
            numbers[number] += value
        elif number == 7 and isinstance(value, memoryview):
            shape = _shape(message, value)
    itemsize, data = (8, numbers[8]) if numbers[8] else (4, numbers[5])
    sizes = list(legacy.values()) if shape is None else shape
    if math.prod(sizes) * itemsize != len(data) or not data or len(sizes) > 8:
        raise ContentError(
            f"has a blob of {len(data):,} bytes, which do not fit its shape {tuple(sizes[:8])}."
        )
    return np.frombuffer(data, f"<f{itemsize}").reshape(sizes)


def _shape(message: Message, part: memoryview) -> list[int]:
    """The sizes of a BlobShape, packed or not."""
    if len(part) > 100:
        raise ContentError("has a blob of more than 8 axes.")
    sizes: list[int] = []
    for number, value in message.fields(part):
        if number == 1 and isinstance(value, int):
            sizes.append(value)
        elif number == 1 and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                size, at = _varint(value, at)
                sizes.append(size)
    return sizes
