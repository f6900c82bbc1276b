"""Views of images: the centre, AlexNet's ten crops, and random views for training.

A view is a function of an image and its position in the split to pixels of a fixed shape. Random
views depend on (seed, epoch, position) alone, so that neither threads, processes nor an
interruption change a bit.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from jaxtyping import Float, UInt8

from ppl_cnn.errors import ArgumentError

if TYPE_CHECKING:
    from ppl_cnn.data.image_files import OpenedImage

Shape = tuple[int, int, int]
"""(row, col, channel) of one view."""

CROPS = ("crop", "resized-crop")
"""Parts of an augmentation's text that choose a window; at most one of them."""
PARTS = (*CROPS, "flip", "colour")
"""All parts of an augmentation's text."""

MARGIN = 256 / 224
"""Default ratio of the scaled image's short side to the window of random and corner crops."""
AREA = (0.08, 1.0)
"""Least and largest share of the image's area that a resized crop takes."""
ASPECT = (3 / 4, 4 / 3)
"""Least and largest width/height of a resized crop, relative to the network's image."""
DRAFT = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that keeps this many times the wanted pixels
per side. On six landscapes with short sides of 1,000 and 1,500, seen at 224 pixels, this changed a
pixel by 0.2 grey levels on average (with 1 instead of 2 by 0.4 to 0.8)."""

COLOUR_DEVIATION = 0.1
"""Standard deviation of the colour noise along each component, in units of its eigenvalue."""
COLOUR_VALUES = (0.2175, 0.0188, 0.0045)
"""Eigenvalues of the covariance of ImageNet's RGB values (0..1), from fb.resnet.torch."""
COLOUR_VECTORS = (
    (-0.5675, -0.5808, -0.5836),
    (0.7192, -0.0045, -0.6948),
    (0.4009, -0.8140, 0.4203),
)
"""The eigenvectors (R, G, B) of these eigenvalues, a row each."""


class Augmentation(NamedTuple):
    """The random changes of training images: crop, mirror, colour noise.

    Sources: Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural
    networks, NeurIPS 2012 (crop, flip, colour); Szegedy et al.: Going deeper with convolutions,
    CVPR 2015 (resized-crop).

    Examples:
        >>> Augmentation.parse("resized-crop+flip")
        Augmentation(crop='resized-crop', flip=True, colour=False)
    """

    crop: str | None = None
    """The window: "crop" is a window of the network's size at a random place of the scaled image,
    "resized-crop" a random window of 8 to 100 % of the area, scaled to the network's size, and
    None the centre, as in testing."""
    flip: bool = False
    """Whether half of the views are mirrored left to right."""
    colour: bool = False
    """Whether noise along the principal components of ImageNet's colours is added."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The augmentation of a text: "none", or parts joined by "+".

        Args:
            text: the parts are crop or resized-crop, flip, and colour, in any order.

        Raises:
            ArgumentError: a part is unknown or repeated, or both crops are given.
        """
        parts = [] if text == "none" else text.split("+")
        crops = [part for part in parts if part in CROPS]
        if not {*parts} <= {*PARTS} or len({*parts}) < len(parts) or len(crops) > 1:
            raise ArgumentError(
                f"Cannot use the augmentation {text!r}. Give none, or parts joined by +: crop or"
                " resized-crop, flip, colour.",
                argument="augment",
            )
        return cls(crops[0] if crops else None, "flip" in parts, "colour" in parts)


class Window(NamedTuple):
    """A rectangle in an image, in pixels from its top left corner; edges may lie within pixels."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class CentreView:
    """The centre of the image, as the preprocessing of networks cuts it."""

    shape: Shape
    """(row, col, channel) of the view."""
    short_side: int | None = None
    """The length in pixels that the image's short side is scaled to before the cut; None takes the
    least that fills the shape."""

    def __call__(self, image: "OpenedImage", position: int) -> UInt8[np.ndarray, "row col channel"]:
        """The view of an image, pixels 0..255; raises an `ImageError` if it is damaged."""
        short_side = self.short_side or min(self.shape[:2])
        window = placed(image.size, self.shape, short_side, across=0.5, down=0.5)
        return look(image, window, self.shape)


@dataclass(frozen=True)
class TenViews:
    """AlexNet's ten test views: the four corners and the centre, and these five mirrored."""

    image_shape: Shape
    """(row, col, channel) of one view."""
    short_side: int | None = None
    """The length in pixels that the image's short side is scaled to before the cuts; None takes
    8/7 of the shape's short side."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(view, row, col, channel) of the ten views."""
        return (10, *self.image_shape)

    def __call__(
        self, image: "OpenedImage", position: int
    ) -> UInt8[np.ndarray, "view row col channel"]:
        """The views of an image, pixels 0..255; raises an `ImageError` if it is damaged."""
        short_side = self.short_side or margin_side(self.image_shape)
        places = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
        windows = [
            placed(image.size, self.image_shape, short_side, across=across, down=down)
            for across, down in places
        ]
        views = look_at_all(image, windows, self.image_shape)
        return np.concatenate([views, views[:, :, ::-1]])


@dataclass(frozen=True)
class RandomView:
    """The augmented view of each image in one epoch."""

    augmentation: Augmentation
    """The random changes."""
    _: KW_ONLY
    seed: int
    """The seed of the run, 0 or more."""
    epoch: int
    """The epoch, from 0; each epoch has views of its own."""
    shape: Shape
    """(row, col, channel) of the view."""
    short_side: int | None = None
    """The length in pixels that the image's short side is scaled to before a "crop" (None: 8/7 of
    the shape's short side) or before the centre is cut (None: the least that fills the shape)."""

    def __call__(self, image: "OpenedImage", position: int) -> UInt8[np.ndarray, "row col channel"]:
        """The view of an image, pixels 0..255; raises an `ImageError` if it is damaged."""
        random = np.random.default_rng((self.seed, self.epoch, position))
        pixels = self._cropped(image, position, random)
        if self.augmentation.flip and random.random() < 0.5:
            pixels = mirrored(pixels)
        if self.augmentation.colour:
            pixels = shifted(pixels, colour_shift(random.standard_normal(3)))
        return pixels

    def _cropped(
        self, image: "OpenedImage", position: int, random: np.random.Generator
    ) -> UInt8[np.ndarray, "row col channel"]:
        if self.augmentation.crop is None:
            return CentreView(self.shape, self.short_side)(image, position)
        if self.augmentation.crop == "resized-crop":
            return look(image, resized(image.size, self.shape, random), self.shape)
        short_side = self.short_side or margin_side(self.shape)
        place = random.random(2).tolist()
        window = placed(image.size, self.shape, short_side, across=place[0], down=place[1])
        return look(image, window, self.shape)


View = CentreView | TenViews | RandomView
"""A function of (image, position) to pixels, with the attribute `shape`."""


def margin_side(shape: Shape) -> int:
    """The short side, in pixels, that leaves windows of a shape room: 256 for 224, in proportion.

    Args:
        shape: (row, col, channel) of the windows.
    """
    return round(MARGIN * min(shape[:2]))


def placed(
    size: tuple[int, int], shape: Shape, short_side: int, *, across: float, down: float
) -> Window:
    """The window of a shape in an image scaled to a short side, in the unscaled image's pixels.

    Args:
        size: (width, height) of the unscaled image.
        shape: (row, col, channel) of the window in the scaled image.
        short_side: the scaled image's short side; it is raised where the shape would not fit in.
        across: the share of the free columns that lies left of the window, 0..1.
        down: the share of the free rows that lies above the window, 0..1.
    """
    width, height = size
    rows, cols, _ = shape
    factor = max(short_side / min(size), cols / width, rows / height)
    left, top = across * (width - cols / factor), down * (height - rows / factor)
    return Window(left, top, left + cols / factor, top + rows / factor)


def resized(size: tuple[int, int], shape: Shape, random: np.random.Generator) -> Window:
    """A window of random area and aspect at a random place; the centre if ten of them don't fit.

    Args:
        size: (width, height) of the image.
        shape: (row, col, channel) that the window will be scaled to.
        random: the source of random numbers.
    """
    width, height = size
    rows, cols, _ = shape
    for _ in range(10):
        area = width * height * random.uniform(*AREA)
        aspect = cols / rows * math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        across, down = random.random(2).tolist()
        wide, high = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if wide <= width and high <= height:
            left, top = across * (width - wide), down * (height - high)
            return Window(left, top, left + wide, top + high)
    return placed(size, shape, min(shape[:2]), across=0.5, down=0.5)


def look(
    image: "OpenedImage", window: Window, shape: Shape
) -> UInt8[np.ndarray, "row col channel"]:
    """A window of an image scaled to a shape: RGB, or grey (ITU-R 601 luma) for one channel.

    Args:
        image: an image that is not decoded yet, so that a large JPEG can be decoded at a fraction
            of its size.
        window: the window in the image's pixels.
        shape: (row, col, channel) of the result.
    """
    view: np.ndarray = look_at_all(image, [window], shape)[0]
    return view


def look_at_all(
    image: "OpenedImage", windows: Sequence[Window], shape: Shape
) -> UInt8[np.ndarray, "view row col channel"]:
    """Several windows of an image that is decoded once, each as `look` gives it."""
    from PIL import Image

    rows, cols, channels = shape
    width, height = image.size
    coarse = min(min((w.right - w.left) / cols, (w.bottom - w.top) / rows) for w in windows) / DRAFT
    least = (math.ceil(width / coarse), math.ceil(height / coarse)) if coarse >= 1 else None
    pixels = image.decoded(channels, least)
    across, down = pixels.width / width, pixels.height / height
    views = np.empty((len(windows), *shape), np.uint8)
    for view, window in zip(views, windows, strict=True):
        box = (
            max(0.0, window.left * across),
            max(0.0, window.top * down),
            min(float(pixels.width), window.right * across),
            min(float(pixels.height), window.bottom * down),
        )
        scaled = pixels.resize((cols, rows), Image.Resampling.BILINEAR, box)
        view[:] = np.asarray(scaled).reshape(shape)
    return views


def colour_shift(normals: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """The colour noise (R, G, B), in units of pixels 0..255, that is added to every pixel.

    Args:
        normals: three standard normal numbers, one for each principal component.
    """
    weights = 255 * COLOUR_DEVIATION * np.asarray(COLOUR_VALUES) * normals
    shift: np.ndarray = weights @ np.asarray(COLOUR_VECTORS)
    return shift


def mirrored(pixels: UInt8[np.ndarray, "row col channel"]) -> UInt8[np.ndarray, "row col channel"]:
    """Pixels with left and right exchanged."""
    copy = np.empty_like(pixels)
    for channel in range(pixels.shape[-1]):  # NumPy takes five times as long for whole pixels
        copy[..., channel] = pixels[:, ::-1, channel]
    return copy


def shifted(
    pixels: UInt8[np.ndarray, "row col 3"], shift: Float[np.ndarray, "3"]
) -> UInt8[np.ndarray, "row col 3"]:
    """Pixels plus a shift of each channel, rounded to 0..255: a table for each of 256 levels."""
    levels = np.arange(256, dtype=np.float32)
    tables = np.rint(levels[:, None] + shift.astype(np.float32)[None, :])
    tables = tables.clip(0, 255).astype(np.uint8)
    return np.stack([np.take(tables[:, c], pixels[..., c]) for c in range(3)], axis=-1)
