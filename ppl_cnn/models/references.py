"""Reference distributions q of images, each a push-forward of standard normal noise."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpyro.distributions as dist
from jaxtyping import Array, Float

from ppl_cnn import InputError


@runtime_checkable
class Reference(Protocol):
    """A distribution of images x = R(z), z ~ N(0, I), in pixel units minus the mean."""

    def distribution(self, shape: tuple[int, int, int]) -> dist.TransformedDistribution:
        """q over images of a (row, col, channel) shape; its base is N(0, I), its transform R."""

    def push(
        self, z: Float[Array, "*batch row col channel"]
    ) -> Float[Array, "*batch row col channel"]:
        """R(z)."""


@dataclass(frozen=True)
class WhiteNoise:
    """Independent pixels N(0, sigma^2).

    Args:
        sigma: in pixel units (0..255).
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise InputError(f"The noise's sigma must be positive and finite, not {self.sigma}.")

    def __str__(self) -> str:
        return f"white:{self.sigma}".removesuffix(".0")

    def distribution(self, shape: tuple[int, int, int]) -> dist.TransformedDistribution:
        """q over images of a (row, col, channel) shape."""
        standard = dist.Normal(0.0, 1.0).expand(shape).to_event(3)
        return dist.TransformedDistribution(
            standard, dist.transforms.AffineTransform(0.0, self.sigma)
        )

    def push(
        self, z: Float[Array, "*batch row col channel"]
    ) -> Float[Array, "*batch row col channel"]:
        """R(z) = sigma z."""
        return self.sigma * z


def parse_reference(text: str) -> Reference:
    """The reference that a text such as "white:10" names.

    Raises:
        InputError: there is no such reference.
    """
    kind, _, value = text.partition(":")
    try:
        sigma = float(value)
    except ValueError:
        kind = ""
    if kind != "white":
        raise InputError(f"{text!r} is no reference: write white:SIGMA, for example white:10.")
    return WhiteNoise(sigma)
