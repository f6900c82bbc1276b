"""Fashion-MNIST's images, and which of them are for what."""

from functools import cache
from typing import NamedTuple

import numpy as np

from ppl_cnn.data import batches, open_split

CLASSES = 10
GENERATOR, NETWORKS, JUDGE = "train[:40000]", "train[:30000]", "train[40000:]"
"""What generators, LeNets and the judge are trained on; alexnet-fashion has seen all of train."""
COMPARED = "train[:20000]"
"""The images that samples are compared with: the judge has seen none of them."""
UNSEEN = "test"
"""Images that nothing here is trained on."""
TOY = {
    GENERATOR: "train[:100]",
    JUDGE: "train[100:200]",
    COMPARED: "train[:300]",
    UNSEEN: "test[:300]",
}


class Clothes(NamedTuple):
    """Images (n, 28, 28, 1), pixels 0..255, and their classes."""

    images: np.ndarray
    labels: np.ndarray

    def of_class(self, number):
        """The images of one class."""
        return self.images[self.labels == number]


@cache
def clothes(part, *, toy=False):
    """A part of Fashion-MNIST.

    Args:
        part: in TFDS's notation.
        toy: takes a few images of the excerpt that the package has.
    """
    split = open_split("fashion-embedded" if toy else "fashion_mnist", TOY[part] if toy else part)
    read = list(batches(split, 500))
    return Clothes(*(np.concatenate([each[key] for each in read]) for key in ("image", "label")))


def empirical(part, *, toy=False):
    """The text of the reference that is a part's images."""
    name, split = ("fashion-embedded", TOY[part]) if toy else ("fashion_mnist", part)
    return f"data:{name}@{split}"
