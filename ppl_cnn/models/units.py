"""Units: what a text such as "conv5:12@0,3" names, its receptive field and its response."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ppl_cnn import InputError
from ppl_cnn.models.layers import Conv, Dense, Layer, Shape, Weights
from ppl_cnn.models.network import Params, Slab, shapes
from ppl_cnn.models.networks import Network, Preprocessing

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
        """The weights it needs."""

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
        return Preprocessing(self.mean or (0.0,) * self.shape[2], order=self.order)

    @property
    def params(self) -> Params:
        """No weights but those that the function holds itself."""
        return {}

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image)."""
        return self.function(image)


@dataclass(frozen=True)
class Unit:
    """A unit of a network: a filter of a convolution at a place of its map, or a dense channel.

    Its image is its receptive field, cut off at the image's border; its response is computed
    on that slab alone and equals the whole network's. A convolution's response is the one
    before the nonlinearity. Units are compared by name and network, not by weights.
    """

    network: Network
    layer: str
    channel: int
    place: tuple[int, int] | None
    """(row, col) on the map; None for dense layers."""
    slab: Slab = field(repr=False)
    params: Params = field(repr=False, compare=False)
    """Of the layers it depends on; of its own layer, those of its channel alone."""

    @classmethod
    def parse(cls, text: str, network: Network, params: Params) -> Self:
        """The unit that a text names.

        Args:
            text: "layer:channel" (at the map's centre) or "layer:channel@row,col"; channels,
                rows and columns are counted from 0.
            network: the declaration.
            params: all its weights.

        Raises:
            InputError: there is no such layer, channel or place.
        """
        match = re.fullmatch(r"([\w.-]+):(\d{1,9})(?:@(\d{1,9}),(\d{1,9}))?", text, re.ASCII)
        if match is None:
            last = network.layers[-1].name
            raise InputError(
                f"{text!r} is no unit: write layer:channel or layer:channel@row,col, "
                f"for example {last}:0."
            )
        name, channel = match[1], int(match[2])
        shape = _response_shape(network, name)
        if channel >= shape[-1]:
            raise InputError(
                f"{name} of {network.name} has the channels 0 to {shape[-1] - 1}, not {channel}."
            )
        wanted = None if match[3] is None else (int(match[3]), int(match[4]))
        place = _place(name, shape, wanted)
        row, col = place or (0, 0)
        slab = Slab.of(network, name, range(row, row + 1), range(col, col + 1))
        *before, (layer, padding) = slab.steps
        needed = {step.name: params[step.name] for step, _ in before if step.name in params}
        single, weights = _single_channel(layer, params[name], channel)
        return cls(
            network,
            name,
            channel,
            place,
            replace(slab, steps=(*before, (single, padding))),
            {**needed, name: weights},
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of its image."""
        return (len(self.rows), len(self.cols), self.network.image_shape[-1])

    @property
    def rows(self) -> range:
        """Of the network's image."""
        return self.slab.rows

    @property
    def cols(self) -> range:
        """Of the network's image."""
        return self.slab.cols

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of the network's image."""
        return self.network.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The network's."""
        return self.network.preprocessing

    def __str__(self) -> str:
        at = "" if self.place is None else f"@{self.place[0]},{self.place[1]}"
        return f"{self.layer}:{self.channel}{at}"

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image): its response to an image of its receptive field."""
        x = image[None] * self.network.preprocessing.scale
        return self.slab.respond(params, x).reshape(())


class LayerUnits(NamedTuple):
    """The units of one layer."""

    name: str
    channels: int
    places: tuple[int, int] | None
    """(row, col) of its map; None for a dense layer."""
    stride: int | None
    """Image pixels from one place to the next; None for a dense layer."""
    receptive_field: tuple[int, int]
    """(row, col) pixels that a unit reads, were the image large enough."""
    image: tuple[int, int]
    """(row, col) pixels of the image of the unit at the map's centre."""


@cache
def unit_layers(network: Network) -> tuple[LayerUnits, ...]:
    """The layers whose channels are units, in the network's order."""
    rows, cols, _ = network.image_shape
    field_size, stride = 1, 1
    found = []
    for layer in network.layers:
        field_size += (layer.window.kernel - 1) * stride
        stride *= layer.window.stride
        if not isinstance(layer, Conv | Dense):
            continue
        shape = shapes(network)[layer.name]
        if isinstance(layer, Dense):
            entry = LayerUnits(layer.name, shape[-1], None, None, (rows, cols), (rows, cols))
        else:
            places = (shape[0], shape[1])
            row, col = shape[0] // 2, shape[1] // 2
            slab = Slab.of(network, layer.name, range(row, row + 1), range(col, col + 1))
            image = (len(slab.rows), len(slab.cols))
            size = (field_size, field_size)
            entry = LayerUnits(layer.name, shape[-1], places, stride, size, image)
        found.append(entry)
    return tuple(found)


def _response_shape(network: Network, name: str) -> Shape:
    """The shape of the response of a layer that has units."""
    names = [layer.name for layer in unit_layers(network)]
    if name not in names:
        raise InputError(
            f"{network.name} has no units in a layer {name!r}; "
            f"the layers with units are {', '.join(names)}."
        )
    return shapes(network)[name]


def _place(name: str, shape: Shape, place: tuple[int, int] | None) -> tuple[int, int] | None:
    """The place on a map: the given one if it is there, else the centre; None if no map."""
    if len(shape) == 1:
        if place is not None:
            raise InputError(f"{name} is a dense layer and has no places: leave out @row,col.")
        return None
    if place is None:
        return shape[0] // 2, shape[1] // 2
    if place[0] >= shape[0] or place[1] >= shape[1]:
        raise InputError(
            f"{name} has the places 0,0 to {shape[0] - 1},{shape[1] - 1}, "
            f"not {place[0]},{place[1]}."
        )
    return place


def _single_channel(layer: Layer, weights: Weights, channel: int) -> tuple[Layer, Weights]:
    """The layer with that channel alone; a group's channel reads zeros of the other groups."""
    kernel = weights["kernel"][..., channel : channel + 1]
    bias = weights["bias"][channel : channel + 1]
    if isinstance(layer, Conv):
        width = kernel.shape[-2]
        group = channel // (layer.channels // layer.groups)
        after = (layer.groups - 1 - group) * width
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (group * width, after), (0, 0)))
        return replace(layer, channels=1, groups=1), {"kernel": kernel, "bias": bias}
    assert isinstance(layer, Dense)
    return replace(layer, channels=1), {"kernel": kernel, "bias": bias}
