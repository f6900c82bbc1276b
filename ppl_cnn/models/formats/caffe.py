"""Reader of Caffe's `.caffemodel`, by the wire format of Protocol Buffers.

These fields are read (BVLC/caffe, src/caffe/proto/caffe.proto) and all others skipped:

    NetParameter       layers = 2 (V1LayerParameter, deprecated), layer = 100 (LayerParameter)
    LayerParameter     name = 1, blobs = 7
    V1LayerParameter   name = 4, blobs = 6
    BlobProto          num, channels, height, width = 1 ... 4 (deprecated), data = 5 (float),
                       shape = 7 (BlobShape), double_data = 8
    BlobShape          dim = 1
"""

import math

import numpy as np

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.protobuf import Message

_LAYERS = {2: (4, 6), 100: (1, 7)}
"""Field of a layer in NetParameter -> the layer's fields of name and blobs."""


def read_caffemodel(content: bytes) -> dict[str, np.ndarray]:
    """The blobs of a network's layers by name: blob 0 of layer X is X.weight, blob 1 is X.bias.

    Raises:
        ContentError: the content is damaged, a blob's numbers do not fit its shape, or two layers
            with blobs have one name.
    """
    message = Message("caffemodel")
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
            sizes += message.numbers(value)
    return sizes
