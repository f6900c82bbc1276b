"""References of independent pixels: white noise and uniform noise."""

from dataclasses import dataclass
from typing import ClassVar

import numpyro.distributions as dist
from numpyro.distributions.transforms import AffineTransform

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.transforms import NormalToUniform, push_forward


@dataclass(frozen=True)
class WhiteNoise:
    """Independent pixels N(0, sigma^2) about the mean image: R(z) = sigma z.

    Args:
        sigma: in pixel units (0..255).
    """

    sigma: float
    linear: ClassVar = True
    whole: ClassVar = False

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise InputError(f"The noise's sigma must be positive and finite, not {self.sigma}.")

    def __str__(self) -> str:
        return f"white:{self.sigma}".removesuffix(".0")

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over images of a (row, col, channel) shape."""
        return push_forward(shape, [AffineTransform(0.0, self.sigma)])


@dataclass(frozen=True)
class Uniform:
    """Independent pixels, uniform between 0 and 255: R(z) = 255 Phi(z) - mean."""

    linear: ClassVar = False
    whole: ClassVar = False

    def __str__(self) -> str:
        return "uniform"

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over images of a (row, col, channel) shape."""
        return push_forward(shape, [NormalToUniform(preprocessing.mean)])
