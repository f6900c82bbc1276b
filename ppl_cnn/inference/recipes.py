"""Recipes: what a training run is made of. Free of heavy imports, for the command line's sake."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, get_type_hints

from ppl_cnn import InputError

RECIPES = Path(__file__).parent / "recipes"
OBJECTIVE_NAMES = ("generative", "discriminative")
SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True)
class Stage:
    """A part of the training with one objective."""

    objective: str
    epochs: int
    rate: float
    """Peak learning rate."""

    @classmethod
    def parse_all(cls, text: str, rate: float) -> list[Self]:
        """Reads "generative:8,discriminative:4@0.003": objective:epochs, and @rate if its own.

        Args:
            text: the stages in their order.
            rate: of the stages that don't give one.
        """
        stages = []
        for part in text.split(","):
            objective, _, length = part.strip().partition(":")
            epochs, _, own_rate = length.partition("@")
            try:
                stage = cls(objective, int(epochs), float(own_rate or rate))
            except ValueError:
                stage = cls(objective, 0, 0.0)
            if objective not in OBJECTIVE_NAMES or stage.epochs < 1 or not 0 < stage.rate < 1e6:
                raise InputError(
                    f"{part.strip()!r} is no stage: write objective:epochs or "
                    f"objective:epochs@rate, with an objective of {', '.join(OBJECTIVE_NAMES)}, "
                    f"for example generative:8,discriminative:4@0.003."
                )
            stages.append(stage)
        return stages


@dataclass(frozen=True)
class Recipe:
    """What determines a training run to the bit."""

    network: str
    data: str
    stages: str
    """objective:epochs[@rate], separated by commas."""
    batch_size: int
    """Images per step, over all devices and processes."""
    rate: float
    """Peak learning rate of the stages that don't give their own."""
    schedule: str
    """Within a stage: "cosine" to zero or "constant", both after a linear rise over 2 per cent."""
    momentum: float
    weight_decay: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise InputError(f"The rate must be positive and finite, not {self.rate}.")
        if self.seed < 0:
            raise InputError(f"The seed must not be negative, as {self.seed} is.")
        Stage.parse_all(self.stages, self.rate)
        if self.schedule not in SCHEDULES:
            raise InputError(
                f"{self.schedule!r} is no schedule; give one of {', '.join(SCHEDULES)}."
            )
        if self.batch_size < 1 or not 0 <= self.momentum < 1 or not 0 <= self.weight_decay < 1:
            raise InputError(
                "A recipe needs a batch of at least 1, momentum and weight decay in [0, 1)."
            )

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
        names = [field.name for field in fields(cls)]
        if wrong := sorted(set(names) ^ set(values)):
            raise InputError(f"{path} must give just {', '.join(names)}; wrong: {wrong[0]}.")
        values |= {key: value for key, value in overrides.items() if value is not None}
        for key, kind in get_type_hints(cls).items():
            fitting = (int, float) if kind is float else kind
            if not isinstance(values[key], fitting) or isinstance(values[key], bool):
                raise InputError(f"{path}: {key} must be of type {kind.__name__}.")
        return cls(**values)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))
