"""Data sets of grey images in ten classes, and which of their images are for what."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from ppl_cnn.data import batches, open_split

CLASSES = 10


class Labelled(NamedTuple):
    """Images (n, 28, 28, 1), pixels 0..255, and their classes."""

    images: np.ndarray
    labels: np.ndarray

    def of_class(self, number):
        """The images of one class."""
        return self.images[self.labels == number]


@dataclass(frozen=True)
class DataSet:
    """A data set and its parts, in TFDS's notation."""

    name: str
    generator: str
    """What generators are trained on."""
    networks: str
    """What LeNets are trained on; alexnet-fashion has seen all of train."""
    judge: str
    compared: str
    """The images that samples are compared with: the judge has seen none of them."""
    unseen: str = "test"
    """Images that nothing here is trained on."""
    epochs: float = 1.0
    """How many times as often as those of Fashion-MNIST its fewer images are seen."""
    mirrored: bool = True
    """Whether a mirrored image is one of its class."""

    def read(self, part):
        """The images and labels of a part."""
        return _read(self.name, part)

    def empirical(self, part):
        """The text of the reference that is a part's images."""
        return f"data:{self.name}@{part}"


@cache
def _read(name, part):
    read = list(batches(open_split(name, part), 500))
    return Labelled(*(np.concatenate([each[key] for each in read]) for key in ("image", "label")))


DATA = {
    "fashion_mnist": DataSet(
        "fashion_mnist", "train[:40000]", "train[:30000]", "train[40000:]", "train[:20000]"
    ),
    "mnist": DataSet(
        *("mnist", "train[:5000]", "train[:5000]", "train[5000:]", "train[:5000]"),
        epochs=4.0,
        mirrored=False,
    ),
}
TOY = DataSet(
    "fashion-embedded", "train[:100]", "train[:100]", "train[100:200]", "train[:300]", "test[:300]"
)
"""A few images of the excerpt that the package has."""
