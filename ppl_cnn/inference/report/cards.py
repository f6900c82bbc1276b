"""The cards of a page of several units: picture, verdict and numbers of each."""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from ppl_cnn.inference.diagnostics.verdict.rule import ESS, RHAT
from ppl_cnn.inference.diagnostics.verdict.verdict import Verdict
from ppl_cnn.inference.report.parts.verdict import LABELS, SIGNS
from ppl_cnn.inference.report.pictures.encoding import address, address_within
from ppl_cnn.inference.report.section import Section

_WORST_FIRST = ("bad", "short", "good", "missing")


class Card(NamedTuple):
    """What a page of several units shows of one at a glance."""

    title: str
    """The unit, and its name if it is a class."""
    state: str
    """The state of its verdict, or missing."""
    headline: str
    """The verdict in a few words."""
    link: str
    """The address that the card leads to."""
    pictures: str
    """HTML: its picture, and beside it its exemplars if there are any."""
    numbers: str
    """HTML: R-hat and ESS, or what draws by resampling have instead."""
    response: float
    """The draws' mean response; NaN if the unit can't be shown."""
    trouble: tuple[int, float]
    """Sorts the units that most need a look first."""

    @classmethod
    def of(cls, section: Section, link: str, *, limit: int | None = None) -> "Card":
        """The card of a unit that was diagnosed.

        Args:
            section: the unit's.
            link: where the card leads to.
            limit: how many bytes a picture may take; by default as many as it needs.
        """
        verdict, rhat = section.verdict, section.verdict.rhat.value
        pictures = [each for each in (section.thumbnail, section.natural) if each is not None]
        return cls(
            section.title,
            verdict.state,
            verdict.headline,
            link,
            "".join(_picture(pixels, limit) for pixels in pictures),
            _numbers(verdict),
            float(section.table.loc["response", "mean"]),
            (_WORST_FIRST.index(verdict.state), 0.0 if math.isnan(rhat) else -rhat),
        )

    @classmethod
    def missing(cls, unit: str, link: str) -> "Card":
        """The card of a unit that can't be shown.

        Args:
            unit: as the run's record has it.
            link: where the card leads to.
        """
        blank = '<span class="blank"></span>'
        told = LABELS["missing"]
        last = (_WORST_FIRST.index("missing"), 0.0)
        return cls(unit, "missing", told, link, blank, "no draws shown", math.nan, last)

    def html(self) -> str:
        """The card as an item of a list."""
        badge = badge_html(self.state, self.headline)
        response = "" if math.isnan(self.response) else f' data-response="{self.response:.6g}"'
        # One number, as the page's script sorts by it.
        worst = 1e6 * self.trouble[0] + max(self.trouble[1], -1e5)
        return f"""<li class="{self.state}" data-trouble="{worst:.6g}"{response}>\
<a href="{escape(self.link)}"><span class="pictures">{self.pictures}</span>
<strong>{escape(self.title)}</strong> {badge} <small>{self.numbers}</small></a></li>
"""


def badge_html(state: str, headline: str) -> str:
    """A verdict in a few words, with its sign and colour.

    Args:
        state: the verdict's, or missing.
        headline: plain text.
    """
    sign = f'<span aria-hidden="true">{SIGNS[state]}</span>'
    return f'<span class="badge {state}">{sign} {escape(headline)}</span>'


def counts_html(cards: Sequence[Card]) -> str:
    """How many units have which verdict."""
    counts = Counter((card.state, card.headline) for card in cards)
    by_state = sorted(counts, key=lambda each: _WORST_FIRST.index(each[0]))
    return " ".join(
        f'<span class="count">{counts[each]} × {badge_html(*each)}</span>' for each in by_state
    )


def _picture(pixels: UInt8[np.ndarray, "height width channel"], limit: int | None) -> str:
    source = address(pixels) if limit is None else address_within(pixels, limit)
    return f'<img class="pixels" alt="" src="{source}">'


def _numbers(verdict: Verdict) -> str:
    if verdict.weights is not None:
        return (
            f"<span>log Z {verdict.weights.log_z.value:.2f}</span> "
            f"<span>ESS {verdict.ess_bulk.value:,.0f}</span>"
        )
    ess = min(verdict.ess_bulk.value, verdict.ess_tail.value)
    return (
        f"<span>R-hat {RHAT.written(verdict.rhat.value, 3)}</span> "
        f"<span>ESS {ESS.written(ess, 0)}</span>"
    )
