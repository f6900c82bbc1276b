import json

import numpy as np
import pytest

from ppl_cnn.data import open_split
from ppl_cnn.data.preparing import prepare
from ppl_cnn.data.sources.mnist import read_digits, stratified
from ppl_cnn.errors import ArgumentError, FileError

COUNTS = (5, 9, 6, 7, 10, 5, 12, 6, 8, 5)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def grey(digit: int, index: int) -> np.ndarray:
    """An image that tells which it is."""
    return np.full((28, 28), 20 * digit + index, np.uint8)


@pytest.fixture
def package(tmp_path):
    """The package of npm with a few images, written as it writes them: three decimals."""
    folder = tmp_path / "package" / "src" / "digits"
    folder.mkdir(parents=True)
    for digit, count in enumerate(COUNTS):
        images = [grey(digit, index) for index in range(count)]
        data = [round(level / 255, 3) for image in images for level in image.ravel().tolist()]
        (folder / f"{digit}.json").write_text(json.dumps({"data": data}))
    return tmp_path / "package"


@pytest.fixture
def originals(tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = np.full((count, 28, 28), count, np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def test_every_grey_level_survives_three_decimals(tmp_path):
    levels = np.resize(np.arange(256), (1, 784))
    for digit in range(10):
        data = [round(level / 255, 3) for level in levels.ravel().tolist()]
        (tmp_path / f"{digit}.json").write_text(json.dumps({"data": data}))
    images, labels = read_digits(tmp_path)
    np.testing.assert_array_equal(images.reshape(10, 784), np.repeat(levels, 10, axis=0))
    assert labels.tolist() == list(range(10))


def test_digits_are_split_by_class_and_each_part_is_balanced(package, tmp_path):
    (name, folder), written, *_ = prepare("mnist", str(tmp_path), manual_dir=package)
    assert (name, folder) == ("mnist/10k", tmp_path / "mnist_digits" / "10k" / "1.0.0")
    assert written == "61 train + 12 test images"
    seen = {}
    for split in ("train", "test"):
        data = open_split("mnist", split, str(tmp_path))
        assert (data.name, data.classes) == ("mnist/10k", tuple("0123456789"))
        batch = data.source.read(range(len(data)))
        levels = batch["image"][:, 0, 0, 0].astype(int)
        seen[split] = list(zip(batch["label"].tolist(), (levels % 20).tolist(), strict=True))
        assert (levels // 20 == batch["label"]).all()
    for digit, count in enumerate(COUNTS):
        cut = count - count // 5
        assert [index for own, index in seen["train"] if own == digit] == list(range(cut))
        assert [index for own, index in seen["test"] if own == digit] == list(range(cut, count))


def test_parts_from_the_start_have_the_classes_in_proportion():
    labels = np.repeat(np.arange(10), [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978])
    places = stratified(labels.astype(np.uint8))
    assert {split: len(at) for split, at in places.items()} == {"train": 8_004, "test": 1_996}
    assert len({*places["train"].tolist(), *places["test"].tolist()}) == 10_000
    whole = np.bincount(labels[places["train"]])
    for part in (80, 800, 4_000):
        counts = np.bincount(labels[places["train"][:part]])
        assert np.abs(counts - whole * part / 8_004).max() <= 1


def test_original_files_make_the_other_variant_and_both_stay_apart(
    originals, package, tmp_path, refused
):
    data_dir = str(tmp_path)
    (name, _), written, *_ = prepare("mnist", data_dir, manual_dir=originals)
    assert (name, written) == ("mnist/60k", "30 train + 20 test images")
    assert open_split("mnist", "train", data_dir).name == "mnist/60k"
    assert prepare("mnist", data_dir, manual_dir=originals)[1] is None
    prepare("mnist", data_dir, manual_dir=package)
    with refused("2 variants", "mnist/10k", "mnist/60k", kind=ArgumentError, argument="data"):
        open_split("mnist", "train", data_dir)
    assert len(open_split("mnist/60k", "test", data_dir)) == 20
    assert len(open_split("mnist/10k", "test", data_dir)) == 12


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (None, ("missing", "MNIST's four idx files")),
        ("{", ("no images",)),
        ("[1, 2]", ("no images",)),
        ('{"data": [0.5, 0.5]}', ("no images", "784")),
        ('{"data": []}', ("grey levels",)),
        (json.dumps({"data": [1.1] * 784}), ("grey levels",)),
        (json.dumps({"data": [0.5 / 255] * 784}), ("grey levels",)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_files_than_digits(package, tmp_path, content, facts, refused):
    file = package / "src" / "digits" / "7.json"
    file.unlink() if content is None else file.write_text(content)
    with refused(file, *facts, kind=FileError, path=file):
        prepare("mnist", str(tmp_path / "data"), manual_dir=package)


def test_folders_without_digits_and_options_without_sense(package, tmp_path, refused):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    with refused(other, "MNIST's four idx files", kind=FileError, path=other):
        prepare("mnist", str(tmp_path), manual_dir=other)
    with refused("`short_side=256`", "28x28", kind=ArgumentError, argument="short_side"):
        prepare("mnist", str(tmp_path), manual_dir=package, short_side=256)
