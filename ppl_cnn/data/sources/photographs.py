"""The base class of TFDS builders of photographs, which checks each image before it stores it.

Photographs are stored as encoded bytes, in the order of their names' hashes, so that every part of
a split is a random sample of all classes. Preparing needs no TensorFlow.
"""

import abc
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds
from PIL import Image

from ppl_cnn.data.catalogue import DAMAGED_SHARE
from ppl_cnn.data.image_files import ImageError, open_image
from ppl_cnn.errors import ArgumentError, FileError, shown
from ppl_cnn.progress import Bar
from ppl_cnn.work import usable_cores

QUALITY = 92
"""Quality of JPEG files that replace originals which cannot be kept."""
LEAST_SHORT_SIDE = 32
"""Least `short_side`, in pixels."""

_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "F")
"""Pillow's modes of grey images."""


class Photograph(NamedTuple):
    """One image among the original files."""

    name: str
    """A name in print that no other image of the split has."""
    label: int
    """The index of the class."""
    content: bytes | Path
    """The encoded bytes, or the file that contains them."""


# TFDS has no types: its classes are Any to mypy, without `skip_registration`.
@dataclass
class PhotographConfig(tfds.core.BuilderConfig):
    """A config (variant) of a builder of photographs."""

    short_side: int | None = None
    """The length in pixels that longer short sides are scaled down to; None stores all whole."""


def stored(content: bytes, short_side: int | None) -> bytes:
    """The bytes to store for an encoded image: the same bytes if it is intact and small enough.

    JPEG files of other colours than RGB and grey (ImageNet has some in CMYK), and images whose
    short side is longer than `short_side`, are written anew as upright JPEG.

    Raises:
        ImageError: the image cannot be decoded to its end, is too large, or no image.
    """
    with open_image(content) as image:
        kept_mode = image.format != "JPEG" or image.mode in ("L", "RGB")
        channels = 1 if image.mode in _GREY else 3
        if short_side is None or min(image.size) <= short_side:
            whole = image.decoded(channels)
            return content if kept_mode else _jpeg(whole)
        factor = short_side / min(image.size)
        width, height = (round(side * factor) for side in image.size)
        pixels = image.decoded(channels, least=(2 * width, 2 * height))
        return _jpeg(pixels.resize((width, height), Image.Resampling.LANCZOS))


def has_frames(content: bytes) -> bool:
    """Whether an encoded image is an animation or has pages; it may take a scan of the file."""
    try:
        with open_image(content) as image:
            return image.frames() > 1
    except ImageError:  # behind the first frame
        return True


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def in_order[T, R](
    function: Callable[[T], R], items: Iterable[T], threads: int
) -> Iterator[tuple[T, R]]:
    """Pairs of an item and the function's result, in the items' order, computed in threads.

    Args:
        function: the work; it must be safe in threads.
        items: the items; at most 4 per thread are taken before their results are consumed.
        threads: the number of threads.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) >= 4 * threads:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()


class PhotographBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A builder of photographs of any size in classes; subclasses find them among their files."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION: ClassVar[str]
    HOMEPAGE: ClassVar[str | None] = None
    CITATION: ClassVar[str | None] = None
    builder_config: PhotographConfig

    def __init__(self, *, file_format: str | None = "array_record", **options: Any):
        # TFDS's default, tfrecord, can't be written or read at random places without TensorFlow.
        super().__init__(file_format=file_format, **options)

    @abc.abstractmethod
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""

    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return ("train", "test")

    @abc.abstractmethod
    def photographs(self, folder: Path, split: str) -> Iterator[Photograph]:
        """The images of one of the `splits`, from the files in `folder`.

        Raises:
            FileError: a file is missing, damaged, or contains something else.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=list(self.labels())),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            metadata=tfds.core.MetadataDict(
                left_out={}, first_frames=[], short_side=self.builder_config.short_side
            ),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        folder = Path(dl_manager.manual_dir)
        return {split: self._generate_examples(folder, split) for split in self.splits()}

    def _generate_examples(self, folder: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        found = self.photographs(folder, split)
        threads = usable_cores()
        faults: dict[str, str] = {}
        first_frames: list[str] = []
        count = 0
        with Bar(desc=f"{self.name} {split}", unit=" images", mininterval=0.5) as progress:
            for (name, label, _), content in in_order(self._stored, found, threads):
                progress.update()
                count += 1
                if isinstance(content, str):
                    faults[name] = content
                else:
                    if has_frames(content):
                        first_frames.append(name)
                    yield name, {"image": content, "label": label, "name": name}
        if len(faults) > DAMAGED_SHARE * count:
            examples = "; ".join(f"{name}: {fault}" for name, fault in list(faults.items())[:5])
            raise FileError(
                f"{len(faults)} of the {count} {split} images in {shown(folder)} are damaged, more"
                f" than {100 * DAMAGED_SHARE:g} % ({examples}). Repair or delete them.",
                path=folder,
            )
        if not count:
            raise FileError(f"{shown(folder)} contains no {split} images.", path=folder)
        self.info.metadata["left_out"].update(faults)
        self.info.metadata["first_frames"].extend(first_frames)

    def _stored(self, photograph: Photograph) -> bytes | str:
        """The bytes to store, or the image's fault in words."""
        content = photograph.content
        try:
            read = content if isinstance(content, bytes) else content.read_bytes()
            return stored(read, self.builder_config.short_side)
        except ImageError as fault:
            return str(fault)
        except OSError as error:
            return error.strerror or str(error)


def check_short_side(short_side: int | None) -> None:
    """Checks the length in pixels that short sides are to be scaled to.

    Raises:
        ArgumentError: it is less than `LEAST_SHORT_SIDE`.
    """
    if short_side is not None and short_side < LEAST_SHORT_SIDE:
        raise ArgumentError(
            f"`short_side={short_side}` is too small. Give {LEAST_SHORT_SIDE} or more; 256 is"
            " usual.",
            argument="short_side",
        )
