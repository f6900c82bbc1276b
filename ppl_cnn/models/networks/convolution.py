"""The convolution of all networks here, whose gradients stay fast inside loops."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast, override

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ppl_cnn.models.networks import depthwise
from ppl_cnn.models.networks.multilinear import Form, derivative

type Padding = tuple[tuple[int, int], tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_CACHED = 2**21
"""The numbers, of what all places of a kernel read, that matrix products take at once: 8 MB."""


def convolve(
    x: Float[Array, "n row col c_in"],
    kernel: Float[Array, "k_row k_col c_group c_out"],
    *,
    stride: int | tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Float[Array, "n row_out col_out c_out"]:
    """Cross-correlates images with a kernel, as every deep-learning library's "convolution" does.

    Value and gradients are those of `lax.conv_general_dilated`, in reverse mode, in forward mode
    and of any order. On CPU the gradient for x is computed as a plain convolution with the flipped
    kernel, or as a matrix product: XLA's CPU backend runs the transposed convolution that autodiff
    would emit 14 to 20 times slower inside a loop than outside one (jax-ml/jax#12868), and
    samplers live in loops. The gradient for the kernel is matrix products there, for the same
    reason, and depthwise convolutions are sums of shifted products. Elsewhere all are what autodiff
    emits: GPUs have kernels of their own for it.

    Args:
        x: images or feature maps.
        kernel: square or rectangular, HWIO.
        stride: the step of the windows, one for both directions or (row, col).
        padding: the zeros before and after the rows and the columns.
        dilation: the step (row, col) from a kernel's entry to the next.
        groups: the number of groups of input channels, each read by its own output channels.
    """
    form = _Convolution(x.shape, kernel.shape, _pair(stride), padding, dilation, groups)
    return derivative(form, 2, x, kernel)


def _pair(stride: int | tuple[int, int]) -> tuple[int, int]:
    return (stride, stride) if isinstance(stride, int) else stride


@dataclass(frozen=True)
class _Convolution(Form):
    """The trilinear form <g, x * kernel> of images, a kernel and a response."""

    image: tuple[int, ...]
    """The shape of x."""
    window: tuple[int, ...]
    """The shape of the kernel."""
    stride: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
    groups: int
    slots: ClassVar[int] = 3

    @override
    def derivative(self, slot: int, *operands: Array) -> Array:
        """The gradient for x (0) or the kernel (1), or the convolution itself (2)."""
        return (self._for_image, self._for_kernel, self._convolved)[slot](*operands)

    @property
    def _is_depthwise(self) -> bool:
        """Whether each output channel reads one input channel."""
        return self.groups == self.image[3] > 1

    def _convolved(self, x: Array, kernel: Array) -> Array:
        if self._is_depthwise:
            own = partial(depthwise.convolved, self.stride, self.padding, self.dilation)
            return cast(Array, lax.platform_dependent(x, kernel, cpu=own, default=self._correlated))
        return self._correlated(x, kernel)

    def _correlated(self, x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            self.stride,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=_LAYOUT,
            feature_group_count=self.groups,
        )

    def _for_image(self, kernel: Array, g: Array) -> Array:
        def autodiff(kernel: Array, g: Array) -> Array:
            image = jax.ShapeDtypeStruct(self.image, g.dtype)
            convolved = partial(self._correlated, kernel=kernel)
            return cast(Array, jax.linear_transpose(convolved, image)(g)[0])

        own = self._on_cpu
        if self._is_depthwise:
            own = partial(depthwise.for_image, self.image, self.stride, self.padding, self.dilation)
        return cast(Array, lax.platform_dependent(kernel, g, cpu=own, default=autodiff))

    def _on_cpu(self, kernel: Array, g: Array) -> Array:
        """The gradient for x without a transposed convolution."""
        places, inputs = g.shape[1] * g.shape[2], self.image[1] * self.image[2]
        # A correlation multiplies once an input and a product once an output, of which slabs have
        # far fewer; at AlexNet's conv3 behind a unit of conv5, 25 for 49, that takes half the time.
        simple = self.stride == self.dilation == (1, 1) and self.groups == 1
        if simple and inputs > 1.3 * places:
            return _spread(g, kernel, self.padding, self.image)
        return self._flipped(kernel, g)

    def _flipped(self, kernel: Array, g: Array) -> Array:
        return _correlate(
            g, kernel, self.stride, self.padding, self.dilation, self.groups, self.image
        )

    def _for_kernel(self, x: Array, g: Array) -> Array:
        def autodiff(x: Array, g: Array) -> Array:
            kernel = jax.ShapeDtypeStruct(self.window, x.dtype)
            return cast(Array, jax.linear_transpose(partial(self._correlated, x), kernel)(g)[0])

        if self._is_depthwise:
            own = partial(
                depthwise.for_kernel, self.window, self.stride, self.padding, self.dilation
            )
            return cast(Array, lax.platform_dependent(x, g, cpu=own, default=autodiff))
        if self.dilation != (1, 1) or self.groups > 1:
            return autodiff(x, g)
        products = partial(_kernel_products, self.window, self.stride, self.padding)
        return cast(Array, lax.platform_dependent(x, g, cpu=products, default=autodiff))


def _kernel_products(
    shape: tuple[int, ...], stride: tuple[int, int], padding: Padding, x: Array, g: Array
) -> Array:
    """The gradient for the kernel as matrix products.

    Strides become channels first: blocks of stride x stride pixels, of which the kernel has a few
    places. At AlexNet's first layer, 9 places of 48 channels for 121 of 3, that takes a quarter of
    the time of what autodiff emits on CPU. Inside a `lax` loop it matters more: with it, LeNet's
    accumulation in four groups takes a twelfth of its time.
    """
    blocks = [-(-size // step) for size, step in zip(shape, stride, strict=False)]
    n, rows, cols, outputs = g.shape
    pads = [(0, 0, 0)]
    for axis, places in enumerate((rows, cols)):
        before = padding[axis][0]
        needed = (places - 1 + blocks[axis]) * stride[axis]
        pads.append((before, needed - before - x.shape[1 + axis], 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), [*pads, (0, 0, 0)])
    channels = x.shape[-1]
    x = x.reshape(n, -1, stride[0], x.shape[2] // stride[1], stride[1], channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, x.shape[1], x.shape[3], -1)
    product = _patch_product(x, g, blocks)
    whole = product.T.reshape(*blocks, *stride, channels, outputs)
    whole = whole.transpose(0, 2, 1, 3, 4, 5)
    whole = whole.reshape(blocks[0] * stride[0], blocks[1] * stride[1], channels, outputs)
    return whole[: shape[0], : shape[1]]


def _patch_product(x: Array, g: Array, blocks: list[int]) -> Array:
    """The sum over all places of the products of a response with the patch that it reads.

    Images are taken a few at a time, so that what is multiplied stays in the cache: at AlexNet's
    first layer that takes half the time.

    Returns:
        (output, patch): patches have the kernel's rows, its columns and then channels.
    """
    n, rows, cols, outputs = g.shape
    patches = blocks[0] * blocks[1] * x.shape[-1]
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        x, g = part
        read = [x[:, i : i + rows, j : j + cols] for i, j in np.ndindex(*blocks)]
        over = (((0, 1, 2), (0, 1, 2)), ((), ()))
        products = [lax.dot_general(g, each, over, preferred_element_type=wide) for each in read]
        return total + jnp.concatenate(products, -1), None

    fitting = _CACHED // (rows * cols * patches)
    # A kernel of one place reads the images as they are, with no copy that could leave the cache.
    most = n if blocks == [1, 1] else min(max(fitting, 1), n)
    some = max(d for d in range(1, most + 1) if n % d == 0)
    parts = jax.tree.map(lambda each: each.reshape(n // some, some, *each.shape[1:]), (x, g))
    total: Array = lax.scan(add, jnp.zeros((outputs, patches), wide), parts)[0]
    return total.astype(x.dtype)


def _correlate(
    g: Array,
    kernel: Array,
    stride: int | tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int],
    groups: int,
    image: tuple[int, ...],
) -> Array:
    """The gradient for the image as a full correlation of g with the flipped kernel."""
    # Output o reads inputs o*stride - before ... o*stride - before + reach, in steps of the
    # dilation, so that input i collects from a full correlation of the stride-dilated g, shifted
    # by reach - before.
    pads = []
    for axis in (0, 1):
        reach, before = (kernel.shape[axis] - 1) * dilation[axis], padding[axis][0]
        dilated = (g.shape[1 + axis] - 1) * _pair(stride)[axis] + 1
        start = reach - before
        pads.append((start, image[1 + axis] + reach - dilated - start))
    return lax.conv_general_dilated(
        g,
        _transposed(kernel, groups),
        (1, 1),
        pads,
        lhs_dilation=_pair(stride),
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


def _spread(g: Array, kernel: Array, padding: Padding, image: tuple[int, ...]) -> Array:
    """The gradient for the image at a stride of 1: products of g with the kernel, put in place."""
    parts = lax.dot_general(g, kernel, (((3,), (3,)), ((), ())))  # n row col k_row k_col c_in
    for axis in (2, 1):
        start, room = -padding[axis - 1][0], image[axis] - g.shape[axis]
        placed = []
        for shift, part in enumerate(jnp.unstack(parts, axis=axis + 2), start):
            pads = [(0, 0, 0)] * part.ndim
            pads[axis] = (shift, room - shift, 0)
            placed.append(lax.pad(part, jnp.zeros((), g.dtype), pads))
        parts = sum(placed[1:], placed[0])
    return parts


def _transposed(kernel: Array, groups: int) -> Array:
    """The kernel flipped in space, its input and output channels exchanged within each group."""
    rows, cols, inputs, outputs = kernel.shape
    grouped = jnp.flip(kernel, (0, 1)).reshape(rows, cols, inputs, groups, outputs // groups)
    return grouped.transpose(0, 1, 4, 3, 2).reshape(rows, cols, outputs // groups, -1)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    feature_group_count: int = 1,
    **others: Any,
) -> Array:
    """A replacement for `lax.conv_general_dilated` in `nnx.Conv`, with `convolve`'s fast gradients.

    Give it to an `nnx.Conv` as `conv_general_dilated`. Convolutions of images at the default
    precision use `convolve`; all others use `lax`.
    """
    given = {name for name, value in others.items() if value is not None}
    if lhs.ndim != 4 or set(lhs_dilation) != {1} or given - {"dimension_numbers"}:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            feature_group_count=feature_group_count,
            **others,
        )
    if isinstance(padding, str):
        sizes = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], rhs_dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], sizes, window_strides, padding)
    rows, cols = ((int(before), int(after)) for before, after in padding)
    stride, dilation = (window_strides[0], window_strides[1]), (rhs_dilation[0], rhs_dilation[1])
    return convolve(
        lhs,
        rhs,
        stride=stride,
        padding=(rows, cols),
        dilation=dilation,
        groups=feature_group_count,
    )


def hasten(part: object) -> None:
    """Gives Flax's `Conv`, of NNX or a bound one of Linen, the fast gradients of `convolve`.

    Other objects stay as they are.
    """
    from flax import linen, nnx

    if isinstance(part, linen.Conv) and part.conv_general_dilated is None:
        # Linen's modules are frozen; this is the copy of one call.
        object.__setattr__(part, "conv_general_dilated", conv_general_dilated)
    if isinstance(part, nnx.Conv) and part.conv_general_dilated is lax.conv_general_dilated:
        part.conv_general_dilated = conv_general_dilated
