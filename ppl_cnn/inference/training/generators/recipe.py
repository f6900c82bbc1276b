"""What determines a generator's training. Free of heavy imports, for the command line's sake."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ppl_cnn.data import DATA_SETS
from ppl_cnn.data.augmentation import PARTS, Augmentation
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.training.stages import Length
from ppl_cnn.numeric import plain_fields

STAGES = ("autoencoder", "flow", "adversarial")
"""The stages in their order; `objectives` says what each minimises."""


@dataclass(frozen=True, kw_only=True)
class GeneratorRecipe:
    """What determines a generator's training to the bit. How it is executed is an `Execution`.

    Raises:
        ArgumentError: a value is out of range, or no length.

    Examples:
        >>> recipe = GeneratorRecipe(data="fashion-embedded", autoencoder="2", flow="100steps")
        >>> recipe.stage_steps(epoch=93)
        (186, 100, 2790)
    """

    data: str = field(
        default="fashion_mnist", metadata={"lists": f"Data sets: {', '.join(DATA_SETS)}."}
    )
    """Name of a data set, shipped or made by `python -m ppl_cnn.data prepare`, or folder:PATH for
    class folders of images. Labels are not used."""
    train: str = "train"
    """Images to train on: a split, or a part of one in TFDS's notation such as train[:80%]."""
    size: int = 64
    """Rows and columns of the images where they vary in size, as photographs do; a multiple of 4.
    Images that are stored with a fixed size keep it."""
    augment: str = field(default="none", metadata={"lists": f"Parts: {', '.join(PARTS)}."})
    """Random changes of the images: none, or parts joined by +, such as resized-crop+flip. Without
    a crop the generator learns the centre of photographs."""
    autoencoder: str = "25"
    """Length of the first stage, a variational autoencoder: 25 (epochs), 5000steps or
    1000000images."""
    flow: str = "40"
    """Length of the second stage, a normalizing flow of the autoencoder's latents."""
    adversarial: str = "30"
    """Length of the third stage, in which the decoder and a refiner learn what a critic can't tell
    from images. The flow stays as it is."""
    batch_size: int = 64
    """Images per step, over all devices and processes; a multiple of 32."""
    latent: int = 32
    """Length of the autoencoder's latent, an even number."""
    noise: int = 32
    """Length of the refiner's own noise."""
    autoencoder_rate: float = 1e-3
    """Adam's peak learning rate in the first stage; every rate falls as a cosine."""
    flow_rate: float = 1e-3
    """Adam's peak learning rate in the second stage."""
    refiner_rate: float = 2e-4
    """Adam's peak learning rate of decoder and refiner in the third stage."""
    critic_rate: float = 1e-3
    """Adam's peak learning rate of the critic."""
    seed: int = 0
    """Seed of weights, data order and noise: the same seed gives the same bits."""

    def __post_init__(self) -> None:
        plain_fields(self)
        rates = ("autoencoder_rate", "flow_rate", "refiner_rate", "critic_rate")
        checks: dict[str, tuple[bool, str]] = {
            "batch_size": (
                self.batch_size > 0 and not self.batch_size % 32,
                "a positive multiple of 32",
            ),
            "size": (self.size > 0 and not self.size % 4, "a positive multiple of 4"),
            "latent": (self.latent > 0 and not self.latent % 2, "a positive even number"),
            "noise": (self.noise > 0, "at least 1"),
            "seed": (self.seed >= 0, "at least 0"),
            **{name: (0 < getattr(self, name) < math.inf, "positive") for name in rates},
        }
        for name, (right, range_) in checks.items():
            if not right:
                raise ArgumentError(
                    f"`{name}` must be {range_}, not {getattr(self, name)}.", argument=name
                )
        _ = self.lengths, Augmentation.parse(self.augment)

    @cached_property
    def lengths(self) -> Mapping[str, Length]:
        """Stage -> its length."""
        found = {}
        for name in STAGES:
            text = getattr(self, name)
            length = Length.parse(text)
            if length is None or length.unit == "%":
                raise ArgumentError(
                    f"`{name}={text}` is no length. Give a number of epochs such as 25, or "
                    f"5000steps or 1000000images.",
                    argument=name,
                )
            found[name] = length
        return found

    def stage_steps(self, epoch: int) -> tuple[int, ...]:
        """The updates of each stage.

        Args:
            epoch: steps in an epoch.
        """
        lengths = self.lengths.values()
        return tuple(each.steps(epoch, self.batch_size, total=None) for each in lengths)

    def record(self) -> dict[str, Any]:
        """The recipe as JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
