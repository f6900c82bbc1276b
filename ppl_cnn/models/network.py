"""What follows from a network's declaration: shapes, slabs of it, and its forward pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn.models.convolution import Padding
from ppl_cnn.models.layers import Layer, Shape, Weights
from ppl_cnn.models.networks import Network

type Params = Mapping[str, Weights]
"""Layer name -> weight name -> array."""


@cache
def shapes(network: Network) -> dict[str, Shape]:
    """Layer name -> shape of its response to one image: (row, col, channel) or (channel,)."""
    result: dict[str, Shape] = {}
    shape: Shape = network.image_shape
    for layer in network.layers:
        shape = result[layer.name] = layer.response_shape(shape)
    return result


def input_shape(network: Network, layer: Layer) -> Shape:
    """The shape of what the layer reads: the response of the one before it, or the image."""
    index = network.layers.index(layer)
    return shapes(network)[network.layers[index - 1].name] if index else network.image_shape


def weight_shapes(network: Network) -> dict[str, dict[str, Shape]]:
    """Layer name -> weight name -> shape, for the layers that have weights."""
    wanted = {
        layer.name: layer.weight_shapes(input_shape(network, layer)) for layer in network.layers
    }
    return {name: weights for name, weights in wanted.items() if weights}


def positions(shape: Shape) -> tuple[range, range]:
    """The rows and columns of a response; a vector has one position."""
    return (range(shape[0]), range(shape[1])) if len(shape) == 3 else (range(1), range(1))


@dataclass(frozen=True)
class Slab:
    """The part of a network that a rectangle of one layer's map depends on.

    Each layer is computed on just the positions that the next one reads, with the padding
    that the whole network would put there; so a slab's response is the whole network's.
    """

    rows: range
    """Of the image."""
    cols: range
    steps: tuple[tuple[Layer, Padding], ...]

    @classmethod
    def of(cls, network: Network, name: str, rows: range, cols: range) -> Self:
        """The slab behind the positions `rows` x `cols` of the response of layer `name`."""
        steps: list[tuple[Layer, Padding]] = []
        layers = network.layers[: network.layers.index(network.layer(name)) + 1]
        for layer in reversed(layers):
            before = input_shape(network, layer)
            if len(shapes(network)[layer.name]) == 3:
                rows, above_below = layer.window.inputs(rows, before[0])
                cols, left_right = layer.window.inputs(cols, before[1])
                steps.append((layer, (above_below, left_right)))
            else:
                rows, cols = positions(before)
                steps.append((layer, ((0, 0), (0, 0))))
        return cls(rows, cols, tuple(reversed(steps)))

    @classmethod
    def whole(cls, network: Network) -> Self:
        """The slab behind all of the last layer."""
        last = network.layers[-1].name
        return cls.of(network, last, *positions(shapes(network)[last]))

    def crop(self, images: Array) -> Array:
        """The slab's part of whole images (..., row, col, channel)."""
        rows, cols = self.rows, self.cols
        return images[..., rows.start : rows.stop, cols.start : cols.stop, :]

    def respond(
        self, params: Params, x: Float[Array, "n row col channel"], dropout_key: Array | None = None
    ) -> Array:
        """The response of the slab's last layer.

        Args:
            params: weights of at least the slab's layers.
            x: images of the slab's size, as the first layer sees them (scaled).
            dropout_key: drops out with this key if given (training).
        """
        for index, (layer, padding) in enumerate(self.steps):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
            x = layer.apply(params.get(layer.name, {}), x, padding, key)
        return x


def scores(
    network: Network,
    params: Params,
    x: Float[Array, "n row col channel"],
    dropout_key: Array | None = None,
) -> Float[Array, "n c"]:
    """The score matrix F (image, class) of images in pixel units minus the mean."""
    # No crop to the slab: rows and columns that no window reaches are left over by every layer.
    return Slab.whole(network).respond(params, x * network.preprocessing.scale, dropout_key)


def he_normal(network: Network, key: PRNGKeyArray) -> dict[str, dict[str, Array]]:
    """Random weights: kernels N(0, 2/fan_in), biases 0 (He et al., ICCV 2015).

    The last layer's kernel is N(0, 0.01^2), as in Caffe's AlexNet: scores then start near zero,
    where both objectives have their gentlest gradients.
    """
    params: dict[str, dict[str, Array]] = {}
    for index, (name, wanted) in enumerate(weight_shapes(network).items()):
        shape = wanted["kernel"]
        last = name == network.layers[-1].name
        deviation = 0.01 if last else math.sqrt(2 / math.prod(shape[:-1]))
        kernel = deviation * jax.random.normal(jax.random.fold_in(key, index), shape)
        params[name] = {"kernel": kernel, "bias": jnp.zeros(wanted["bias"])}
    return params
