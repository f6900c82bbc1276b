"""What the metrics of a generator's training say: of its steps and of its tests."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class GeneratorWording(NamedTuple):
    """The `Wording` of a generator's training: a step's line has all that the step reports."""

    def line(self, step: int, stage: str, info: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers of a step.

        Args:
            step: the step's number, from 1.
            stage: its stage.
            info: its report.
        """
        return {"stage": stage, **{name: float(value) for name, value in info.items()}}

    def step(self, line: Mapping[str, Any]) -> str:
        """The loss; against a critic also the critic's, which is 1.386 where it can't tell."""
        if "critic_loss" in line:
            return f"loss {line['loss']:.3f}, critic's {line['critic_loss']:.3f} (1.386: fooled)"
        return f"loss {line['loss']:.2f}"

    def test(self, result: Mapping[str, float]) -> str:
        """All figures."""
        return (
            f"Frechet distance {result['frechet']:.2f} (real images {result['real_frechet']:.2f}), "
            f"precision {result['precision']:.2f}, recall {result['recall']:.2f}"
        )

    def brief(self, result: Mapping[str, float]) -> str:
        """The Frechet distance."""
        return f"FD {result['frechet']:.2f}"
