import gzip

import numpy as np
import pytest

from ppl_cnn import InputError
from ppl_cnn.data.sources.idx import read_idx, read_split


def idx_bytes(array: np.ndarray) -> bytes:
    lengths = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (0,)])
def test_idx_of_any_shape(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx_bytes(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "x.gz", "nothing"), array, strict=True)


GOOD = idx_bytes(np.zeros((2, 3), np.uint8))


def packed(content):
    """Without the time: it would be in the tests' names, which processes must agree on."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no gzip at all", "not a whole gzip file"),
        (packed(GOOD)[:-9], "not a whole gzip file"),
        (packed(GOOD)[:-8] + bytes(8), "not a whole gzip file"),
        (packed(bytes([0, 0, 13]) + GOOD[3:]), r"begins with 00 00 0d 02, and 00 00 08"),
        (packed(b""), "begins with nothing"),
        (packed(GOOD[:4]), "announces"),
        (packed(GOOD[:9]), "announces"),
        (packed(GOOD[:-1]), "announces 6 values and holds 5"),
        (packed(GOOD + b"x"), "announces 6 values and holds 7"),
    ],
)
def test_corrupt_idx_files(tmp_path, content, sentence):
    file = tmp_path / "x.gz"
    file.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as raised:
        read_idx(file, "nothing")
    assert str(file) in str(raised.value)


def test_what_is_missing_is_said_with_what_is_needed(tmp_path):
    with pytest.raises(InputError, match=r"x\.gz isn't there: Debian's package has it\."):
        read_idx(tmp_path / "x.gz", "Debian's package has it")


@pytest.mark.parametrize("packed_files", [True, False])
def test_splits_packed_and_unpacked(tmp_path, packed_files):
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
    labels = (np.arange(12) % 10).astype(np.uint8)
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        content = idx_bytes(array)
        if packed_files:
            (tmp_path / f"t10k-{name}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / f"t10k-{name}").write_bytes(content)
    read_images, read_labels = read_split(tmp_path, "test", "nothing")
    np.testing.assert_array_equal(read_images, images, strict=True)
    np.testing.assert_array_equal(read_labels, labels, strict=True)
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz isn't there: nothing\."):
        read_split(tmp_path, "train", "nothing")
