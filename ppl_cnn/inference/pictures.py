"""A report's pictures: draws, means and Stein means on stated contrast scales."""

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ppl_cnn.inference import diagnostics
from ppl_cnn.models.weights import write_aside

_TILE = 112
"""Screen pixels along a small image's longer side."""
_LARGE = 336
_PNG_VALUES = 20_000
"""Larger images go into the page as JPEG, or noise would make it tens of megabytes."""


class Stretched(NamedTuple):
    """Images on one contrast scale, mid-grey being the mean of the network's inputs."""

    pixels: UInt8[np.ndarray, "*images row col channel"]
    """Grey or RGB."""
    scale: float
    """What white is above and black below the mean, in grey levels (0..255)."""

    @classmethod
    def of(cls, images: Float[np.ndarray, "*images row col channel"], order: str) -> "Stretched":
        """Stretches images in pixel units minus the mean; some 0.5 % of the values are clipped.

        Args:
            images: with channels in the network's order; other than 1 or 3 are averaged.
            order: `BGR` if that is the network's order.
        """
        if images.shape[-1] not in (1, 3):
            with diagnostics.quiet():
                images = images.mean(axis=-1, keepdims=True)
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
    """All pictures of a run."""

    draws: Stretched
    """(chain, shown, ...)"""
    means: Stretched
    """(chain, ...)"""
    steins: Stretched
    mean: Stretched
    """(...)"""
    stein: Stretched
    shown: list[int]

    @classmethod
    def of(
        cls,
        scan: diagnostics.Scan,
        stein: Float[np.ndarray, "chain row col channel"],
        record: Mapping[str, Any],
    ) -> "Album":
        """Stretches each group of images for itself, as their amplitudes differ widely."""
        order = record.get("preprocessing", {}).get("order", "")
        with diagnostics.quiet():
            overall = scan.mean.mean(axis=0)
        return cls(
            draws=Stretched.of(scan.shown, order),
            means=Stretched.of(scan.mean, order),
            steins=Stretched.of(stein, order),
            mean=Stretched.of(overall, order),
            stein=Stretched.of(stein.mean(axis=0), order),
            shown=scan.shown_draws.tolist(),
        )

    def write(self, folder: Path) -> None:
        """Writes the PNG files."""
        folder.mkdir(exist_ok=True)
        for name, images in (("draws", self.draws), ("means", self.means), ("steins", self.steins)):
            grid = images.pixels if name == "draws" else images.pixels[None]
            write_aside(folder / f"{name}.png", _png(_sheet(grid), str(images)))
        for name, images in (("mean", self.mean), ("stein", self.stein)):
            content = _png(_enlarge(images.pixels, _LARGE), str(images))
            write_aside(folder / f"{name}.png", content)

    def html(self, check: diagnostics.SteinCheck | None) -> str:
        """The pictures' part of the page."""
        last = self.draws.pixels[0, -1]
        large = (
            (self.stein, "Stein mean", f"(s²/T) E[∇f], all chains; {self.stein}."),
            (self.mean, "Mean", f"E[x], all chains; {self.mean}.{_check(check)}"),
            (Stretched(last, self.draws.scale), "One draw", f"x, chain 0's last; {self.draws}."),
        )
        return f"""<div class="row">
{"".join(_large_figure(*parts) for parts in large)}</div>
<figure>
<div class="scroll" tabindex="0" role="region" aria-label="Images of each chain">
<table class="images">
<thead><tr><td></td><th scope="col">Stein mean</th><th scope="col" class="last">mean</th>
{"".join(f'<th scope="col">draw {draw:,}</th>' for draw in self.shown)}</tr></thead>
<tbody>
{"".join(self._row(chain) for chain in range(len(self.means.pixels)))}</tbody>
</table>
</div>
<figcaption>Each chain's images; mid-grey is the mean of the network's inputs. Stein means:
{self.steins}. Means: {self.means}. Draws: {self.draws}.</figcaption>
</figure>"""

    def _row(self, chain: int) -> str:
        name = f"chain {chain}"
        draws = "".join(
            f"<td>{image_tag(pixels, f'Draw {draw} of {name}', _TILE)}</td>"
            for pixels, draw in zip(self.draws.pixels[chain], self.shown, strict=True)
        )
        stein = image_tag(self.steins.pixels[chain], f"Stein mean image of {name}", _TILE)
        mean = image_tag(self.means.pixels[chain], f"Mean image of {name}", _TILE)
        return (
            f'<tr><th scope="row">{name}</th><td>{stein}</td><td class="last">{mean}</td>'
            f"{draws}</tr>\n"
        )


def _large_figure(image: Stretched, name: str, caption: str) -> str:
    return (
        f"<figure>{image_tag(image.pixels, name, _LARGE)}"
        f"<figcaption><strong>{name}</strong> {caption}</figcaption></figure>\n"
    )


def _check(check: diagnostics.SteinCheck | None) -> str:
    if check is None:
        return ""
    return (
        f" By Stein's identity it equals the Stein mean: they differ by {check.difference:.2g} "
        f"grey levels (rms), and chance alone would give {check.chance:.2g}."
    )


def _factor(pixels: UInt8[np.ndarray, "row col channel"], side: int) -> int:
    return max(1, round(side / max(pixels.shape[:2])))


def _enlarge(
    pixels: UInt8[np.ndarray, "row col channel"], side: int
) -> UInt8[np.ndarray, "height width channel"]:
    """By a whole factor, so that each pixel stays a square."""
    factor = _factor(pixels, side)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


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


def _png(pixels: UInt8[np.ndarray, "row col channel"], note: str = "") -> bytes:
    stream, info = io.BytesIO(), PngInfo()
    if note:
        info.add_text("Description", note)
    Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels).save(
        stream, "PNG", pnginfo=info
    )
    return stream.getvalue()


def image_tag(pixels: UInt8[np.ndarray, "row col channel"], alt: str, side: int) -> str:
    """An image in the page, its pixels shown as squares if they are few."""
    factor = _factor(pixels, side)
    height, width, _ = pixels.shape
    if pixels.size <= _PNG_VALUES:
        kind, content = "png", _png(pixels)
    else:
        stream = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(stream, "JPEG", quality=90, subsampling=0)
        kind, content = "jpeg", stream.getvalue()
    return (
        f'<img class="pixels" width="{width * factor}" height="{height * factor}" '
        f'alt="{alt}" src="{data_address(kind, content)}">'
    )


def data_address(kind: str, content: bytes) -> str:
    """The address of an image that is part of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
