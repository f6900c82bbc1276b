"""The convolution of every network here, with an input gradient that stays fast inside loops."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

type Padding = tuple[tuple[int, int], tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "n row col c_in"],
    kernel: Float[Array, "k_row k_col c_in c_out"],
    stride: int,
    padding: Padding,
) -> Float[Array, "n row_out col_out c_out"]:
    """Cross-correlates images with a kernel, as every deep-learning library's "convolution" does.

    The value is that of `lax.conv_general_dilated`. So is the gradient, but its input part is
    written as a plain convolution with the flipped kernel, or as a matrix product: XLA's CPU
    backend runs the transposed convolution that autodiff would emit 14 to 20 times slower inside
    a loop than outside one (jax-ml/jax#12868), and samplers live in loops. The price: it can be
    differentiated in reverse mode, once.

    Args:
        x: images or feature maps.
        kernel: square or rectangular, HWIO.
        stride: in both directions.
        padding: zeros before and after the rows and the columns.
    """
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def _forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, Any]:
    return convolve(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    places, inputs = g.shape[1] * g.shape[2], x.shape[1] * x.shape[2]
    # A correlation multiplies once an input and a product once an output, of which slabs have
    # far fewer; at AlexNet's conv3 behind a unit of conv5, 25 for 49, that takes half the time.
    fewer = stride == 1 and inputs > 1.3 * places
    dx = _spread(g, kernel, padding, x) if fewer else _correlate(g, kernel, stride, padding, x)
    _, kernel_vjp = jax.vjp(
        lambda w: lax.conv_general_dilated(
            x, w, (stride, stride), padding, dimension_numbers=_LAYOUT
        ),
        kernel,
    )
    return dx, kernel_vjp(g)[0]


def _correlate(g: Array, kernel: Array, stride: int, padding: Padding, x: Array) -> Array:
    """The gradient with regard to x as a full correlation of g with the flipped kernel."""
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    # Output o reads inputs o*stride - before ... o*stride - before + k - 1, so that input i
    # collects from a full correlation of the stride-dilated g, shifted by k - 1 - before.
    pads = []
    for axis in (0, 1):
        k, before = kernel.shape[axis], padding[axis][0]
        dilated = (g.shape[1 + axis] - 1) * stride + 1
        start = k - 1 - before
        pads.append((start, x.shape[1 + axis] + k - 1 - dilated - start))
    return lax.conv_general_dilated(
        g, flipped, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
    )


def _spread(g: Array, kernel: Array, padding: Padding, x: Array) -> Array:
    """The same for a stride of 1: what g sends to each input of its windows, put in place."""
    parts = lax.dot_general(g, kernel, (((3,), (3,)), ((), ())))  # n row col k_row k_col c_in
    for axis in (2, 1):
        start, room = -padding[axis - 1][0], x.shape[axis] - g.shape[axis]
        placed = []
        for shift, part in enumerate(jnp.unstack(parts, axis=axis + 2), start):
            pads = [(0, 0, 0)] * part.ndim
            pads[axis] = (shift, room - shift, 0)
            placed.append(lax.pad(part, jnp.zeros((), g.dtype), pads))
        parts = sum(placed[1:], placed[0])
    return parts


convolve.defvjp(_forward, _backward)
