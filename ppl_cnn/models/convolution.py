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
    written as a plain convolution with the flipped kernel: XLA's CPU backend runs the
    transposed convolution that autodiff would emit 14 to 20 times slower inside a loop than
    outside one (jax-ml/jax#12868), and samplers live in loops. The price: it can be
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
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    # Output o reads inputs o*stride - before ... o*stride - before + k - 1, so that input i
    # collects from a full correlation of the stride-dilated g, shifted by k - 1 - before.
    pads = []
    for axis in (0, 1):
        k, before = kernel.shape[axis], padding[axis][0]
        dilated = (g.shape[1 + axis] - 1) * stride + 1
        start = k - 1 - before
        pads.append((start, x.shape[1 + axis] + k - 1 - dilated - start))
    dx = lax.conv_general_dilated(
        g, flipped, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
    )
    _, kernel_vjp = jax.vjp(
        lambda w: lax.conv_general_dilated(
            x, w, (stride, stride), padding, dimension_numbers=_LAYOUT
        ),
        kernel,
    )
    return dx, kernel_vjp(g)[0]


convolve.defvjp(_forward, _backward)
