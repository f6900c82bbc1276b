"""The progress bar of a run."""

from typing import Self

import numpy as np

from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.state import Position
from ppl_cnn.progress import Bar


class Progress:
    """A bar over warmup and draws, with draws per second, acceptance and time to go.

    Args:
        sampling: how each unit is sampled.
        draws: draws wanted per chain.
        units: number of units in all groups.
        shown: whether the bar is shown at all.
    """

    def __init__(self, sampling: Sampling, *, draws: int, units: int, shown: bool) -> None:
        self._sampling, self._draws, self._units, self._begun = sampling, draws, units, 0
        self._bar = Bar(
            total=units * (sampling.warmup + draws * sampling.thin),
            unit="transition",
            desc="starting",
            disable=not shown,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    @property
    def shown(self) -> bool:
        """Whether the bar is shown."""
        return not self._bar.disable

    def __exit__(self, *failure: object) -> None:
        self._bar.close()

    def begin(self, program: Program, position: Position) -> None:
        """Turns to a group of units.

        Args:
            program: the group's.
            position: where its chains stand; after a resumption, beyond the start.
        """
        self._last, self._together = position, len(program.densities)
        self._begun += self._together
        draws = min(position.draws, self._draws)
        done = (position.warmup + draws * self._sampling.thin) * self._together
        if not self._bar.disable:
            # What an earlier run has done doesn't count for this run's rate.
            self._bar.initial += done
        self._bar.set_description(f"compiling{self._which()}", refresh=False)
        self._bar.set_postfix_str("", refresh=False)
        self._bar.update(done)
        self._bar.refresh()

    def show(self, position: Position, acceptance: np.ndarray) -> None:
        """Moves on to a new position.

        Args:
            position: where the chains stand after a call of the program.
            acceptance: (chain,): mean acceptance probability since the last.
        """
        last, self._last = self._last, position
        drawn, warmed = position.draws - last.draws, position.warmup - last.warmup
        text = f"acceptance {np.mean(acceptance):.2f}"
        if drawn:
            seconds = position.seconds["sampling"] - last.seconds["sampling"]
            text += f", {drawn * len(acceptance) / seconds:.1f} draws/s"
        doing = "sampling" if drawn else "warmup"
        self._bar.set_description(f"{doing}{self._which()}", refresh=False)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update((warmed + drawn * self._sampling.thin) * self._together)

    def _which(self) -> str:
        """Which units are being sampled, if there are several."""
        if self._units == 1:
            return ""
        first = self._begun - self._together + 1
        which = f"units {first}-{self._begun}" if self._together > 1 else f"unit {first}"
        return f", {which} of {self._units}"
