"""TFDS builders of Fashion-MNIST from its idx files: all images, and the shipped subset.

Source: Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv 1708.07747.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from ppl_cnn.data.catalogue import DATA_SETS
from ppl_cnn.data.sources.grey_images import ArrayBuilder, Arrays
from ppl_cnn.data.sources.idx import read_split
from ppl_cnn.errors import MismatchError

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
_ADVICE = DATA_SETS["fashion_mnist"].advice
_CITATION = """@article{xiao2017fashion,
  author  = {Han Xiao and Kashif Rasul and Roland Vollgraf},
  title   = {Fashion-{MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  journal = {arXiv preprint arXiv:1708.07747},
  year    = {2017},
}"""


def first_per_class(
    labels: UInt8[np.ndarray, " n"], per_class: int
) -> Int[np.ndarray, " {per_class}*10"]:
    """Ascending positions of the first `per_class` images of each of the ten classes.

    Raises:
        MismatchError: a class has fewer images.
    """
    counts = np.bincount(labels, minlength=len(CLASSES))
    if counts.min() < per_class:
        raise MismatchError(
            f"Class {CLASSES[counts.argmin()]!r} has {counts.min()} images, and the balanced subset"
            f" takes {per_class} of each class. Give the files of the complete Fashion-MNIST."
        )
    return np.sort(
        np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(len(CLASSES))])
    )


class _FashionBuilder(ArrayBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The base of the two builders; `PER_CLASS` gives the kept images of each class, by split."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = _ADVICE
    CLASSES = CLASSES
    HOMEPAGE = "https://github.com/zalandoresearch/fashion-mnist"
    CITATION = _CITATION
    LICENCE = _LICENCE
    PER_CLASS: ClassVar[dict[str, int | None]]

    def arrays(self, folder: Path) -> Arrays:
        """The kept images and their labels, in the order of the files."""
        arrays = {split: read_split(folder, split, _ADVICE) for split in self.PER_CLASS}
        for split, per_class in self.PER_CLASS.items():
            if per_class is not None:
                images, labels = arrays[split]
                kept = first_per_class(labels, per_class)
                arrays[split] = images[kept], labels[kept]
        return arrays


class FashionMnistIdx(_FashionBuilder):
    """All of Fashion-MNIST, 60,000 + 10,000 images, in the order of its idx files."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From the idx files of Debian's dataset-fashion-mnist."}
    DESCRIPTION = (
        "Fashion-MNIST: 28x28 grey images of Zalando's articles in 10 classes, 60,000 for training"
        " and 10,000 for testing, in the order of the original idx files."
    )
    PER_CLASS: ClassVar = {"train": None, "test": None}


class FashionEmbedded(_FashionBuilder):
    """The subset that the package ships: the first 600 + 100 images of each class."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "The first 600 training and 100 test images of each class."}
    DESCRIPTION = (
        "A class-balanced subset of Fashion-MNIST, 28x28 grey images in 10 classes: of each class"
        " the first 600 images of the original training set and the first 100 of the original test"
        " set, in their original order."
    )
    PER_CLASS: ClassVar = {"train": 600, "test": 100}
