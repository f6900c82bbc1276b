import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_cnn.models.formats import tensors_of

WEIGHT = np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2)
DENSE = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([1.5, -2.0, 0.25], np.float32)
LAYERS = {"conv1": [WEIGHT, BIAS], "fc8": [DENSE, BIAS[:2]], "norm": [BIAS, BIAS, BIAS]}


def test_layers_and_their_blobs(caffemodel):
    found = tensors_of(caffemodel(LAYERS))
    assert set(found) == {
        *("conv1.weight", "conv1.bias", "fc8.weight", "fc8.bias"),
        *("norm.weight", "norm.bias", "norm.blob2"),
    }
    for name, array in (("conv1.weight", WEIGHT), ("fc8.weight", DENSE), ("norm.blob2", BIAS)):
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32


def test_v1_layers_with_the_old_shapes_of_four_axes(caffemodel):
    found = tensors_of(caffemodel(LAYERS, v1=True))
    assert found["conv1.weight"].shape == (3, 2, 2, 2)
    assert found["conv1.bias"].shape == (1, 1, 1, 3)
    assert found["fc8.weight"].shape == (1, 1, 2, 3)
    np.testing.assert_array_equal(found["fc8.weight"][0, 0], DENSE)


def test_numbers_one_by_one_doubles_and_unknown_fields(caffe_field):
    alone = b"".join(b"\x2d" + struct.pack("<f", value) for value in BIAS)
    single = caffe_field(7, caffe_field(1, 3)) + alone + caffe_field(6, b"\0" * 12)
    double = caffe_field(7, caffe_field(1, b"\3")) + caffe_field(8, BIAS.astype("<f8").tobytes())
    layer = caffe_field(1, b"ip") + caffe_field(7, single) + caffe_field(7, double)
    unknown = caffe_field(3, b"data") + b"\x29" + b"\0" * 8 + caffe_field(5, 1)
    found = tensors_of(caffe_field(1, b"net") + unknown + caffe_field(100, layer))
    np.testing.assert_array_equal(found["ip.weight"], BIAS)
    np.testing.assert_array_equal(found["ip.bias"], BIAS)
    assert found["ip.bias"].dtype == np.float64


def test_google_protobuf_writes_the_same(caffemodel):
    """The tests' writer against Google's, with the fields of caffe.proto."""
    pool = pytest.importorskip("google.protobuf.descriptor_pool").DescriptorPool()
    from google.protobuf import descriptor_pb2, message_factory

    one, many = 1, 3  # optional, repeated
    int64, float32, text, message = 3, 2, 9, 11
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    for name, fields in {
        "BlobShape": [("dim", 1, many, int64, None)],
        "BlobProto": [("shape", 7, one, message, "BlobShape"), ("data", 5, many, float32, None)],
        "LayerParameter": [("name", 1, one, text, None), ("blobs", 7, many, message, "BlobProto")],
        "NetParameter": [
            ("name", 1, one, text, None),
            ("layer", 100, many, message, "LayerParameter"),
        ],
    }.items():
        kind = file.message_type.add(name=name)
        for field, number, label, type_, of in fields:
            added = kind.field.add(name=field, number=number, label=label, type=type_)
            if of:
                added.type_name = f".caffe.{of}"
            elif label == many:
                added.options.packed = True
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))()
    net.name = "net"
    for name, blobs in LAYERS.items():
        layer = net.layer.add(name=name)
        for blob in blobs:
            added = layer.blobs.add()
            added.shape.dim.extend(blob.shape)
            added.data.extend(blob.ravel().tolist())
    found, ours = tensors_of(net.SerializeToString()), tensors_of(caffemodel(LAYERS))
    assert set(found) == set(ours)
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array)


def test_blobs_that_do_not_fit_their_shape_are_refused(caffe_field, unreadable):
    data = caffe_field(5, BIAS.tobytes())
    for blob in (
        caffe_field(7, caffe_field(1, 4)) + data,
        caffe_field(7, caffe_field(1, 2**62)) + data,
        caffe_field(7, caffe_field(1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\1")) + data,
        caffe_field(1, 2) + caffe_field(2, 2) + data,
        caffe_field(7, b""),
        data,
    ):
        layer = caffe_field(1, b"ip") + caffe_field(7, blob)
        with unreadable("12 bytes" if BIAS.tobytes() in blob else "0 bytes", "shape"):
            tensors_of(caffe_field(1, b"net") + caffe_field(100, layer))


def test_two_layers_of_a_name_and_none_are_refused(caffemodel, caffe_field, unreadable):
    with unreadable("two layers", "named ip"):
        tensors_of(2 * caffemodel({"ip": [BIAS]}))
    with unreadable("no tensors"):
        tensors_of(caffe_field(1, b"net") + caffe_field(100, caffe_field(1, b"data")))


@pytest.mark.parametrize("v1", [False, True])
def test_files_cut_short_are_refused_or_lack_layers(v1, caffemodel, unreadable):
    from ppl_cnn.models.formats import ContentError

    whole = caffemodel(LAYERS, v1)
    for kept in range(1, len(whole) - 1):
        try:
            found = tensors_of(whole[:kept])
        except ContentError:
            with unreadable():
                tensors_of(whole[:kept])
        else:
            assert set(found) < set(tensors_of(whole))


def test_the_number_of_fields_is_bounded(unreadable):
    with unreadable("more than 500,000 fields"):
        tensors_of(b"\x0a\0" * 500_001)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from([b"\x0a", b"\x12", b"\xa2\x06"]), st.binary(max_size=200))
def test_any_bytes_give_tensors_or_a_sentence(tag, rest):
    from ppl_cnn.models.formats import ContentError

    sentence = "Tensors."
    try:
        assert tensors_of(tag + rest)
    except ContentError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence
