"""The base class of TFDS builders of small grey images: arrays in, PNG files in array_record out.

Builders yield images as encoded PNG bytes, which TFDS stores as they are: preparing needs no
TensorFlow. The names on disk are our own (`fashion_mnist_idx`, `mnist_digits`), so that TFDS's own
`fashion_mnist` and `mnist` are neither shadowed nor overwritten.
"""

import abc
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from ppl_cnn.data.sources.idx import IMAGE_SHAPE
from ppl_cnn.errors import ArgumentError
from ppl_cnn.progress import Bar

Arrays = dict[str, tuple[UInt8[np.ndarray, "n row col"], UInt8[np.ndarray, " n"]]]
"""Images (pixels 0..255) and labels by split."""


def encode_png(image: UInt8[np.ndarray, "row col"]) -> bytes:
    """A grey image, pixels 0..255, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# TFDS has no types: its classes are Any to mypy, without `skip_registration`.
class ArrayBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A builder of grey 28x28 images in ten classes, stored in the order of `arrays`."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION: ClassVar[str]
    CLASSES: ClassVar[tuple[str, ...]]
    HOMEPAGE: ClassVar[str]
    CITATION: ClassVar[str]
    LICENCE: ClassVar[str | None] = None  # TFDS writes it beside the data, too

    def __init__(self, *, file_format: str | None = "array_record", **options: Any):
        # TFDS's default, tfrecord, can't be written or read at random places without TensorFlow.
        super().__init__(file_format=file_format, **options)

    @classmethod
    def variant(
        cls, manual_dir: Path, short_side: int | None
    ) -> tfds.core.BuilderConfig | str | None:
        """The config (the variant) that the files in this folder make, or None for the only one.

        Args:
            manual_dir: the folder with the original files.
            short_side: for photographs alone.

        Raises:
            ArgumentError: `short_side` is given.
        """
        if short_side is not None:
            raise ArgumentError(
                f"`short_side={short_side}` applies to photographs, and these images are 28x28."
                " Leave it out.",
                argument="short_side",
            )
        return None

    @abc.abstractmethod
    def arrays(self, folder: Path) -> Arrays:
        """The images and labels of the splits `train` and `test`, from the files in `folder`.

        Raises:
            FileError: a file is missing or damaged.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(*IMAGE_SHAPE, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=self.CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            license=self.LICENCE,
            # Record i is image i of the arrays; readers shuffle.
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        # All splits are read before anything is written, so that bad files leave nothing behind.
        arrays = self.arrays(Path(dl_manager.manual_dir))
        return {
            split: self._generate_examples(split, images, labels)
            for split, (images, labels) in arrays.items()
        }

    def _generate_examples(
        self, split: str, images: UInt8[np.ndarray, "n row col"], labels: UInt8[np.ndarray, " n"]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        progress = Bar(images, desc=f"{self.name} {split}", unit=" images", mininterval=0.5)
        for i, (image, label) in enumerate(zip(progress, labels, strict=True)):
            yield i, {"image": encode_png(image), "label": int(label)}
