"""Layers that compute each value from the values at the same place: sums, gates, nonlinearities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, override

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl_cnn.models.networks.convolution import Padding
from ppl_cnn.models.networks.layers import Layer, Weights
from ppl_cnn.models.networks.window import Region, Shape, positions

type _Function = Callable[..., Any]


def _power(x: Array, exponent: float) -> Array:
    return lax.integer_pow(x, int(exponent)) if exponent == int(exponent) else x**exponent


def _total(*arrays: Array) -> Array:
    return sum(arrays[1:], arrays[0])


NONLINEARITIES: dict[str, _Function] = {
    "relu": jax.nn.relu,
    "clip": lambda x, low, high: jnp.clip(x, low, high),
    "leaky_relu": lambda x, slope: jnp.where(x >= 0, x, slope * x),
    "prelu": lambda x, slope: jnp.where(x >= 0, x, slope * x),
    "thresholded_relu": lambda x, least: jnp.where(x > least, x, jnp.zeros_like(x)),
    "elu": lambda x, alpha: jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0))),
    "celu": lambda x, alpha: jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0) / alpha)),
    "selu": lambda x, alpha, gamma: (
        gamma * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))
    ),
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": lambda x, alpha, beta: jnp.clip(alpha * x + beta, 0, 1),
    "hard_swish": lambda x, alpha, beta: x * jnp.clip(alpha * x + beta, 0, 1),
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
}
"""The functions that count as the nonlinearity after a layer."""

FUNCTIONS: dict[str, _Function] = NONLINEARITIES | {
    "add": jnp.add,
    "subtract": jnp.subtract,
    "multiply": jnp.multiply,
    "divide": jnp.divide,
    "power": jnp.power,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "total": _total,
    "mean": lambda *arrays: _total(*arrays) / len(arrays),
    "raised": _power,
    "negative": jnp.negative,
    "reciprocal": lambda x: 1 / x,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "exp": jnp.exp,
    "log": jnp.log,
    "sqrt": jnp.sqrt,
    "erf": lax.erf,
    "sin": jnp.sin,
    "cos": jnp.cos,
}
"""Name -> function of arrays of one rank, and then of parameters."""


@dataclass(frozen=True)
class Elementwise(Layer):
    """A function of the values that several responses and weights have at one place.

    Where a response or weight has one row, column or channel, that one is read everywhere, as by
    the gates of squeeze-and-excitation.

    Examples:
        >>> str(Elementwise("sum", "add", after=("shortcut", "conv2")).function)
        'add'
    """

    function: str
    """One of `FUNCTIONS`."""
    parameters: tuple[float, ...] = ()
    """Numbers that follow the arrays among the function's arguments."""
    weights: tuple[tuple[int, Shape], ...] = ()
    """The place among the arrays of each weight, and its shape; its name is w0, w1 and so on."""

    @property
    @override
    def is_nonlinearity(self) -> bool:
        return self.function in NONLINEARITIES and len(self.after) < 2

    @override
    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {f"w{place}": own for place, own in self.weights}

    @override
    def joined_shape(self, shapes: Sequence[Shape]) -> Shape | None:
        try:
            return np.broadcast_shapes(*shapes, *(own for _, own in self.weights))
        except ValueError:
            return None

    @override
    def behind(
        self, region: Region, shape: Shape, read: Sequence[Shape]
    ) -> tuple[tuple[Region, ...], Padding]:
        if len(shape) != 3:
            return super().behind(region, shape, read)
        behind = [
            tuple(
                whole if len(whole) == 1 else wanted
                for whole, wanted in zip(positions(each), region, strict=True)
            )
            for each in read
        ]
        return tuple((rows, cols) for rows, cols in behind), ((0, 0), (0, 0))

    @override
    def respond(
        self, weights: Weights, read: Sequence[Array], padding: Padding, keep: Array | None
    ) -> Array:
        arrays = list(read)
        for place, _ in self.weights:
            arrays.insert(place, weights[f"w{place}"][None])
        return cast(Array, FUNCTIONS[self.function](*arrays, *self.parameters))

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        return self.respond(weights, [x], padding, keep)
