"""The page of a run of several units: a card for each, then their sections."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ppl_cnn.errors import FileError, InputError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.diagnostics.verdict.rule import ESS, RHAT
from ppl_cnn.inference.report.frame.frame import frame_html
from ppl_cnn.inference.report.parts.facts import advice_html, command_html, density_text, settings
from ppl_cnn.inference.report.parts.verdict import LABELS, SIGNS
from ppl_cnn.inference.report.pictures.classes import classes_html, classes_png
from ppl_cnn.inference.report.pictures.encoding import address
from ppl_cnn.inference.report.section import Section, section_of
from ppl_cnn.inference.runs.record import unit_folder
from ppl_cnn.progress import Bar

_PLOTTED = 8
"""Units with plots; the plots of a unit take some 1 MB and 10 seconds."""
_WORST_FIRST = ("bad", "short", "good")


class Shown(NamedTuple):
    """A unit that has been diagnosed."""

    section: Section

    @property
    def unit(self) -> str:
        """The unit, as the run's record has it."""
        return self.section.unit

    @property
    def title(self) -> str:
        """The unit, and its name if it is a class."""
        return self.section.title

    @property
    def state(self) -> str:
        """The state of its verdict."""
        return self.section.verdict.state

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        return self.section.verdict.headline

    @property
    def trouble(self) -> tuple[int, float]:
        """Sorts the units that most need a look first."""
        rhat = self.section.verdict.rhat.value
        return _WORST_FIRST.index(self.state), 0 if math.isnan(rhat) else -rhat

    @property
    def card(self) -> tuple[str, str]:
        """HTML: the picture and the numbers on its card."""
        verdict = self.section.verdict
        image = f'<img class="pixels" alt="" src="{address(self.section.thumbnail)}">'
        if verdict.weights is not None:
            return image, (
                f"<span>log Z {verdict.weights.log_z.value:.2f}</span> "
                f"<span>ESS {verdict.ess_bulk.value:,.0f}</span>"
            )
        ess = min(verdict.ess_bulk.value, verdict.ess_tail.value)
        return (
            image,
            f"<span>R-hat {RHAT.written(verdict.rhat.value, 3)}</span> "
            f"<span>ESS {ESS.written(ess, 0)}</span>",
        )

    def content(self, *, plotted: bool) -> str:
        """HTML: what the page shows of it.

        Args:
            plotted: whether the page has its plots.
        """
        part = self.section
        return f"""<p class="note">{escape(part.subtitle)}</p>
{part.images}
{part.judgement}
{part.comparison}
{part.tilting}
{part.mixing}
{part.maps}
{_plots(part, plotted)}
{part.summary}
<details><summary>Configuration, time and cost, versions</summary>
{part.facts}
</details>
{part.published}"""


class Missing(NamedTuple):
    """A unit that can't be shown."""

    unit: str
    """The unit, as the run's record has it."""
    reason: str
    """HTML: why, and what to do about it."""

    @property
    def title(self) -> str:
        """The unit."""
        return self.unit

    @property
    def state(self) -> str:
        """What stands for a verdict's state."""
        return "missing"

    @property
    def headline(self) -> str:
        """What stands for a verdict."""
        return LABELS[self.state]

    @property
    def card(self) -> tuple[str, str]:
        """HTML: what its card has instead of a picture and of numbers."""
        return '<span class="blank"></span>', "no draws shown"

    def content(self, *, plotted: bool) -> str:
        """HTML: the reason.

        Args:
            plotted: not used, as there is nothing to plot.
        """
        return f'<p class="missing">{self.reason}</p>\n'


def several_page(
    folder: Path, record: Mapping[str, Any], *, limit: int, against: Path | None = None
) -> str:
    """The page of a run of several units; it writes the files beside the draws of each.

    A run of classes under pictures begins with a row of draws for each class.

    Args:
        folder: the run's.
        record: the run's; its settings have `units`.
        limit: how many bytes the pictures of a unit may take in the page.
        against: the folder of another run of the same units, to compare with.
    """
    config = record["config"]
    units = [str(unit) for unit in config["units"]]
    shown: list[Shown] = []
    parts: list[Shown | Missing] = []
    for unit in Bar(units, "units", delay=2, leave=False):
        try:
            own = unit_folder(unit)
            other = None if against is None else against / own
            section = _section(folder / own, unit, limit, other)
        except InputError as error:
            parts.append(Missing(unit, advice_html(str(error), record)))
        else:
            shown.append(Shown(section))
            parts.append(shown[-1])
    classes = _classes(folder, record, [part.section for part in shown])
    plotted = {part.unit for part in sorted(shown, key=lambda part: part.trouble)[:_PLOTTED]}
    noun = "unit" if len(units) == 1 else "units"
    title = f"{len(units)} {noun} of {config['model']}" if config.get("model") else "Several units"
    content = f"""{classes}<nav aria-label="Units">
<p>{_counts(parts)}</p>
<ul class="cards">
{"".join(_card(part) for part in parts)}</ul>
</nav>
{"".join(_unit(part, part.unit in plotted) for part in parts)}
<section>
<h2>The run</h2>
{command_html(record)}
</section>"""
    return frame_html(title, " · ".join(settings(config)), content)


def _section(folder: Path, unit: str, limit: int, against: Path | None) -> Section:
    if not (folder / "run.json").exists():
        raise FileError(
            "This unit has not been sampled yet. Rerun the same command to resume.", path=folder
        )
    return section_of(folder, limit=limit, unit=unit, heading="h3", against=against)


def _classes(folder: Path, record: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """The figure of a run whose units are all classes, if their draws are pictures.

    It is also written to `images/classes.png`.
    """
    rows = {part.unit: (part.name, part.row) for part in sections if part.row is not None}
    if not rows or not set(record["config"]["units"]) <= set(record.get("classes", {})):
        return ""
    count = max(len(row) for _, row in rows.values())
    density = density_text({**record["config"], "unit": "the class"})
    note = (
        f"{count} draws of each class, of all chains and from all of the run, in the order of "
        f"time; pixels are as they are, 0 to 255. {density}"
    )
    (folder / "images").mkdir(exist_ok=True)
    write_aside(folder / "images" / "classes.png", classes_png(rows, note))
    return classes_html(rows, note)


def _badge(state: str, headline: str) -> str:
    sign = f'<span aria-hidden="true">{SIGNS[state]}</span>'
    return f'<span class="badge {state}">{sign} {escape(headline)}</span>'


def _counts(parts: Sequence[Shown | Missing]) -> str:
    counts = Counter((part.state, part.headline) for part in parts)
    by_state = sorted(counts, key=lambda each: (*_WORST_FIRST, "missing").index(each[0]))
    return " ".join(
        f'<span class="count">{counts[each]} × {_badge(*each)}</span>' for each in by_state
    )


def _card(part: Shown | Missing) -> str:
    picture, numbers = part.card
    badge = _badge(part.state, part.headline)
    return f"""<li class="{part.state}"><a href="#{escape(unit_folder(part.unit))}">{picture}
<strong>{escape(part.title)}</strong> {badge} <small>{numbers}</small></a></li>
"""


def _unit(part: Shown | Missing, plotted: bool) -> str:
    ident = escape(unit_folder(part.unit))
    return f"""<section class="unit" id="{ident}" tabindex="-1" aria-labelledby="title-{ident}">
<header><h2 id="title-{ident}">{escape(part.title)}</h2><a href="#units">All units</a></header>
{part.content(plotted=plotted)}</section>
"""


def _plots(section: Section, plotted: bool) -> str:
    if plotted or section.verdict.weights is not None:
        return section.plots("h3")
    command = shlex.join(["python", "-m", "ppl_cnn.report", str(section.folder)])
    return f"""<p class="note">This page has ArviZ's plots of the {_PLOTTED} units that most need a
look. <code>{escape(command)}</code> makes a page of this unit, with its plots and more of its
draws.</p>"""
