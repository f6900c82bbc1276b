import gzip
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ppl_cnn.data import open_split
from ppl_cnn.data.catalogue import DATA_SETS
from ppl_cnn.data.sources.fashion_mnist import (
    FashionEmbedded,
    FashionMnistIdx,
    first_per_class,
)
from ppl_cnn.data.sources.idx import read_split
from ppl_cnn.errors import FileError, MismatchError

DEBIAN = Path(DATA_SETS["fashion_mnist"].manual_dir)


def idx_bytes(array: np.ndarray) -> bytes:
    lengths = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


@pytest.fixture
def originals(tmp_path):
    """A folder of idx files with 40 + 20 images of noise, classes in turn, and the arrays."""
    random = np.random.default_rng(0)
    folder = tmp_path / "originals"
    folder.mkdir()
    arrays = {}
    for split, prefix, count in (("train", "train", 40), ("test", "t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        arrays[split] = images, labels
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            file = folder / f"{prefix}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(idx_bytes(array), compresslevel=1))
    return folder, arrays


def build(builder_class, manual_dir: Path, data_dir: Path):
    builder = builder_class(data_dir=data_dir)
    builder.download_and_prepare(
        download_dir=data_dir / "downloads",
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
    )
    return builder


def test_whole_set_comes_back_in_the_order_of_its_files(originals, tmp_path):
    folder, arrays = originals
    build(FashionMnistIdx, folder, tmp_path)
    for split, (images, labels) in arrays.items():
        data = open_split("fashion_mnist", split, str(tmp_path))
        read = data.source.read(range(len(data)))
        np.testing.assert_array_equal(read["image"], images[..., None], strict=True)
        np.testing.assert_array_equal(read["label"], labels)


def test_what_is_stored_is_png_with_names_licence_and_source(originals, tmp_path):
    info = build(FashionMnistIdx, originals[0], tmp_path).info
    reader = tfds.builder_from_directory(tmp_path / "fashion_mnist_idx" / "1.0.0")
    stored = reader.as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()})
    assert stored[0]["image"].startswith(b"\x89PNG\r\n\x1a\n")
    assert reader.info.features["label"].int2str(stored[9]["label"]) == "Ankle boot"
    assert "Zalando SE" in reader.info.redistribution_info.license
    assert "1708.07747" in info.citation
    assert info.homepage == "https://github.com/zalandoresearch/fashion-mnist"
    assert info.description


def test_subset_is_the_first_of_each_class(originals, tmp_path, monkeypatch):
    folder, arrays = originals
    monkeypatch.setattr(FashionEmbedded, "PER_CLASS", {"train": 2, "test": 1})
    source = build(FashionEmbedded, folder, tmp_path).as_data_source()
    for split, count in (("train", 20), ("test", 10)):
        images, labels = arrays[split]
        assert [example["label"] for example in source[split]] == labels[:count].tolist()
        for example, image in zip(source[split], images[:count], strict=True):
            np.testing.assert_array_equal(example["image"][..., 0], image)


def test_first_per_class_by_hand(refused):
    labels = np.array([3, 3, 0, 3, 1, 2, 4, 5, 6, 7, 8, 9, 0, 1, 2, 4, 5, 6, 7, 8, 9, 9], np.uint8)
    assert first_per_class(labels, 1).tolist() == [0, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert first_per_class(labels, 2).tolist() == [0, 1, 2, *range(4, 21)]
    with refused("'T-shirt/top' has 2 images", "3 of each", kind=MismatchError):
        first_per_class(labels, 3)


@pytest.mark.long
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_preparing_again_makes_what_is_shipped(tmp_path):
    rebuilt = build(FashionEmbedded, DEBIAN, tmp_path).as_data_source()
    for split, per_class in FashionEmbedded.PER_CLASS.items():
        shipped = open_split("fashion-embedded", split)
        read = shipped.source.read(range(len(shipped)))
        images, labels = read_split(DEBIAN, split, "")
        kept = first_per_class(labels, per_class)
        np.testing.assert_array_equal(read["image"][..., 0], images[kept], strict=True)
        np.testing.assert_array_equal(read["label"], labels[kept])
        assert len(rebuilt[split]) == len(shipped)
        for i in range(0, len(shipped), 37):
            np.testing.assert_array_equal(rebuilt[split][i]["image"], read["image"][i])
            assert rebuilt[split][i]["label"] == read["label"][i]


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_debian_files_are_the_known_set():
    images, labels = read_split(DEBIAN, "test", "")
    assert images.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [1_000] * 10


def test_names_of_tfds_are_left_alone():
    assert tfds.builder_cls("fashion_mnist").__module__.startswith("tensorflow_datasets.")
    assert {FashionMnistIdx.name, FashionEmbedded.name}.isdisjoint({"fashion_mnist"})


LABELS, IMAGES = "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"


@pytest.mark.parametrize(
    ("file", "array", "kind", "facts"),
    [
        (LABELS, np.zeros(39), MismatchError, (LABELS, "(39,)", "40 images")),
        (LABELS, np.full(40, 10), FileError, (LABELS, "label 10", "0 to 9")),
        (IMAGES, np.zeros((20, 27, 28)), FileError, (IMAGES, "(20, 27, 28)", "(n, 28, 28)")),
        (IMAGES, np.zeros((0, 28, 28)), FileError, (IMAGES, "(0, 28, 28)", "(n, 28, 28)")),
        (IMAGES, None, FileError, (IMAGES, "missing", "four idx .gz files", "`manual_dir`")),
    ],
)
def test_files_that_do_not_belong_together_leave_nothing_behind(
    originals, tmp_path, file, array, kind, facts, refused
):
    folder, _ = originals
    path = folder / file
    path.unlink() if array is None else path.write_bytes(gzip.compress(idx_bytes(array)))
    with refused(*facts, kind=kind):
        build(FashionMnistIdx, folder, tmp_path / "data")
    assert not list((tmp_path / "data" / "fashion_mnist_idx").iterdir())
