"""Recipes: what a training run is made of. Free of heavy imports, for the command line's sake."""

import re
import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from ppl_cnn import InputError
from ppl_cnn.data.augmentation import Augmentation

RECIPES = Path(__file__).parent / "recipes"
SCHEDULES = ("cosine", "constant")
DTYPES = ("float32", "bfloat16")
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


@dataclass(frozen=True)
class Recipe:
    """What determines a training run to the bit."""

    network: str
    data: str
    stages: str
    """objective:length[@rate[:schedule]], separated by commas."""
    batch_size: int
    """Images per step, over all devices and processes."""
    rate: float
    """Peak learning rate of the stages that don't give their own."""
    schedule: str
    """Of the stages that don't give their own: "cosine" to zero or "constant", both after a linear
    rise over 2 per cent of the stage."""
    momentum: float
    weight_decay: float
    seed: int
    train: str = "train"
    """The images trained on: a split, or a part of one in TFDS's notation, as train[:80%]."""
    test: str = "test"
    """Those that tests are made on; train[80%:] holds images out while "test" stays unseen."""
    total: str = ""
    """A length of which the stages' per cent are parts; "" if no stage has any."""
    switch: str = "none"
    """What ends a generative stage early: "ess:SHARE" does once the mean ESS of its weights,
    smoothed over 20 steps, is less than that share of the batch."""
    reference_bank: int = 0
    """Rows of earlier scores that widen the generative sum."""
    reference_decay: float = 0.9
    """What a row's weight in it is multiplied by at each step of its age."""
    augment: str = "none"
    """What is done to the training images, see `ppl_cnn.data.augmentation.Augmentation`."""
    dtype: str = "float32"
    """Of the network's arithmetic: "float32" or "bfloat16". Weights, scores, losses and the sums of
    gradients over groups and devices are float32."""

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise InputError(f"The rate must be positive and finite, not {self.rate}.")
        if self.seed < 0:
            raise InputError(f"The seed must not be negative, as {self.seed} is.")
        if self.schedule not in SCHEDULES:
            raise InputError(
                f"{self.schedule!r} is no schedule; give one of {', '.join(SCHEDULES)}."
            )
        self.least_ess()
        Augmentation.parse(self.augment)
        if self.dtype not in DTYPES:
            raise InputError(
                f"{self.dtype!r} is no number format; give one of {', '.join(DTYPES)}."
            )
        if self.reference_bank < 0 or not 0 < self.reference_decay <= 1:
            raise InputError(
                f"A reference bank has 0 or more rows, not {self.reference_bank}, and a decay in "
                f"(0, 1], not {self.reference_decay}."
            )
        total = Length.parse(self.total)
        if self.total and (total is None or total.unit == "%"):
            raise InputError(
                f"{self.total!r} is no total; write a number of epochs, or one with its unit such "
                f"as 500steps or 50000images."
            )
        if total is None and any(stage.length.unit == "%" for stage in self.parsed_stages()):
            raise InputError(
                f"Stages in per cent ({self.stages}) need a total, for example 70epochs."
            )
        if self.batch_size < 1 or not 0 <= self.momentum < 1 or not 0 <= self.weight_decay < 1:
            raise InputError(
                "A recipe needs a batch of at least 1, momentum and weight decay in [0, 1)."
            )

    def parsed_stages(self) -> list[Stage]:
        """The stages in their order."""
        return Stage.parse_all(self.stages, self.rate, self.schedule)

    def stage_steps(self, epoch: int) -> list[int]:
        """The steps of each stage.

        Args:
            epoch: steps in an epoch.
        """
        total = Length.parse(self.total)
        lengths = [stage.length for stage in self.parsed_stages()]
        return [length.steps(epoch, self.batch_size, total) for length in lengths]

    def least_ess(self) -> float:
        """The smoothed ESS under which a generative stage ends; 0 if none does."""
        kind, _, share = self.switch.partition(":")
        if self.switch == "none":
            return 0.0
        try:
            least = float(share) if kind == "ess" else 0.0
        except ValueError:
            least = 0.0
        if not 0 < least < 1:
            raise InputError(
                f"{self.switch!r} is no switch; write ess:SHARE with a share of the batch between "
                f"0 and 1, for example ess:0.05, or none."
            )
        return least * self.batch_size

    @classmethod
    def read(cls, config: str, **overrides: Any) -> Self:
        """A recipe that comes with the package, or one of the user's own in TOML.

        Args:
            config: a shipped recipe's name, or a file's path.
            overrides: fields to set otherwise; None leaves the recipe's value.
        """
        shipped = RECIPES / f"{config}.toml"
        path = shipped if shipped.is_file() else Path(config)
        try:
            values = tomllib.loads(path.read_text())
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(
                f"There is no recipe {config!r}: give one of {', '.join(recipe_names())}, "
                f"or a TOML file."
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no TOML file ({error}).") from None
        optional = {field.name: field.default for field in fields(cls)}
        needed = [name for name, default in optional.items() if default is MISSING]
        if wrong := sorted(set(needed) - set(values) | (set(values) - set(optional))):
            others = ", ".join(name for name in optional if name not in needed)
            raise InputError(
                f"{path} must give {', '.join(needed)}, and may give {others}; wrong: {wrong[0]}."
            )
        values = optional | values
        values |= {key: value for key, value in overrides.items() if value is not None}
        for key, kind in get_type_hints(cls).items():
            fitting = (int, float) if kind is float else kind
            if not isinstance(values[key], fitting) or isinstance(values[key], bool):
                raise InputError(f"{path}: {key} must be of type {kind.__name__}.")
        return cls(**values)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))
