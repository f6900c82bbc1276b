"""The page of a run of several units: a card for each, then their sections."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ppl_cnn.errors import InputError
from ppl_cnn.inference.report.facts import advice_html, command_html, settings
from ppl_cnn.inference.report.frame import folding_html, frame_html
from ppl_cnn.inference.report.pictures import address
from ppl_cnn.inference.report.section import LABELS, SIGNS, Section, section_of
from ppl_cnn.inference.runs.record import unit_folder

_PLOTTED = 8
"""Units with plots; the plots of a unit take some 1 MB and 10 seconds."""
_WORST_FIRST = ("bad", "short", "good")


class Missing(NamedTuple):
    """A unit that can't be shown."""

    unit: str
    reason: str
    """HTML."""

    @property
    def title(self) -> str:
        """The unit."""
        return self.unit


def several_page(folder: Path, record: Mapping[str, Any], *, limit: int) -> str:
    """The page of a run of several units; it writes the files beside the draws of each.

    Args:
        folder: the run's.
        record: the run's; its settings have `units`.
        limit: how many bytes the pictures of a unit may take in the page.
    """
    config = record["config"]
    units = [str(unit) for unit in config["units"]]
    parts = [
        _read(folder / unit_folder(unit), unit, record, limit)
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
    return frame_html(title, " · ".join(settings(config)), content)


def _read(folder: Path, unit: str, record: Mapping[str, Any], limit: int) -> Section | Missing:
    if not (folder / "run.json").exists():
        return Missing(
            unit, "This unit has not been sampled yet. Rerun the same command to resume."
        )
    try:
        return section_of(folder, limit=limit, unit=unit, heading="h3")
    except InputError as error:
        return Missing(unit, advice_html(str(error), record))


def _trouble(section: Section) -> tuple[int, float]:
    """Sorts the units that most need a look first."""
    rhat = section.verdict.rhat.value
    return _WORST_FIRST.index(section.verdict.state), 0 if math.isnan(rhat) else -rhat


def _state(part: Section | Missing) -> str:
    return part.verdict.state if isinstance(part, Section) else "missing"


def _badge(state: str) -> str:
    sign = f'<span aria-hidden="true">{SIGNS[state]}</span>'
    return f'<span class="badge {state}">{sign} {escape(LABELS[state])}</span>'


def _counts(parts: Sequence[Section | Missing]) -> str:
    counts = Counter(map(_state, parts))
    return " ".join(
        f'<span class="count">{counts[state]} × {_badge(state)}</span>'
        for state in LABELS
        if counts[state]
    )


def _card(part: Section | Missing) -> str:
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


def _unit(part: Section | Missing, plotted: bool) -> str:
    ident = escape(unit_folder(part.unit))
    head = f"""<section class="unit" id="{ident}" tabindex="-1" aria-labelledby="title-{ident}">
<header><h2 id="title-{ident}">{escape(part.title)}</h2><a href="#units">All units</a></header>
"""
    if isinstance(part, Missing):
        return f'{head}<p class="missing">{part.reason}</p>\n</section>\n'
    return f"""{head}<p class="note">{escape(part.subtitle)}</p>
{part.images}
{part.judgement}
{part.mixing}
{part.maps}
{_plots(part, plotted)}
{part.summary}
<details><summary>Configuration, time and cost, versions</summary>
{part.facts}
</details>
</section>
"""


def _plots(section: Section, plotted: bool) -> str:
    if plotted:
        return folding_html("h3", "ArviZ's plots", section.plots())
    command = shlex.join(["python", "-m", "ppl_cnn.report", str(section.folder)])
    return f"""<p class="note">This page has ArviZ's plots of the {_PLOTTED} units that most need a
look. <code>{escape(command)}</code> makes a page of this unit, with its plots and more of its
draws.</p>"""
