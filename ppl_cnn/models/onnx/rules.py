"""Operators that become layers of their own: each rule makes a node's layer, or None.

A node that no rule takes becomes an `Operation`, behind which units see the whole image.
"""

from collections.abc import Callable

import numpy as np

from ppl_cnn.models.networks.convolution import Padding
from ppl_cnn.models.networks.layers import (
    LRN,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    GlobalMean,
    Layer,
    MaxPool,
)
from ppl_cnn.models.onnx.call import UnsupportedError, axis_of
from ppl_cnn.models.onnx.elementwise_rules import ELEMENTWISE_RULES
from ppl_cnn.models.onnx.forms import Form
from ppl_cnn.models.onnx.operation import LayerNorm, Pad
from ppl_cnn.models.onnx.operators.arrays import pad_value, pad_widths
from ppl_cnn.models.onnx.shape_rules import SHAPE_RULES
from ppl_cnn.models.onnx.site import Signal, Site, Value

type Rule = Callable[[Site], Value | tuple[Value, ...]]


def _conv(site: Site) -> Value:
    kernel = site.constant(1)
    if kernel is None or not site.is_constant_but(0):
        raise UnsupportedError("with a kernel that depends on the image")
    if site.first.layout != "NCHW" or kernel.ndim != 4:
        raise UnsupportedError("over other than rows and columns")
    size = (kernel.shape[2], kernel.shape[3])
    dilation, stride = _pair(site, "dilations"), _pair(site, "strides")
    groups = site.call.whole("group", 1)
    layer = Conv(
        site.name,
        kernel.shape[0],
        size,
        stride,
        _padding(site, size, stride, dilation),
        groups,
        dilation=dilation,
        after=site.after,
    )
    if kernel.shape[1] * groups != site.first.stored[2] or kernel.shape[0] % groups:
        raise UnsupportedError(f"of {site.first.stored[2]} channels, with a kernel for others")
    bias = site.constant(2)
    weights = {
        "kernel": kernel.transpose(2, 3, 1, 0),
        "bias": np.zeros(kernel.shape[0]) if bias is None else bias,
    }
    return site.make(layer, _form(site, layer), weights)


def _gemm(site: Site) -> Value:
    kernel = site.constant(1)
    plain = not site.call.whole("transA", 0) and site.is_constant_but(0)
    if kernel is None or not plain or len(site.first.shape) != 2 or site.first.shape[0] != 1:
        return None
    kernel = kernel.T if site.call.whole("transB", 0) else kernel
    kernel = kernel * np.float32(site.call.number("alpha", 1.0))
    bias = site.constant(2)
    beta = np.float32(site.call.number("beta", 1.0))
    if bias is not None and bias.size not in (1, kernel.shape[1]):
        return None
    row = np.zeros(1) if bias is None else bias.reshape(-1) * beta
    return _dense(site, kernel, row)


def _matmul(site: Site) -> Value:
    kernel = site.constant(1)
    if kernel is None or kernel.ndim != 2 or kernel.shape[0] != site.first.shape[-1]:
        return None
    if len(site.first.shape) == 2 and site.first.shape[0] == 1:
        return _dense(site, kernel, np.zeros(1))
    if site.first.layout != "NHWC":
        return None
    layer = Conv(site.name, kernel.shape[1], 1, after=site.after)
    weights = {"kernel": kernel[None, None], "bias": np.zeros(kernel.shape[1])}
    return site.make(layer, site.first.with_channels(kernel.shape[1]), weights)


def _dense(site: Site, kernel: np.ndarray, bias: np.ndarray) -> Signal:
    if kernel.shape[0] != site.first.shape[1]:
        raise UnsupportedError(f"of {site.first.shape[1]} values, with weights for others")
    layer = Dense(site.name, kernel.shape[1], after=site.after)
    weights = {"kernel": kernel, "bias": np.broadcast_to(bias, kernel.shape[1:])}
    return site.make(layer, Form((1, kernel.shape[1])), weights)


def _batch_norm(site: Site) -> Value:
    numbers = [site.constant(place) for place in range(1, 5)]
    if site.first.channel_axis != 1 or any(each is None or each.ndim != 1 for each in numbers):
        return None
    gamma, beta, mean, variance = (np.asarray(each, np.float64) for each in numbers)
    scale = gamma / np.sqrt(variance + site.call.number("epsilon", 1e-5))
    weights = {"scale": scale, "shift": beta - mean * scale}
    if scale.size != site.first.stored[-1]:
        raise UnsupportedError(f"of {site.first.stored[-1]} channels, with weights for others")
    return site.make(BatchNorm(site.name, after=site.after), site.first, weights)


def _layer_norm(site: Site) -> Value:
    """A normalization of each position of a map, over its channels."""
    scale, shift = site.constant(1), site.constant(2)
    form = site.first
    last = axis_of(site.call.whole("axis", -1), len(form.shape)) == len(form.shape) - 1
    if form.layout != "NHWC" or not last or scale is None:
        return None
    layer = LayerNorm(site.name, site.call.number("epsilon", 1e-5), after=site.after)
    weights = {"scale": scale, "shift": np.zeros_like(scale) if shift is None else shift}
    return site.make(layer, form, weights)


def _max_pool(site: Site) -> Value:
    size, stride, padding, dilation = _pooling(site)
    ceil = bool(site.call.whole("ceil_mode", 0))
    layer = MaxPool(site.name, size, stride, padding, ceil, dilation=dilation, after=site.after)
    return site.make(layer, _form(site, layer))


def _average_pool(site: Site) -> Value:
    size, stride, padding, dilation = _pooling(site)
    if dilation != (1, 1):
        raise UnsupportedError("with dilation")
    ceil, counts = (bool(site.call.whole(name, 0)) for name in ("ceil_mode", "count_include_pad"))
    layer = AveragePool(site.name, size, stride, padding, ceil, counts, after=site.after)
    return site.make(layer, _form(site, layer))


def _pooling(site: Site) -> tuple[tuple[int, int], tuple[int, int], Padding, tuple[int, int]]:
    size = site.call.integers("kernel_shape") or []
    if site.first.layout != "NCHW" or len(size) != 2:
        raise UnsupportedError("over other than rows and columns")
    stride, dilation = _pair(site, "strides"), _pair(site, "dilations")
    kernel = (size[0], size[1])
    return kernel, stride, _padding(site, kernel, stride, dilation), dilation


def _global_mean(site: Site) -> Value:
    form = site.first
    if form.layout != "NCHW":
        return None
    made = Form((1, form.shape[1], 1, 1), "NCHW")
    return site.make(GlobalMean(site.name, is_map=True, after=site.after), made)


def _reduce_mean(site: Site) -> Value:
    """A mean over rows and columns."""
    form = site.first
    axes = site.call.axes(len(form.shape), site.constant(1))
    if not form.spatial_axes or axes is None or {*axes} != {*form.spatial_axes}:
        return None
    keep = bool(site.call.whole("keepdims", 1))
    channels = form.stored[2]
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(form.shape))
    made = Form(shape, form.layout) if keep else Form((1, channels))
    return site.make(GlobalMean(site.name, is_map=keep, after=site.after), made)


def _lrn(site: Site) -> Value:
    size = site.call.whole("size", 1)
    if site.first.layout != "NCHW" or size % 2 == 0:
        return None
    defaults = (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    alpha, beta, k = (site.call.number(*each) for each in defaults)
    return site.make(LRN(site.name, size, alpha, beta, k, after=site.after), site.first)


def _concat(site: Site) -> Value:
    forms = [signal.form for signal in site.signals]
    axis = axis_of(site.call.whole("axis", 1), len(site.first.shape)) if forms else 0
    alike = {(form.layout, form.stored[:-1]) for form in forms}
    if len(forms) < len(site.read) or len(alike) > 1 or axis != forms[0].channel_axis:
        return None
    made = forms[0].with_channels(sum(form.stored[-1] for form in forms))
    return site.make(Concat(site.name, after=site.after), made)


def _pad(site: Site) -> Value:
    if not site.is_constant_but(0) or site.call.text("mode", "constant") != "constant":
        return None
    form, given = site.first, [site.constant(place) for place in (1, 2, 3)]
    widths = pad_widths(site.call, len(form.shape), given[0], given[2])
    value = pad_value(site.call, given[1])
    if all(width == (0, 0) for width in widths):
        return site.read[0]
    over = [axis for axis, width in enumerate(widths) if width != (0, 0)]
    if not {*over} <= {*form.spatial_axes} or any(end < 0 for width in widths for end in width):
        return None
    row, col = form.spatial_axes
    layer = Pad(site.name, (widths[row], widths[col]), value, after=site.after)
    shape = tuple(size + sum(width) for size, width in zip(form.shape, widths, strict=True))
    return site.make(layer, form._replace(shape=shape))


def _form(site: Site, layer: Layer) -> Form:
    """The form of the response of a layer with windows over a map."""
    rows, cols, channels = layer.response_shape(site.first.stored)
    if min(rows, cols) < 1:
        raise UnsupportedError(f"of a map of {site.first.stored[0]} x {site.first.stored[1]}")
    return Form((1, channels, rows, cols), "NCHW")


def _pair(site: Site, name: str) -> tuple[int, int]:
    found = site.call.integers(name) or [1, 1]
    if len(found) != 2 or min(found) < 1:
        raise UnsupportedError(f"{name} {found}")
    return found[0], found[1]


def _padding(
    site: Site, size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Padding:
    mode = site.call.text("auto_pad", "NOTSET")
    if mode in ("", "NOTSET", "VALID"):
        pads = [0] * 4 if mode == "VALID" else site.call.integers("pads") or [0] * 4
        if len(pads) != 4 or min(pads) < 0:
            raise UnsupportedError(f"pads {pads}")
        return (pads[0], pads[2]), (pads[1], pads[3])
    found = []
    for inputs, kernel, step, gap in zip(site.first.stored, size, stride, dilation, strict=False):
        reach, outputs = (kernel - 1) * gap + 1, -(-inputs // step)
        total = max((outputs - 1) * step + reach - inputs, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return found[0], found[1]


RULES: dict[str, Rule] = {
    **ELEMENTWISE_RULES,
    **SHAPE_RULES,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_mean,
    "ReduceMean": _reduce_mean,
    "LRN": _lrn,
    "Concat": _concat,
    "Pad": _pad,
}
"""Operator -> the rule that makes its layer."""
