"""What a density needs of a unit: a differentiable score of images; and any function as one."""

from collections.abc import Callable, Hashable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ppl_cnn.errors import ArgumentError, one_line
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.numeric import plain_fields

type Image = Float[Array, "row col channel"]
"""One image, in pixel units (0..255) minus the mean."""


@runtime_checkable
class Scored(Protocol):
    """What a density needs of a unit: a differentiable scalar score of one image, and its weights.

    The weights are an argument of `score` so that jitted programs take them as one. XLA would
    spend a long time on folding them as constants.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of the images that it scores."""

    @property
    def rows(self) -> range:
        """The rows of the network's image that its images are."""

    @property
    def cols(self) -> range:
        """The columns of the network's image that its images are."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of the network's image."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The network's preprocessing; its mean and channel order tell what pixels stand for."""

    @property
    def params(self) -> Params:
        """The weights that `score` needs.

        Units that are sampled together share an array if it is the same object in all of them.
        """

    @property
    def program(self) -> Hashable:
        """What is equal for units that differ in their weights alone.

        Such units are sampled together, by one compiled program.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """What names the unit in a run's record, by the names of the options."""

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """The score f(image), before division by the temperature.

        Args:
            params: the weights; `params` or others of the same shapes.
            image: of `shape`, in pixel units minus the mean.
        """


class OfUnit:
    """What scores a unit's images otherwise than the unit does; the images are the unit's."""

    unit: Scored

    def __str__(self) -> str:
        return str(self.unit)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of the unit's images."""
        return self.unit.shape

    @property
    def rows(self) -> range:
        """The rows of the network's image that the unit's images are."""
        return self.unit.rows

    @property
    def cols(self) -> range:
        """The columns of the network's image that the unit's images are."""
        return self.unit.cols

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of the network's image."""
        return self.unit.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the network's images."""
        return self.unit.preprocessing


@dataclass(frozen=True)
class ScoreFunction:
    """Any differentiable scalar function of one image, in place of a unit.

    Args:
        function: maps an image of the given shape, in pixel units minus the mean, to a scalar.
        shape: (row, col, channel) of its images.
        mean: the pixel (0..255) of each channel that is subtracted from images; by default 0, so
            that images are pixels.
        order: the order of three channels, "RGB" or "BGR".

    Raises:
        ArgumentError: the shape is not that of an image, the mean has another number of channels,
            the order is unknown, or the function can't be traced by JAX or does not return a
            scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> brightness = ScoreFunction(jnp.mean, (8, 8, 3), mean=(124.0, 116.0, 104.0))
        >>> float(brightness.score({}, jnp.ones(brightness.shape)))
        1.0
    """

    function: Callable[[Image], Float[Array, ""]]
    shape: tuple[int, int, int]
    mean: tuple[float, ...] = ()
    _: KW_ONLY
    order: str = "RGB"

    def __post_init__(self) -> None:
        plain_fields(self)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ArgumentError(
                f"`shape` must be (row, col, channel) of an image, not {self.shape}.",
                argument="shape",
            )
        if len(self.mean) not in (0, self.shape[2]):
            raise ArgumentError(
                f"`mean` must have a number for each of the {self.shape[2]} channels, "
                f"not {self.mean}.",
                argument="mean",
            )
        if self.order not in ("RGB", "BGR"):
            raise ArgumentError(
                f"`order` must be RGB or BGR, not {self.order!r}.", argument="order"
            )
        try:
            result = jax.eval_shape(self.function, jax.ShapeDtypeStruct(self.shape, jnp.float32))
        except Exception as error:  # whatever a user's function raises
            raise ArgumentError(
                f"`function` must be made of JAX's functions, such as jax.numpy's, and take an "
                f"image of shape {self.shape}; {self} can't be traced ({one_line(error)}).",
                argument="function",
            ) from error
        if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.floating):
            raise ArgumentError(
                f"`function` must return a scalar array of real numbers, but {self} returns "
                f"{result}.",
                argument="function",
            )

    def __str__(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__qualname__)

    @property
    def rows(self) -> range:
        """The rows of its images, all of them."""
        return range(self.shape[0])

    @property
    def cols(self) -> range:
        """The columns of its images, all of them."""
        return range(self.shape[1])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of its images."""
        return self.shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The given mean and channel order, and a scale of 1."""
        channels = self.shape[2]
        return Preprocessing(self.mean or (0.0,) * channels, (1.0,) * channels, self.order)

    @property
    def params(self) -> Params:
        """No weights: those that the function needs, it holds itself."""
        return {}

    @property
    def program(self) -> Hashable:
        """The score function itself, as it has no weights to differ in."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The function's name, as `unit`."""
        return {"unit": str(self)}

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """The score f(image); `params` is not used."""
        return self.function(image)
