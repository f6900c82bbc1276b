"""Layers of ONNX graphs that declared networks don't have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ppl_cnn.models.formats.onnx_file import Attribute
from ppl_cnn.models.networks.convolution import Padding
from ppl_cnn.models.networks.layers import Layer, Mixing, Weights
from ppl_cnn.models.networks.window import Shape, Window, windows_of
from ppl_cnn.models.onnx.call import Call
from ppl_cnn.models.onnx.forms import Form
from ppl_cnn.models.onnx.operators.registry import OPERATORS


class Fixed(NamedTuple):
    """A constant as data that can be compared: sizes, axes and single numbers."""

    shape: Shape
    kind: str
    content: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> "Fixed":
        """The constant with an array's values."""
        return cls(array.shape, array.dtype.str, array.tobytes())

    def array(self) -> np.ndarray:
        """The constant as an array."""
        return np.frombuffer(self.content, self.kind).reshape(self.shape)


class Read(NamedTuple):
    """A response that an operation reads: its place in `after`, and its form."""

    place: int
    form: Form


class Weight(NamedTuple):
    """A weight that an operation reads."""

    name: str
    shape: Shape


_SCALAR = Form(())


@dataclass(frozen=True)
class Operation(Mixing):
    """Any operator of ONNX on whole responses; a unit behind it sees the whole image."""

    operator: str
    """One of `OPERATORS`."""
    attributes: tuple[tuple[str, Attribute | Fixed], ...] = ()
    opset: int = 1
    operands: tuple[Read | Weight | Fixed | None, ...] = ()
    """The operator's inputs."""
    form: Form = _SCALAR
    """The form of its result."""
    output: int | None = None
    """Which of several results it is; None for an operator that has one."""

    @override
    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {each.name: each.shape for each in self.operands if isinstance(each, Weight)}

    @override
    def joined_shape(self, shapes: Sequence[Shape]) -> Shape | None:
        return self.form.stored

    @override
    def response_shape(self, shape: Shape) -> Shape:
        return self.form.stored

    @override
    def respond(
        self, weights: Weights, read: Sequence[Array], padding: Padding, keep: Array | None
    ) -> Array:
        def one(*responses: Array) -> Array:
            packed: Array = self.form.packed(self.result(weights, responses))
            return packed

        mapped: Array = jax.vmap(one)(*read)
        return mapped

    def result(self, weights: Weights, responses: Sequence[Array]) -> Any:
        """The result with ONNX's axes, from one image's responses."""
        call = Call({name: _value(value) for name, value in self.attributes}, self.opset)
        values: list[Any] = []
        for operand in self.operands:
            match operand:
                case Read(place, form):
                    values.append(form.unpacked(responses[place]))
                case Weight(name, _):
                    values.append(weights[name])
                case Fixed():
                    values.append(operand.array())
                case None:
                    values.append(None)
        result = OPERATORS[self.operator](call, *values)
        return result if self.output is None else result[self.output]

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        return self.respond(weights, [x], padding, keep)


def _value(value: Attribute | Fixed) -> Attribute:
    return value.array() if isinstance(value, Fixed) else value


@dataclass(frozen=True)
class Pad(Layer):
    """A map with a constant around it."""

    pads: Padding = ((0, 0), (0, 0))
    value: float = 0.0

    @property
    @override
    def windows(self) -> tuple[Window, Window]:
        return windows_of(1, 1, self.pads)

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        value = jnp.asarray(self.value, x.dtype)
        return lax.pad(x, value, [(0, 0, 0), *((*each, 0) for each in padding), (0, 0, 0)])


@dataclass(frozen=True)
class LayerNorm(Layer):
    """The channels at each position, brought to mean 0 and variance 1, then scaled and shifted.

    Source: Ba, Kiros, Hinton, Layer normalization, arXiv 1607.06450.
    """

    epsilon: float = 1e-5

    @property
    @override
    def channelwise(self) -> bool:
        return False

    @override
    def weight_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"scale": shape[-1:], "shift": shape[-1:]}

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        centred = x - jnp.mean(x, -1, keepdims=True)
        variance = jnp.mean(centred * centred, -1, keepdims=True)
        scale, shift = (
            weights[name].reshape((1,) * (x.ndim - 1) + (-1,)) for name in ("scale", "shift")
        )
        return centred / jnp.sqrt(variance + self.epsilon) * scale + shift


@dataclass(frozen=True)
class Channels(Layer):
    """Some channels, in an order of their own: slices, splits and shuffles along the channels."""

    channels: tuple[int, ...] = ()

    @property
    @override
    def channelwise(self) -> bool:
        return False

    @override
    def response_shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], len(self.channels))

    @override
    def apply(self, weights: Weights, x: Array, padding: Padding, keep: Array | None) -> Array:
        first = self.channels[0]
        if self.channels == tuple(range(first, first + len(self.channels))):
            return x[..., first : first + len(self.channels)]
        return x[..., np.asarray(self.channels)]
