"""Data: TFDS builders, and the doors through which training and evaluation read them.

    split = open_split("fashion-embedded", "train")
    for batch in training_batches(split, batch_size=100, seed=0): ...

`python -m ppl_cnn.data` prepares the data sets that the package doesn't ship.
"""

from ppl_cnn.data.catalogue import NAMES
from ppl_cnn.data.readers import (
    Batch,
    Example,
    Images,
    Split,
    ViewsBatch,
    batches,
    open_split,
    ten_view_batches,
    training_batches,
)

__all__ = [
    "NAMES",
    "Batch",
    "Example",
    "Images",
    "Split",
    "ViewsBatch",
    "batches",
    "open_split",
    "ten_view_batches",
    "training_batches",
]
