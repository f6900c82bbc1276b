"""The atlas: the page of a run of many units, such as a layer's, each with a page of its own."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.report.cards import Card, counts_html
from ppl_cnn.inference.report.frame.folio import folio_html
from ppl_cnn.inference.report.frame.frame import frame_html
from ppl_cnn.inference.report.parts.facts import advice_html, command_html, settings
from ppl_cnn.inference.report.section import unit_section
from ppl_cnn.inference.report.single import single_page
from ppl_cnn.inference.runs.record import unit_folder
from ppl_cnn.progress import Bar

FEWEST = 33
"""Units from which on a run's page is an atlas."""
_AT_ONCE = 48
"""Cards that are shown at once."""
_THUMBNAILS = 8 * 2**20
"""Bytes of all thumbnails, about: the page opens at once, also with 2,048 units."""
_ORDERS = {
    "": "as sampled",
    "response": "largest response first",
    "trouble": "most trouble first",
}
_LARGEST = 12 * 2**10
"""Bytes of a thumbnail, at most."""


class Neighbours(NamedTuple):
    """A unit of a run, and those before and after it."""

    before: str | None
    unit: str
    after: str | None

    def html(self) -> str:
        """The links of the unit's page to the others'."""
        links = ['<a href="../report.html">All units</a>']
        if self.before is not None:
            links.insert(
                0, f'<a rel="prev" href="../{_page(self.before)}">‹ {escape(self.before)}</a>'
            )
        if self.after is not None:
            links.append(f'<a rel="next" href="../{_page(self.after)}">{escape(self.after)} ›</a>')
        return f'<nav class="beside" aria-label="Other units">{" ".join(links)}</nav>\n'


def atlas_page(
    folder: Path, record: Mapping[str, Any], *, limit: int, against: Path | None = None
) -> str:
    """The page of a run of many units: a card for each, which leads to the unit's own page.

    It writes the units' pages, `report.html` in the folder of each, and the files beside their
    draws. No unit's draws are held when the next one's are read.

    Args:
        folder: the run's.
        record: the run's; its settings have `units`.
        limit: how many bytes the pictures of a unit may take in its page.
        against: the folder of another run of the same units, to compare with.
    """
    config = record["config"]
    units = [str(unit) for unit in config["units"]]
    cards: list[Card] = []
    missing: dict[str, list[str]] = {}
    around = zip([None, *units[:-1]], units, [*units[1:], None], strict=True)
    for beside in Bar(
        map(Neighbours._make, around), "units", delay=2, leave=False, total=len(units)
    ):
        try:
            cards.append(_written(folder, beside, config, limit=limit, against=against))
        except InputError as error:
            cards.append(Card.missing(beside.unit, "#missing"))
            missing.setdefault(advice_html(str(error), record), []).append(beside.unit)
    content = f"""<nav aria-label="Units">
<p>{counts_html(cards)}</p>
{folio_html(_ORDERS)}<ul class="cards" data-at-once="{_AT_ONCE}">
{"".join(card.html() for card in cards)}</ul>
</nav>
{_missing(missing)}<section>
<h2>The run</h2>
{command_html(record)}
</section>"""
    return frame_html(_title(units, config.get("model", "")), " · ".join(settings(config)), content)


def _written(
    folder: Path,
    beside: Neighbours,
    config: Mapping[str, Any],
    *,
    limit: int,
    against: Path | None,
) -> Card:
    """Writes a unit's page, and gives its card."""
    own = unit_folder(beside.unit)
    other = None if against is None else against / own
    section = unit_section(folder / own, beside.unit, limit=limit, heading="h2", against=other)
    page = single_page(section, config.get("model", ""), plotted=False, beside=beside.html())
    write_aside(folder / own / "report.html", page.encode(errors="backslashreplace"))
    thumbnail = min(_LARGEST, _THUMBNAILS // len(config["units"]))
    return Card.of(section, _page(beside.unit), limit=thumbnail)


def _page(unit: str) -> str:
    """The address of a unit's page, from the run's folder."""
    return f"{quote(unit_folder(unit), safe=',')}/report.html"


def _title(units: Sequence[str], model: str) -> str:
    layers = {unit.partition(":")[0] for unit in units}
    what = f"{len(units)} units" + (f" of {layers.pop()}" if len(layers) == 1 else "")
    return f"{what}, {model}" if model else what


def _missing(missing: Mapping[str, Sequence[str]]) -> str:
    """Why units can't be shown."""
    if not missing:
        return ""
    reasons = "\n".join(
        f'<p class="missing">{escape(", ".join(units))}: {reason}</p>'
        for reason, units in missing.items()
    )
    return f'<section id="missing" tabindex="-1">\n<h2>Not shown</h2>\n{reasons}\n</section>\n'
