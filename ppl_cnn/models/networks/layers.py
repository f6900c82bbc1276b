"""Layers as data. A network is a small graph of these, in order (see `declaration.py`).

Everything else is derived from what a layer says of itself: its weights' shapes, its output's
shape, which input positions an output position reads, and how it is computed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import override

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ppl_cnn.models.networks.convolution import Padding, convolve

type Shape = tuple[int, ...]
"""The shape of a response without the batch: (row, col, channel) or (channel,)."""
type Weights = Mapping[str, Array]
"""Weight name -> array, for one layer."""


@dataclass(frozen=True)
class Window:
    """The input positions that an output position reads, along rows and along columns alike.

    Output o reads inputs o*stride - padding ... o*stride - padding + kernel - 1. With `ceil`,
    as in Caffe's pooling, a last window may hang over the end of the map.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    ceil: bool = False

    def map_size(self, shape: Shape) -> tuple[int, int]:
        """The rows and columns of the response to a (row, col, channel) input."""
        return self.outputs(shape[0]), self.outputs(shape[1])

    def outputs(self, size: int) -> int:
        """The number of output positions along an axis of `size` input positions."""
        room = size + 2 * self.padding - self.kernel
        if not self.ceil:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        # Caffe drops a last window that would start outside the map and its padding.
        return count - ((count - 1) * self.stride >= size + self.padding)

    def inputs(self, outputs: range, size: int) -> tuple[range, tuple[int, int]]:
        """The inputs that a range of outputs reads.

        Returns:
            The positions inside the map, and how many lie before and after it.
        """
        start = outputs.start * self.stride - self.padding
        stop = (outputs.stop - 1) * self.stride - self.padding + self.kernel
        inside = range(max(start, 0), min(stop, size))
        return inside, (inside.start - start, stop - inside.stop)


@dataclass(frozen=True)
class Layer(ABC):
    """A layer of a network; without overrides, one without weights that maps each position."""

    name: str
    after: tuple[str, ...] = field(default=(), kw_only=True)
    """The layers whose responses it reads, side by side along the channels.

    By default it reads the layer declared before it, or the image.
    """

    @property
    def window(self) -> Window:
        """The input positions that each output position reads."""
        return Window()

    @property
    def channelwise(self) -> bool:
        """Whether each channel of its response reads only the same channel of its input."""
        return True

    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Weight name -> shape, for inputs of `shape` without the batch; {} without weights."""
        return {}

    def response_shape(self, shape: Shape) -> Shape:
        """The shape of its response to an input of `shape`, both without the batch."""
        return (*self.window.map_size(shape), shape[-1]) if len(shape) == 3 else shape

    @abstractmethod
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        """The response to a batch.

        Args:
            weights: the layer's weights, of the shapes that `weight_shapes` gives.
            x: the input, (n, row, col, channel) or (n, channel).
            padding: how many positions are missing above and below, left and right of each map.
            keep: which values dropout keeps, of the shape of x; None outside training.
        """


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution with bias; `groups` splits input and output channels, as in AlexNet."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    @override
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.padding)

    @property
    @override
    def channelwise(self) -> bool:
        return False

    @override
    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        k = self.kernel
        return {
            "kernel": (k, k, shape[-1] // self.groups, self.channels),
            "bias": (self.channels,),
        }

    @override
    def response_shape(self, shape: Shape) -> Shape:
        return (*self.window.map_size(shape), self.channels)

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        # One convolution per group: XLA's CPU backend needs 2.5 times as long for grouped ones.
        parts = zip(
            jnp.split(x, self.groups, axis=-1),
            jnp.split(weights["kernel"], self.groups, axis=-1),
            strict=True,
        )
        maps = [
            convolve(part, kernel, stride=self.stride, padding=padding) for part, kernel in parts
        ]
        return jnp.concatenate(maps, axis=-1) + weights["bias"][None, None, None, :]


@dataclass(frozen=True)
class Dense(Layer):
    """A fully connected layer with bias; a map is flattened in the order (row, col, channel)."""

    channels: int

    @property
    @override
    def channelwise(self) -> bool:
        return False

    @override
    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        inputs = math.prod(shape)
        return {"kernel": (inputs, self.channels), "bias": (self.channels,)}

    @override
    def response_shape(self, shape: Shape) -> Shape:
        return (self.channels,)

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        return x.reshape(x.shape[0], -1) @ weights["kernel"] + weights["bias"][None, :]


@dataclass(frozen=True)
class ReLU(Layer):
    """The nonlinearity max(x, 0)."""

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        return jax.nn.relu(x)


@dataclass(frozen=True)
class MaxPool(Layer):
    """The largest value in each window; positions off the map count as -infinity."""

    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False

    @property
    @override
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.padding, self.ceil)

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        # Shifted maxima, rows first and columns then: on CPU the gradient of this is about ten
        # times faster than that of a reduce_window (measured at 55x55x96, in and out of loops).
        lowest = jnp.asarray(-jnp.inf, x.dtype)
        x = lax.pad(x, lowest, [(0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)])
        for axis in (1, 2):
            last = x.shape[axis] - self.kernel
            shifts = [
                lax.slice_in_dim(x, i, i + last + 1, self.stride, axis) for i in range(self.kernel)
            ]
            x = reduce(jnp.maximum, shifts)
        return x


@dataclass(frozen=True)
class LRN(Layer):
    """Local response normalization across channels, as in Caffe.

    y_c = x_c / (k + alpha/size * sum_{|c' - c| <= size//2} x_c'^2)^beta

    Source: Krizhevsky, Sutskever, Hinton, ImageNet classification with deep convolutional
    neural networks, NeurIPS 2012, section 3.3; alpha/size is Caffe's reading of it.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    @property
    @override
    def channelwise(self) -> bool:
        return False

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        # The sum over neighbours is a product with a band matrix, whose gradient is one too:
        # 4 to 15 times faster on CPU, in loops, than windows or shifted slices of the channels.
        channel = jnp.arange(x.shape[-1])
        near = jnp.abs(channel[:, None] - channel[None, :]) <= self.size // 2
        squares = (x * x) @ near.astype(x.dtype)
        # exp(-beta log) takes half the time of a power, whose base may be negative; this may not.
        return x * jnp.exp(-self.beta * jnp.log(self.k + self.alpha / self.size * squares))


@dataclass(frozen=True)
class Dropout(Layer):
    """Dropout: zeroes a share `rate` of the values in training and scales the others to match."""

    rate: float = 0.5

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        if keep is None:
            return x
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


@dataclass(frozen=True)
class Concat(Layer):
    """The responses of several layers, concatenated along the channels."""

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        return x


@dataclass(frozen=True)
class GlobalMean(Layer):
    """Global average pooling: each channel's mean over its map."""

    @override
    def response_shape(self, shape: Shape) -> Shape:
        return shape[-1:]

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        return jnp.mean(x, axis=(1, 2))
