"""The layers of generators, as functions of their weights; `Params` has a name for each layer."""

from collections.abc import Mapping
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn.models.networks.convolution import convolve

type Weights = dict[str, Array]
"""A layer's arrays: `weight` and `bias`."""
type LayerWeights = Mapping[str, Weights]
"""Layer name -> arrays."""


def dense_weights(key: PRNGKeyArray, inputs: int, outputs: int, *, gain: float = 1.0) -> Weights:
    """Normal weights of variance gain^2 / inputs, and a bias of zeros.

    Args:
        key: random key.
        inputs: length of a row that the layer reads.
        outputs: length of a row that it gives.
        gain: factor of the weights' standard deviation.
    """
    weight = jax.random.normal(key, (inputs, outputs)) * (gain / inputs**0.5)
    return {"weight": weight, "bias": jnp.zeros(outputs)}


def conv_weights(
    key: PRNGKeyArray, side: int, inputs: int, outputs: int, *, gain: float = 1.4
) -> Weights:
    """Normal weights (HWIO) of variance gain^2 / fan-in, and a bias of zeros.

    Args:
        key: random key.
        side: rows and columns of the kernel.
        inputs: channels that the layer reads.
        outputs: channels that it gives.
        gain: factor of the weights' standard deviation; 1.4 keeps the scale through rectifiers.
    """
    scale = gain / (side * side * inputs) ** 0.5
    weight = jax.random.normal(key, (side, side, inputs, outputs)) * scale
    return {"weight": weight, "bias": jnp.zeros(outputs)}


def dense(weights: Weights, x: Float[Array, "n a"]) -> Float[Array, "n b"]:
    """x W + b."""
    return x @ weights["weight"] + weights["bias"][None]


def conv(weights: Weights, x: Float[Array, "n row col a"]) -> Float[Array, "n row col b"]:
    """A convolution of stride 1 with zeros around the map, which keeps its size, plus a bias."""
    pad = weights["weight"].shape[0] // 2
    padding = ((pad, pad), (pad, pad))
    made = convolve(x, weights["weight"], stride=1, padding=padding)
    return made + weights["bias"][None, None, None]


def mlp(
    params: LayerWeights, name: str, x: Float[Array, "n a"], *, layers: int
) -> Float[Array, "n b"]:
    """Dense layers NAME.0, NAME.1, ... with GELUs between them.

    Args:
        params: the weights.
        name: what the layers' names begin with.
        x: the input.
        layers: number of layers.
    """
    for index in range(layers - 1):
        x = jax.nn.gelu(dense(params[f"{name}.{index}"], x))
    return dense(params[f"{name}.{layers - 1}"], x)


def mlp_weights(key: PRNGKeyArray, name: str, sizes: tuple[int, ...]) -> dict[str, Weights]:
    """The first weights of an `mlp`.

    Args:
        key: random key.
        name: what the layers' names begin with.
        sizes: length of the input, of each hidden layer and of the output.
    """
    keys = jax.random.split(key, len(sizes) - 1)
    return {
        f"{name}.{index}": dense_weights(key, *pair)
        for index, (key, pair) in enumerate(zip(keys, pairwise(sizes), strict=True))
    }


def leaky(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The rectifier with slope 0.2 below zero."""
    return jnp.where(x > 0, x, 0.2 * x)


def space_to_depth(x: Float[Array, "n row col c"], side: int) -> Float[Array, "n r2 c2 d"]:
    """Blocks of side x side pixels become channels.

    Args:
        x: maps whose rows and columns `side` divides.
        side: rows and columns of a block.
    """
    n, rows, cols, channels = x.shape
    blocks = x.reshape(n, rows // side, side, cols // side, side, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows // side, cols // side, -1)


def depth_to_space(x: Float[Array, "n row col c"], side: int) -> Float[Array, "n r2 c2 d"]:
    """Channels become blocks of side x side pixels; the inverse of `space_to_depth`.

    Args:
        x: maps whose number of channels side^2 divides.
        side: rows and columns of a block.
    """
    n, rows, cols, channels = x.shape
    blocks = x.reshape(n, rows, cols, side, side, channels // side**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * side, cols * side, -1)
