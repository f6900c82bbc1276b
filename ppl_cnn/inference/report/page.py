"""The report of a sampling run: one page that stands by itself, with the images first."""

import base64
import hashlib
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from tqdm import tqdm

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.report.pictures import address
from ppl_cnn.inference.report.section import HEADLINES, SIGNS, Section, command_html, settings
from ppl_cnn.inference.runs.record import read_record, unit_folder

_PICTURE_BYTES = 6 * 2**20
"""Of a unit's pictures: with its plots the page stays below 8 MB, which mail still takes."""
_MANY_BYTES = 28 * 2**20
"""Of all units' pictures together: with plots and thumbnails the page stays below 40 MB, which a
phone's browser still opens."""
_PLOTTED = 8
"""Units with plots; those of one unit take some 1 MB and 10 seconds."""
_WORST_FIRST = ("bad", "short", "good")


def build_report(folder: Path) -> Path:
    """Builds the report of a run from its stored draws.

    Writes `report.html`, one file without outside addresses. Beside the draws of each unit it
    writes `summary.csv`, ArviZ's summary of the scalars; `maps.npz`, R-hat and ESS of every pixel;
    and in `images/` the PNG files `draws` (a row per chain), `means`, `steins` (one of each chain),
    `mean` and `stein` (over all chains). Each is written aside and renamed.

    Args:
        folder: a run of `ppl_cnn.sample`, finished or not. For one of several units, units
            that can't be shown are named with the reason.

    Returns:
        The page's path.

    Raises:
        InputError: the folder holds no run of `ppl_cnn.sample`; or its only unit has fewer than
            4 draws, or a damaged store.
    """
    record = read_record(folder)
    if "units" in record["config"]:
        page = _several(folder, record)
    else:
        page = _single(Section.of(folder, _PICTURE_BYTES))
    write_aside(folder / "report.html", page.encode())
    return folder / "report.html"


def _page(title: str, subtitle: str, content: str) -> str:
    files = {kind: Path(__file__).with_name(f"page.{kind}") for kind in ("html", "css", "js")}
    text = {kind: path.read_text() for kind, path in files.items()}
    # The page runs this script and no other, and loads nothing, whatever a unit's name smuggles in.
    digest = base64.b64encode(hashlib.sha256(text["js"].encode()).digest()).decode()
    return Template(text["html"]).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        content=content,
        style=text["css"],
        script=text["js"],
        digest=digest,
    )


def _folding(heading: str, title: str, content: str, opened: str = "") -> str:
    return f"""<details {opened}><summary><{heading}>{title}</{heading}></summary>
{content}</details>"""


# One unit


def _single(section: Section) -> str:
    model = section.record["config"].get("model", "")
    title = f"{section.title} of {model}" if model else section.title
    content = f"""<section aria-label="Images">
{section.images}
</section>
{section.verdict_html("h2")}
{section.mixing}
{section.maps}
{_folding("h2", "ArviZ's plots", section.plots(), "open")}
{section.summary()}
<section>
<h2>The run</h2>
{section.facts}
</section>"""
    return _page(title, section.subtitle, content)


# Several units


class _Missing(NamedTuple):
    """A unit that can't be shown."""

    unit: str
    reason: str

    @property
    def title(self) -> str:
        """The unit."""
        return self.unit


def _several(folder: Path, record: Mapping[str, Any]) -> str:
    config = record["config"]
    units = [str(unit) for unit in config["units"]]
    limit = min(_PICTURE_BYTES, _MANY_BYTES // max(1, len(units)))
    parts = [
        _read(folder / unit_folder(unit), unit, limit)
        for unit in tqdm(units, "units", delay=2, leave=False)
    ]
    found = [part for part in parts if isinstance(part, Section)]
    plotted = {id(section) for section in sorted(found, key=_trouble)[:_PLOTTED]}
    noun = "unit" if len(units) == 1 else "units"
    title = f"{len(units)} {noun} of {config['model']}" if config.get("model") else "Several units"
    content = f"""<nav aria-label="Units">
<p>{_counts(parts)}</p>
<ul class="cards">
{"".join(_card(part) for part in parts)}</ul>
</nav>
{"".join(_unit(part, id(part) in plotted) for part in parts)}
<section>
<h2>The run</h2>
{command_html(record)}
</section>"""
    return _page(title, " · ".join(settings(config)), content)


def _read(folder: Path, unit: str, limit: int) -> Section | _Missing:
    if not (folder / "run.json").exists():
        return _Missing(unit, "This unit has not been sampled yet; the same command goes on.")
    try:
        return Section.of(folder, limit, unit, "h3")
    except InputError as error:
        return _Missing(unit, str(error))


def _trouble(section: Section) -> tuple[int, float]:
    """Sorts those first that need a look the most."""
    rhat = section.verdict.rhat.value
    return _WORST_FIRST.index(section.verdict.state), 0 if math.isnan(rhat) else -rhat


def _state(part: Section | _Missing) -> str:
    return part.verdict.state if isinstance(part, Section) else "missing"


def _badge(state: str) -> str:
    sign = f'<span aria-hidden="true">{SIGNS[state]}</span>'
    return f'<span class="badge {state}">{sign} {HEADLINES[state]}</span>'


def _counts(parts: Sequence[Section | _Missing]) -> str:
    counts = Counter(map(_state, parts))
    return " ".join(
        f'<span class="count">{counts[state]} × {_badge(state)}</span>'
        for state in HEADLINES
        if counts[state]
    )


def _card(part: Section | _Missing) -> str:
    state = _state(part)
    if isinstance(part, Section):
        picture = f'<img class="pixels" alt="" src="{address(part.thumbnail.pixels)}">'
        ess = min(part.verdict.ess_bulk.value, part.verdict.ess_tail.value)
        numbers = (
            f"<span>R-hat {_figure(part.verdict.rhat.value, '.3f')}</span> "
            f"<span>ESS {_figure(ess, ',.0f')}</span>"
        )
    else:
        picture, numbers = '<span class="blank"></span>', "no draws shown"
    return f"""<li class="{state}"><a href="#{escape(unit_folder(part.unit))}">{picture}
<strong>{escape(part.title)}</strong> {_badge(state)} <small>{numbers}</small></a></li>
"""


def _figure(value: float, form: str) -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


def _unit(part: Section | _Missing, plotted: bool) -> str:
    ident = escape(unit_folder(part.unit))
    head = f"""<section class="unit" id="{ident}" tabindex="-1" aria-labelledby="title-{ident}">
<header><h2 id="title-{ident}">{escape(part.title)}</h2><a href="#units">All units</a></header>
"""
    if isinstance(part, _Missing):
        return f'{head}<p class="missing">{escape(part.reason)}</p>\n</section>\n'
    return f"""{head}<p class="note">{escape(part.subtitle)}</p>
{part.images}
{part.verdict_html("h3")}
{part.mixing}
{part.maps}
{_plots(part, plotted)}
{part.summary()}
<details><summary>Configuration, time and cost, versions</summary>
{part.facts}
</details>
</section>
"""


def _plots(section: Section, plotted: bool) -> str:
    if plotted:
        return _folding("h3", "ArviZ's plots", section.plots())
    command = shlex.join(["python", "-m", "ppl_cnn.report", str(section.folder)])
    return f"""<p class="note">ArviZ's plots are here for the {_PLOTTED} units that need a look the
most; those of this unit, and more of its draws, are on the page that
<code>{escape(command)}</code> makes.</p>"""
