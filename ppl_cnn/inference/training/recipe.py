"""Recipes: what a training run is made of. Free of heavy imports, for the command line's sake."""

import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_type_hints

from ppl_cnn.data import DATA_SETS
from ppl_cnn.data.augmentation import PARTS, Augmentation
from ppl_cnn.errors import ArgumentError, FileError, UnknownNameError, unknown
from ppl_cnn.inference.training.schedule import SCHEDULES
from ppl_cnn.inference.training.stages import OBJECTIVES, Length, Stage, parse_switch
from ppl_cnn.numeric import plain_fields

RECIPES = Path(__file__).parent / "recipes"
DTYPES = ("float32", "bfloat16")


def _choices(names: Collection[str]) -> Mapping[str, Any]:
    """Metadata of a field whose value must be one of these names."""
    return {"choices": tuple(names)}


def _lists(what: str, names: Collection[str]) -> Mapping[str, Any]:
    """Metadata of a field whose text is made of names; the command's help lists them."""
    return {"lists": f"{what}: {', '.join(names)}."}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What determines a training run to the bit. How it is executed is an `Execution`.

    The defaults are those of Caffe's LeNet (BVLC/caffe, lenet_solver.prototxt), but for the
    cosine schedule. Texts are parsed when the recipe is made, see the properties.

    Raises:
        ArgumentError: a value is of the wrong type, out of range, or no text of its kind.
        UnknownNameError: the schedule or the number format is unknown.

    Examples:
        >>> recipe = Recipe(network="lenet", data="fashion-embedded", stages="hybrid:0.5:2")
        >>> recipe.parsed_stages[0].share, recipe.stage_steps(epoch=93)
        (0.5, [186])
        >>> Recipe.read("lenet", batch_size=128).stages
        'generative:8,discriminative:4'
    """

    network: str
    """Name of a network that the package declares, such as lenet, alexnet-fashion or alexnet (the
    error for an unknown name lists them all), or package.module:factory for a Flax NNX module of
    your own, which is trained from the factory's weights. A declared network gets as many classes
    as the data. Those with batch normalizations, such as resnet18, can't be trained."""
    data: str = field(metadata=_lists("Data sets", DATA_SETS))
    """Name of a data set, shipped or made by `python -m ppl_cnn.data prepare`, or folder:PATH for
    class folders of images."""
    stages: str = field(
        metadata=_lists("Objectives", [f"{name} ({what})" for name, what in OBJECTIVES.items()])
    )
    """Stages in turn, separated by commas: objective:length, objective:length@rate or
    objective:length@rate:schedule, for example generative:8,discriminative:4@0.003 or
    generative:65%,hybrid:0.5:35%@0.01:cosine. Lengths are 8 (epochs), 500steps, 50000images, or 65%
    (of `total`)."""
    batch_size: int = 64
    """Images per step, over all devices and processes. The generative gradient takes the batch for
    the reference distribution: it must be larger than the number of classes, and larger is
    better."""
    rate: float = 0.01
    """Peak learning rate of stages that don't give their own."""
    schedule: str = field(default="cosine", metadata=_choices(SCHEDULES))
    """Learning-rate schedule after the linear warm-up over a stage's first 2 per cent, for stages
    that don't give their own."""
    momentum: float = 0.9
    """Momentum of SGD, in [0, 1)."""
    weight_decay: float = 5e-4
    """L2 penalty in [0, 1): this times the weights is added to the gradient."""
    seed: int = 0
    """Seed of weights, data order and dropout: the same seed gives the same bits."""
    train: str = "train"
    """Images to train on: a split, or a part of one in TFDS's notation such as train[:80%]."""
    test: str = "test"
    """Images to test on; train[80%:] holds images out while settings are chosen, so that test stays
    unseen."""
    total: str = ""
    """Length of which per cent in `stages` are taken: 70 (epochs), 5000steps or 1000000images."""
    switch: str = "none"
    """Early end of generative stages: ess:FACTOR ends one once the effective sample size (ESS) of
    its weights, smoothed over 20 steps, is less than FACTOR times what it is where the scores
    separate the classes, sum_y n_y^2 / n for n_y of n images in class y (ess:1.5); none lets it
    run."""
    reference_bank: int = 0
    """Rows of earlier steps' scores that widen the generative sum; 0 for none. They stand for a
    larger batch, but come from older weights: log Z lags behind, and the loss is no longer blind to
    a constant added to a class's scores."""
    reference_decay: float = 0.9
    """Factor, in (0, 1], by which a row's weight in the bank falls with each step of its age."""
    augment: str = field(default="none", metadata=_lists("Parts", PARTS))
    """Random changes of the training images: none, or parts joined by +, such as crop+flip+colour
    (AlexNet's) or resized-crop+flip. Without a crop the network sees the centre of photographs."""
    dtype: str = field(default="float32", metadata=_choices(DTYPES))
    """Number format of the network's arithmetic. Weights, scores, losses and the sums of gradients
    over groups and devices are always float32."""

    def __post_init__(self) -> None:
        plain_fields(self)
        _check_types(self)
        for each in fields(self):
            value, choices = getattr(self, each.name), each.metadata.get("choices")
            if choices and value not in choices:
                raise unknown(f"`{each.name}`", value, choices)
        for name, right, range_ in (
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("rate", 0 < self.rate < math.inf, "positive and finite"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < 1, "in [0, 1)"),
            ("seed", self.seed >= 0, "at least 0"),
            ("reference_bank", self.reference_bank >= 0, "at least 0"),
            ("reference_decay", 0 < self.reference_decay <= 1, "in (0, 1]"),
        ):
            if not right:
                raise ArgumentError(
                    f"`{name}` must be {range_}, not {getattr(self, name)}.", argument=name
                )
        # Texts are parsed here, so that what is wrong with them is said at once.
        in_per_cent = any(stage.length.unit == "%" for stage in self.parsed_stages)
        if in_per_cent and self.parsed_total is None:
            raise ArgumentError(
                f"`stages={self.stages}` has lengths in per cent, of no `total`. Give one, "
                f"for example `total=70epochs`.",
                argument="total",
            )
        _ = self.parsed_total, self.least_ess, self.augmentation

    @cached_property
    def parsed_stages(self) -> tuple[Stage, ...]:
        """The stages in their order."""
        return Stage.parse_all(self.stages, self.rate, self.schedule)

    @cached_property
    def parsed_total(self) -> Length | None:
        """The length of which the stages' per cent are taken; None if none is given."""
        total = Length.parse(self.total)
        if self.total and (total is None or total.unit == "%"):
            raise ArgumentError(
                f"`total={self.total}` is no length. Give a number of epochs such as 70, or "
                f"5000steps or 1000000images.",
                argument="total",
            )
        return total

    @cached_property
    def least_ess(self) -> float:
        """The smoothed ESS, as a multiple of what separation leaves, under which a generative stage
        ends; 0 for never."""
        return parse_switch(self.switch) or 0.0

    @cached_property
    def augmentation(self) -> Augmentation:
        """The random changes of the training images."""
        return Augmentation.parse(self.augment)

    def stage_steps(self, epoch: int) -> list[int]:
        """The updates of each stage.

        Args:
            epoch: steps in an epoch.
        """
        return [
            stage.length.steps(epoch, self.batch_size, total=self.parsed_total)
            for stage in self.parsed_stages
        ]

    @classmethod
    def read(cls, config: str, **overrides: Any) -> Self:
        """Reads a recipe that comes with the package, or a TOML file with a recipe's fields.

        Args:
            config: a shipped recipe's name (`recipe_names()`), or the path of a TOML file.
            overrides: fields to set otherwise; None keeps the recipe's value.

        Raises:
            UnknownNameError: neither a shipped recipe nor a file has that name.
            FileError: the file is no TOML, or its keys are not a recipe's.
            ArgumentError: a value can't be used.
        """
        shipped = RECIPES / f"{config}.toml"
        path = shipped if shipped.is_file() else Path(config)
        try:
            values = tomllib.loads(path.read_text("utf-8-sig"))
        except (FileNotFoundError, IsADirectoryError):
            names = recipe_names()
            raise UnknownNameError(
                f"Unknown recipe {config!r}. Give {', '.join(names)}, or the path of a TOML file.",
                name=config,
                known=names,
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FileError(f"{path} is no TOML file ({error}).", path=path) from None
        needed = {each.name: each.default is MISSING for each in fields(cls)}
        if left_over := [name for name in values if name not in needed]:
            raise FileError(
                f"{path} has unknown keys: {', '.join(left_over)}. Known: {', '.join(needed)}.",
                path=path,
            )
        values |= {key: value for key, value in overrides.items() if value is not None}
        if missing := [name for name in needed if needed[name] and name not in values]:
            raise FileError(f"{path} lacks {', '.join(missing)}.", path=path)
        return cls(**values)


def _check_types(recipe: Recipe) -> None:
    """Whole numbers will do for real ones; `True` is no number."""
    for name, kind in get_type_hints(type(recipe)).items():
        value = getattr(recipe, name)
        fitting = (int, float) if kind is float else kind
        if not isinstance(value, fitting) or isinstance(value, bool):
            raise ArgumentError(
                f"`{name}` must be of type {kind.__name__}, not {value!r}.", argument=name
            )


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_summaries() -> dict[str, str]:
    """The first line of each recipe that comes with the package, by its name."""
    texts = {name: (RECIPES / f"{name}.toml").read_text("utf-8") for name in recipe_names()}
    return {name: text.partition("\n")[0].lstrip("# ").rstrip(".") for name, text in texts.items()}
