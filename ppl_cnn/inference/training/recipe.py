"""Recipes: what a training run is made of. Free of heavy imports, for the command line's sake."""

import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from ppl_cnn.data.augmentation import Augmentation
from ppl_cnn.errors import InputError
from ppl_cnn.inference.training.stages import SCHEDULES, Length, Stage

RECIPES = Path(__file__).parent / "recipes"


DTYPES = ("float32", "bfloat16")


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
