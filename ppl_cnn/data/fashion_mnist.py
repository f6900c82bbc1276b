"""TFDS builders of Fashion-MNIST from its idx files: the whole, and the subset that is shipped.

Images are yielded as encoded PNG bytes, which TFDS stores as they are: preparing needs no
TensorFlow. The names on disk are our own (`fashion_mnist_idx`, `fashion_embedded`), so that the
`fashion_mnist` which TFDS itself registers is neither shadowed nor overwritten.

Source: Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv 1708.07747.
"""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8
from PIL import Image
from tqdm import tqdm

from ppl_cnn import InputError

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
IMAGE_SHAPE = (28, 28, 1)  # row, col, channel

_FILE_PREFIXES = {"train": "train", "test": "t10k"}
_LICENCE = """The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
_ORIGINALS = (
    "the four idx .gz files of Fashion-MNIST are needed, which Debian's package"
    " dataset-fashion-mnist installs in /usr/share/datasets/fashion-mnist; if they lie elsewhere,"
    " name the folder with --manual-dir"
)
_CITATION = """@article{xiao2017fashion,
  author  = {Han Xiao and Kashif Rasul and Roland Vollgraf},
  title   = {Fashion-{MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  journal = {arXiv preprint arXiv:1708.07747},
  year    = {2017},
}"""


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Array of unsigned bytes in a gzipped idx file.

    The file holds the magic bytes 0, 0, 8 (unsigned byte), the number of axes, each axis's length
    as a big-endian 32-bit integer, and the values, last axis fastest.

    Raises `InputError` when the file is missing, not gzip, cut short, or not such an idx file.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path} isn't there: {_ORIGINALS}.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is not a whole gzip file ({error}); get it again from where it came."
        ) from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise InputError(
            f"{path} is not an idx file of unsigned bytes: it begins with"
            f" {content[:4].hex(' ') or 'nothing'}, and 00 00 08 would be right."
        )
    shape = np.frombuffer(content, ">u4", count=min(content[3], (len(content) - 4) // 4), offset=4)
    header = 4 + 4 * content[3]
    expected = math.prod(map(int, shape))
    if len(shape) < content[3] or len(content) - header != expected:
        raise InputError(
            f"{path} announces {expected} values and holds {max(0, len(content) - header)};"
            " get it again from where it came."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape([int(n) for n in shape])


def read_split(
    folder: Path, split: str
) -> tuple[UInt8[np.ndarray, "n row col"], UInt8[np.ndarray, " n"]]:
    """Images (0..255) and labels (0..9) of the split `train` or `test` of the files in `folder`.

    Raises `InputError` when a file can't be read or the two don't belong together.
    """
    image_path = folder / f"{_FILE_PREFIXES[split]}-images-idx3-ubyte.gz"
    label_path = folder / f"{_FILE_PREFIXES[split]}-labels-idx1-ubyte.gz"
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.shape[1:] != IMAGE_SHAPE[:2] or not len(images):
        raise InputError(
            f"{image_path} holds an array of shape {images.shape}, and (n, 28, 28) would be right."
        )
    if labels.shape != images.shape[:1]:
        raise InputError(
            f"{label_path} holds labels of shape {labels.shape} for the {len(images)} images of"
            f" {image_path.name}, and there must be one for each."
        )
    if labels.size and labels.max() >= len(CLASSES):
        raise InputError(f"{label_path} holds the label {labels.max()}, and 0 to 9 would be right.")
    return images, labels


def first_per_class(
    labels: UInt8[np.ndarray, " n"], per_class: int
) -> Int[np.ndarray, " {per_class}*10"]:
    """Positions, ascending, of the first `per_class` images of each of the ten classes.

    Raises `InputError` when a class has fewer.
    """
    counts = np.bincount(labels, minlength=len(CLASSES))
    if counts.min() < per_class:
        raise InputError(
            f"the class {CLASSES[counts.argmin()]!r} has {counts.min()} images, and the balanced"
            f" subset takes {per_class} of each; give the complete Fashion-MNIST."
        )
    return np.sort(
        np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(len(CLASSES))])
    )


def encode_png(image: UInt8[np.ndarray, "row col"]) -> bytes:
    """The grey image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


class _IdxBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """What the two data sets share; `PER_CLASS` says how many images of each class are kept."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = _ORIGINALS
    DESCRIPTION: ClassVar[str]
    PER_CLASS: ClassVar[dict[str, int | None]]

    def __init__(self, *, file_format: str | None = "array_record", **options: Any):
        # TFDS's default, tfrecord, can't be written or read at random places without TensorFlow.
        super().__init__(file_format=file_format, **options)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=IMAGE_SHAPE, encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            citation=_CITATION,
            license=_LICENCE,  # TFDS writes it beside the data, too
            # Record i is image i of the idx file; shuffling is the reader's business.
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        folder = Path(dl_manager.manual_dir)
        # Both splits are read before anything is written, so that bad files leave nothing behind.
        arrays = {split: read_split(folder, split) for split in _FILE_PREFIXES}
        kept = {
            split: np.arange(len(labels))
            if (per_class := self.PER_CLASS[split]) is None
            else first_per_class(labels, per_class)
            for split, (_, labels) in arrays.items()
        }
        return {
            split: self._generate_examples(split, images[kept[split]], labels[kept[split]])
            for split, (images, labels) in arrays.items()
        }

    def _generate_examples(
        self, split: str, images: UInt8[np.ndarray, "n row col"], labels: UInt8[np.ndarray, " n"]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        progress = tqdm(images, desc=f"{self.name} {split}", unit=" images", mininterval=0.5)
        for i, (image, label) in enumerate(zip(progress, labels, strict=True)):
            yield i, {"image": encode_png(image), "label": int(label)}


class FashionMnistIdx(_IdxBuilder):
    """The whole of Fashion-MNIST, 60,000 + 10,000 images, in the order of its idx files."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From the idx files of Debian's dataset-fashion-mnist."}
    DESCRIPTION = (
        "Fashion-MNIST: 28x28 grey images of Zalando's articles in 10 classes, 60,000 for training"
        " and 10,000 for testing, in the order of the original idx files."
    )
    PER_CLASS: ClassVar = {"train": None, "test": None}


class FashionEmbedded(_IdxBuilder):
    """The subset that the package ships: the first 600 + 100 images of each class."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "The first 600 training and 100 test images of each class."}
    DESCRIPTION = (
        "A class-balanced subset of Fashion-MNIST, 28x28 grey images in 10 classes: of each class"
        " the first 600 images of the original training set and the first 100 of the original test"
        " set, in their original order."
    )
    PER_CLASS: ClassVar = {"train": 600, "test": 100}
