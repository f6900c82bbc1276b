"""The reader of image files: encoded bytes to upright pixels of 8 bits without transparency.

Everything that reads images reads them here: photographs that chains start at, those that a
reference is fitted to, class folders when they are prepared, and prepared records. Rules:

- An image is turned as its EXIF orientation says, which every viewer does.
- Deeper pixels are scaled by their depth: 16 bits from 0..65535, floating-point from 0..1.
- What is transparent shows white (`BACKGROUND`).
- An animation is its first frame, and a file of several pages its first.
"""

import io
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from ppl_cnn.errors import FileError

# Pillow warns of every oddity of a file that it reads all the same, and of large photographs.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow's names of the formats that are read. Others that Pillow knows call programs (EPS) or
accept almost anything (TGA)."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""Usual suffixes of files of these formats, in lower case."""
LONGEST_SIDE = 65_535
"""Pixels of the longest side that is read, JPEG's own limit; Pillow limits the number of pixels. A
WebP of 800 bytes that says it is 5 million pixels long takes 8 seconds."""
SPARSE, PIXELS_PER_BYTE = 2**24, 1000
"""Pixels that a file of any size may say it has, and those that each byte of a file may stand for
beyond. Blank images alone have more, and a WebP of 400 bytes that says it has 100 million pixels
takes 2 GB before it is found damaged."""
BACKGROUND = "white"
"""The colour behind transparent pixels."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright."""
_SIDEWAYS = (5, 6, 7, 8)
_BITS, _WHITE_IS_ZERO, _SIGNED, _SAMPLE_FORMAT = 258, 0, 2, 339
"""Tags and values of TIFF 6.0."""
_ROUNDING = 1e-3
"""How far floating-point pixels may lie outside 0..1."""
_OTHERS = (
    (b"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` fetches the file itself"),
    (b"<", "a page of HTML or XML"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"8BPS", "a Photoshop document"),
    (b"PK\3\4", "a zip archive"),
)
"""What files that pass for images begin with, and what they are."""


class ImageError(ValueError):
    """An image can't be read. The message says why, in words that may follow a file's name."""


class OpenedImage:
    """An image that is opened and not decoded yet.

    Args:
        image: the image, as Pillow has opened it.

    Raises:
        ImageError: the image is damaged, as far as this is known before it is decoded.
    """

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self._orientation = _orientation(image)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright image; of a part of its pixels once `decoded` drafts."""
        return self._turned(self._image.size)

    @property
    def format(self) -> str | None:
        """Pillow's name of the format."""
        return self._image.format

    @property
    def mode(self) -> str:
        """Pillow's mode of the stored pixels."""
        return self._image.mode

    @property
    def is_upright(self) -> bool:
        """Whether the stored pixels need not be turned."""
        return self._orientation not in _UPRIGHT

    def frames(self) -> int:
        """Number of frames or pages, of which the first is read; it may take a scan of the file.

        Raises:
            ImageError: the file is damaged behind its first frame.
        """
        if self.format == "MPO":  # a photograph with previews or with a second eye's view
            return 1
        with _faults():
            return int(getattr(self._image, "n_frames", 1))

    def decoded(self, channels: int, least: tuple[int, int] | None = None) -> Image.Image:
        """The upright pixels, 0..255, in Pillow's mode L (ITU-R 601 luma) or RGB.

        Args:
            channels: 1 for grey, 3 for colour.
            least: the (width, height) that will do: a larger JPEG may be decoded at 1/2, 1/4 or 1/8
                of its size, and is not smaller than that.

        Raises:
            ImageError: the image is damaged, or its pixels are of a kind that isn't read.
        """
        mode = "L" if channels == 1 else "RGB"
        with _faults():
            if least is not None:
                self._image.draft(mode, self._turned(least))
            self._image.load()
            flat = _flat(self._image, mode)
            turn = _UPRIGHT.get(self._orientation)
            return flat if turn is None else flat.transpose(turn)

    def _turned(self, size: tuple[int, int]) -> tuple[int, int]:
        return (size[1], size[0]) if self._orientation in _SIDEWAYS else size


@contextmanager
def open_image(source: Path | bytes) -> Iterator[OpenedImage]:
    """Opens an image, which is read by its content, whatever its name ends in.

    Args:
        source: the file, or its content.

    Raises:
        ImageError: the file is missing, or no image that can be read.

    Examples:
        >>> buffer = io.BytesIO()
        >>> Image.new("LA", (3, 2)).save(buffer, "PNG")
        >>> with open_image(buffer.getvalue()) as image:
        ...     image.size, image.decoded(1).getpixel((0, 0))
        ((3, 2), 255)
    """
    if isinstance(source, Path) and not os.path.isfile(source):  # a pipe would be waited for
        raise ImageError("not a file" if os.path.exists(source) else "there is no such file")
    with _faults(source):
        image = Image.open(
            source if isinstance(source, Path) else io.BytesIO(source), formats=_formats()
        )
    with image:
        _refuse_large(image, len(source) if isinstance(source, bytes) else source.stat().st_size)
        yield OpenedImage(image)


def read_pixels(path: Path) -> UInt8[np.ndarray, "row col 3"]:
    """The upright RGB pixels of an image file, 0..255.

    Raises:
        FileError: the file is missing, or no image that can be read.
    """
    try:
        with open_image(path) as image:
            return np.array(image.decoded(3))
    except ImageError as fault:
        raise FileError(f"Cannot read the image {str(path)!r}: {fault}.", path=path) from None


def is_image(path: Path) -> bool:
    """Whether a file begins as an image of one of `FORMATS` does, whatever its name ends in."""
    try:
        with open_image(path):
            return True
    except ImageError:
        return False


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _refuse_large(image: Image.Image, length: int) -> None:
    """Refuses an image by the size that it says it has, before it is decoded.

    Args:
        image: the image, not decoded yet.
        length: bytes of its file.

    Raises:
        ImageError: a side is longer than any that is read, or the file is too short for its pixels.
    """
    pixels = math.prod(image.size)
    size = f"too large: {' x '.join(f'{side:,}' for side in image.size)} pixels"
    if max(image.size) > LONGEST_SIDE:
        raise ImageError(f"{size}, and a side may have {LONGEST_SIDE:,}")
    if pixels > max(SPARSE, PIXELS_PER_BYTE * length):
        raise ImageError(f"{size} in a file of {length:,} bytes, so it is blank or damaged")


@contextmanager
def _faults(source: Path | bytes = b"") -> Iterator[None]:
    """Turns what Pillow raises into an `ImageError`; damaged files make it raise all kinds."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: {_words(error)}") from None
    except UnidentifiedImageError:
        raise ImageError(_kind(source)) from None
    except Exception as error:
        raise ImageError(_words(error)) from None


def _words(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, LookupError):  # of a table that the file lacks; its text is a bare key
        said = f"damaged ({type(error).__name__}: {said})"
    return " ".join(said.split()).rstrip(".") or type(error).__name__


def _kind(source: Path | bytes) -> str:
    """What a file is that Pillow doesn't know."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(64)
    if not source:
        return "an empty file"
    if source[4:8] == b"ftyp":
        return "a HEIC image or a video; convert it to JPEG or PNG"
    for beginning, kind in _OTHERS:
        if source.lstrip().startswith(beginning):
            return kind
    return "no intact image of a format that is read"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied; 1 is upright."""
    if image.format == "TIFF":  # Pillow turns it
        return 1
    try:
        return int(image.getexif().get(Base.Orientation, 1))
    except Exception:  # Pillow raises all kinds on damaged EXIF, without which an image is upright
        return 1


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """An image in the mode L or RGB, on `BACKGROUND` where it is transparent."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bits(image).convert(mode)
    if image.mode == "LAB":
        image = image.convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    ground = Image.new(mode, image.size, BACKGROUND)
    for box in _strips(image.size):
        strip = image.crop(box)
        colours = (strip.convert("LA") if image.mode == "La" else strip).convert("RGBA")
        opaque = Image.new("RGB", strip.size, BACKGROUND)
        opaque.paste(colours, mask=colours.getchannel("A"))
        ground.paste(opaque.convert(mode), box)
    return ground


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """The (left, upper, right, lower) of strips that make up an image, of about a million pixels.

    What is computed strip by strip takes little memory.
    """
    width, height = size
    rows = max(1, 2**20 // width)
    for row in range(0, height, rows):
        yield 0, row, width, min(row + rows, height)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of more than 8 bits, scaled by its depth.

    Raises:
        ImageError: pixels lie outside the range of their depth, or the depth is unknown.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    low, high = values.min(), values.max()
    if image.mode == "F":
        largest = 1.0
        if not (-_ROUNDING <= low <= high <= 1 + _ROUNDING):  # nor NaN
            raise ImageError(f"floating-point pixels from {low:.6g} to {high:.6g}, not in 0..1")
    else:
        largest, is_signed = _depth(image, tags)
        if not is_signed and values.dtype == np.int32:
            values = values.view(np.uint32)
        elif low < 0:
            raise ImageError("negative pixels")
    if 0 < float(values.max()) * 255 < largest:
        raise ImageError(
            f"black as it stands: pixels up to {values.max():.6g}, and its depth has {largest:.0f}"
        )
    grey = np.empty(values.shape, np.uint8)
    transparent = image.info.get("transparency")
    for _, row, _, end in _strips(image.size):
        part = values[row:end]
        levels = np.rint(part * np.float32(255 / largest)).clip(0, 255).astype(np.uint8)
        if tags.get(Base.PhotometricInterpretation) == _WHITE_IS_ZERO:
            levels = 255 - levels
        grey[row:end] = np.where(part == transparent, 255, levels)
    return Image.fromarray(grey)


def _depth(image: Image.Image, tags: Mapping[int, Any]) -> tuple[float, bool]:
    """The largest number that grey pixels of more than 8 bits hold; whether they have a sign."""
    if image.format == "TIFF":
        (bits, *_), (kind, *_) = tags.get(_BITS, (16,)), tags.get(_SAMPLE_FORMAT, (1,))
        return 2.0 ** (bits - (kind == _SIGNED)) - 1, kind == _SIGNED
    if image.mode == "I" and image.format != "PPM":
        raise ImageError(f"pixels of 32 bits in {image.format}")
    return 2.0**16 - 1, False
