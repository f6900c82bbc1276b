"""What the TFDS builders of photographs share: each is decoded before it is stored as it came.

Photographs are stored as encoded bytes, and in an order that their names' hashes give, so that
every part of a split is a random sample of all classes. Preparing needs no TensorFlow.
"""

import abc
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from ppl_cnn.data.augmentation import DAMAGE
from ppl_cnn.data.catalogue import DAMAGED_SHARE
from ppl_cnn.errors import InputError

QUALITY = 92
"""Of JPEG files that are written where the originals can't be kept."""
LEAST_SHORT_SIDE = 32

_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


class Photograph(NamedTuple):
    """One image that a builder finds."""

    name: str
    """Of its own in the split."""
    label: int
    content: bytes | Path
    """The encoded bytes, or the file that has them."""


@dataclass
class PhotographConfig(tfds.core.BuilderConfig):
    """A variant: whether photographs are stored whole."""

    short_side: int | None = None
    """What a longer short side is scaled down to, or None."""


def stored(content: bytes, short_side: int | None) -> bytes:
    """The encoded image as it is to be stored: as it came, if it is intact and not too large.

    JPEG files of other colours than RGB and grey (ImageNet has some in CMYK), and images whose
    short side is longer than `short_side`, are written anew as JPEG.

    Raises:
        ValueError, OSError or another of `DAMAGE`: the image can't be decoded to its end.
    """
    try:
        image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise ValueError(f"is too large: {error}") from error
    with image:
        if image.mode not in _EIGHT_BITS:
            raise ValueError(f"has pixels of the kind {image.mode}, and 8 bits would be right")
        if short_side is None or min(image.size) <= short_side:
            image.load()
            if image.format != "JPEG" or image.mode in ("L", "RGB"):
                return content
            return _jpeg(image)
        factor = short_side / min(image.size)
        width, height = (round(side * factor) for side in image.size)
        image.draft(None, (2 * width, 2 * height))
        grey = image.mode in ("1", "L", "LA")
        opaque = image.convert("RGBA") if image.mode == "P" else image
        pixels = opaque.convert("L" if grey else "RGB")
        return _jpeg(pixels.resize((width, height), Image.Resampling.LANCZOS))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("L" if image.mode == "L" else "RGB").save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def in_order[T, R](
    function: Callable[[T], R], items: Iterable[T], threads: int
) -> Iterator[tuple[T, R]]:
    """Each item with the function's result, in the items' order; few are under way at a time."""
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
    """Photographs of any size in classes; `photographs` finds them."""

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
        """The classes' names in their order."""

    @abc.abstractmethod
    def photographs(self, folder: Path, split: str) -> Iterator[Photograph]:
        """The images of the split `train` or `test`, from the files in `folder`."""

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
            metadata=tfds.core.MetadataDict(left_out={}, short_side=self.builder_config.short_side),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        folder = Path(dl_manager.manual_dir)
        return {split: self._generate_examples(folder, split) for split in ("train", "test")}

    def _generate_examples(self, folder: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        found = self.photographs(folder, split)
        threads = os.process_cpu_count() or 1
        faults: dict[str, str] = {}
        count = 0
        with tqdm(desc=f"{self.name} {split}", unit=" images", mininterval=0.5) as progress:
            for (name, label, _), content in in_order(self._stored, found, threads):
                progress.update()
                count += 1
                if isinstance(content, str):
                    faults[name] = content
                else:
                    yield name, {"image": content, "label": label, "name": name}
        if len(faults) > DAMAGED_SHARE * count:
            examples = "; ".join(f"{name}: {fault}" for name, fault in list(faults.items())[:5])
            raise InputError(
                f"{len(faults)} of the {count} {split} images in {folder} are damaged, more than"
                f" 0.1 % ({examples}); mend or delete them."
            )
        if not count:
            raise InputError(f"{folder} has no {split} images.")
        self.info.metadata["left_out"].update(faults)

    def _stored(self, photograph: Photograph) -> bytes | str:
        """The bytes to store, or in words what is wrong with them."""
        content = photograph.content
        try:
            read = content if isinstance(content, bytes) else content.read_bytes()
            return stored(read, self.builder_config.short_side)
        except DAMAGE as error:
            return str(error) or type(error).__name__


def check_short_side(short_side: int | None) -> None:
    """Raises `InputError` if photographs can't be scaled to it."""
    if short_side is not None and short_side < LEAST_SHORT_SIDE:
        raise InputError(
            f"--short-side {short_side} is too small; {LEAST_SHORT_SIDE} or more would be right,"
            " and 256 is usual."
        )
