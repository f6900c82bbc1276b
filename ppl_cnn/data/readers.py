"""Doors to the data: a name and a split in, batches of images out.

The road is one for every data set: a prepared TFDS array_record data set, read at random places
into grain. A batch is read as a whole: the array_record library takes about 120 µs for one record
and 24 µs a record for 256 of them, so grain shuffles and batches *positions*, and one call reads
and decodes their records.
"""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypedDict

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from ppl_cnn.data.augmentation import (
    DAMAGE,
    Augmentation,
    CentreView,
    RandomView,
    Shape,
    TenViews,
    View,
)
from ppl_cnn.data.catalogue import DAMAGED_SHARE, FOLDER, find
from ppl_cnn.errors import InputError

if TYPE_CHECKING:
    import grain
    from PIL import Image


StoredShape = tuple[int | None, int | None, int]
"""(row, col, channel); None where it varies."""


class Example(TypedDict):
    """One image, 0..255, and its class."""

    image: UInt8[np.ndarray, "row col channel"]
    label: np.int32


class Batch(TypedDict):
    """n images, 0..255, and their classes."""

    image: UInt8[np.ndarray, "n row col channel"]
    label: Int32[np.ndarray, " n"]


class ViewsBatch(TypedDict):
    """Several views of each of n images, 0..255, and the images' classes."""

    image: UInt8[np.ndarray, "n view row col channel"]
    label: Int32[np.ndarray, " n"]


class Images:
    """Random access to the decoded images of one split of a prepared TFDS data set.

    An image that can't be decoded is replaced by the next that can. Reading raises `InputError`
    when more than 0.1 % can't, or the files themselves are damaged. Threads may share it.
    """

    def __init__(self, records: Any, image_shape: StoredShape, folder: Path):
        """`records` gives the serialized tf.train.Examples at a list of positions."""
        from tensorflow_datasets.proto import tf_example_pb2

        self.image_shape = image_shape
        self.damaged: dict[int, str] = {}
        """What is wrong with the images that couldn't be decoded so far, by position."""
        self._records = records
        self._folder = folder
        self._parse = tf_example_pb2.Example.FromString

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        position = range(len(self))[index.__index__()]
        batch = self.read([position])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    def read(
        self, positions: Sequence[int] | Integer[np.ndarray, " n"], view: View | None = None
    ) -> Any:
        """The `Batch` of the images at these positions, in this order.

        Args:
            positions: in the split.
            view: what is seen of each image; None for the whole of images of a fixed size.
                `TenViews` give a `ViewsBatch`.
        """
        shape = self._fixed_shape() if view is None else view.shape
        images = np.empty((len(positions), *shape), np.uint8)
        labels = np.empty(len(positions), np.int32)
        places = np.asarray(positions).tolist()
        for i, (place, record) in enumerate(zip(places, self.records(places), strict=True)):
            images[i], labels[i] = self._seen(place, record, view or self._whole)
        return {"image": images, "label": labels}

    def _seen(self, place: int, record: bytes, view: Any) -> tuple[np.ndarray, int]:
        """What a view sees of the image at this place, or of the next that is intact."""
        from PIL import Image

        stored_at = place
        while True:
            # TFDS's own parser takes three times as long for the same two fields.
            fields = self._parse(record).features.feature
            try:
                with Image.open(io.BytesIO(fields["image"].bytes_list.value[0])) as image:
                    return view(image, place), fields["label"].int64_list.value[0]
            except DAMAGE as error:
                self._note_damage(stored_at, str(error))
            stored_at = (stored_at + 1) % len(self)
            (record,) = self.records([stored_at])

    def _whole(self, image: "Image.Image", place: int) -> UInt8[np.ndarray, "row col channel"]:
        return np.asarray(image).reshape(self._fixed_shape())

    def records(self, positions: list[int]) -> Sequence[bytes]:
        """The serialized examples at these positions."""
        try:
            return self._records.__getitems__(positions)
        except (RuntimeError, ValueError, OSError) as error:
            raise self._damaged(str(error)) from error

    def _fixed_shape(self) -> tuple[int, int, int]:
        rows, cols, channels = self.image_shape
        if rows is None or cols is None:
            raise InputError(
                f"the images in {self._folder} vary in size; say the shape of image that is wanted."
            )
        return rows, cols, channels

    def _note_damage(self, position: int, fault: str) -> None:
        self.damaged[position] = fault
        if len(self.damaged) > DAMAGED_SHARE * len(self):
            raise self._damaged(
                f"{len(self.damaged)} of {len(self)} can't be decoded, more than 0.1 %, for example"
                f" image {position}: {fault}"
            )

    def _damaged(self, fault: str) -> InputError:
        return InputError(
            f"the prepared images in {self._folder} are damaged ({fault}); delete that folder and"
            " install or prepare it again."
        )


@dataclass(frozen=True)
class Split:
    """One split of a data set."""

    name: str
    """With its variant, if it has any."""
    split: str
    source: Images
    classes: tuple[str, ...]
    identity: str = ""
    """What was prepared, to the version; of class folders with a fingerprint of the tree."""

    @property
    def image_shape(self) -> StoredShape:
        """(row, col, channel) of the images as they are stored; None where it varies."""
        return self.source.image_shape

    def __len__(self) -> int:
        return len(self.source)

    def damage(self) -> str:
        """A sentence on the damaged images that this process has met so far, or nothing."""
        if not self.source.damaged:
            return ""
        position, fault = min(self.source.damaged.items())
        count = len(self.source.damaged)
        return (
            f"{count} of the {len(self)} images of {self.name} {self.split} can't"
            f" be decoded and were replaced by their neighbours, for example image {position}"
            f" ({fault})."
        )


def open_split(name: str, split: str, data_dir: str | None = None) -> Split:
    """Opens a split of a prepared data set.

    Args:
        name: one of `NAMES`, NAME/VARIANT, or folder:PATH, which is prepared if it isn't yet.
        split: `train` or `test`, or a part in TFDS's notation, such as `train[:50000]`.
        data_dir: the folder of prepared data sets, by default TFDS's own; what the package ships
            is always read from the package.

    Raises:
        InputError: unknown name or split, or not (wholly) prepared; the message holds the command
            that prepares it.
    """
    if name.startswith(FOLDER):
        from ppl_cnn.data.preparing import prepare

        name, folder = prepare(name, data_dir).data_set
    else:
        name, folder = find(name, data_dir)
    import tensorflow_datasets as tfds

    from ppl_cnn.data.sources.wordnet import readable

    builder = tfds.builder_from_directory(folder)
    try:
        records = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        count = len(records)  # TFDS notices a part that ends before it begins only here
    except ValueError as error:
        raise InputError(
            f"{name} has no split {split!r}; it has {', '.join(builder.info.splits)}, and parts of"
            " them such as 'train[:10%]'."
        ) from error
    source = Images(records, builder.info.features["image"].shape, folder)
    source.records([0, count - 1])  # files cut short are noticed here, not after an epoch
    classes = readable(tuple(builder.info.features["label"].names))
    return Split(name, split, source, classes, builder.info.full_name)


def training_batches(
    split: Split,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    augment: str = "none",
    image_shape: Shape | None = None,
    short_side: int | None = None,
    threads: int | None = None,
) -> "grain.DatasetIterator[Batch]":
    """Endless batches, every epoch in a new order and without what doesn't fill a batch.

    Step s of the run is the same set of images in the same order however many processes read it:
    process p gets the p-th of `process_count` equal parts of the global batch. An epoch is
    `len(split) // batch_size` steps of distinct images. `get_state()` is a small dict that JSON can
    hold; `set_state` continues with the same bits, whatever the number of threads or processes.

    Args:
        split: the images.
        batch_size: images per step over all processes.
        seed: of the order and the augmentation; those of different seeds are unrelated.
        process_index: which of the processes this is.
        process_count: how many processes share every step.
        augment: what is done to the images, see `ppl_cnn.data.augmentation.Augmentation`.
        image_shape: (row, col, channel) that photographs are brought to. Images that are stored
            with a fixed size keep it.
        short_side: what photographs' short side is scaled to before the network's size is cropped
            (None: see `ppl_cnn.data.augmentation`).
        threads: how many read ahead, each a batch. By default one where images have a fixed size,
            for decoding small ones is bound by Python's lock, and one for each core for
            photographs.

    Raises:
        InputError: batch larger than the split or not divisible by the processes, negative seed,
            unknown augmentation, or one of colours for grey images.
    """
    import grain

    share = _share(batch_size, process_index, process_count)
    steps = len(split) // batch_size
    if steps == 0:
        raise InputError(
            f"a batch of {batch_size} is larger than the {len(split)} images of {split.name}"
            f" {split.split}; {len(split)} or fewer would be right."
        )
    if seed < 0:
        raise InputError(f"the seed of the data order is {seed}; 0 or more would be right.")
    # grain shuffles epoch e with seed + e, which would make seed 1 the second epoch of seed 0.
    order = int(np.random.SeedSequence(seed).generate_state(1)[0])
    positions = grain.MapDataset.range(len(split)).shuffle(order).batch(share, drop_remainder=True)
    own = positions.slice(slice(process_index, steps * process_count, process_count)).repeat()
    augmentation = Augmentation.parse(augment)
    if augmentation == Augmentation() and not _varies(split):
        read = own.map(split.source.read)
    else:
        shape, short_side = _wanted(split, image_shape, short_side)
        if augmentation.colour and shape[2] != 3:
            raise InputError(
                f"the augmentation {augment} has noise of colours, and the images of {split.name}"
                " are grey here: leave colour out."
            )

        def view(step: int, places: Integer[np.ndarray, " n"]) -> Batch:
            seen = RandomView(augmentation, seed, step // steps, shape, short_side)
            return split.source.read(places, seen)

        read = own.map_with_index(view)
    return iter(read.to_iter_dataset(_read_ahead(split, threads)))


def batches(
    split: Split,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    image_shape: Shape | None = None,
    short_side: int | None = None,
    threads: int | None = None,
) -> Iterator[Batch]:
    """All images once, in order, for evaluation; the last batch is smaller.

    Process p of several gets the p-th of `process_count` equal parts of every batch, cut at the
    end of the split: all get the same number of batches, whose last may be empty.

    Args:
        split: the images.
        batch_size: over all processes.
        process_index: which of the processes this is.
        process_count: how many processes share every batch.
        image_shape: (row, col, channel) of the centre that is cut of photographs. Images that are
            stored with a fixed size stay as they are.
        short_side: what photographs' short side is scaled to before that; None for the least that
            fills the shape.
        threads: see `training_batches`.

    Raises:
        InputError: batch not positive or not divisible by the processes.
    """
    view = CentreView(*_wanted(split, image_shape, short_side)) if _varies(split) else None
    return _in_order(split, batch_size, process_index, process_count, view, threads)


def ten_view_batches(
    split: Split,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    image_shape: Shape | None = None,
    short_side: int | None = None,
    threads: int | None = None,
) -> Iterator[ViewsBatch]:
    """As `batches`, with ten views of each image: corners, centre, and these mirrored.

    The short side is by default 8/7 of the shape's. Of images that are stored with a fixed size,
    the views have that size, too.
    """
    view = TenViews(*_wanted(split, image_shape, short_side))
    return _in_order(split, batch_size, process_index, process_count, view, threads)


def _in_order(
    split: Split,
    batch_size: int,
    process_index: int,
    process_count: int,
    view: View | None,
    threads: int | None,
) -> Iterator[Any]:
    import grain

    share = _share(batch_size, process_index, process_count)
    starts = range(process_index * share, len(split) + process_index * share, batch_size)

    def read(start: int) -> Any:
        places = range(start, min(start + share, len(split)))
        return split.source.read(places) if view is None else split.source.read(places, view)

    ahead = _read_ahead(split, threads)
    return iter(grain.MapDataset.source(starts).map(read).to_iter_dataset(ahead))


def _varies(split: Split) -> bool:
    """Whether its images vary in size, as photographs do."""
    return None in split.image_shape


def _wanted(
    split: Split, image_shape: Shape | None, short_side: int | None
) -> tuple[Shape, int | None]:
    """The shape of the views, and the short side that images are scaled to before."""
    rows, cols, channels = split.image_shape
    if rows is not None and cols is not None:
        return (rows, cols, channels), None
    if image_shape is None:
        raise InputError(
            f"the images of {split.name} vary in size; say the shape of image that is wanted."
        )
    return image_shape, short_side


def _share(batch_size: int, process_index: int, process_count: int) -> int:
    if not 0 <= process_index < process_count:
        raise InputError(
            f"process {process_index} of {process_count} can't be; 0 to {process_count - 1} would"
            " be right."
        )
    if batch_size < 1 or batch_size % process_count:
        raise InputError(
            f"a batch of {batch_size} can't be divided among {process_count} process(es);"
            f" a positive multiple of {process_count} would be right."
        )
    return batch_size // process_count


def _read_ahead(split: Split, threads: int | None) -> "grain.ReadOptions":
    import grain

    if threads is None:
        threads = (os.process_cpu_count() or 1) if _varies(split) else 1
    # The buffer counts batches, and one of ImageNet is 40 MB; grain's default of 500 is for images.
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
