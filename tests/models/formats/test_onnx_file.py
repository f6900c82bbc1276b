import contextlib
import random
import struct

import numpy as np
import pytest

from ppl_cnn.errors import InputError
from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.onnx_file import read_onnx
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.onnx.network import declared

ARRAY = np.arange(6).reshape(2, 3)


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int64", "int32", "bool"])
def test_tensors_of_raw_bytes(kind, onnx_content):
    model = read_onnx(onnx_content([], {"w": ARRAY.astype(kind)}))
    np.testing.assert_array_equal(model.constants["w"], ARRAY.astype(kind))
    assert model.constants["w"].dtype == kind


@pytest.mark.parametrize(
    ("kind", "field", "data", "expected"),
    [
        (1, 4, struct.pack("<2f", 1.5, -2.0), np.array([1.5, -2], np.float32)),
        (11, 10, struct.pack("<2d", 1.5, -2.0), np.array([1.5, -2])),
        (7, 7, b"\x03" + b"\xff" * 9 + b"\x01", np.array([3, -1])),
        (6, 5, b"\x03\x80\x01", np.array([3, 128], np.int32)),
        (10, 5, b"\x80\x78\x80\x80\x03", np.array([1, -2], np.float16)),
        (3, 5, b"\x03\x05", np.array([3, 5], np.int8)),
        (7, 7, b"\x03" + b"\xff" * 9 + b"\x7f", np.array([3, -1])),  # 70 bits
        (6, 4, struct.pack("<2f", np.inf, 2.0), np.array([-(2**31), 2], np.int32)),
        (1, 10, struct.pack("<2d", 1e300, -2.0), np.array([np.inf, -2], np.float32)),
    ],
)
def test_tensors_of_typed_fields(kind, field, data, expected, caffe_field):
    tensor = caffe_field(1, b"\2") + caffe_field(2, kind) + caffe_field(8, b"w")
    graph = caffe_field(5, tensor + caffe_field(field, data))
    model = read_onnx(caffe_field(7, graph) + caffe_field(8, caffe_field(2, 13)))
    np.testing.assert_array_equal(model.constants["w"], expected)
    assert (model.opset, model.constants["w"].dtype) == (13, expected.dtype)


def test_nodes(onnx_node, onnx_content):
    given = {"i": -2, "f": 0.5, "s": "SAME", "ints": (1, -1), "floats": (0.5, 2.0), "t": ARRAY}
    node = onnx_node("Conv", "x  b", "y z", "/conv1/Conv", scopes=["", "conv1"], **given)
    (found,) = read_onnx(onnx_content([node])).nodes
    assert found[:4] == ("Conv", "/conv1/Conv", ("x", "", "b"), ("y", "z"))
    np.testing.assert_array_equal(found.attributes.pop("t"), ARRAY)
    assert found.attributes == {name: given[name] for name in ("i", "f", "s", "ints", "floats")}
    assert found.metadata == {"pkg.torch.onnx.name_scopes": "['', 'conv1']"}


def test_inputs_are_those_without_weights(onnx_content):
    content = onnx_content([], {"w": ARRAY}, image=(None, 3, 8, None), inputs={"w": (2, 3)})
    (image,) = read_onnx(content).inputs
    assert (image.name, image.sizes) == ("x", (None, 3, 8, None))


def test_weights_in_another_file_are_refused(caffe_field):
    tensor = caffe_field(1, 2) + caffe_field(2, 1) + caffe_field(8, b"conv1.weight")
    tensor += caffe_field(13, b"") + caffe_field(14, 1)
    with pytest.raises(ContentError, match=r"another file, as conv1\.weight.*external_data=False"):
        read_onnx(caffe_field(7, caffe_field(5, tensor)))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ([(1, 3), (2, 1), (8, b"w"), (9, b"\0" * 8)], "w of 2 numbers"),
        ([(1, 2), (2, 8), (8, b"w")], "type"),
        ([(1, 2**62), (1, 4), (2, 1), (8, b"w")], "do not fit"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensor, words, caffe_field):
    content = b"".join(caffe_field(*each) for each in tensor)
    with pytest.raises(ContentError, match=words):
        read_onnx(caffe_field(7, caffe_field(5, content)))


def test_damaged_files_never_end_in_another_error(onnx_node, onnx_content):
    """Whichever bytes are changed, left out or repeated: a network or an `InputError`."""
    constants = {"w": np.ones((4, 3, 3, 3), np.float32), "s": np.asarray([1, -1], np.int64)}
    nodes = [
        onnx_node("Conv", "x w", "c", "/conv1/Conv", pads=(1, 1, 1, 1), strides=(2, 2)),
        onnx_node("Relu", "c", "r", scopes=["", "relu"]),
        onnx_node("Reshape", "r s", "y"),
    ]
    intact, draw = onnx_content(nodes, constants), random.Random(0)
    for _ in range(400):
        content = bytearray(intact)
        for _ in range(draw.choice((1, 2, 4))):
            at, length = draw.randrange(len(content)), draw.choice((1, 1, 4))
            match draw.randrange(3):
                case 0:
                    content[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, content[at] ^ 4))
                case 1:
                    del content[at : at + length]
                case 2:
                    content[at:at] = content[at : at + length] * draw.choice((1, 5))
        with contextlib.suppress(InputError):
            declared(read_onnx(bytes(content)), "net", _raw)


def _raw(channels):
    return Preprocessing((0.0,) * channels, (1.0,) * channels, "RGB")
