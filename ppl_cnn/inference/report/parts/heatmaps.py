"""The page's maps of R-hat and effective sample size, with their scales and numbers."""

import io
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ppl_cnn.inference.diagnostics.pixel_maps import MapNumbers, Maps
from ppl_cnn.inference.diagnostics.thresholds import ESS_GOOD, RHAT_GOOD
from ppl_cnn.inference.report.frame import colours
from ppl_cnn.inference.report.pictures.encoding import data_address, factor

_RHAT_MOST = 2.0
"""Where the scale of colours ends: beyond, the chains have nothing in common."""
_UNDEFINED = 255
_SIDE = 336


class Heatmap(NamedTuple):
    """A diagnostic of every pixel, bright where it is bad."""

    title: str
    values: Float[np.ndarray, "row col"]
    """The diagnostic of each pixel's worst channel; NaN where it isn't defined."""
    numbers: MapNumbers
    form: str
    """How the numbers are formatted."""
    low: float
    """Where the scale of colours begins."""
    high: float
    """Where the scale of colours ends."""
    good: float
    """The threshold."""
    larger_is_worse: bool

    def html(self) -> str:
        """The map, its scale and its numbers."""
        rows, cols = self.values.shape
        times = factor(np.empty((rows, cols, 1), np.uint8), _SIDE)
        above = "≥ " if self.numbers.most > self.high else ""
        at = 100 * (self.good - self.low) / (self.high - self.low)
        mark = f'<i style="left:{at:.1f}%"></i>' if 0 <= at <= 100 else ""
        shades = ",".join("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in self._palette()[::32])
        return f"""<figure class="map" style="width:{cols * times}px">
<img class="pixels" width="{cols * times}" height="{rows * times}" alt="{self.title} of every pixel"
src="{data_address("png", self._png())}">
<div class="bar" aria-hidden="true" style="background:linear-gradient(to right,{shades})">\
{mark}</div>
<div class="ends" aria-hidden="true"><span>{self.low:{self.form}}</span>\
<span>{above}{self.high:{self.form}}</span></div>
<figcaption><strong>{self.title}</strong> {self._caption()}</figcaption>
</figure>
"""

    def _caption(self) -> str:
        number = self.numbers
        three = (number.least, number.median, number.most)
        least, median, most = (f"{value:{self.form}}".replace("inf", "∞") for value in three)
        bound = "at most" if self.larger_is_worse else "at least"
        missed = f"{number.missed:.2%}" if number.missed else "none"
        undefined = f" It is undefined for {number.undefined:,} more." if number.undefined else ""
        return (
            f"{least} to {most}, median {median}. Good is {bound} {self.good:g}, the mark on the "
            f"scale; {missed} of {number.known:,} values miss it.{undefined}"
        )

    def _palette(self) -> UInt8[np.ndarray, "255 3"]:
        """The colours from the low end of the scale to the high one."""
        import matplotlib

        shades = matplotlib.colormaps[colours.MAP](np.linspace(0, 1, _UNDEFINED), bytes=True)
        return np.asarray(shades[:: 1 if self.larger_is_worse else -1, :3])

    def _png(self) -> bytes:
        with np.errstate(invalid="ignore"):
            share = np.clip((self.values - self.low) / (self.high - self.low), 0, 1)
        undefined = np.isnan(share)
        levels = np.where(undefined, _UNDEFINED, np.nan_to_num(share) * (_UNDEFINED - 1))
        image = Image.fromarray(levels.round().astype(np.uint8), "L")
        image.putpalette([*self._palette().ravel().tolist(), 0, 0, 0])
        options: dict[str, Any] = {"transparency": _UNDEFINED} if undefined.any() else {}
        stream = io.BytesIO()
        image.save(stream, "PNG", optimize=True, **options)
        return stream.getvalue()


def maps_html(maps: Maps, heading: str) -> str:
    """The section with the maps; empty if there is nothing to show.

    Args:
        maps: `Diagnosis.maps`.
        heading: the tag of its heading.
    """
    shown = []
    rhat, ess = maps.rhat_numbers, maps.ess_numbers
    if rhat is not None:
        high = min(max(2 * RHAT_GOOD - 1, rhat.most), _RHAT_MOST)
        shown.append(Heatmap("R-hat", maps.worst_rhat, rhat, ".3f", 1, high, RHAT_GOOD, True))
    if ess is not None:
        high = max(2.0 * ESS_GOOD, ess.most)
        shown.append(Heatmap("Bulk ESS", maps.worst_ess, ess, ",.0f", 0, high, ESS_GOOD, False))
    if not shown:
        return ""
    channels = maps.ess.shape[2]
    worst = " A pixel has the colour of its worst channel." if channels > 1 else ""
    alone = " A single chain has no R-hat." if rhat is None else ""
    return f"""<section>
<{heading}>R-hat and ESS of every pixel</{heading}>
<div class="row">
{"".join(heatmap.html() for heatmap in shown)}</div>
<p class="note">Computed from all stored draws; brighter is worse.{worst}{alone} Among so many
values, a few miss the thresholds by chance. What counts is whether they gather in places.</p>
</section>
"""
