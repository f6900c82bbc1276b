"""The stages of a training run: objective, length, learning rate and its schedule."""

import re
from dataclasses import dataclass
from typing import Self

from ppl_cnn.errors import InputError

SCHEDULES = ("cosine", "constant")


UNITS = ("epochs", "steps", "images", "%")


@dataclass(frozen=True)
class Length:
    """How long a part of the training is."""

    amount: float
    unit: str
    """One of `UNITS`: rounds through the training images, updates, images seen (what doesn't fill
    a batch isn't), or per cent of the recipe's total."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Reads "8", "8epochs", "500steps", "50000images" or "65%"; None if it is none of these."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z%]*)", text)
        if not found:
            return None
        amount, unit = float(found[1]), found[2] or "epochs"
        whole = amount.is_integer() or unit == "%"
        if unit not in UNITS or amount <= 0 or not whole or (unit == "%" and amount > 100):
            return None
        return cls(amount, unit)

    def steps(self, epoch: int, batch_size: int, total: "Length | None" = None) -> int:
        """In updates.

        Args:
            epoch: steps in an epoch.
            batch_size: images in a step.
            total: of what per cent are meant.
        """
        if self.unit == "%":
            assert total is not None  # a recipe without one is refused
            return max(1, round(self.amount / 100 * total.steps(epoch, batch_size)))
        in_one = {"epochs": float(epoch), "steps": 1.0, "images": 1 / batch_size}[self.unit]
        return max(1, int(self.amount * in_one))


@dataclass(frozen=True)
class Stage:
    """A part of the training with one objective."""

    objective: str
    """As it was written: generative, discriminative or hybrid:LAMBDA."""
    share: float
    """Of the discriminative loss: 0, 1 or LAMBDA."""
    length: Length
    rate: float
    """Peak learning rate."""
    schedule: str
    """One of `SCHEDULES`."""

    @classmethod
    def parse_all(cls, text: str, rate: float, schedule: str) -> list[Self]:
        """Reads "generative:8,hybrid:0.5:500steps,discriminative:35%@0.003:constant".

        Each is objective:length, and @rate or @rate:schedule if it has its own.

        Args:
            text: the stages in their order.
            rate: of the stages that don't give one.
            schedule: likewise.
        """
        return [cls._parse(part.strip(), rate, schedule) for part in text.split(",")]

    @classmethod
    def _parse(cls, part: str, rate: float, schedule: str) -> Self:
        what, _, own = part.partition("@")
        objective, _, length_text = what.rpartition(":")
        own_rate, _, own_schedule = own.partition(":")
        length = Length.parse(length_text)
        try:
            share = _share(objective)
            stage_rate = float(own_rate) if "@" in part else rate
        except ValueError:
            share = stage_rate = -1.0
        stage_schedule = own_schedule if ":" in own else schedule
        if not length or share < 0 or not 0 < stage_rate < 1e6 or stage_schedule not in SCHEDULES:
            raise InputError(
                f"{part!r} is no stage: write objective:length or objective:length@rate or "
                f"objective:length@rate:schedule, with an objective of generative, discriminative "
                f"or hybrid:LAMBDA (LAMBDA between 0 and 1), a length such as 8 (epochs), "
                f"500steps, 50000images or 65%, and a schedule of {', '.join(SCHEDULES)}, for "
                f"example generative:8,hybrid:0.5:500steps,discriminative:4@0.003:constant."
            )
        return cls(objective, share, length, stage_rate, stage_schedule)


def _share(objective: str) -> float:
    """The discriminative loss's share; `ValueError` if there is no such objective."""
    if objective in ("generative", "discriminative"):
        return float(objective == "discriminative")
    name, _, share = objective.partition(":")
    if name != "hybrid" or not 0 < float(share) < 1:
        raise ValueError
    return float(share)
