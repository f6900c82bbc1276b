"""The stages of a training run: objective, length, learning rate and its schedule."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.training.schedule import SCHEDULES

OBJECTIVES: Mapping[str, str] = {
    "generative": "for each class a softmax over the batch",
    "discriminative": "for each image a softmax over the classes",
    "hybrid:LAMBDA": "(1 - LAMBDA) * generative + LAMBDA * discriminative",
}
"""What a stage may minimise, and what that is; LAMBDA lies between 0 and 1."""

UNITS = ("epochs", "steps", "images", "%")


@dataclass(frozen=True)
class Length:
    """How long a part of the training is."""

    amount: float
    unit: str
    """One of `UNITS`: passes through the training images, updates, images seen (rounded down to
    whole batches), or per cent of the recipe's total."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Reads "8", "8epochs", "500steps", "50000images" or "65%"; None for any other text."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z%]*)", text)
        if not found:
            return None
        amount, unit = float(found[1]), found[2] or "epochs"
        whole = amount.is_integer() or unit == "%"
        if unit not in UNITS or amount <= 0 or not whole or (unit == "%" and amount > 100):
            return None
        return cls(amount, unit)

    def steps(self, epoch: int, batch_size: int, *, total: "Length | None" = None) -> int:
        """The length in updates, at least 1.

        Args:
            epoch: steps in an epoch.
            batch_size: images in a step.
            total: the length of which per cent are taken; needed for these alone.
        """
        if self.unit == "%":
            assert total is not None  # `Recipe` refuses per cent without a total
            return max(1, round(self.amount / 100 * total.steps(epoch, batch_size)))
        in_one = {"epochs": float(epoch), "steps": 1.0, "images": 1 / batch_size}[self.unit]
        return max(1, int(self.amount * in_one))


@dataclass(frozen=True)
class Stage:
    """A part of the training with one objective."""

    objective: str
    """The objective as it was written: generative, discriminative or hybrid:LAMBDA."""
    share: float
    """Weight of the discriminative loss in the objective: 0, 1 or LAMBDA."""
    length: Length
    rate: float
    """Peak learning rate."""
    schedule: str
    """The rate's schedule, a name in `SCHEDULES`."""

    @classmethod
    def parse_all(cls, text: str, rate: float, schedule: str) -> tuple[Self, ...]:
        """Reads "generative:8,hybrid:0.5:500steps,discriminative:35%@0.003:constant".

        Each stage is objective:length, objective:length@rate or objective:length@rate:schedule.

        Args:
            text: the stages in their order, separated by commas.
            rate: peak learning rate of stages that don't give one.
            schedule: schedule of stages that don't give one.

        Raises:
            ArgumentError: a part of the text is no stage.
        """
        return tuple(cls._parse(part.strip(), rate, schedule) for part in text.split(","))

    @classmethod
    def _parse(cls, part: str, rate: float, schedule: str) -> Self:
        what, _, own = part.partition("@")
        objective, _, length_text = what.rpartition(":")
        own_rate, _, own_schedule = own.partition(":")
        length, share = Length.parse(length_text), _share(objective)
        stage_rate = _number(own_rate) if "@" in part else rate
        stage_schedule = own_schedule if ":" in own else schedule
        if length is None or share is None or not 0 < stage_rate < math.inf:
            raise _no_stage(part)
        if stage_schedule not in SCHEDULES:
            raise _no_stage(part)
        return cls(objective, share, length, stage_rate, stage_schedule)


def _no_stage(part: str) -> ArgumentError:
    return ArgumentError(
        f"{part!r} in `stages` is no stage of the form objective:length[@rate[:schedule]]. "
        f"Objectives: {', '.join(OBJECTIVES)} (LAMBDA between 0 and 1); lengths: 8 (epochs), "
        f"500steps, 50000images, 65%; schedules: {', '.join(SCHEDULES)}.",
        argument="stages",
    )


def _share(objective: str) -> float | None:
    """The discriminative loss's weight; None for an unknown objective."""
    if objective in ("generative", "discriminative"):
        return float(objective == "discriminative")
    name, _, text = objective.partition(":")
    share = _number(text)
    return share if name == "hybrid" and 0 < share < 1 else None


def parse_switch(text: str) -> float | None:
    """Reads "ess:FACTOR", the multiple of what separation leaves under which the ESS ends a stage.

    Args:
        text: "ess:1.5", or "none" for stages that always run to their end.

    Raises:
        ArgumentError: it is something else.
    """
    if text == "none":
        return None
    kind, _, factor_text = text.partition(":")
    factor = _number(factor_text)
    if kind != "ess" or not 0 < factor < math.inf:
        raise ArgumentError(
            f"`switch={text}` is neither none nor ess:FACTOR. Give a positive FACTOR, for example "
            f"ess:1.5, the multiple of what separation leaves of the effective sample size.",
            argument="switch",
        )
    return factor


def _number(text: str) -> float:
    """The number that a text is; not a number (NaN) if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
