import gzip

import numpy as np
import pytest

from ppl_cnn.data.sources.idx import read_idx, read_split
from ppl_cnn.errors import FileError


def idx_bytes(array: np.ndarray) -> bytes:
    lengths = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (0,)])
def test_idx_of_any_shape(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx_bytes(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "x.gz", ""), array, strict=True)


GOOD = idx_bytes(np.zeros((2, 3), np.uint8))


def packed(content):
    """Without the time: it would be in the tests' names, which processes must agree on."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"no gzip at all", ("gzip",)),
        (packed(GOOD)[:-9], ("gzip",)),
        (packed(GOOD)[:-8] + bytes(8), ("gzip",)),
        (packed(bytes([0, 0, 13]) + GOOD[3:]), ("00 00 0d 02", "00 00 08")),
        (packed(b""), ("begins with nothing",)),
        (packed(GOOD[:4]), ("0 values", "announces 1")),
        (packed(GOOD[:9]), ("0 values", "announces 2")),
        (packed(GOOD[:-1]), ("5 values", "announces 6")),
        (packed(GOOD + b"x"), ("7 values", "announces 6")),
    ],
)
def test_corrupt_idx_files(tmp_path, content, facts, refused):
    file = tmp_path / "x.gz"
    file.write_bytes(content)
    with refused(file, *facts, kind=FileError, path=file):
        read_idx(file, "")


def test_what_is_missing_is_said_with_what_is_needed(tmp_path, refused):
    file = tmp_path / "x.gz"
    with refused(file, "missing", "Debian's package has it.", kind=FileError, path=file):
        read_idx(file, "Debian's package has it.")


@pytest.mark.parametrize("packed_files", [True, False])
def test_splits_packed_and_unpacked(tmp_path, packed_files, refused):
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
    labels = (np.arange(12) % 10).astype(np.uint8)
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        content = idx_bytes(array)
        if packed_files:
            (tmp_path / f"t10k-{name}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / f"t10k-{name}").write_bytes(content)
    read_images, read_labels = read_split(tmp_path, "test", "")
    np.testing.assert_array_equal(read_images, images, strict=True)
    np.testing.assert_array_equal(read_labels, labels, strict=True)
    with refused("train-images-idx3-ubyte.gz is missing", kind=FileError):
        read_split(tmp_path, "train", "Give it.")


@pytest.mark.parametrize(
    "layout",
    [
        "{0}-{1}-idx{2}-ubyte.gz",
        "{0}-{1}-idx{2}-ubyte",
        "{0}-{1}.idx{2}-ubyte",
        "MNIST/raw/{0}-{1}-idx{2}-ubyte",
        "{0}-{1}-idx{2}-ubyte/{0}-{1}-idx{2}-ubyte",
        "archive #1, 50%/{0}-{1}.idx{2}-ubyte/{0}-{1}.idx{2}-ubyte",
    ],
)
def test_files_are_found_under_their_usual_names_and_in_usual_folders(tmp_path, layout, refused):
    def put(root, count: int) -> None:
        for split in ("train", "t10k"):
            for content, shape in (("images", (count, 28, 28)), ("labels", (count,))):
                path = root / layout.format(split, content, len(shape))
                path.parent.mkdir(parents=True, exist_ok=True)
                raw = idx_bytes(np.full(shape, len(split), np.uint8))
                path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)

    put(tmp_path, 3)
    for split, level in (("train", 5), ("test", 4)):
        images, labels = read_split(tmp_path, split, "")
        assert (len(images), images.max(), labels.tolist()) == (3, level, [level] * 3)
    put(tmp_path / "deeper", 2)
    assert len(read_split(tmp_path, "train", "")[0]) == 3
    put(tmp_path / "both" / "MNIST", 2)
    put(tmp_path / "both" / "FashionMNIST", 2)
    with refused("MNIST", "FashionMNIST", "manual_dir", kind=FileError, path=tmp_path / "both"):
        read_split(tmp_path / "both", "train", "")
