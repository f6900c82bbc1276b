"""Operators that compute: comparisons, reductions, products and normalizations, as in ONNX.

Each is a function of a `Call` and of arrays (None for an input that is left out). Arrays have
ONNX's axes, such as (n, channel, row, col).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_cnn.models.onnx.call import (
    Call,
    Operator,
    UnsupportedError,
    aligned,
    axis_of,
    library,
)


def _binary(name: str) -> Operator:
    """NumPy's or JAX's function of that name, of arrays that are broadcast."""

    def compute(call: Call, *values: Any) -> Any:
        found, *others = aligned(*values)
        for other in others:
            found = getattr(library(*values), name)(found, other)
        return found

    return compute


def _divide(call: Call, x: Any, y: Any) -> Any:
    if np.issubdtype(x.dtype, np.integer):
        # ONNX's division of integers truncates.
        return (np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))).astype(x.dtype)
    return library(x, y).true_divide(*aligned(x, y))


def _power(call: Call, x: Any, y: Any) -> Any:
    return library(x, y).power(*aligned(x, y.astype(x.dtype)))


def _mean(call: Call, *values: Any) -> Any:
    return _binary("add")(call, *values) / len(values)


def _modulo(call: Call, x: Any, y: Any) -> Any:
    name = "fmod" if call.whole("fmod", 0) else "mod"
    return getattr(library(x, y), name)(*aligned(x, y))


def _unary(name: str) -> Operator:
    """NumPy's or JAX's function of that name."""
    return lambda call, x: getattr(library(x), name)(x)


# Reductions.


def _reduction(reduce: Callable[..., Any]) -> Operator:
    """A reduction over the axes that an attribute or, in later versions, an input gives.

    Args:
        reduce: a function of the library, the array, and `axis` and `keepdims`.
    """

    def compute(call: Call, x: Any, axes: Any = None) -> Any:
        over = call.axes(x.ndim, axes)
        if not over and call.whole("noop_with_empty_axes", 0):
            return x
        keep = bool(call.whole("keepdims", 1))
        return reduce(library(x), x, axis=over or None, keepdims=keep)

    return compute


def _log_sum_exp(xp: Any, x: Any, **over: Any) -> Any:
    return jax.nn.logsumexp(x, **over)


def _argmax(call: Call, x: Any) -> Any:
    axis, keep = call.whole("axis", 0), bool(call.whole("keepdims", 1))
    return library(x).argmax(x, axis, keepdims=keep)


# Products.


def _gemm(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    a = a.T if call.whole("transA", 0) else a
    b = b.T if call.whole("transB", 0) else b
    product = _scaled(a @ b, call.number("alpha", 1.0))
    if c is None:
        return product
    return _binary("add")(call, product, _scaled(c, call.number("beta", 1.0)))


def _scaled(x: Any, factor: float) -> Any:
    """The product with a number, without one where it is 1."""
    return x if factor == 1 else x * np.asarray(factor, x.dtype)


def _matmul(call: Call, a: Any, b: Any) -> Any:
    rank = max(a.ndim, b.ndim)
    if min(a.ndim, b.ndim) > 1:
        a, b = (each.reshape((1,) * (rank - each.ndim) + each.shape) for each in (a, b))
    return library(a, b).matmul(a, b)


def _einsum(call: Call, *values: Any) -> Any:
    return library(*values).einsum(call.text("equation", ""), *values)


# Normalizations.


def _softmax(call: Call, x: Any) -> Any:
    return _over_classes(call, x, jax.nn.softmax)


def _log_softmax(call: Call, x: Any) -> Any:
    return _over_classes(call, x, jax.nn.log_softmax)


def _over_classes(call: Call, x: Any, function: Callable[..., Any]) -> Any:
    if call.opset >= 13:
        return function(x, axis=call.whole("axis", -1))
    axis = axis_of(call.whole("axis", 1), x.ndim)
    rows = x.reshape(math.prod(x.shape[:axis]), -1)
    return function(rows, axis=-1).reshape(x.shape)


def _layer_norm(call: Call, x: Any, scale: Any, bias: Any = None) -> Any:
    axis = axis_of(call.whole("axis", -1), x.ndim)
    own = _standardized(call, x, tuple(range(axis, x.ndim)))
    product = _binary("multiply")(call, own, scale)
    return product if bias is None else _binary("add")(call, product, bias)


def _rms_norm(call: Call, x: Any, scale: Any) -> Any:
    axis = axis_of(call.whole("axis", -1), x.ndim)
    squares = jnp.mean(x * x, tuple(range(axis, x.ndim)), keepdims=True)
    return _binary("multiply")(call, x / jnp.sqrt(squares + call.number("epsilon", 1e-5)), scale)


def _instance_norm(call: Call, x: Any, scale: Any, bias: Any) -> Any:
    own = _standardized(call, x, tuple(range(2, x.ndim)))
    return own * _by_channel(scale, x.ndim) + _by_channel(bias, x.ndim)


def _group_norm(call: Call, x: Any, scale: Any, bias: Any) -> Any:
    groups = call.whole("num_groups", 1)
    grouped = x.reshape(x.shape[0], groups, -1)
    own = _standardized(call, grouped, (2,)).reshape(x.shape)
    if call.opset < 21:  # scale and bias were of groups
        scale, bias = (jnp.repeat(each, x.shape[1] // groups) for each in (scale, bias))
    return own * _by_channel(scale, x.ndim) + _by_channel(bias, x.ndim)


def _batch_norm(call: Call, x: Any, scale: Any, bias: Any, average: Any, variance: Any) -> Any:
    factor = scale / library(variance).sqrt(variance + call.number("epsilon", 1e-5))
    shift = bias - average * factor
    return x * _by_channel(factor, x.ndim) + _by_channel(shift, x.ndim)


def _lp_norm(call: Call, x: Any) -> Any:
    axis, order = call.whole("axis", -1), call.whole("p", 2)
    if order == 1:
        return x / jnp.sum(jnp.abs(x), axis, keepdims=True)
    return x / jnp.sqrt(jnp.sum(x * x, axis, keepdims=True))


def _mean_variance(call: Call, x: Any) -> Any:
    axes = call.integers("axes") or [0, 2, 3]
    return _standardized(Call({"epsilon": 1e-18}, call.opset), x, tuple(axes))


def _local_response(call: Call, x: Any) -> Any:
    size, channel = call.whole("size", 1), np.arange(x.shape[1])
    difference = channel[None, :] - channel[:, None]
    near = (difference >= -((size - 1) // 2)) & (difference <= size - 1 - (size - 1) // 2)
    squares = jnp.einsum("nc...,dc->nd...", x * x, near.astype(x.dtype))
    scale = call.number("bias", 1.0) + call.number("alpha", 1e-4) / size * squares
    return x * jnp.exp(-call.number("beta", 0.75) * jnp.log(scale))


def _standardized(call: Call, x: Any, axes: tuple[int, ...]) -> Any:
    centred = x - jnp.mean(x, axes, keepdims=True)
    variance = jnp.mean(centred * centred, axes, keepdims=True)
    return centred / jnp.sqrt(variance + call.number("epsilon", 1e-5))


def _by_channel(values: Any, rank: int) -> Any:
    if values.ndim != 1:
        raise UnsupportedError("numbers that aren't of channels")
    return values.reshape(1, -1, *[1] * (rank - 2))


def _clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    least, most = call.attributes.get("min", low), call.attributes.get("max", high)
    return library(x).clip(x, least, most)


ARITHMETIC: dict[str, Operator] = {
    **{"Add": _binary("add"), "Sub": _binary("subtract")},
    **{"Mul": _binary("multiply"), "Div": _divide, "Pow": _power},
    **{"Sum": _binary("add"), "Mean": _mean, "Mod": _modulo},
    **{"Max": _binary("maximum"), "Min": _binary("minimum")},
    **{"Equal": _binary("equal"), "Greater": _binary("greater")},
    **{"Less": _binary("less"), "GreaterOrEqual": _binary("greater_equal")},
    **{"LessOrEqual": _binary("less_equal"), "And": _binary("logical_and")},
    **{"Or": _binary("logical_or"), "Xor": _binary("logical_xor")},
    **{"Not": _unary("logical_not"), "IsNaN": _unary("isnan")},
    **{"Neg": _unary("negative"), "Abs": _unary("abs")},
    **{"Floor": _unary("floor"), "Ceil": _unary("ceil")},
    **{"Sqrt": _unary("sqrt"), "Exp": _unary("exp")},
    "Clip": _clip,
    "ReduceMean": _reduction(lambda xp, x, **over: xp.mean(x, **over)),
    "ReduceSum": _reduction(lambda xp, x, **over: xp.sum(x, **over)),
    "ReduceMax": _reduction(lambda xp, x, **over: xp.max(x, **over)),
    "ReduceMin": _reduction(lambda xp, x, **over: xp.min(x, **over)),
    "ReduceProd": _reduction(lambda xp, x, **over: xp.prod(x, **over)),
    "ReduceL1": _reduction(lambda xp, x, **over: xp.sum(xp.abs(x), **over)),
    "ReduceL2": _reduction(lambda xp, x, **over: xp.sqrt(xp.sum(x * x, **over))),
    "ReduceSumSquare": _reduction(lambda xp, x, **over: xp.sum(x * x, **over)),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ArgMax": _argmax,
    **{"Gemm": _gemm, "MatMul": _matmul, "Einsum": _einsum},
    "GlobalMaxPool": lambda call, x: jnp.max(x, tuple(range(2, x.ndim)), keepdims=True),
    **{"Softmax": _softmax, "LogSoftmax": _log_softmax},
    **{"LayerNormalization": _layer_norm, "RMSNormalization": _rms_norm},
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "BatchNormalization": _batch_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LRN": _local_response,
}
"""Operator -> its function."""
