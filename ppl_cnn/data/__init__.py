"""Data sets as batches of images, for training and evaluation.

`open_split` opens a split of a prepared data set, `training_batches` gives endless shuffled batches
of it, `batches` and `ten_view_batches` all images once, `images_at` some of them.
`python -m ppl_cnn.data` prepares the data sets that the package does not ship.
"""

from ppl_cnn.data.batches import batches, images_at, ten_view_batches, training_batches
from ppl_cnn.data.catalogue import DATA_SETS, NAMES
from ppl_cnn.data.images import Example, ImageBatch, Images, ViewsBatch
from ppl_cnn.data.splits import ImageSplit, open_split

__all__ = [
    "DATA_SETS",
    "NAMES",
    "Example",
    "ImageBatch",
    "ImageSplit",
    "Images",
    "ViewsBatch",
    "batches",
    "images_at",
    "open_split",
    "ten_view_batches",
    "training_batches",
]
