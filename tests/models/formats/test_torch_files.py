import os
import pickle
import re
import struct
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_cnn.models.formats import read_tensors, tensors_of

GOLDEN = Path(__file__).parent / "golden"
TORCH_PYTHON = os.environ.get("PPL_CNN_TORCH_PYTHON")


def numbers(*shape, dtype=np.float32):
    """0, 1/8, 2/8, ...: exact in half and in bfloat16; as golden/make.py has them."""
    return (np.arange(np.prod(shape), dtype=np.float32) / 8).reshape(shape).astype(dtype)


SHARED = numbers(4, 6)
EXPECTED = {
    "plain": {
        "conv.weight": numbers(3, 2, 2, 2),
        "conv.bias": numbers(3),
        "norm.num_batches_tracked": np.array(7, np.int64),
        "mask": np.array([True, False]),
        "double": numbers(3, dtype=np.float64),
    },
    "halves": {"half": numbers(2, 5), "brain": numbers(2, 5)},
    "views": {
        "all": SHARED,
        "transposed": SHARED.T,
        "strided": SHARED[1::2, 2::3],
        "row": SHARED[2],
    },
    "parallel": {"weight": numbers(2, 3), "bias": numbers(2)},
    "checkpoint": {"fc.weight": numbers(2, 3), "fc.bias": numbers(2)},
}


def check_equal(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("name", EXPECTED)
def test_files_that_pytorch_wrote(name, form):
    check_equal(read_tensors(GOLDEN / f"{name}.{form}.pth"), EXPECTED[name])


ARRAYS = {
    "a.weight": numbers(2, 3),
    "a.bias": numbers(2, dtype=np.float64),
    "count": np.array([7, 2**40]),
}


def test_files_written_by_the_description_of_the_formats(torch_zip, torch_legacy):
    check_equal(tensors_of(torch_zip(ARRAYS)), ARRAYS)
    check_equal(tensors_of(torch_zip(ARRAYS, compression=zipfile.ZIP_DEFLATED)), ARRAYS)
    check_equal(tensors_of(torch_legacy(ARRAYS)), ARRAYS)


def test_files_that_python_2_wrote(torch_legacy):
    content = torch_legacy(ARRAYS)
    for word in (*(name.encode() for name in ARRAYS), b"storage", b"cpu"):
        size = struct.pack("<I", len(word))
        assert b"X" + size + word in content
        content = content.replace(b"X" + size + word, b"T" + size + word)
    check_equal(tensors_of(content), ARRAYS)


def test_views_of_storages_in_the_oldest_legacy_files(torch_legacy, unreadable):
    def view(start, size):
        return b"(X\1\0\0\0v" + b"".join(b"J" + struct.pack("<i", n) for n in (start, size)) + b"t"

    arrays = {"a": numbers(8)}
    content = torch_legacy(arrays, {"a": view(0, 8)})
    check_equal(tensors_of(content), arrays)
    size, stride = b"(\x8a\x08" + struct.pack("<q", 8) + b"t", struct.pack("<q", 1)
    for start in (0, 2, 5):
        part = torch_legacy(arrays, {"a": view(start, 3)})
        part = part.replace(size, size.replace(struct.pack("<q", 8), struct.pack("<q", 3)))
        assert stride in part
        check_equal(tensors_of(part), {"a": arrays["a"][start : start + 3]})
    with unreadable("storage of 3 numbers"):
        tensors_of(torch_legacy(arrays, {"a": view(2, 3)}))
    for start, count in ((6, 3), (-1, 3), (0, 9), (0, -1)):
        with unreadable("other than a storage of numbers"):
            tensors_of(torch_legacy(arrays, {"a": view(start, count)}))


def test_numbers_are_views_of_the_file(torch_zip):
    found = tensors_of(torch_zip({"a": numbers(50, 50)}))["a"]
    assert not found.flags.owndata
    assert not found.flags.writeable


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": (3, 3)}, "shape (3, 3)"),
        ({"offset": 1}, "offset 1"),
        ({"stride": (3, 2)}, "strides (3, 2)"),
        ({"size": (2**40, 2**40)}, "damaged tensor record"),
        ({"size": (10**6,), "stride": (0,)}, "storage of 6 numbers"),
        ({"offset": -1}, "damaged tensor record"),
        ({"stride": (-3, 1)}, "damaged tensor record"),
        ({"size": (2, 3, 1)}, "damaged tensor record"),
        ({"count": 7}, "the storage 0 of 24 bytes, whose tensors need 28"),
        ({"count": 2**40}, "the storage 0 of 24 bytes, whose tensors need 4,398,046,511,104"),
        ({"count": -1}, "other than a storage of numbers"),
        ({"key": "5"}, "lacks the member archive/data/5"),
    ],
)
def test_records_that_do_not_fit_their_storage_are_refused(
    changes, words, torch_zip, torch_dict, torch_record, unreadable
):
    array = numbers(2, 3)
    pickled = torch_dict({"a": torch_record(**{"key": "0", "array": array} | changes)})
    with unreadable(words):
        tensors_of(torch_zip({"a": array}, pickled))


def test_a_whole_module_is_read_without_being_made():
    found = read_tensors(GOLDEN / "module.zip.pth")
    assert {name: array.shape for name, array in found.items()} == {"weight": (2, 3), "bias": (2,)}


def test_a_torchscript_archive_is_refused_with_advice(torch_zip, unreadable):
    with unreadable("TorchScript", "state_dict()"):
        tensors_of(torch_zip(ARRAYS, **{"constants.pkl": b"\x80\x02)."}))


def test_other_machines_and_other_files_are_refused(torch_zip, torch_dict, unreadable):
    with unreadable("big-endian"):
        tensors_of(torch_zip(ARRAYS, byteorder=b"big"))
    with unreadable("no tensors by names"):
        tensors_of(torch_zip({}, b"\x80\x02K\x01."))
    with unreadable("no tensors"):
        tensors_of(torch_zip({}, torch_dict({"epoch": b"K\x01"})))
    with unreadable("tar format"):
        tensors_of(b"pickle".ljust(257, b"\0") + b"ustar".ljust(255, b"\0"))


def test_names_that_meet_without_their_prefix_are_refused(torch_zip, unreadable):
    with unreadable("two tensors named a.bias"):
        tensors_of(torch_zip({"module.a.bias": numbers(1), "a.bias": numbers(1)}))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_damaged_files_are_refused_wherever_they_end(form, unreadable):
    whole = (GOLDEN / f"plain.{form}.pth").read_bytes()
    for kept in range(0, len(whole) - 1, 37):
        with unreadable():
            tensors_of(whole[:kept])


def test_a_changed_number_in_a_zip_file_is_noticed(torch_zip, unreadable):
    content = bytearray(torch_zip(ARRAYS))
    content[content.index(ARRAYS["a.weight"].tobytes()) + 5] ^= 1
    with unreadable("damaged member archive/data/0"):
        tensors_of(bytes(content))


def test_a_zip_bomb_is_refused(torch_zip, unreadable):
    zeros = {"a": np.zeros(10**6, np.float32)}
    with unreadable("more than 16 times"):
        tensors_of(torch_zip(zeros, compression=zipfile.ZIP_DEFLATED))


def test_a_storage_shared_by_many_tensors_is_checked_once(torch_zip, torch_dict, torch_record):
    array = np.zeros(2**22, np.float32)
    one = torch_record("0", array, size=(1,), stride=(1,))
    content = torch_zip({"a": array}, torch_dict({f"t{index}": one for index in range(2000)}))
    begin = time.process_time()
    assert len(tensors_of(content)) == 2000
    assert time.process_time() - begin < 5  # reading it 2,000 times takes 10 s and more


def test_storages_of_the_legacy_format_are_bounded_by_the_file(torch_legacy, unreadable):
    content = torch_legacy({"a": numbers(4)})
    for count in (-1, 5, 2**40, 2**62):
        with unreadable("in the storage at byte"):
            tensors_of(content[:-24] + struct.pack("<q", count) + content[-16:])


def test_no_code_runs(tmp_path, torch_zip, unreadable):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    for protocol in range(2, 6):
        pickled = pickle.dumps({"a": Evil()}, protocol)
        for content in (torch_zip({}, pickled), pickled):
            with unreadable("Python object", "posix.mkdir"):
                tensors_of(content)
    assert not (tmp_path / "made").exists()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_changed_files_give_tensors_or_a_sentence(data):
    from ppl_cnn.models.formats import ContentError

    path = data.draw(st.sampled_from(sorted(GOLDEN.glob("*.pth"))))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    sentence = "Tensors."
    try:
        assert tensors_of(bytes(content))
    except ContentError as error:
        sentence = str(error)
    assert re.fullmatch(r"[^\n]+\.", sentence)


PEER = """
import sys, numpy, torch
random = torch.Generator().manual_seed(int(sys.argv[1]))
def draw(n): return int(torch.randint(n, (1,), generator=random))
kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8,
         torch.int32, torch.int16, torch.int8, torch.bool, torch.uint16, torch.uint32)
state = {}
for index in range(40):
    shape = [1 + draw(5) for _ in range(draw(5))]
    tensor = (torch.randn(shape, generator=random) * 50).abs().to(kinds[draw(len(kinds))])
    axes = torch.randperm(tensor.dim(), generator=random).tolist()
    if draw(2): tensor = tensor.permute(axes)
    if draw(2) and tensor.dim(): tensor = tensor[draw(tensor.shape[0]):, ...]
    if draw(2) and tensor.dim() > 1: tensor = tensor[:, :: 1 + draw(2)]
    if draw(4) == 0 and tensor.is_floating_point(): tensor = torch.nn.Parameter(tensor)
    state[f"t{index}"] = tensor
    if draw(3) == 0: state[f"shared{index}"] = tensor.detach()
torch.save(state, sys.argv[2])
# PyTorch 2.13 can't read these types from the legacy format itself.
state = {name: t for name, t in state.items() if t.dtype not in (torch.uint16, torch.uint32)}
torch.save(state, sys.argv[3], _use_new_zipfile_serialization=False)
for path, out in ((sys.argv[2], sys.argv[4]), (sys.argv[3], sys.argv[5])):
    loaded = torch.load(path, weights_only=True)
    half = (torch.float16, torch.bfloat16)
    numpy.savez(out, **{name: (t.float() if t.dtype in half else t).detach().numpy()
                        for name, t in loaded.items()})
"""


@pytest.mark.skipif(TORCH_PYTHON is None, reason="PPL_CNN_TORCH_PYTHON names no Python")
@pytest.mark.parametrize("seed", range(5))
def test_as_pytorch_reads(seed, tmp_path):
    files = [tmp_path / name for name in ("zip.pth", "legacy.pth", "zip.npz", "legacy.npz")]
    subprocess.run([TORCH_PYTHON, "-c", PEER, str(seed), *files], check=True)
    for file, out in ((files[0], files[2]), (files[1], files[3])):
        with np.load(out) as expected:
            check_equal(read_tensors(file), dict(expected))
