"""Layers as data. A network is a small graph of these, in order (see `declaration.py`).

Everything else is derived from what a layer says of itself: its weights' shapes, its output's
shape, which input positions an output position reads, and how it is computed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import override

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl_cnn.models.networks.convolution import Padding, convolve
from ppl_cnn.models.networks.window import (
    Pair,
    Region,
    Shape,
    Window,
    map_size,
    pair,
    positions,
    windows_of,
)

type Weights = Mapping[str, Array]
"""Weight name -> array, for one layer."""

_FEW_GROUPS = 16
"""The groups up to which each has a convolution of its own."""


@dataclass(frozen=True)
class Layer(ABC):
    """A layer of a network; without overrides, one without weights that maps each position."""

    name: str
    after: tuple[str, ...] = field(default=(), kw_only=True)
    """The layers whose responses it reads; most layers read them side by side along the channels.

    By default it reads the layer declared before it, or the image.
    """

    @property
    def windows(self) -> tuple[Window, Window]:
        """The input positions that each output position reads, along rows and along columns."""
        return Window(), Window()

    @property
    def reads_all(self) -> bool:
        """Whether each position of its response reads all positions of its input."""
        return False

    @property
    def channelwise(self) -> bool:
        """Whether each channel of its response reads only the same channel of its input.

        The last axis of such a layer's weights is that of the channels.
        """
        return True

    @property
    def is_nonlinearity(self) -> bool:
        """Whether its response is the one after the nonlinearity of the layer that it reads."""
        return False

    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Weight name -> shape, for inputs of `shape` without the batch; {} without weights."""
        return {}

    def response_shape(self, shape: Shape) -> Shape:
        """The shape of its response to an input of `shape`, both without the batch."""
        return (*map_size(self.windows, shape), shape[-1]) if len(shape) == 3 else shape

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape | None:
        """The shape of what it reads, of responses of these shapes; None if they don't fit."""
        if len({shape[:-1] for shape in shapes}) > 1:
            return None
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def behind(
        self, region: Region, shape: Shape, read: Sequence[Shape]
    ) -> tuple[tuple[Region, ...], Padding]:
        """The rectangles that a rectangle of its response reads, and how much lies off the maps.

        Args:
            region: the rectangle.
            shape: the shape of its response without the batch.
            read: the shapes of the responses that it reads.
        """
        if self.reads_all or len(shape) != 3:
            return tuple(map(positions, read)), ((0, 0), (0, 0))
        (rows, above_below), (cols, left_right) = (
            window.inputs(outputs, size)
            for window, outputs, size in zip(self.windows, region, read[0], strict=False)
        )
        return ((rows, cols),) * len(read), (above_below, left_right)

    def respond(
        self, weights: Weights, read: Sequence[Array], padding: Padding, keep: Array | None
    ) -> Array:
        """The response to a batch of each response that it reads; see `apply`."""
        x = read[0] if len(read) == 1 else jnp.concatenate(read, axis=-1)
        return self.apply(weights, x, padding, keep)

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
    """A convolution; `groups` splits input and output channels, as in AlexNet.

    Kernel, stride and dilation are numbers, or pairs for rows and columns. The padding is a number,
    or pairs (above, below), (left, right).
    """

    channels: int
    kernel: Pair
    stride: Pair = 1
    padding: int | Padding = 0
    groups: int = 1
    dilation: Pair = field(default=1, kw_only=True)
    has_bias: bool = field(default=True, kw_only=True)

    @property
    @override
    def windows(self) -> tuple[Window, Window]:
        return windows_of(self.kernel, self.stride, self.padding, dilation=self.dilation)

    @property
    @override
    def channelwise(self) -> bool:
        return False

    @override
    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        kernel = (*pair(self.kernel), shape[-1] // self.groups, self.channels)
        return {"kernel": kernel, "bias": (self.channels,)} if self.has_bias else {"kernel": kernel}

    @override
    def response_shape(self, shape: Shape) -> Shape:
        return (*map_size(self.windows, shape), self.channels)

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        response = self._convolved(weights["kernel"], x, padding)
        return response + weights["bias"][None, None, None, :] if self.has_bias else response

    def _convolved(self, kernel: Array, x: Array, padding: Padding) -> Array:
        own = partial(convolve, stride=self.stride, padding=padding, dilation=pair(self.dilation))
        if self.groups > _FEW_GROUPS or kernel.shape[2] < self.groups:
            return own(x, kernel, groups=self.groups)
        # One convolution per group: XLA's CPU backend needs 2.5 times as long for grouped ones.
        parts = zip(
            jnp.split(x, self.groups, axis=-1),
            jnp.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        return jnp.concatenate([own(*part) for part in parts], axis=-1)


class Mixing(Layer):
    """A layer of whose response each value may depend on everything that it reads."""

    @property
    @override
    def reads_all(self) -> bool:
        return True

    @property
    @override
    def channelwise(self) -> bool:
        return False


@dataclass(frozen=True)
class Dense(Mixing):
    """A fully connected layer with bias; a map is flattened in the order (row, col, channel)."""

    channels: int

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

    @property
    @override
    def is_nonlinearity(self) -> bool:
        return True

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        return jax.nn.relu(x)


@dataclass(frozen=True)
class MaxPool(Layer):
    """The largest value in each window; positions off the map count as -infinity."""

    kernel: Pair
    stride: Pair
    padding: int | Padding = 0
    ceil: bool = False
    dilation: Pair = field(default=1, kw_only=True)

    @property
    @override
    def windows(self) -> tuple[Window, Window]:
        return windows_of(
            self.kernel, self.stride, self.padding, ceil=self.ceil, dilation=self.dilation
        )

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        # Shifted maxima, rows first and columns then: on CPU the gradient of this is about ten
        # times faster than that of a reduce_window (measured at 55x55x96, in and out of loops).
        lowest = jnp.asarray(-jnp.inf, x.dtype)
        x = lax.pad(x, lowest, [(0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)])
        for axis, window in enumerate(self.windows, 1):
            x = reduce(jnp.maximum, shifts(x, window, axis))
        return x


@dataclass(frozen=True)
class AveragePool(Layer):
    """The mean of each window; `counts_padding` tells whether zeros off the map count too.

    A last window that hangs over the padding, as `ceil` allows, never counts what is beyond it.
    """

    kernel: Pair
    stride: Pair
    padding: int | Padding = 0
    ceil: bool = False
    counts_padding: bool = True

    @property
    @override
    def windows(self) -> tuple[Window, Window]:
        return windows_of(self.kernel, self.stride, self.padding, ceil=self.ceil)

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        for axis, (window, (before, after)) in enumerate(
            zip(self.windows, padding, strict=True), 1
        ):
            counted = np.ones(x.shape[axis])
            uncounted = after - window.end if self.counts_padding else after
            counted[len(counted) - max(uncounted, 0) :] = 0
            counted[: 0 if self.counts_padding else before] = 0
            share = 1 / sum(shifts(counted, window, 0))
            total = reduce(jnp.add, shifts(x, window, axis))
            others = [each for each in range(4) if each != axis]
            x = total * jnp.expand_dims(jnp.asarray(share, x.dtype), others)
        return x


def shifts[A: (Array, np.ndarray)](x: A, window: Window, axis: int) -> list[A]:
    """What each place of the windows along an axis reads, from the first place to the last."""
    stop = x.shape[axis] - window.reach + 1
    found = []
    for start in range(0, window.reach, window.dilation):
        places = [slice(None)] * axis + [slice(start, start + stop, window.stride)]
        found.append(x[tuple(places)])
    return found


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
    """Global average pooling: each channel's mean over its map.

    With `is_map` the response is a map of one place, otherwise a vector.
    """

    is_map: bool = False

    @property
    @override
    def reads_all(self) -> bool:
        return True

    @override
    def response_shape(self, shape: Shape) -> Shape:
        return (1, 1, shape[-1]) if self.is_map else shape[-1:]

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        return jnp.mean(x, axis=(1, 2), keepdims=self.is_map)


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalization with the averages of training: each channel x becomes scale*x + shift.

    With gamma, beta, mean and variance, scale = gamma / sqrt(variance + epsilon) and shift =
    beta - mean * scale.

    Source: Ioffe, Szegedy, Batch normalization, ICML 2015.
    """

    epsilon: float = 1e-5
    """What published weights' variances are increased by; scale has it already."""

    @override
    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"scale": shape[-1:], "shift": shape[-1:]}

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        ones = (1,) * (x.ndim - 1)
        return x * weights["scale"].reshape(*ones, -1) + weights["shift"].reshape(*ones, -1)
