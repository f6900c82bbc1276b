"""The page of two runs side by side: settings that differ, and each unit's draws and verdicts."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.side_by_side import Difference, Figure, Pair, SideBySide
from ppl_cnn.inference.report.frame.folio import folio_html
from ppl_cnn.inference.report.frame.frame import frame_html
from ppl_cnn.inference.report.parts.comparison import comparison_html
from ppl_cnn.inference.report.parts.exemplars import sheet
from ppl_cnn.inference.report.parts.facts import advice_html
from ppl_cnn.inference.report.parts.verdict import verdict_html
from ppl_cnn.inference.report.pictures.album import Album, Rendered
from ppl_cnn.inference.report.pictures.encoding import address_within
from ppl_cnn.inference.runs.exemplars import Exemplars
from ppl_cnn.progress import Bar

_AT_ONCE = 8
"""Units that are shown at once."""
_PICTURES = 24 * 2**20
"""Bytes of all pictures, about."""
_LARGEST = 64 * 2**10
"""Bytes of a picture, at most."""
_PER_RUN = 3
"""Pictures of a unit in a run, at most."""
_LONGEST = 80
"""Letters of a setting's value that are shown."""
_ORDERS = {
    "": "as in the first run",
    "difference": "largest difference of the mean response first",
}


def side_by_side(folder: str | Path, other: str | Path) -> Path:
    """Writes a page of two runs side by side, into the first run's folder.

    It lists the settings that differ, and shows the draws, verdicts and figures of each unit that
    both runs have, in two columns. Units of one density are also compared in standard errors.

    Args:
        folder: a run of `python -m ppl_cnn.sample`, or of `draw` with `out`, finished or not.
        other: another one, of the same units, by any network, reference or kernel.

    Returns:
        The page's path, `beside-NAME.html` with the other folder's name.

    Raises:
        RunFolderError: a folder holds no run, or one of another kind.
        MismatchError: both runs have several units, and none in common.

    Examples:
        >>> import ppl_cnn
        >>> page = ppl_cnn.side_by_side("runs/plain", "runs/robust")  # doctest: +SKIP
    """
    found = SideBySide.of(Path(folder), Path(other))
    limit = min(_LARGEST, _PICTURES // (2 * _PER_RUN * len(found.matched)))
    pairs = "".join(
        _pair(pair, found, limit)
        for pair in Bar(found.pairs(), "units", delay=2, leave=False, total=len(found.matched))
    )
    turning = folio_html(_ORDERS) if len(found.matched) > _AT_ONCE else ""
    content = f"""{_differences(found)}
{_alone(found)}<div>{turning}<div data-at-once="{_AT_ONCE}">
{pairs}</div></div>"""
    title = f"{found.one.name} beside {found.other.name}"
    page = frame_html(title, f"{found.one} · {found.other}", content)
    path = found.one / f"beside-{found.other.absolute().name}.html"
    write_aside(path, page.encode(errors="backslashreplace"))
    return path


def _differences(found: SideBySide) -> str:
    if not found.differences:
        return "<p>All settings of both runs are the same.</p>"
    rows = "\n".join(map(_difference, found.differences))
    return f"""<section>
<h2>Settings that differ</h2>
<div class="scroll"><table class="data">{_head(found)}<tbody>
{rows}
</tbody></table></div>
</section>"""


def _head(found: SideBySide) -> str:
    names = "".join(
        f'<th scope="col">{escape(path.name)}</th>' for path in (found.one, found.other)
    )
    return f"<thead><tr><td></td>{names}</tr></thead>"


def _difference(each: Difference) -> str:
    values = "".join(f"<td>{escape(_short(value))}</td>" for value in (each.one, each.other))
    return f'<tr><th scope="row">{escape(each.name)}</th>{values}</tr>'


def _short(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _alone(found: SideBySide) -> str:
    """The units that only one run has."""
    both = ((found.one, found.alone), (found.other, found.other_alone))
    return "".join(
        f"<details><summary>Only {escape(path.name)} has {len(units)} of the units</summary>"
        f"<p>{escape(', '.join(units))}</p></details>\n"
        for path, units in both
        if units
    )


def _pair(pair: Pair, found: SideBySide, limit: int) -> str:
    """A unit in both runs."""
    columns = "\n".join(
        f"<div><h3>{escape(path.name)}</h3>\n{_column(run, limit)}</div>"
        for path, run in ((found.one, pair.one), (found.other, pair.other))
    )
    comparison = pair.comparison
    compared = "" if comparison is None else comparison_html(comparison, "h3")
    return f"""<section class="unit"{_far(pair)} aria-label="{escape(pair.title)}">
<h2>{escape(pair.title)}</h2>
<div class="pair">
{columns}
</div>
{_figures(pair.figures, found)}
{compared}</section>
"""


def _far(pair: Pair) -> str:
    """How far the mean responses are apart, for the page's script to sort by."""
    if not isinstance(pair.one, Diagnosis) or not isinstance(pair.other, Diagnosis):
        return ""
    means = [float(run.summary.loc["response", "mean"]) for run in (pair.one, pair.other)]
    far = abs(means[0] - means[1])
    return "" if math.isnan(far) else f' data-difference="{far:.6g}"'


def _column(run: Diagnosis | InputError, limit: int) -> str:
    """The pictures and the verdict of one run."""
    if isinstance(run, InputError):
        return f'<p class="missing">{advice_html(str(run), {})}</p>'
    album = Album.of(run)
    figures = [_figure(album.best(), *_best(album), limit)]
    if album.sheet is None:
        draw = album.draws.pixels[0, -1]
        figures.append(_figure(draw, "One draw", f"{album.draws}.", limit))
    exemplars = None if run.folder is None else Exemplars.read(run.folder)
    if exemplars is not None:
        told = f"of {exemplars.source}, the strongest first."
        figures.append(_figure(sheet(exemplars), "Exemplars", told, limit))
    return f'<div class="row">{"".join(figures)}</div>\n{verdict_html(run, "h4")}'


def _best(album: Album) -> tuple[str, str]:
    """The name of the picture that shows most of the unit, and its scale."""
    if album.sheet is not None:
        return "Draws", f"nine of all chains; {album.sheet}."
    shown: Rendered = album.mean if album.stein is None else album.stein
    return "Mean" if album.stein is None else "Stein mean", f"{shown}."


def _figure(
    pixels: UInt8[np.ndarray, "height width channel"], name: str, caption: str, limit: int
) -> str:
    return (
        f'<figure><img class="pixels" alt="{name}" src="{address_within(pixels, limit)}">'
        f"<figcaption><strong>{name}</strong> {escape(caption)}</figcaption></figure>\n"
    )


def _figures(figures: Sequence[Figure], found: SideBySide) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(each.name)}</th><td>{escape(each.one)}</td>'
        f"<td>{escape(each.other)}</td></tr>"
        for each in figures
    )
    return f"""<div class="scroll"><table class="data">{_head(found)}<tbody>
{rows}
</tbody></table></div>"""
