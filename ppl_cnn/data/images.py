"""Images by their positions in a split: records of a prepared data set, decoded.

A batch is read as a whole: the array_record library takes about 120 µs for one record, and 24 µs a
record for 256 of them. So grain shuffles and batches positions (see `ppl_cnn.data.batches`), and
one call of `Images.read` reads and decodes their records.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypedDict

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from ppl_cnn.data.augmentation import View
from ppl_cnn.data.catalogue import DAMAGED_SHARE
from ppl_cnn.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from ppl_cnn.data.image_files import OpenedImage

StoredShape = tuple[int | None, int | None, int]
"""(row, col, channel) of stored images; None where it varies."""


class Example(TypedDict):
    """One image and its class."""

    image: UInt8[np.ndarray, "row col channel"]
    """Pixels, 0..255."""
    label: np.int32
    """The index of the class."""


class ImageBatch(TypedDict):
    """n images and their classes."""

    image: UInt8[np.ndarray, "n row col channel"]
    """Pixels, 0..255."""
    label: Int32[np.ndarray, " n"]
    """The indices of the classes."""


class ViewsBatch(TypedDict):
    """Several views of each of n images, and the images' classes."""

    image: UInt8[np.ndarray, "n view row col channel"]
    """Pixels, 0..255."""
    label: Int32[np.ndarray, " n"]
    """The indices of the classes."""


class Images:
    """Random access to the decoded images of one split of a prepared TFDS data set.

    An image that cannot be decoded is replaced by the next one that can. Threads may share the
    object, and other processes may have copies.

    Args:
        records: a TFDS data source that gives serialized tf.train.Examples at a list of positions.
        image_shape: (row, col, channel) of the stored images; None where it varies.
        folder: the prepared data set's folder, for messages.

    Examples:
        >>> from ppl_cnn.data import open_split
        >>> images = open_split("fashion-embedded", "test").source
        >>> images.read([0, 1, 2])["image"].shape
        (3, 28, 28, 1)
    """

    def __init__(self, records: Any, image_shape: StoredShape, folder: Path):
        self.image_shape = image_shape
        self.damaged: dict[int, str] = {}
        """The faults of the images that could not be decoded so far, by position."""
        self._records = records
        self._folder = folder

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        position = range(len(self))[index.__index__()]
        batch = self.read([position])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    def read(
        self, positions: Sequence[int] | Integer[np.ndarray, " n"], view: View | None = None
    ) -> Any:
        """The images at these positions of the split, in this order.

        Args:
            positions: indices into the split.
            view: the part of each image to take, and its size; None takes all of an image, which
                needs images of a fixed size.

        Returns:
            An `ImageBatch`; with `TenViews`, a `ViewsBatch`.

        Raises:
            ArgumentError: the images vary in size, and there is no view.
            FileError: more than 0.1 % of the images cannot be decoded, or the files are damaged.
        """
        shape = self._fixed_shape() if view is None else view.shape
        images = np.empty((len(positions), *shape), np.uint8)
        labels = np.empty(len(positions), np.int32)
        places = np.asarray(positions).tolist()
        for i, (place, record) in enumerate(zip(places, self.records(places), strict=True)):
            images[i], labels[i] = self._seen(place, record, view or self._whole)
        return {"image": images, "label": labels}

    def records(self, positions: list[int]) -> Sequence[bytes]:
        """The serialized tf.train.Examples at these positions.

        Raises:
            FileError: the files are damaged.
        """
        try:
            records: Sequence[bytes] = self._records.__getitems__(positions)
        except (RuntimeError, ValueError, OSError) as error:
            raise self._unusable(" ".join(str(error).split())) from error
        return records

    def note_damage(self, faults: Mapping[int, str]) -> None:
        """Notes images that could not be decoded, here or in another process.

        Args:
            faults: the fault of each, by its position.

        Raises:
            FileError: these are more than 0.1 % by now.
        """
        self.damaged |= faults
        if len(self.damaged) > DAMAGED_SHARE * len(self):
            position, fault = next(iter(faults.items()))
            raise self._unusable(
                f"{len(self.damaged)} of {len(self)} cannot be decoded, more than"
                f" {100 * DAMAGED_SHARE:g} %, such as image {position}: {fault}"
            )

    def _seen(self, place: int, record: bytes, view: Any) -> tuple[np.ndarray, int]:
        """The view of the image at this place, or of the next intact one, and its label."""
        from tensorflow_datasets.proto import tf_example_pb2

        from ppl_cnn.data.image_files import ImageError, open_image

        stored_at = place
        while True:
            # TFDS's own parser takes three times as long for the same two fields.
            fields = tf_example_pb2.Example.FromString(record).features.feature
            try:
                with open_image(fields["image"].bytes_list.value[0]) as image:
                    return view(image, place), fields["label"].int64_list.value[0]
            except ImageError as fault:
                self.note_damage({stored_at: str(fault)})
            stored_at = (stored_at + 1) % len(self)
            (record,) = self.records([stored_at])

    def _whole(self, image: "OpenedImage", place: int) -> UInt8[np.ndarray, "row col channel"]:
        shape = self._fixed_shape()
        return np.asarray(image.decoded(shape[-1])).reshape(shape)

    def _fixed_shape(self) -> tuple[int, int, int]:
        rows, cols, channels = self.image_shape
        if rows is None or cols is None:
            raise ArgumentError(
                f"The images in {self._folder} vary in size. Read them with a `view`, such as"
                " CentreView((224, 224, 3)).",
                argument="view",
            )
        return rows, cols, channels

    def _unusable(self, fault: str) -> FileError:
        return FileError(
            f"The prepared images in {self._folder} are damaged ({fault})."
            " Delete that folder and install or prepare the data set again.",
            path=self._folder,
        )
