"""The page's viewer: the images of all chains side by side, with a slider over the draws.

A sheet holds the images of all chains at one step. The last sheet of each mode is an image of the
page, so that it shows without scripts too. Earlier sheets are text until the slider needs them.
"""

import base64
import json
import math
from html import escape
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt8

from ppl_cnn.inference.diagnostics.scan import Scan
from ppl_cnn.inference.diagnostics.stein import SteinMeans
from ppl_cnn.inference.report.pictures.album import Tones
from ppl_cnn.inference.report.pictures.encoding import data_address, factor, jpeg, png

_ENOUGH = 8
"""Fewer draws than these are shown only if images can't be compressed further."""
_FEWEST = 4
"""Fewer draws than these are shown only if no more chains can be left out."""
_SIDE = 140
"""Screen pixels: eight chains fill a row of the page."""
_BASE64 = 4 / 3
_CELL = 16
"""Images begin at multiples of JPEG's blocks, or their edges would bleed into each other."""


class Mode(NamedTuple):
    """One way of looking at the chains."""

    title: str
    images: Float32[np.ndarray, "chain step row col channel"]
    step: Int[np.ndarray, " shown"]
    """The number of the image that belongs to each shown draw."""
    labels: list[str]
    """What each shown draw is called."""
    scale: float | None
    """The contrast scale of all steps; None if each has its own, as amplitudes fall with draws, or
    if pixels are shown as they are."""

    def at(self, shown: Int[np.ndarray, " few"]) -> "Mode":
        """The mode with some of the shown draws only."""
        steps, step = np.unique(self.step[shown], return_inverse=True)
        labels = [self.labels[number] for number in shown]
        return self._replace(images=self.images[:, steps], step=step, labels=labels)


class Quality(NamedTuple):
    """How sheets are encoded."""

    kind: str
    """`png` or `jpeg`."""
    level: int = 0
    """JPEG's quality, up to 100."""

    def encode(self, sheet: UInt8[np.ndarray, "height width channel"]) -> bytes:
        """The content of the sheet's image file."""
        return png(sheet) if self.kind == "png" else jpeg(sheet, self.level)


_QUALITIES = (Quality("png"), *(Quality("jpeg", level) for level in (90, 75, 50, 30)))


def modes(scan: Scan, steins: SteinMeans | None, tones: Tones) -> dict[str, Mode]:
    """The ways of looking at the chains, by short name.

    Args:
        scan: `Diagnosis.images`.
        steins: `Diagnosis.steins`.
        tones: how images are shown.
    """
    draws, every = scan.shown_draws, np.arange(len(scan.shown_draws))
    common = tones.render(scan.shown[:, -1]).scale
    found = {
        "draw": Mode("Draw", scan.shown, every, [f"draw {draw:,}" for draw in draws], common),
        "mean": Mode("Running mean", scan.running, every, _spans(draws + 1), None),
    }
    if steins is not None:
        labels = _spans(steins.draws[steins.step])
        found["stein"] = Mode("Stein mean", steins.running, steins.step, labels, None)
    return found


def _spans(counts: Int[np.ndarray, " shown"]) -> list[str]:
    return [f"draws 0–{count - 1:,}" for count in counts]


class Sheets(NamedTuple):
    """The modes, cut down and encoded so that they fit into a number of bytes."""

    modes: dict[str, Mode]
    quality: Quality
    tones: Tones
    shape: tuple[int, int]
    """Rows and columns of an image."""
    columns: int
    """Images side by side on a sheet."""

    @classmethod
    def fitting(cls, modes: dict[str, Mode], tones: Tones, limit: int) -> "Sheets":
        """Keeps as many draws as fit, evenly spread, the last one among them.

        First the compression grows, then chains are left out. One draw is shown in any case.

        Args:
            modes: the result of `modes`.
            tones: how images are shown.
            limit: how many bytes the sheets may take in the page.
        """
        chains, _, *shape = modes["draw"].images.shape
        available = len(modes["draw"].step)
        ways = [(quality, chains, _ENOUGH) for quality in _QUALITIES]
        ways += [(_QUALITIES[-1], count, _FEWEST) for count in _halves(chains)]
        for quality, count, wanted in ways:
            some = {name: mode._replace(images=mode.images[:count]) for name, mode in modes.items()}
            columns = math.ceil(math.sqrt(count))
            sheets = cls(some, quality, tones, (shape[0], shape[1]), columns)
            last = sum(len(sheets.encode(mode, -1)[0]) for mode in some.values())
            frames = min(available, int(limit / (_BASE64 * last)))
            if frames >= min(wanted, available):
                break
        shown = np.linspace(available - 1, 0, max(1, frames)).round().astype(int)[::-1]
        return sheets._replace(modes={name: mode.at(shown) for name, mode in some.items()})

    def encode(self, mode: Mode, step: int) -> tuple[bytes, str]:
        """The sheet of a step as an image file, and what its grey levels mean, in words."""
        images = self.tones.render(mode.images[:, step], mode.scale)
        chains, rows, cols, channels = images.pixels.shape
        height, width = self.pitch
        cells = np.full((-(-chains // self.columns), self.columns, height, width, channels), 127)
        right = ((0, 0), (0, height - rows), (0, width - cols), (0, 0))
        filled = np.pad(images.pixels, right, mode="edge")
        cells.reshape(-1, height, width, channels)[:chains] = filled
        sheet = cells.swapaxes(1, 2).reshape(-1, self.columns * width, channels)
        return self.quality.encode(sheet.astype(np.uint8)), str(images)

    @property
    def pitch(self) -> tuple[int, int]:
        """Rows and columns from an image on a sheet to the next."""
        rows, cols = (-(-size // _CELL) * _CELL for size in self.shape)
        return rows, cols


def _halves(chains: int) -> list[int]:
    """All chains, half of them and so on, but at least two unless there is one."""
    return [chains >> times for times in range(chains.bit_length()) if chains >> times > 1] or [1]


def viewer_html(sheets: Sheets, *, ident: str, chains: int, draws: int, no_stein: str) -> str:
    """The viewer as HTML.

    Args:
        sheets: what it shows.
        ident: the unit's part in the ids of elements.
        chains: how many chains the run has.
        draws: how many draws each chain has.
        no_stein: why there is no Stein mean; empty if there is one.
    """
    encoded = {
        name: [sheets.encode(mode, step) for step in range(mode.images.shape[1])]
        for name, mode in sheets.modes.items()
    }
    # The Stein mean shows most of the unit, so it comes first.
    chosen = "stein" if "stein" in sheets.modes else "draw"
    shown = sheets.modes["draw"].images.shape[0]
    left_out = f" Only {shown} of {chains} chains fit here." if shown < chains else ""
    return f"""<div class="viewer" style="--tile: {_tile(sheets.shape)}px">
<div class="controls">
{_switch(sheets, ident, chosen, no_stein)}
{_slider(sheets, ident, draws)}
{_zoom(ident)}
</div>
<div class="stage scroll" tabindex="0" role="region" aria-label="Images of the chains">
<div class="tiles"></div>
</div>
<div class="static">
{"".join(_static(sheets, name, *encoded[name][-1]) for name in encoded)}</div>
<p class="note"><span class="scale"></span>{_about(sheets.tones)}{left_out}</p>
<script type="application/json">{_data(sheets, encoded, shown)}</script>
</div>"""


def _about(tones: Tones) -> str:
    if tones.mean is not None:
        return ""
    return (
        " Mid-grey is the mean of the network's inputs. Means have their own scale at each step, "
        "as they fade with the number of draws."
    )


def _tile(shape: tuple[int, int]) -> int:
    return shape[1] * factor(np.empty((*shape, 1), np.uint8), _SIDE)


def _switch(sheets: Sheets, ident: str, chosen: str, no_stein: str) -> str:
    names = {"stein": "Stein mean", "mean": "Running mean", "draw": "Draw"}
    options = "".join(
        f'<label><input type="radio" name="mode-{ident}" value="{name}"'
        f"{' checked' if name == chosen else ''}"
        f"{'' if name in sheets.modes else f' disabled aria-describedby="why-{ident}"'}>"
        f"<span>{title}</span></label>"
        for name, title in names.items()
    )
    why = f'<p class="why" id="why-{ident}">{escape(no_stein)}</p>' if no_stein else ""
    return f'<fieldset class="switch"><legend>Show</legend>{options}</fieldset>{why}'


def _slider(sheets: Sheets, ident: str, draws: int) -> str:
    last = len(sheets.modes["draw"].step) - 1
    return f"""<div class="slider"><label for="draw-{ident}">Draw</label>
<input type="range" id="draw-{ident}" min="0" max="{last}" value="{last}" step="1"\
{" disabled" if last == 0 else ""}>
<output for="draw-{ident}" data-of="of {draws:,}"></output>
<button type="button" class="play"{" disabled" if last == 0 else ""}>Play</button></div>"""


def _zoom(ident: str) -> str:
    options = "".join(
        f'<label><input type="radio" name="zoom-{ident}" value="{times}"'
        f"{' checked' if times == 1 else ''}><span>{times}×</span></label>"
        for times in (1, 2, 4)
    )
    return f'<fieldset class="switch zoom"><legend>Zoom</legend>{options}</fieldset>'


def _static(sheets: Sheets, name: str, content: bytes, said: str) -> str:
    mode = sheets.modes[name]
    return (
        f'<figure><img data-mode="{name}" alt="{mode.title} of each chain" '
        f'src="{data_address(sheets.quality.kind, content)}">'
        f"<figcaption>{mode.title} of each chain ({mode.labels[-1]}); "
        f"{escape(said)}.</figcaption></figure>\n"
    )


def _data(sheets: Sheets, encoded: dict[str, list[tuple[bytes, str]]], chains: int) -> str:
    """The data of the page's script, without the last sheet of each mode, which the page shows."""
    height, width = sheets.pitch
    data: dict[str, Any] = {
        "kind": f"image/{sheets.quality.kind}",
        "size": [sheets.shape[1], sheets.shape[0]],
        "pitch": [width, height],
        "columns": sheets.columns,
        "chains": chains,
        "modes": {
            name: {
                "title": mode.title,
                "sheets": [base64.b64encode(content).decode() for content, _ in encoded[name][:-1]],
                "notes": [f"{said[0].upper()}{said[1:]}." for _, said in encoded[name]],
                "step": mode.step.tolist(),
                "labels": mode.labels,
            }
            for name, mode in sheets.modes.items()
        },
    }
    return json.dumps(data).replace("<", "\\u003c")
