"""Doors to the data: a name and a split in, batches of images out.

The road is one for every data set: a prepared TFDS array_record data set, read at random places
into grain. A batch is read as a whole: the array_record library takes about 120 µs for one record
and 24 µs a record for 256 of them, so grain shuffles and batches *positions*, and one call reads
and decodes their records.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypedDict

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from ppl_cnn import InputError
from ppl_cnn.data.data_sets import find

if TYPE_CHECKING:
    import grain


class Example(TypedDict):
    """One image, 0..255, and its class."""

    image: UInt8[np.ndarray, "row col channel"]
    label: np.int32


class Batch(TypedDict):
    """n images, 0..255, and their classes."""

    image: UInt8[np.ndarray, "n row col channel"]
    label: Int32[np.ndarray, " n"]


class Images:
    """Random access to the decoded images of one split of a prepared TFDS data set.

    Reading raises `InputError` when the files are damaged. Threads may share it.
    """

    def __init__(self, records: Any, image_shape: tuple[int, int, int], folder: Path):
        """`records` gives the serialized tf.train.Examples at a list of positions."""
        from tensorflow_datasets.proto import tf_example_pb2

        self.image_shape = image_shape
        self._records = records
        self._folder = folder
        self._parse = tf_example_pb2.Example.FromString

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        position = range(len(self))[index.__index__()]
        batch = self.read([position])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    def read(self, positions: Sequence[int] | Integer[np.ndarray, " n"]) -> Batch:
        """The images at these positions, in this order."""
        from PIL import Image

        images = np.empty((len(positions), *self.image_shape), np.uint8)
        labels = np.empty(len(positions), np.int32)
        try:
            records = self._records.__getitems__(np.asarray(positions).tolist())
            for i, record in enumerate(records):
                # TFDS's own parser takes three times as long for the same two fields.
                fields = self._parse(record).features.feature
                with Image.open(io.BytesIO(fields["image"].bytes_list.value[0])) as encoded:
                    images[i] = np.asarray(encoded).reshape(self.image_shape)
                labels[i] = fields["label"].int64_list.value[0]
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"the prepared images in {self._folder} are damaged ({error}); delete that folder"
                " and install or prepare it again."
            ) from error
        return {"image": images, "label": labels}


@dataclass(frozen=True)
class Split:
    """One split of a data set."""

    name: str
    split: str
    source: Images
    classes: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, channel)."""
        return self.source.image_shape

    def __len__(self) -> int:
        return len(self.source)


def open_split(name: str, split: str, data_dir: str | None = None) -> Split:
    """Opens a split of a prepared data set.

    Args:
        name: one of `NAMES`, or NAME/VARIANT.
        split: `train` or `test`, or a part in TFDS's notation, such as `train[:50000]`.
        data_dir: the folder of prepared data sets, by default TFDS's own; what the package ships
            is always read from the package.

    Raises:
        InputError: unknown name or split, or not (wholly) prepared; the message holds the command
            that prepares it.
    """
    name, folder = find(name, data_dir)
    import tensorflow_datasets as tfds

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
    source.read([0, count - 1])  # files cut short are noticed here, not after an epoch
    return Split(name, split, source, tuple(builder.info.features["label"].names))


def training_batches(
    split: Split,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    threads: int = 1,
) -> "grain.DatasetIterator[Batch]":
    """Endless batches, every epoch in a new order and without what doesn't fill a batch.

    Step s of the run is the same set of images in the same order however many processes read it:
    process p gets the p-th of `process_count` equal parts of the global batch. An epoch is
    `len(split) // batch_size` steps of distinct images. `get_state()` is a small dict that JSON can
    hold; `set_state` continues with the same bits, whatever the number of threads or processes.

    Args:
        split: the images.
        batch_size: images per step over all processes.
        seed: of the order; the orders of different seeds are unrelated.
        process_index: which of the processes this is.
        process_count: how many processes share every step.
        threads: how many read ahead, each a batch. One is enough where images are small, for
            decoding them is bound by Python's lock; JPEG photos gain from more.

    Raises:
        InputError: batch larger than the split or not divisible by the processes, negative seed.
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
    return iter(own.map(split.source.read).to_iter_dataset(_read_ahead(threads)))


def batches(
    split: Split,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    threads: int = 1,
) -> Iterator[Batch]:
    """All images once, in order, for evaluation; the last batch is smaller.

    Process p of several gets the p-th of `process_count` equal parts of every batch, cut at the
    end of the split: all get the same number of batches, whose last may be empty.

    Raises:
        InputError: batch not positive or not divisible by the processes.
    """
    import grain

    share = _share(batch_size, process_index, process_count)
    starts = range(process_index * share, len(split) + process_index * share, batch_size)

    def read(start: int) -> Batch:
        return split.source.read(range(start, min(start + share, len(split))))

    return iter(grain.MapDataset.source(starts).map(read).to_iter_dataset(_read_ahead(threads)))


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


def _read_ahead(threads: int) -> "grain.ReadOptions":
    import grain

    # The buffer counts batches, and one of ImageNet is 40 MB; grain's default of 500 is for images.
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
