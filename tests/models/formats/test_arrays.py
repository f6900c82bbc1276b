import io
import json
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppl_cnn.models.formats import read_tensors, tensors_of

ARRAYS = {
    "conv1.kernel": np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3),
    "conv1.bias": np.array([1.5, -2.0, 0.25]),
    "steps": np.array(7),
}


def npz(write, **arrays):
    file = io.BytesIO()
    write(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz(write):
    found = tensors_of(npz(write, **ARRAYS))
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    hnp.arrays(
        st.sampled_from(["<f2", "<f4", ">f4", "<f8", "<i8", "u1", "?"]),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
    )
)
def test_npz_arrays_come_back_as_they_were(array):
    for view in (array, array.T):
        found = tensors_of(npz(np.savez, a=view))["a"]
        np.testing.assert_array_equal(found, view)
        assert found.dtype == (np.float32 if view.dtype == np.float16 else view.dtype)


def member(header: bytes, data: bytes = b"\0" * 8, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


HEADER = b"{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (member(HEADER % (b"<f4", b"(3,)")), "8 bytes of numbers"),
        (member(HEADER % (b"<f4", b"(999999999999,)")), "8 bytes of numbers"),
        (member(HEADER % (b"<f4", b"(0,)"), b""), "0 bytes of numbers"),
        (member(HEADER % (b"|O", b"(1,)")), "not an intact pickle"),
        (member(HEADER % (b"<c8", b"(1,)")), "not an array of numbers"),
        (member(HEADER % (b"<f4", b"(__import__('os').abort(),)")), "not an array of numbers"),
        (member(b"(" * 60_000), "not an array of numbers"),
        (member(b"")[:9], "a.npy, which is not a NumPy array"),
        (b"text", "a.npy, which is not a NumPy array"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_npz_members_that_are_no_arrays_are_refused(content, words, unreadable):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", content)
    with unreadable(words):
        tensors_of(file.getvalue())


def test_npz_of_the_later_versions():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", member(HEADER % (b"<f4", b"(2L, 1L)"), version=2))
    np.testing.assert_array_equal(tensors_of(file.getvalue())["a"], np.zeros((2, 1)))


def test_other_zip_archives_bombs_and_odd_compression_are_refused(unreadable):
    with unreadable("more than 16 times"):
        tensors_of(npz(np.savez_compressed, a=np.zeros(10**6)))
    for compression, name, words in (
        (zipfile.ZIP_LZMA, "a.npy", "a.npy of unsupported compression"),
        (zipfile.ZIP_STORED, "text.txt", "neither PyTorch nor NumPy"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            archive.writestr(name, b"abc")
        with unreadable(words):
            tensors_of(file.getvalue())


def test_a_changed_byte_of_an_npz_is_refused_or_changes_no_number():
    from ppl_cnn.models.formats import ContentError

    whole = npz(np.savez, a=ARRAYS["conv1.kernel"])
    for at in range(len(whole)):
        content = bytearray(whole)
        content[at] ^= 0x10
        try:
            for found in tensors_of(bytes(content)).values():
                np.testing.assert_array_equal(found, ARRAYS["conv1.kernel"])
        except ContentError as error:
            assert "\n" not in str(error)  # noqa: PT017


def safe(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_safetensors(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(ARRAYS, path)
    found = read_tensors(path)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_safetensors_in_half_and_in_bfloat16():
    half = np.array([0.5, -3.0], np.float16).tobytes()
    brain = (np.array([0.5, -3.0], np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    records = {
        "half": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "brain": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [4, 8]},
    }
    found = tensors_of(safe(records, half + brain))
    for name, shape in (("half", (2,)), ("brain", (2, 1))):
        assert found[name].dtype == np.float32
        assert found[name].shape == shape
        assert found[name].ravel().tolist() == [0.5, -3.0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            safe({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8),
            "safetensors",
        ),
        (safe({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}), "safetensors"),
        (safe({"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}), "empty"),
        (
            safe({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
            "a of the unsupported type",
        ),
        (safe(b'{"a":' * 10_000), "safetensors"),
        (struct.pack("<Q", 2**31) + b"{", "safetensors"),
        (safe({}), "no tensors"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_safetensors_that_are_not_intact_are_refused(content, words, unreadable):
    with unreadable(words):
        tensors_of(content)
