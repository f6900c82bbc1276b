"""A report's pictures: draws, means and Stein means on stated contrast scales."""

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
from ppl_cnn.inference.diagnostics.scan import Scan
from ppl_cnn.inference.diagnostics.stein import SteinCheck, SteinMeans
from ppl_cnn.inference.diagnostics.summary import quiet

_TILE = 112
"""Screen pixels along a small image's longer side."""
_LARGE = 336
_COLUMNS = 8
"""Draws of each chain in the PNG file."""
_PNG_VALUES = 20_000
"""Larger images go into the page as JPEG, or noise would make it tens of megabytes."""


class Stretched(NamedTuple):
    """Images on one contrast scale, mid-grey being the mean of the network's inputs."""

    pixels: UInt8[np.ndarray, "*images row col channel"]
    """Grey or RGB."""
    scale: float
    """What white is above and black below the mean, in grey levels (0..255)."""

    @classmethod
    def of(
        cls,
        images: Float[np.ndarray, "*images row col channel"],
        order: str,
        scale: float | None = None,
    ) -> "Stretched":
        """Stretches images in pixel units minus the mean.

        Args:
            images: with channels in the network's order; other than 1 or 3 are averaged.
            order: `BGR` if that is the network's order.
            scale: without it, one at which some 0.5 % of the values are clipped.
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
    """To two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / unit) * unit:.2g}")


class Album(NamedTuple):
    """The pictures of a run, each group stretched for itself, as their amplitudes differ widely."""

    draws: Stretched
    """(chain, shown, ...)"""
    means: Stretched
    """(chain, ...)"""
    steins: Stretched | None
    """Likewise; None where the reference has no Stein mean."""
    mean: Stretched
    """(...)"""
    stein: Stretched | None

    @classmethod
    def of(cls, scan: Scan, steins: SteinMeans | None, order: str) -> "Album":
        """Stretches what was scanned; `order` is that of the network's channels."""
        few = np.linspace(0, len(scan.shown_draws) - 1, min(_COLUMNS, len(scan.shown_draws)))
        last = None if steins is None else steins.running[:, -1]
        with quiet():
            overall = scan.mean.mean(axis=0)
        return cls(
            draws=Stretched.of(scan.shown[:, few.round().astype(int)], order),
            means=Stretched.of(scan.mean, order),
            steins=None if last is None else Stretched.of(last, order),
            mean=Stretched.of(overall, order),
            stein=None if last is None else Stretched.of(last.mean(axis=0), order),
        )

    def best(self) -> Stretched:
        """What shows most of the unit, over all chains: the Stein mean, if there is one."""
        return self.mean if self.stein is None else self.stein

    def write(self, folder: Path) -> None:
        """Writes the PNG files."""
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
        """The large pictures of the page."""
        draw = Stretched(self.draws.pixels[0, -1], self.draws.scale)
        figures = [
            _large_figure(self.mean, "Mean", f"E[x], all chains; {self.mean}.{_check(check)}"),
            _large_figure(draw, "One draw", f"x, chain 0's last; {draw}."),
        ]
        if self.stein is not None:
            caption = f"(s²/T) E[∇f], all chains; {self.stein}."
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
        f" By Stein's identity it equals the Stein mean: they differ by {check.difference:.2g} "
        f"grey levels (rms), and chance alone would give {check.chance:.2g}."
    )


def factor(pixels: UInt8[np.ndarray, "row col channel"], side: int) -> int:
    """By which an image is enlarged to about that side, in screen pixels."""
    return max(1, round(side / max(pixels.shape[:2])))


def _enlarge(
    pixels: UInt8[np.ndarray, "row col channel"], side: int
) -> UInt8[np.ndarray, "height width channel"]:
    """By a whole factor, so that each pixel stays a square."""
    times = factor(pixels, side)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _sheet(
    grid: UInt8[np.ndarray, "rows columns row col channel"], gap: int = 6
) -> UInt8[np.ndarray, "height width channel"]:
    """Images side by side on white."""
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
    """With a description, if there is one."""
    stream, info = io.BytesIO(), PngInfo()
    if note:
        info.add_text("Description", note)
    Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels).save(
        stream, "PNG", pnginfo=info
    )
    return stream.getvalue()


def image_tag(pixels: UInt8[np.ndarray, "row col channel"], alt: str, side: int) -> str:
    """An image in the page, its pixels shown as squares if they are few."""
    times = factor(pixels, side)
    height, width, _ = pixels.shape
    return (
        f'<img class="pixels" width="{width * times}" height="{height * times}" '
        f'alt="{escape(alt)}" src="{address(pixels)}">'
    )


def address(pixels: UInt8[np.ndarray, "row col channel"]) -> str:
    """The address of an image that is part of the page: exact if it is small."""
    if pixels.size <= _PNG_VALUES:
        return data_address("png", png(pixels))
    return data_address("jpeg", jpeg(pixels, 90))


def jpeg(pixels: UInt8[np.ndarray, "row col channel"], quality: int) -> bytes:
    """With colours at full resolution from a quality of 90 on."""
    stream = io.BytesIO()
    image = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    colour: dict[str, Any] = {"subsampling": 0 if quality >= 90 else 2}
    image.save(stream, "JPEG", quality=quality, **colour)
    return stream.getvalue()


def data_address(kind: str, content: bytes) -> str:
    """The address of an image that is part of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
