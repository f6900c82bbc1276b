"""Where exemplars come from: a folder of photographs, or a data set."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, override

import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from ppl_cnn.data.augmentation import CentreView
from ppl_cnn.data.catalogue import FOLDER, NAMES
from ppl_cnn.data.image_files import ImageError, open_image
from ppl_cnn.data.walk import LeftOut, Listing, account, list_images
from ppl_cnn.errors import FileError, UnknownNameError, shown
from ppl_cnn.inference.sampling.resampling.proposals import Pictures, Proposals, Read
from ppl_cnn.models.density import DensityParams
from ppl_cnn.models.empirical_density import EmpiricalDensity, seen_by
from ppl_cnn.models.references.empirical import Empirical
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.units.score_function import Scored
from ppl_cnn.work import usable_cores

_DATA = "data:"
"""How a data set is written as a reference."""


class Source(ABC):
    """A set of images; `str()` gives its text."""

    @abstractmethod
    def proposals(self, unit: Scored) -> Proposals:
        """The images as a unit sees them, by number."""

    @abstractmethod
    def name(self, number: int) -> str:
        """What the image of this number is called."""

    def damaged(self, proposals: Proposals) -> Sequence[int]:
        """The numbers of the images that couldn't be read so far."""
        return ()

    def left_out(self, proposals: Proposals) -> tuple[LeftOut, ...]:
        """What couldn't be used, once all images have been read."""
        return ()


class OfData(Source):
    """The images of a data set.

    Args:
        images: the data set and its split.
    """

    def __init__(self, images: Empirical) -> None:
        self._images = images

    def __str__(self) -> str:
        return str(self._images).removeprefix(_DATA)

    @override
    def proposals(self, unit: Scored) -> Pictures:
        """The images in the data set's order, with their classes."""
        return Pictures(EmpiricalDensity(unit, self._images))

    @override
    def name(self, number: int) -> str:
        """Its split and number."""
        return f"{self._images.split} {number}"


class OfFolder(Source):
    """The photographs in a folder and its subfolders.

    Args:
        folder: the folder.

    Raises:
        FileError: it can't be read, or holds no images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.listing = folder, list_images(folder)
        if not self.listing.files:
            raise FileError(
                f"{shown(folder)!r} holds no images. Give a folder of photographs as `exemplars`.",
                path=folder,
            )

    def __str__(self) -> str:
        return shown(self.folder)

    @override
    def proposals(self, unit: Scored) -> "Files":
        """The photographs, sorted by path."""
        return Files(unit, self.folder, self.listing)

    @override
    def name(self, number: int) -> str:
        """The file's path below the folder."""
        return shown(self.listing.files[number].path)

    @override
    def damaged(self, proposals: Proposals) -> Sequence[int]:
        """The numbers of the files that couldn't be read so far."""
        assert isinstance(proposals, Files)
        return list(proposals.damaged)

    @override
    def left_out(self, proposals: Proposals) -> tuple[LeftOut, ...]:
        """Files that are no images, and damaged ones."""
        assert isinstance(proposals, Files)
        return (*proposals.damaged.values(), *self.listing.left_out)


class Files(Proposals):
    """Photographs of files: scaled to the network's image, whose centre is cut out.

    Args:
        unit: what sees them.
        folder: where they lie.
        listing: the files.
    """

    def __init__(self, unit: Scored, folder: Path, listing: Listing) -> None:
        self._unit, self._folder, self._files = unit, folder, listing.files
        self._view = CentreView(unit.image_shape, unit.preprocessing.short_side)
        self.count = len(listing.files)
        self.damaged: dict[int, LeftOut] = {}
        """The files that couldn't be read so far, by number; their images are black."""

    @override
    def read(self, numbers: Integer[np.ndarray, " n"]) -> Read:
        """Their pixels, which threads decode."""
        with ThreadPoolExecutor(usable_cores()) as pool:
            return Read(np.stack(list(pool.map(self._pixels, numbers.tolist()))), None)

    @override
    def images(self, params: DensityParams, given: Any) -> Float[Array, "n row col channel"]:
        """The unit's images of these pixels."""
        return seen_by(self._unit, given)

    def _pixels(self, number: int) -> UInt8[np.ndarray, "row col channel"]:
        path = self._files[number].path
        try:
            with open_image(self._folder / path) as image:
                return self._view(image, number)
        except ImageError as fault:
            self.damaged[number] = LeftOut(path, f"that can't be read ({fault})")
            return np.zeros(self._view.shape, np.uint8)


def parse_source(text: str) -> Source:
    """The set of images that a text names.

    Args:
        text: a folder of photographs, or a data set of `ppl_cnn.data` as NAME[@SPLIT] or
            folder:PATH[@SPLIT]; a folder that is called like a data set is ./NAME.

    Raises:
        UnknownNameError: there is no such folder, data set or split.
        FileError: the folder holds no images, or the data set is not prepared.

    Examples:
        >>> str(parse_source("fashion-embedded@test"))
        'fashion-embedded@test'
    """
    name = text.removeprefix(_DATA)
    if name.partition("@")[0].partition("/")[0] in NAMES or name.startswith(FOLDER):
        images = parse_reference(_DATA + name)
        assert isinstance(images, Empirical)
        return OfData(images)
    if text and Path(text).is_dir():
        return OfFolder(Path(text))
    raise UnknownNameError(
        f"`exemplars={text}` is neither a folder nor a data set. Give a folder of photographs, or "
        f"one of {', '.join(NAMES)}.",
        name=text,
        known=NAMES,
    )


def lines(source: Source, proposals: Proposals) -> Iterator[str]:
    """What to tell of images that were left out.

    Args:
        source: the set.
        proposals: its images, all read.
    """
    for line in account(source.left_out(proposals)):
        yield f"{source}: {line}"
