"""What of a photograph a network gets to see: centre crops, AlexNet's ten, and random views.

A view is a function of an image and its position in the split. What is random in it depends on
(seed, epoch, position) alone, so that neither threads, processes nor an interruption change a bit.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from jaxtyping import Float, UInt8

from ppl_cnn.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Shape = tuple[int, int, int]
"""(row, col, channel)."""

CROPS = ("crop", "resized-crop")
PARTS = (*CROPS, "flip", "colour")

MARGIN = 256 / 224
"""Short side / window of random and corner crops, where nothing else is said."""
AREA = (0.08, 1.0)
"""Share of the image that a resized crop takes."""
ASPECT = (3 / 4, 4 / 3)
"""Width / height of a resized crop, relative to the network's image."""
DRAFT = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that still has this many times the pixels
per side that are wanted. At 224 pixels of six landscapes with short sides of 1,000 and 1,500, this
changed a pixel by 0.2 grey levels on average (at 1 instead of 2: by 0.4 to 0.8)."""

DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What Pillow raises on damaged files."""

COLOUR_DEVIATION = 0.1
COLOUR_VALUES = (0.2175, 0.0188, 0.0045)
"""Eigenvalues of the covariance of ImageNet's RGB values (0..1), as fb.resnet.torch gives them."""
COLOUR_VECTORS = (
    (-0.5675, -0.5808, -0.5836),
    (0.7192, -0.0045, -0.6948),
    (0.4009, -0.8140, 0.4203),
)
"""The eigenvectors (R, G, B) that belong to them."""


class Augmentation(NamedTuple):
    """What is done to training images.

    Source: Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural
    networks, NeurIPS 2012 (crop, flip, colour); Szegedy et al.: Going deeper with convolutions,
    CVPR 2015 (resized-crop).
    """

    crop: str | None = None
    """"crop": a window of the network's size at a random place of the scaled image;
    "resized-crop": a random window of 8 to 100 % of the area, scaled to the network's size;
    None: the centre, as tests see it."""
    flip: bool = False
    """Left and right exchanged in half of the views."""
    colour: bool = False
    """Noise along the principal components of ImageNet's colours."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "none", or parts joined by "+": crop or resized-crop, flip, colour.

        Raises:
            InputError: it is something else.
        """
        parts = [] if text == "none" else text.split("+")
        crops = [part for part in parts if part in CROPS]
        if not {*parts} <= {*PARTS} or len({*parts}) < len(parts) or len(crops) > 1:
            raise InputError(
                f"{text!r} is no augmentation: write none, or one or several of crop (or"
                " resized-crop), flip and colour, for example crop+flip+colour."
            )
        return cls(crops[0] if crops else None, "flip" in parts, "colour" in parts)


class Window(NamedTuple):
    """A part of an image, in its pixels; edges may lie between two."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class CentreView:
    """The centre of the image, as networks' own preprocessing cuts it."""

    shape: Shape
    short_side: int | None = None
    """What the image's short side is scaled to; None for the least that fills the shape."""

    def __call__(self, image: "Image.Image", position: int) -> UInt8[np.ndarray, "row col channel"]:
        """The view of the image; one of `DAMAGE` if it is damaged."""
        window = placed(image.size, self.shape, self.short_side or min(self.shape[:2]), 0.5, 0.5)
        return look(image, window, self.shape)


@dataclass(frozen=True)
class TenViews:
    """AlexNet's test: the four corners and the centre, and these five mirrored."""

    image_shape: Shape
    short_side: int | None = None
    """What the image's short side is scaled to; None for 8/7 of the shape's."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(view, row, col, channel)."""
        return (10, *self.image_shape)

    def __call__(
        self, image: "Image.Image", position: int
    ) -> UInt8[np.ndarray, "view row col channel"]:
        """The views of the image; one of `DAMAGE` if it is damaged."""
        short_side = self.short_side or margin_side(self.image_shape)
        places = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
        windows = [placed(image.size, self.image_shape, short_side, *place) for place in places]
        views = look_at_all(image, windows, self.image_shape)
        return np.concatenate([views, views[:, :, ::-1]])


@dataclass(frozen=True)
class RandomView:
    """An epoch's view of each image."""

    augmentation: Augmentation
    seed: int
    epoch: int
    shape: Shape
    short_side: int | None = None
    """What the image's short side is scaled to before `crop` (None: 8/7 of the shape's) or before
    the centre is cut."""

    def __call__(self, image: "Image.Image", position: int) -> UInt8[np.ndarray, "row col channel"]:
        """The view of the image; one of `DAMAGE` if it is damaged."""
        random = np.random.default_rng((self.seed, self.epoch, position))
        pixels = self._cropped(image, position, random)
        if self.augmentation.flip and random.random() < 0.5:
            pixels = pixels[:, ::-1]
        if self.augmentation.colour:
            shifted = pixels + colour_shift(random.standard_normal(3)).astype(np.float32)
            pixels = np.rint(shifted).clip(0, 255).astype(np.uint8)
        return pixels

    def _cropped(
        self, image: "Image.Image", position: int, random: np.random.Generator
    ) -> UInt8[np.ndarray, "row col channel"]:
        if self.augmentation.crop is None:
            return CentreView(self.shape, self.short_side)(image, position)
        if self.augmentation.crop == "resized-crop":
            return look(image, resized(image.size, self.shape, random), self.shape)
        short_side = self.short_side or margin_side(self.shape)
        place = random.random(2).tolist()
        return look(image, placed(image.size, self.shape, short_side, *place), self.shape)


View = CentreView | TenViews | RandomView


def margin_side(shape: Shape) -> int:
    """The short side that leaves corners and random windows room: 256 for 224, in proportion."""
    return round(MARGIN * min(shape[:2]))


def placed(
    size: tuple[int, int], shape: Shape, short_side: int, across: float, down: float
) -> Window:
    """A window of the shape in the image scaled to a short side, in the unscaled image's pixels.

    Args:
        size: (width, height) of the image.
        shape: what is wanted.
        short_side: of the scaled image; more where the shape would not fit in.
        across: of the room that there is, the share left of the window.
        down: likewise, above it.
    """
    width, height = size
    rows, cols, _ = shape
    factor = max(short_side / min(size), cols / width, rows / height)
    left, top = across * (width - cols / factor), down * (height - rows / factor)
    return Window(left, top, left + cols / factor, top + rows / factor)


def resized(size: tuple[int, int], shape: Shape, random: np.random.Generator) -> Window:
    """A window of random area and aspect at a random place; the most central one if none fits."""
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
    return placed(size, shape, min(shape[:2]), 0.5, 0.5)


def look(
    image: "Image.Image", window: Window, shape: Shape
) -> UInt8[np.ndarray, "row col channel"]:
    """The window, scaled to the shape; grey (ITU-R 601 luma) if that has one channel, or RGB.

    Args:
        image: not decoded yet, so that a large JPEG can be at a fraction of its size.
        window: in the image's pixels.
        shape: of the result.
    """
    return look_at_all(image, [window], shape)[0]


def look_at_all(
    image: "Image.Image", windows: Sequence[Window], shape: Shape
) -> UInt8[np.ndarray, "view row col channel"]:
    """Several windows of an image that is decoded once; see `look`."""
    from PIL import Image

    rows, cols, channels = shape
    mode = "L" if channels == 1 else "RGB"
    width, height = image.size
    coarse = min(min((w.right - w.left) / cols, (w.bottom - w.top) / rows) for w in windows) / DRAFT
    if coarse >= 1:
        image.draft(mode, (math.ceil(width / coarse), math.ceil(height / coarse)))
    if image.mode == "P":  # its transparency may be of a kind that only RGBA has
        image = image.convert("RGBA")
    pixels = image if image.mode == mode else image.convert(mode)
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
    """What is added to every pixel's R, G and B (0..255), of three standard normal numbers."""
    weights = 255 * COLOUR_DEVIATION * np.asarray(COLOUR_VALUES) * normals
    return weights @ np.asarray(COLOUR_VECTORS)
