"""What a density needs of a unit: a differentiable score of images; and any function as one."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.graph import Params

type Image = Float[Array, "row col channel"]
"""In pixel units minus the mean."""


@runtime_checkable
class Scored(Protocol):
    """What a density needs: a differentiable scalar score of one image, and its weights.

    The weights are an argument of `score` so that jitted programs take them as one: XLA would
    spend a long time on folding them as constants.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of the images it scores."""

    @property
    def rows(self) -> range:
        """Where these lie in the network's image."""

    @property
    def cols(self) -> range:
        """Likewise."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of the network's image."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The network's; its mean and channel order say what the images' numbers stand for."""

    @property
    def params(self) -> Params:
        """The weights it needs. Units that are sampled side by side share those arrays that are
        the same object in all of them."""

    @property
    def program(self) -> Hashable:
        """Units of equal programs differ in their weights alone, and can be sampled together."""

    @property
    def settings(self) -> dict[str, Any]:
        """What names it in a run's record."""

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image)."""


@dataclass(frozen=True)
class Response:
    """Any differentiable scalar function of one image, in place of a unit.

    Args:
        function: maps an image of that shape, in pixel units minus the mean, to a scalar.
        shape: (row, col, channel).
        mean: the pixel (0..255) of each channel that images are given minus; by default 0, so
            that images are pixels themselves.
        order: of three channels, "RGB" or "BGR".

    Raises:
        InputError: the shape is none of an image, the mean has another number of channels, there
            is no such order, or the function doesn't return a scalar.
    """

    function: Callable[[Image], Float[Array, ""]]
    shape: tuple[int, int, int]
    mean: tuple[float, ...] = ()
    order: str = "RGB"

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(f"An image's shape is (row, col, channel), not {self.shape}.")
        if len(self.mean) not in (0, self.shape[2]):
            raise InputError(f"The mean of {self.shape[2]} channels can't be {self.mean}.")
        if self.order not in ("RGB", "BGR"):
            raise InputError(f"The order of channels is RGB or BGR, not {self.order!r}.")
        result = jax.eval_shape(self.function, jax.ShapeDtypeStruct(self.shape, jnp.float32))
        if getattr(result, "shape", None) != ():
            raise InputError(f"A response must be a scalar array, and {self} returns {result}.")

    def __str__(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__qualname__)

    @property
    def rows(self) -> range:
        """All of them."""
        return range(self.shape[0])

    @property
    def cols(self) -> range:
        """All of them."""
        return range(self.shape[1])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """That of its own images."""
        return self.shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The mean and order that it was given."""
        channels = self.shape[2]
        return Preprocessing(self.mean or (0.0,) * channels, (1.0,) * channels, self.order)

    @property
    def params(self) -> Params:
        """No weights but those that the function holds itself."""
        return {}

    @property
    def program(self) -> Hashable:
        """Itself."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The function's name."""
        return {"unit": str(self)}

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image)."""
        return self.function(image)
