"""Opening one split of a prepared data set."""

import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from ppl_cnn.data.catalogue import FOLDER, class_line, find
from ppl_cnn.data.images import Images, StoredShape
from ppl_cnn.errors import UnknownNameError, shown


@dataclass(frozen=True)
class ImageSplit:
    """One split of a data set: its images by position, and the names of their classes."""

    name: str
    """The data set, with its variant if it has any."""
    split: str
    """`train`, `test`, or a part in TFDS's notation."""
    source: Images
    """Random access to the images."""
    _: KW_ONLY
    classes: tuple[str, ...]
    """The names of the classes, in the order of the labels."""
    identity: str = ""
    """The prepared folder with its version; for class folders, with the tree's fingerprint."""
    splits: tuple[str, ...] = ()
    """The names of all splits of the data set."""

    @property
    def image_shape(self) -> StoredShape:
        """(row, col, channel) of the stored images; None where it varies, as in photographs."""
        return self.source.image_shape

    @property
    def varies(self) -> bool:
        """Whether the images vary in size, as photographs do."""
        return None in self.image_shape

    def __len__(self) -> int:
        return len(self.source)

    def summary(self) -> str:
        """A line with the number of images and of classes, and the first classes' names."""
        count = f"{len(self):,} images of {self.split}"
        return f"{shown(self.name)}: {count} in {class_line(self.classes)}"

    def damage(self) -> str:
        """A sentence about the damaged images that this process has read so far, or ""."""
        if not self.source.damaged:
            return ""
        position, fault = min(self.source.damaged.items())
        count = len(self.source.damaged)
        return (
            f"{count} of the {len(self)} images of {self.name} {self.split} cannot"
            f" be decoded and were replaced by their neighbours, such as image {position}"
            f" ({fault})."
        )


def open_split(name: str, split: str, data_dir: str | Path | None = None) -> ImageSplit:
    """Opens a split of a prepared data set.

    Args:
        name: one of `ppl_cnn.data.NAMES`, NAME/VARIANT, or folder:PATH for class folders of
            images, which are prepared at their first use.
        split: `train` or `test`, or a part in TFDS's notation, such as `train[:50000]`; also
            `validation` of class folders that have all three.
        data_dir: the folder of prepared data sets, by default $TFDS_DATA_DIR or
            ~/tensorflow_datasets; data sets that the package ships are read from the package.

    Raises:
        UnknownNameError: no data set or split has this name.
        ArgumentError: several variants of the data set are prepared, and the name has none.
        FileError: the data set is not prepared, or its files are damaged.

    Examples:
        >>> from ppl_cnn.data import open_split
        >>> split = open_split("fashion-embedded", "test[:50]")
        >>> len(split), split.image_shape, split.classes[9]
        (50, (28, 28, 1), 'Ankle boot')
    """
    if name.startswith(FOLDER):
        from ppl_cnn.data.preparing import prepare

        done = prepare(name, data_dir)
        name, folder = done.data_set
        if done.images is not None:  # at first use
            for line in done.account:
                print(f"{shown(name)}: {line}", file=sys.stderr)
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
        known = tuple(builder.info.splits)
        raise UnknownNameError(
            f"Data set {name} has no split {split!r}."
            f" Give {' or '.join(known)}, or a part such as 'train[:10%]'.",
            name=split,
            known=known,
        ) from error
    source = Images(records, builder.info.features["image"].shape, folder)
    source.records([0, count - 1])  # files cut short are noticed here, not after an epoch
    classes = readable(tuple(builder.info.features["label"].names))
    return ImageSplit(
        name,
        split,
        source,
        classes=classes,
        identity=builder.info.full_name,
        splits=tuple(builder.info.splits),
    )
