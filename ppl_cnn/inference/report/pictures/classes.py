"""The class page: a row of draws for each class, on the page and as a file."""

import io
import math
from collections.abc import Mapping
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ppl_cnn.inference.report.pictures.encoding import address, factor, joined, reduced
from ppl_cnn.inference.runs.record import unit_folder

type Row = UInt8[np.ndarray, "draw row col channel"]

_TILE = 84
"""Pixels along an image's longer side in the file."""
_GAP = 6
"""Pixels between two images in the file."""
_TEXT = 26
"""Pixels of the names' letters in the file."""


def classes_html(rows: Mapping[str, tuple[str, Row]], note: str) -> str:
    """The figure with which a page of classes begins.

    Args:
        rows: unit -> its class's name, and some of its draws.
        note: plain text below it.
    """
    lines = "\n".join(
        f'<a href="#{escape(unit_folder(unit))}">{escape(name)}</a>'
        f'<img class="pixels" alt="{escape(name)}: {len(draws)} draws" src="{_address(draws)}">'
        for unit, (name, draws) in rows.items()
    )
    return f"""<figure class="classes" aria-label="Classes"><div>
{lines}
</div><figcaption>{escape(note)}</figcaption></figure>
"""


def _address(draws: Row) -> str:
    small = reduced(draws, _TILE)
    return address(joined(small[None], gap=max(1, max(small.shape[1:3]) // 14)))


def classes_png(rows: Mapping[str, tuple[str, Row]], note: str) -> bytes:
    """The same figure as a PNG file, with the names beside the rows.

    Args:
        rows: unit -> its class's name, and some of its draws.
        note: the file's description.
    """
    font = ImageFont.load_default(size=_TEXT)
    strips = [(name, _strip(draws)) for name, draws in rows.values()]
    left = 3 * _GAP + math.ceil(max(font.getlength(name) for name, _ in strips))
    width = left + max(strip.shape[1] for _, strip in strips) + _GAP
    height = sum(strip.shape[0] + _GAP for _, strip in strips) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen, top = ImageDraw.Draw(sheet), _GAP
    for name, strip in strips:
        middle = top + strip.shape[0] // 2
        pen.text((left - 2 * _GAP, middle), name, font=font, fill="black", anchor="rm")
        sheet.paste(Image.fromarray(strip), (left, top))
        top += strip.shape[0] + _GAP
    stream, info = io.BytesIO(), PngInfo()
    info.add_text("Description", note)
    sheet.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def _strip(draws: Row) -> UInt8[np.ndarray, "height width 3"]:
    small = reduced(draws, _TILE)
    times = factor(small[0], _TILE)
    strip = joined(small.repeat(times, axis=1).repeat(times, axis=2)[None], gap=_GAP)
    return np.broadcast_to(strip, (*strip.shape[:2], 3)).copy()
