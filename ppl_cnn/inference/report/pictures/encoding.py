"""Images as a page and its files hold them: enlarged or reduced, side by side, as PNG and JPEG."""

import base64
import io
from html import escape
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

_PNG_VALUES = 20_000
"""Images of more values go into the page as JPEG: noise as PNG would take tens of megabytes."""
_SMALLER = ((160, 85), (112, 85), (96, 75), (80, 60), (64, 45))
"""Longest side and JPEG's quality of a picture, in turn until it is small enough."""


def factor(pixels: UInt8[np.ndarray, "row col channel"], side: int) -> int:
    """The whole factor that enlarges an image to about `side` screen pixels."""
    longer: int = max(pixels.shape[:2])
    return max(1, round(side / longer))


def enlarged(
    pixels: UInt8[np.ndarray, "row col channel"], side: int
) -> UInt8[np.ndarray, "height width channel"]:
    """Enlarges by a whole factor, so that each pixel stays a square."""
    times = factor(pixels, side)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def reduced(
    images: UInt8[np.ndarray, "*images row col channel"], side: int
) -> UInt8[np.ndarray, "*images height width channel"]:
    """Reduces images by a whole factor to about `side` pixels; smaller ones stay as they are."""
    *few, rows, cols, channels = images.shape
    times = max(1, max(rows, cols) // side)
    height, width = max(1, rows // times), max(1, cols // times)
    whole = images[..., : height * times, : width * times, :]
    squares = whole.reshape(*few, height, times, width, times, channels)
    return squares.mean(axis=(-4, -2)).round().astype(np.uint8) if times > 1 else images


def joined(
    grid: UInt8[np.ndarray, "rows columns row col channel"], gap: int
) -> UInt8[np.ndarray, "height width channel"]:
    """Puts images side by side on white.

    Args:
        grid: the images.
        gap: pixels between two.
    """
    rows, columns, row, col, channels = grid.shape
    after = ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0))
    spaced = np.pad(grid, after, constant_values=255).swapaxes(1, 2)
    sheet = spaced.reshape(rows * (row + gap), columns * (col + gap), channels)
    return sheet[: rows * (row + gap) - gap, : columns * (col + gap) - gap]


def png(pixels: UInt8[np.ndarray, "row col channel"], note: str = "") -> bytes:
    """Encodes an image as PNG.

    Args:
        pixels: grey or RGB levels.
        note: the file's description, if it is not empty.
    """
    stream, info = io.BytesIO(), PngInfo()
    if note:
        info.add_text("Description", note)
    Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels).save(
        stream, "PNG", pnginfo=info
    )
    return stream.getvalue()


def image_tag(pixels: UInt8[np.ndarray, "row col channel"], alt: str, side: int) -> str:
    """The HTML of an image; its pixels show as squares.

    Args:
        pixels: grey or RGB levels.
        alt: what it shows, in words.
        side: its longer side on the screen, about.
    """
    times = factor(pixels, side)
    height, width, _ = pixels.shape
    return (
        f'<img class="pixels" width="{width * times}" height="{height * times}" '
        f'alt="{escape(alt)}" src="{address(pixels)}">'
    )


def address(pixels: UInt8[np.ndarray, "row col channel"]) -> str:
    """The data address of an image: PNG if it is small, otherwise JPEG."""
    if pixels.size <= _PNG_VALUES:
        return data_address("png", png(pixels))
    return data_address("jpeg", jpeg(pixels, 90))


def address_within(pixels: UInt8[np.ndarray, "height width channel"], limit: int) -> str:
    """The data address of an image, reduced and compressed until it takes few bytes.

    Args:
        pixels: grey or RGB levels.
        limit: how many bytes it may take, if it can be so small.
    """
    source = address(pixels)
    for side, quality in _SMALLER:
        if len(source) <= limit:
            break
        image = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
        image.thumbnail((side, side))
        small = np.asarray(image)
        small = small[..., None] if small.ndim == 2 else small
        source = data_address("jpeg", jpeg(small, quality))
    return source


def jpeg(pixels: UInt8[np.ndarray, "row col channel"], quality: int) -> bytes:
    """Encodes an image as JPEG, with colours at full resolution from a quality of 90 on."""
    stream = io.BytesIO()
    image = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    colour: dict[str, Any] = {"subsampling": 0 if quality >= 90 else 2}
    image.save(stream, "JPEG", quality=quality, **colour)
    return stream.getvalue()


def data_address(kind: str, content: bytes) -> str:
    """The `data:` address of an image that is part of the page.

    Args:
        kind: `png` or `jpeg`.
        content: the image file's content.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
