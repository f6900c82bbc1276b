"""Pictures of draws, means and Stein means on stated contrast scales, and their encodings."""

import base64
import io
import math
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ppl_cnn.files import write_aside
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.stein import SteinCheck
from ppl_cnn.inference.diagnostics.summary import quiet

_TILE = 112
"""Screen pixels along a small image's longer side."""
_LARGE = 336
_COLUMNS = 8
"""Draws of each chain in `images/draws.png`."""
_PNG_VALUES = 20_000
"""Images of more values go into the page as JPEG: noise as PNG would take tens of megabytes."""


class Stretched(NamedTuple):
    """Images on one contrast scale. Mid-grey is the mean of the network's inputs."""

    pixels: UInt8[np.ndarray, "*images row col channel"]
    """Grey or RGB levels, 0..255."""
    scale: float
    """How far white is above the mean and black below it, in grey levels (0..255)."""

    @classmethod
    def of(
        cls,
        images: Float[np.ndarray, "*images row col channel"],
        order: str,
        scale: float | None = None,
    ) -> "Stretched":
        """Stretches images in pixel units minus the mean.

        Args:
            images: channels are in the network's order, and averaged unless there are 1 or 3.
            order: the network's order of channels, such as `RGB`, `BGR` or `grey`.
            scale: the contrast scale; by default one that clips about 0.5 % of the values.
        """
        if images.shape[-1] not in (1, 3):
            with quiet():
                images = images.mean(axis=-1, keepdims=True)
        if scale is None:
            finite = np.abs(images[np.isfinite(images)])
            extent = float(np.quantile(finite, 0.995)) if finite.size else 0.0
            scale = _round_up(extent) if extent > 0 else 1.0
        levels = np.clip(np.nan_to_num(images) / scale, -1, 1) * 127.5 + 127.5
        if order == "BGR":
            levels = levels[..., ::-1]
        return cls(levels.round().astype(np.uint8), scale)

    def __str__(self) -> str:
        return f"black to white is ±{self.scale:g} grey levels about the mean"


def _round_up(number: float) -> float:
    """Rounds up to two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / unit) * unit:.2g}")


class Album(NamedTuple):
    """The pictures of a run. Each group has its own scale, as amplitudes differ widely."""

    draws: Stretched
    """A few draws of each chain, (chain, shown, row, col, channel)."""
    means: Stretched
    """The mean of each chain, (chain, row, col, channel)."""
    steins: Stretched | None
    """The Stein mean of each chain, (chain, row, col, channel); None if the reference has none."""
    mean: Stretched
    """The mean over all chains, (row, col, channel)."""
    stein: Stretched | None
    """The Stein mean over all chains, (row, col, channel); None if the reference has none."""

    @classmethod
    def of(cls, diagnosis: Diagnosis, order: str) -> "Album":
        """Stretches the images of a diagnosis.

        Args:
            diagnosis: the run's.
            order: the network's order of channels.
        """
        scan, steins = diagnosis.images, diagnosis.steins
        few = np.linspace(0, len(scan.shown_draws) - 1, min(_COLUMNS, len(scan.shown_draws)))
        stein_mean = diagnosis.stein_mean
        return cls(
            draws=Stretched.of(scan.shown[:, few.round().astype(int)], order),
            means=Stretched.of(scan.mean, order),
            steins=None if steins is None else Stretched.of(steins.running[:, -1], order),
            mean=Stretched.of(diagnosis.mean, order),
            stein=None if stein_mean is None else Stretched.of(stein_mean, order),
        )

    def best(self) -> Stretched:
        """The picture that shows most of the unit: the Stein mean if there is one, or the mean."""
        return self.mean if self.stein is None else self.stein

    def write(self, folder: Path) -> None:
        """Writes the pictures as PNG files, each aside and then renamed.

        Args:
            folder: where they go; made if it doesn't exist.
        """
        folder.mkdir(exist_ok=True)
        sheets = {"draws": self.draws, "means": self.means, "steins": self.steins}
        for name, images in sheets.items():
            if images is not None:
                grid = images.pixels if name == "draws" else images.pixels[None]
                write_aside(folder / f"{name}.png", png(_sheet(grid), str(images)))
        for name, image in {"mean": self.mean, "stein": self.stein}.items():
            if image is not None:
                content = png(_enlarge(image.pixels, _LARGE), str(image))
                write_aside(folder / f"{name}.png", content)

    def html(self, check: SteinCheck | None) -> str:
        """The large pictures of the page.

        Args:
            check: how far mean and Stein mean differ, if that is known.
        """
        draw = Stretched(self.draws.pixels[0, -1], self.draws.scale)
        figures = [
            _large_figure(self.mean, "Mean", f"E[x], over all chains; {self.mean}.{_check(check)}"),
            _large_figure(draw, "One draw", f"x, the last of chain 0; {draw}."),
        ]
        if self.stein is not None:
            caption = f"(s²/T) E[∇f], over all chains; {self.stein}."
            figures.insert(0, _large_figure(self.stein, "Stein mean", caption))
        return f'<div class="row">\n{"".join(figures)}</div>'


def _large_figure(image: Stretched, name: str, caption: str) -> str:
    return (
        f"<figure>{image_tag(image.pixels, name, _LARGE)}"
        f"<figcaption><strong>{name}</strong> {caption}</figcaption></figure>\n"
    )


def _check(check: SteinCheck | None) -> str:
    if check is None:
        return ""
    return (
        f" By Stein's identity it equals the Stein mean. They differ by {check.difference:.2g} "
        f"grey levels (rms); chance alone would give {check.chance:.2g}."
    )


def factor(pixels: UInt8[np.ndarray, "row col channel"], side: int) -> int:
    """The whole factor that enlarges an image to about `side` screen pixels."""
    longer: int = max(pixels.shape[:2])
    return max(1, round(side / longer))


def _enlarge(
    pixels: UInt8[np.ndarray, "row col channel"], side: int
) -> UInt8[np.ndarray, "height width channel"]:
    """Enlarges by a whole factor, so that each pixel stays a square."""
    times = factor(pixels, side)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _sheet(
    grid: UInt8[np.ndarray, "rows columns row col channel"], gap: int = 6
) -> UInt8[np.ndarray, "height width channel"]:
    """Puts images side by side on white."""
    tiles = [[_enlarge(pixels, _TILE) for pixels in row] for row in grid]
    height, width, channels = tiles[0][0].shape
    sheet = np.full(
        (len(tiles) * (height + gap) - gap, len(tiles[0]) * (width + gap) - gap, channels),
        255,
        np.uint8,
    )
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    return sheet


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
