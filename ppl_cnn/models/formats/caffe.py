"""Reader of Caffe's `.caffemodel`, by the wire format of Protocol Buffers.

These fields are read (BVLC/caffe, src/caffe/proto/caffe.proto) and all others skipped:

    NetParameter       layers = 2 (V1LayerParameter, deprecated), layer = 100 (LayerParameter)
    LayerParameter     name = 1, type = 2 (text), blobs = 7, pooling_param = 121
    V1LayerParameter   layer = 1 (V0LayerParameter), name = 4, type = 5 (number), blobs = 6,
                       pooling_param = 19
    V0LayerParameter   name = 1, type = 2 (text), pool = 11, blobs = 50
    PoolingParameter   pool = 1 (0 for the maximum, 1 for the mean)
    BlobProto          num, channels, height, width = 1 ... 4 (deprecated), data = 5 (float),
                       shape = 7 (BlobShape), double_data = 8
    BlobShape          dim = 1
"""

import math
from typing import NamedTuple

import numpy as np

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.protobuf import Message

_V1_TYPES = {
    **{3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 14: "InnerProduct"},
    **{15: "LRN", 17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax", 21: "SoftmaxWithLoss"},
    **{22: "Split", 23: "TanH", 25: "Eltwise", 26: "Power", 34: "MVN", 35: "AbsVal", 38: "Exp"},
    **{2: "BNLL", 39: "Deconvolution"},
}
"""Numbers of types in V1 that networks compute with -> the types' names today."""
_V0_TYPES = {
    **{"conv": "Convolution", "innerproduct": "InnerProduct", "pool": "Pooling", "lrn": "LRN"},
    **{"relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "TanH", "concat": "Concat", "bnll": "BNLL"},
}
"""Names of types in V0 that networks compute with -> the types' names today."""


class CaffeLayer(NamedTuple):
    """A layer of a caffemodel."""

    name: str
    type: str
    """Caffe's name of the type, such as "InnerProduct"; "" if the file gives none that is known."""
    blobs: tuple[np.ndarray, ...] = ()
    pools_means: bool = False
    """Whether a Pooling layer takes means, not maxima."""


class _Fields(NamedTuple):
    """The fields of a layer's message in one of the three versions."""

    name: int
    type: int
    blobs: int
    pooling: int


_LAYERS = {2: _Fields(4, 5, 6, 19), 100: _Fields(1, 2, 7, 121)}
"""Field of a layer in NetParameter -> the layer's fields."""
_V0 = _Fields(1, 2, 50, 11)


def read_caffemodel(content: bytes) -> tuple[dict[str, np.ndarray], tuple[CaffeLayer, ...]]:
    """The blobs of a network's layers by name, and its layers.

    Blob 0 of layer X is X.weight, blob 1 is X.bias. V0, V1 and today's layers are read.

    Raises:
        ContentError: the content is damaged, a blob's numbers do not fit its shape, or two layers
            with blobs have one name.
    """
    message = Message("caffemodel")
    layers = tuple(
        _layer(message, part, _LAYERS[number])
        for number, part in message.fields(memoryview(content))
        if number in _LAYERS and isinstance(part, memoryview)
    )
    tensors: dict[str, np.ndarray] = {}
    for layer in layers:
        for index, blob in enumerate(layer.blobs):
            key = f"{layer.name}.{('weight', 'bias')[index] if index < 2 else f'blob{index}'}"
            if key in tensors:
                raise ContentError(f"has two layers with blobs named {shown(layer.name)}.")
            tensors[key] = blob
    return tensors, layers


def _layer(message: Message, part: memoryview, fields: _Fields) -> CaffeLayer:
    """The layer of a message of one version."""
    name, kind, blobs, means = "", "", [], False
    for number, value in message.fields(part):
        match value:
            case memoryview() if number == 1 and fields is _LAYERS[2]:
                return _layer(message, value, _V0)
            case memoryview() if number == fields.name:
                name = bytes(value[:1000]).decode("utf-8", "replace")
            case _ if number == fields.type:
                kind = _type(value, fields)
            case memoryview() if number == fields.blobs:
                blobs.append(_blob(message, value))
            case memoryview() if number == fields.pooling:
                means = any(found == (1, 1) for found in message.fields(value))
            case 1 if number == fields.pooling:
                means = True
    return CaffeLayer(name, kind, tuple(blobs), means)


def _type(value: int | memoryview, fields: _Fields) -> str:
    """The type's name today."""
    if isinstance(value, int):
        return _V1_TYPES.get(value, "")
    name = bytes(value[:100]).decode("utf-8", "replace")
    return _V0_TYPES.get(name, "") if fields is _V0 else name


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
