"""The rule of the verdict: each figure is good, short or bad by its bounds; a run is as its worst.

The bounds are fixed, so that a figure that is worse never has a milder colour. What a bad R-hat
means, a disagreement or too few draws, is for the findings to say.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from ppl_cnn.inference.diagnostics.thresholds import (
    BFMI_GOOD,
    DIFFERENT,
    DIVERGENT_SHARE,
    ESS_BAD,
    ESS_GOOD,
    RHAT_GOOD,
    RHAT_POOR,
)

type State = Literal["good", "short", "bad"]

_MORE_DIGITS = 6
_FROM_MILD: tuple[State, ...] = ("good", "short", "bad")

RULE = (
    "A run is as bad as its worst figure, each by the bounds beside it. It is also bad if draws "
    "are not finite, the response stands still in a chain, chains that disagree are still near "
    "their starts, a mean drifts over all chains, or fewer than 50 draws leave the ESS unknown. It "
    "falls short if there is one chain, an ESS is unknown, chains that agree are still near their "
    "starts, a mean drifts in one chain, replicas hardly swap or climb, or the kernel is "
    "approximate. Otherwise it is good."
)
"""The rule in words, for readers of a report."""


class Bounds(NamedTuple):
    """Where a figure is good, and where it is bad; between the two it falls short."""

    good: float
    """The last good value."""
    bad: float
    """Values beyond are bad; infinite if no value alone is."""

    @property
    def upper(self) -> bool:
        """Whether small values are good."""
        return self.bad >= self.good

    def state(self, value: float) -> State:
        """The state of a figure with this value; an undefined one falls short.

        Args:
            value: the figure's; NaN if it is undefined.

        Examples:
            >>> [RHAT.state(value) for value in (1.004, 1.03, 1.67)]
            ['good', 'short', 'bad']
            >>> [ESS.state(value) for value in (800, 120, 5)]
            ['good', 'short', 'bad']
        """
        if math.isnan(value):
            return "short"
        sign = 1 if self.upper else -1
        if sign * value <= sign * self.good:
            return "good"
        return "bad" if sign * value > sign * self.bad else "short"

    def written(self, value: float, digits: int) -> str:
        """The value with so many decimals, or with more where rounding would change its state.

        Args:
            value: the figure's; NaN if it is undefined.
            digits: decimals, where they suffice.

        Examples:
            >>> RHAT.written(1.0034, 3), RHAT.written(1.0104, 3)
            ('1.003', '1.0104')
        """
        if math.isnan(value):
            return "–"
        every = (f"{value:,.{digits + more}f}" for more in range(_MORE_DIGITS))
        same = (
            text for text in every if self.state(float(text.replace(",", ""))) == self.state(value)
        )
        return next(same, f"{value:,}")

    def __str__(self) -> str:
        good, bad = ("at most", "above") if self.upper else ("at least", "below")
        said = f"{good} {self.good:g} is good"
        return said if math.isinf(self.bad) else f"{said}, {bad} {self.bad:g} bad"


RHAT = Bounds(RHAT_GOOD, RHAT_POOR)
SIDES = Bounds(RHAT_POOR, RHAT_POOR)
ESS = Bounds(ESS_GOOD, ESS_BAD)
BFMI = Bounds(BFMI_GOOD, -math.inf)
DIVERGENT = Bounds(0, DIVERGENT_SHARE)
STEPS = Bounds(DIFFERENT, math.inf)
NOT_FINITE = Bounds(0, 0)


class Figure(NamedTuple):
    """A number that the verdict rests on, as a reader sees it."""

    name: str
    text: str
    """The number."""
    note: str
    """Where it was found, and its bounds."""
    state: State | None
    """By its bounds; None if it has none, or can't be had of such draws."""

    @classmethod
    def judged(
        cls, name: str, value: float, of: str, *, digits: int, bounds: Bounds, needed: bool = True
    ) -> "Figure":
        """A figure with bounds.

        Args:
            name: what it is.
            value: NaN if it is undefined.
            of: where it was found.
            digits: decimals.
            bounds: its bounds.
            needed: whether it falls short where it is undefined.
        """
        undefined = math.isnan(value)
        note = "; ".join(filter(None, ("undefined here" if undefined else of, str(bounds))))
        text = bounds.written(value, digits)
        return cls(name, text, note, None if undefined and not needed else bounds.state(value))


def worst(states: Iterable[State | None]) -> State:
    """The most severe of some states; good if there are none.

    Args:
        states: those of figures and findings; None counts for nothing.
    """
    known = [_FROM_MILD.index(state) for state in states if state is not None]
    return _FROM_MILD[max(known, default=0)]
