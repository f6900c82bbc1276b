"""The page's maps of R-hat and effective sample size, with their scales and numbers."""

import io
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from ppl_cnn.inference.diagnostics.pixel_maps import Maps
from ppl_cnn.inference.diagnostics.verdict import ESS_GOOD, RHAT_GOOD
from ppl_cnn.inference.report.pictures import data_address, factor

_COLOURS = "cividis"
"""Nuñez, Anderton, Renslow, Optimizing colormaps with consideration for color vision deficiency,
PLoS ONE 13(7), 2018: looks the same with and without; its lightness alone tells the value."""
_RHAT_MOST = 2.0
"""Where the colours end: beyond, the chains have nothing in common."""
_UNDEFINED = 255
_SIDE = 336


class Heatmap(NamedTuple):
    """A diagnostic of every pixel, bright where it is bad."""

    title: str
    values: Float[np.ndarray, "row col channel"]
    form: str
    low: float
    """Of the scale of colours."""
    high: float
    good: float
    """The threshold."""
    larger_is_worse: bool

    def html(self) -> str:
        """The map, its scale and its numbers."""
        rows, cols, _ = self.values.shape
        times = factor(np.empty((rows, cols, 1), np.uint8), _SIDE)
        above = "≥ " if np.nanmax(self.values) > self.high else ""
        at = 100 * (self.good - self.low) / (self.high - self.low)
        mark = f'<i style="left:{at:.1f}%"></i>' if 0 <= at <= 100 else ""
        colours = ",".join("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in self._palette()[::32])
        return f"""<figure class="map" style="width:{cols * times}px">
<img class="pixels" width="{cols * times}" height="{rows * times}" alt="{self.title} of every pixel"
src="{data_address("png", self._png())}">
<div class="bar" aria-hidden="true" style="background:linear-gradient(to right,{colours})">\
{mark}</div>
<div class="ends" aria-hidden="true"><span>{self.low:{self.form}}</span>\
<span>{above}{self.high:{self.form}}</span></div>
<figcaption><strong>{self.title}</strong> {self._numbers()}</figcaption>
</figure>
"""

    def _numbers(self) -> str:
        known = np.sort(self.values[~np.isnan(self.values)])
        three = known[[0, (known.size - 1) // 2, -1]].tolist()
        least, middle, most = (f"{number:{self.form}}".replace("inf", "∞") for number in three)
        missed = known > self.good if self.larger_is_worse else known < self.good
        bound = "at most" if self.larger_is_worse else "at least"
        undefined = self.values.size - known.size
        return (
            f"{least} to {most}, median {middle}. Good is {bound} {self.good:g}, the line on the "
            f"scale; {_share(missed)} of {known.size:,} values miss it."
            + (f" It is not defined for {undefined:,} more." if undefined else "")
        )

    def _palette(self) -> UInt8[np.ndarray, "255 3"]:
        """From the low end of the scale to the high one."""
        import matplotlib

        colours = matplotlib.colormaps[_COLOURS](np.linspace(0, 1, _UNDEFINED), bytes=True)
        return np.asarray(colours[:: 1 if self.larger_is_worse else -1, :3])

    def _png(self) -> bytes:
        with np.errstate(invalid="ignore"):
            share = np.clip((self._worst() - self.low) / (self.high - self.low), 0, 1)
        undefined = np.isnan(share)
        levels = np.where(undefined, _UNDEFINED, np.nan_to_num(share) * (_UNDEFINED - 1))
        image = Image.fromarray(levels.round().astype(np.uint8), "L")
        image.putpalette([*self._palette().ravel().tolist(), 0, 0, 0])
        options: dict[str, Any] = {"transparency": _UNDEFINED} if undefined.any() else {}
        stream = io.BytesIO()
        image.save(stream, "PNG", optimize=True, **options)
        return stream.getvalue()

    def _worst(self) -> Float[np.ndarray, "row col"]:
        """Over the channels."""
        pick = np.fmax if self.larger_is_worse else np.fmin
        return np.asarray(pick.reduce(self.values, axis=2))


def _share(missed: Bool[np.ndarray, " value"]) -> str:
    return f"{missed.mean():.2%}" if missed.any() else "none"


def maps_html(maps: Maps, heading: str) -> str:
    """The page's section with the maps.

    Args:
        maps: of `maps.stored_maps`.
        heading: the tag of its heading.
    """
    shown = []
    if not np.isnan(maps.rhat).all():
        high = min(max(2 * RHAT_GOOD - 1, float(np.nanmax(maps.rhat))), _RHAT_MOST)
        shown.append(Heatmap("R-hat", maps.rhat, ".3f", 1, high, RHAT_GOOD, True))
    if not np.isnan(maps.ess).all():
        high = max(2.0 * ESS_GOOD, float(np.nanmax(maps.ess)))
        shown.append(Heatmap("Bulk ESS", maps.ess, ",.0f", 0, high, ESS_GOOD, False))
    if not shown:
        return ""
    channels = maps.ess.shape[2]
    worst = " A pixel has the colour of its worst channel." if channels > 1 else ""
    alone = " One chain alone has no R-hat." if np.isnan(maps.rhat).all() else ""
    return f"""<section>
<{heading}>R-hat and ESS of every pixel</{heading}>
<div class="row">
{"".join(heatmap.html() for heatmap in shown)}</div>
<p class="note">From all stored draws; the brighter, the worse.{worst}{alone} Among so many
values a few miss the thresholds by chance; what counts is whether they gather in places.</p>
</section>
"""
