"""Pictures of draws, means and Stein means on stated contrast scales, and their encodings."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ppl_cnn.files import write_aside
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.stein import SteinCheck
from ppl_cnn.inference.diagnostics.summary import quiet
from ppl_cnn.inference.report.pictures.encoding import (
    enlarged,
    factor,
    image_tag,
    joined,
    png,
    reduced,
)
from ppl_cnn.inference.runs.record import has_pictures

_TILE = 112
"""Screen pixels along a small image's longer side."""
_LARGE = 336
_COLUMNS = 8
"""Draws of each chain in `images/draws.png`."""
_ON_SHEET = 40
"""Draws on the sheet with which a unit's part of the page begins, if they are pictures."""
_TOLD = 0.01
"""The share of values beyond black and white from which on it is told."""
_GAP = 6
"""Pixels between two images of `images/draws.png`."""


class Rendered(NamedTuple):
    """Images as a screen shows them."""

    pixels: UInt8[np.ndarray, "*images row col channel"]
    """Grey or RGB levels, 0..255."""
    scale: float | None = None
    """How far white is above the mean and black below it, in grey levels (0..255), where images are
    stretched about the mean; None where pixels are as they are."""
    beyond: float = 0.0
    """The share of values beyond black and white."""
    undefined: float = 0.0
    """The share of values that are not finite, which are shown as the mean."""

    def __str__(self) -> str:
        said = "pixels are as they are, 0 to 255"
        if self.scale is not None:
            said = f"black to white is ±{self.scale:g} grey levels about the mean"
        if self.beyond >= _TOLD:
            said += f", and {self.beyond:.0%} of the values lie beyond"
        if self.undefined:
            said += f", and {self.undefined:.1%} are not finite"
        return said


class Tones(NamedTuple):
    """How a run's images become grey levels or colours.

    Noise is stretched about the mean of the network's inputs, which is mid-grey. Pictures are shown
    as they are.
    """

    order: str = ""
    """The network's order of channels, such as `RGB`, `BGR` or `grey`."""
    mean: tuple[float, ...] | None = None
    """The mean that the images of pictures lack, by channel in this order; None for noise."""

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> "Tones":
        """How the images of a diagnosis are shown."""
        return cls.recorded(diagnosis.record)

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> "Tones":
        """How the images of a run with this record are shown."""
        preprocessing = record.get("preprocessing", {})
        order, mean = str(preprocessing.get("order", "")), preprocessing.get("mean")
        pictures = has_pictures(record.get("config", {}))
        return cls(order, tuple(mean) if mean and pictures else None)

    def render(
        self,
        images: Float[np.ndarray, "*images row col channel"],
        scale: float | None = None,
    ) -> Rendered:
        """Renders images in pixel units minus the mean.

        Args:
            images: channels are in the network's order, and averaged unless there are 1 or 3.
            scale: the contrast scale of noise; by default one that clips about 0.5 % of the values.
        """
        if self.mean is not None:
            images = images + np.asarray(self.mean, np.float32)
        if images.shape[-1] not in (1, 3):
            with quiet():
                images = images.mean(axis=-1, keepdims=True)
        if self.order == "BGR":
            images = images[..., ::-1]
        low, high = 0.0, 255.0
        if self.mean is None:
            scale = _scale(images) if scale is None else scale
            low, high = -scale, scale
        beyond = float(np.mean((images < low) | (images > high)))
        undefined = float(np.mean(~np.isfinite(images)))
        clipped = np.clip(np.nan_to_num(images), low, high)
        if self.mean is None:
            clipped = clipped / high * 127.5 + 127.5
        levels = clipped.round().astype(np.uint8)
        return Rendered(levels, scale if self.mean is None else None, beyond, undefined)


def _scale(images: Float[np.ndarray, "*images row col channel"]) -> float:
    finite = np.abs(images[np.isfinite(images)])
    extent = float(np.quantile(finite, 0.995)) if finite.size else 0.0
    return _round_up(extent) if extent > 0 else 1.0


def _round_up(number: float) -> float:
    """Rounds up to two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / unit) * unit:.2g}")


def spread(
    shown: Float[np.ndarray, "chain shown row col channel"], count: int
) -> Float[np.ndarray, "few row col channel"]:
    """Draws from all chains and from all of the run, in the order of time.

    Args:
        shown: draws of each chain, evenly spread over the run.
        count: how many to take, if there are so many. The last of each chain are among them.
    """
    chains, available = shown.shape[:2]
    each = min(available, -(-count // chains))
    times = np.arange(1, each + 1) * available // each - 1
    return shown[:, times].swapaxes(0, 1).reshape(-1, *shown.shape[2:])[-count:]


class Album(NamedTuple):
    """The pictures of a run. Each group has its own scale, as amplitudes differ widely."""

    draws: Rendered
    """A few draws of each chain, (chain, shown, row, col, channel)."""
    means: Rendered
    """The mean of each chain, (chain, row, col, channel)."""
    steins: Rendered | None
    """The Stein mean of each chain, (chain, row, col, channel); None if the reference has none."""
    mean: Rendered
    """The mean over all chains, (row, col, channel)."""
    stein: Rendered | None
    """The Stein mean over all chains, (row, col, channel); None if the reference has none."""
    sheet: Rendered | None
    """Draws of all chains, (draw, row, col, channel), where they are pictures; None for noise,
    whose means show more of the unit."""
    unmoved: tuple[int, ...] = ()
    """The chains whose draws are their starts, hardly moved."""

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> "Album":
        """Renders the images of a diagnosis.

        Args:
            diagnosis: the run's.
        """
        scan, steins, tones = diagnosis.images, diagnosis.steins, Tones.of(diagnosis)
        few = np.linspace(0, len(scan.shown_draws) - 1, min(_COLUMNS, len(scan.shown_draws)))
        stein_mean = diagnosis.stein_mean
        return cls(
            draws=tones.render(scan.shown[:, few.round().astype(int)]),
            means=tones.render(scan.mean),
            steins=None if steins is None else tones.render(steins.running[:, -1]),
            mean=tones.render(diagnosis.mean),
            stein=None if stein_mean is None else tones.render(stein_mean),
            sheet=None if tones.mean is None else tones.render(spread(scan.shown, _ON_SHEET)),
            unmoved=() if diagnosis.mixing is None else diagnosis.mixing.unmoved,
        )

    def best(self) -> UInt8[np.ndarray, "height width channel"]:
        """The picture that shows most of the unit in little space.

        It is a sheet of nine draws, if they are pictures, or else the Stein mean, or the mean.
        """
        if self.sheet is None:
            return (self.mean if self.stein is None else self.stein).pixels
        nine = reduced(self.row(9), _TILE // 2)
        columns = min(3, len(nine))
        rows = len(nine) // columns
        return joined(nine[: rows * columns].reshape(rows, columns, *nine.shape[1:]), gap=1)

    def row(self, count: int = 10) -> UInt8[np.ndarray, "few row col channel"]:
        """Some of the draws on the sheet, evenly spread over it, if there is one.

        Args:
            count: how many, if there are so many.
        """
        assert self.sheet is not None
        available = len(self.sheet.pixels)
        chosen = np.linspace(0, available - 1, min(count, available)).round().astype(int)
        few: UInt8[np.ndarray, "few row col channel"] = self.sheet.pixels[chosen]
        return few

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
                write_aside(folder / f"{name}.png", png(_enlarged_sheet(grid), str(images)))
        for name, image in {"mean": self.mean, "stein": self.stein}.items():
            if image is not None:
                content = png(enlarged(image.pixels, _LARGE), str(image))
                write_aside(folder / f"{name}.png", content)

    def html(self, check: SteinCheck | None) -> str:
        """The large pictures of the page.

        Args:
            check: how far mean and Stein mean differ, if that is known.
        """
        draw = self.draws._replace(pixels=self.draws.pixels[0, -1])
        mean = _large_figure(
            self.mean, "Mean", f"E[x], over all chains; {self.mean}.{_check(check)}"
        )
        if self.sheet is not None:
            return f'{_sheet_figure(self.sheet, self.unmoved)}<div class="row">\n{mean}</div>'
        which = f"the last of chain 0{', its start, hardly moved' if 0 in self.unmoved else ''}"
        figures = [mean, _large_figure(draw, "One draw", f"x, {which}; {draw}.")]
        if self.stein is not None:
            caption = f"(s²/T) E[∇f], over all chains; {self.stein}."
            figures.insert(0, _large_figure(self.stein, "Stein mean", caption))
        return f'<div class="row">\n{"".join(figures)}</div>'


def _sheet_figure(sheet: Rendered, unmoved: tuple[int, ...]) -> str:
    which = ", ".join(map(str, unmoved))
    still = f" Start, hardly moved: chain {which}." if unmoved else ""
    tags = "\n".join(image_tag(pixels, "", _TILE) for pixels in sheet.pixels)
    return f"""<figure><div class="sheet" role="img" aria-label="Draws">
{tags}
</div><figcaption><strong>{len(sheet.pixels)} draws</strong> x, of all chains and from all of the
run, in the order of time; {sheet}.{still}</figcaption></figure>
"""


def _large_figure(image: Rendered, name: str, caption: str) -> str:
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


def _enlarged_sheet(
    grid: UInt8[np.ndarray, "rows columns row col channel"],
) -> UInt8[np.ndarray, "height width channel"]:
    times = factor(grid[0, 0], _TILE)
    return joined(grid.repeat(times, axis=2).repeat(times, axis=3), gap=_GAP)
