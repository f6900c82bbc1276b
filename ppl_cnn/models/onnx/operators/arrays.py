"""Operators that move values: shapes, slices, joins and resizing, as ONNX defines them.

Each is a function of a `Call` and of arrays (None for an input that is left out). Arrays have
ONNX's axes, such as (n, channel, row, col).
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppl_cnn.models.formats.onnx_file import TYPES
from ppl_cnn.models.onnx.call import (
    Call,
    Operator,
    UnsupportedError,
    aligned,
    axis_of,
    checked_size,
    library,
)

_END = 2**31 - 1
"""Ends of slices from here on stand for the end of an axis."""


def _identity(call: Call, x: Any, *_: Any) -> Any:
    return x


def _cast(call: Call, x: Any) -> Any:
    kind = TYPES.get(call.whole("to", 1))
    if kind is None:
        raise UnsupportedError("a type that isn't supported")
    # Values that depend on an image keep their precision, whatever the file computes in.
    floats = np.issubdtype(x.dtype, np.floating) and np.dtype(kind).kind not in "iub"
    return x if floats and library(x) is jnp else x.astype(kind)


def _cast_like(call: Call, x: Any, like: Any) -> Any:
    return x if library(x, like) is jnp else x.astype(like.dtype)


def _constant(call: Call) -> Any:
    for value in call.attributes.values():
        if isinstance(value, np.ndarray):
            return value
        kind = np.float32 if np.asarray(value).dtype.kind == "f" else np.int64
        return np.asarray(value, kind)
    raise UnsupportedError("no value")


def _constant_of_shape(call: Call, shape: Any) -> Any:
    value = call.attributes.get("value")
    fill = value.reshape(-1)[:1] if isinstance(value, np.ndarray) else np.zeros(1, np.float32)
    return np.full(checked_size(call.integers("shape", shape) or []), fill[0], fill.dtype)


def _shape(call: Call, x: Any) -> Any:
    end = call.attributes.get("end")
    stop = end if isinstance(end, int) else None
    return np.asarray(np.shape(x)[call.whole("start", 0) : stop], np.int64)


def _size(call: Call, x: Any) -> Any:
    return np.asarray(math.prod(np.shape(x)), np.int64)


def _gather(call: Call, x: Any, index: Any) -> Any:
    axis = axis_of(call.whole("axis", 0), x.ndim)
    found = library(x, index).where(index < 0, index + x.shape[axis], index)
    return library(x, index).take(x, found, axis)


def _concat(call: Call, *values: Any) -> Any:
    return library(*values).concatenate(values, axis_of(call.whole("axis", 1), values[0].ndim))


def _unsqueeze(call: Call, x: Any, axes: Any = None) -> Any:
    found = call.integers("axes", axes) or []
    return library(x).expand_dims(x, tuple(found))


def _squeeze(call: Call, x: Any, axes: Any = None) -> Any:
    return library(x).squeeze(x, call.axes(x.ndim, axes))


def _flatten(call: Call, x: Any) -> Any:
    axis = call.whole("axis", 1)
    return x.reshape(math.prod(x.shape[: axis if axis >= 0 else axis + x.ndim]), -1)


def _reshape(call: Call, x: Any, sizes: Any = None) -> Any:
    wanted = call.integers("shape", sizes) or []
    if not call.whole("allowzero", 0):
        kept = zip(wanted, [*x.shape, *[0] * len(wanted)], strict=False)
        wanted = [own if size == 0 else size for size, own in kept]
    return x.reshape(wanted)


def _transpose(call: Call, x: Any) -> Any:
    axes = call.integers("perm") or range(x.ndim)[::-1]
    return library(x).transpose(x, tuple(axes))


def _slices(
    call: Call, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:
    first, last = call.integers("starts", starts) or [], call.integers("ends", ends) or []
    over = call.integers("axes", axes) or list(range(len(first)))
    by = call.integers("steps", steps) or [1] * len(first)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(first, last, over, by, strict=True):
        stop = None if abs(end) >= _END else end
        index[axis_of(axis, x.ndim)] = slice(start if abs(start) < _END else None, stop, step)
    return x[tuple(index)]


def _split(call: Call, x: Any, sizes: Any = None) -> Any:
    axis = axis_of(call.whole("axis", 0), x.ndim)
    parts = call.integers("split", sizes)
    if parts is None:
        count = call.whole("num_outputs", 0)
        if not 0 < count <= x.shape[axis]:
            raise UnsupportedError(f"a split into {count} parts")
        each = -(-x.shape[axis] // count)
        parts = [each] * (count - 1)
        parts.append(x.shape[axis] - sum(parts))
    return tuple(library(x).split(x, np.cumsum(parts)[:-1].tolist(), axis))


def _expand(call: Call, x: Any, sizes: Any) -> Any:
    wanted = np.broadcast_shapes(x.shape, tuple(call.integers("shape", sizes) or []))
    return library(x).broadcast_to(x, checked_size(wanted))


def _tile(call: Call, x: Any, repeats: Any) -> Any:
    times = call.integers("repeats", repeats) or []
    checked_size([size * count for size, count in zip(x.shape, times, strict=True)])
    return library(x).tile(x, times)


def _arange(call: Call, start: Any, limit: Any, delta: Any) -> Any:
    if library(start, limit, delta) is jnp:
        raise UnsupportedError("a range that depends on the image")
    first, stop, step = (value.reshape(()) for value in (start, limit, delta))
    (count,) = checked_size([max(math.ceil((stop - first) / step), 0)])
    return (first + step * np.arange(count)).astype(start.dtype)


def _where(call: Call, condition: Any, x: Any, y: Any) -> Any:
    return library(condition, x, y).where(*aligned(condition, x, y))


def _pad(call: Call, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    widths = pad_widths(call, x.ndim, pads, axes)
    mode = call.text("mode", "constant")
    if any(width < 0 for pair in widths for width in pair):
        keep = tuple(
            slice(max(-before, 0), size - max(-after, 0))
            for (before, after), size in zip(widths, x.shape, strict=True)
        )
        x, widths = x[keep], [(max(before, 0), max(after, 0)) for before, after in widths]
    checked_size([size + sum(both) for size, both in zip(x.shape, widths, strict=True)])
    if mode == "constant":
        fill = pad_value(call, value)
        return library(x).pad(x, widths, constant_values=np.asarray(fill, x.dtype))
    if mode not in ("reflect", "edge", "wrap"):
        raise UnsupportedError(f"the mode {mode}")
    return library(x).pad(x, widths, mode=mode)


def pad_widths(call: Call, rank: int, pads: Any, axes: Any) -> list[tuple[int, int]]:
    """The values that are added before and after each axis."""
    found = call.integers("pads", pads) or call.integers("paddings") or []
    over = call.integers("axes", axes) or list(range(rank))
    widths = [(0, 0)] * rank
    for axis, before, after in zip(over, found, found[len(found) // 2 :], strict=False):
        widths[axis_of(axis, rank)] = before, after
    return widths


def pad_value(call: Call, value: Any) -> float:
    """The value of what is added."""
    if isinstance(value, jnp.ndarray):
        raise UnsupportedError("a value that depends on the image")
    return call.number("value", 0.0) if value is None else float(np.asarray(value).reshape(()))


def _depth_to_space(call: Call, x: Any) -> Any:
    n, _, rows, cols = x.shape
    block = call.whole("blocksize", 1)
    if call.text("mode", "DCR") == "DCR":
        parts = x.reshape(n, block, block, -1, rows, cols).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, -1, block, block, rows, cols).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, -1, rows * block, cols * block)


def _space_to_depth(call: Call, x: Any) -> Any:
    n, channels, rows, cols = x.shape
    block = call.whole("blocksize", 1)
    parts = x.reshape(n, channels, rows // block, block, cols // block, block)
    return parts.transpose(0, 3, 5, 1, 2, 4).reshape(n, -1, rows // block, cols // block)


def _resize(call: Call, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    over = call.axes(x.ndim) or tuple(range(x.ndim))
    wanted = call.integers("sizes", sizes)
    factors = None if scales is None or not np.size(scales) else np.asarray(scales).tolist()
    for place, axis in enumerate(over):
        before = x.shape[axis]
        after = wanted[place] if wanted else int(before * factors[place]) if factors else before
        factor = factors[place] if factors and not wanted else after / before
        if after != before or factor != 1:
            checked_size([*x.shape[:axis], after, *x.shape[axis + 1 :]])
            x = _resized(call, x, axis, after, factor)
    return x


def _upsample(call: Call, x: Any, scales: Any = None) -> Any:
    own = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    factors = call.attributes.get("scales", scales)
    return _resize(Call({**own, **call.attributes}, call.opset), x, None, factors)


def _resized(call: Call, x: Any, axis: int, after: int, factor: float) -> Any:
    before, place = x.shape[axis], np.arange(after)
    coordinates = call.text("coordinate_transformation_mode", "half_pixel")
    if coordinates == "align_corners":
        at = place * (before - 1) / max(after - 1, 1)
    elif coordinates == "asymmetric":
        at = place / factor
    elif coordinates in ("half_pixel", "pytorch_half_pixel"):
        at = (place + 0.5) / factor - 0.5
        at = np.zeros(1) if coordinates == "pytorch_half_pixel" and after == 1 else at
    else:
        raise UnsupportedError(f"the coordinates {coordinates}")
    mode = call.text("mode", "nearest")
    if mode == "nearest":
        rounded = {
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
            "floor": np.floor(at),
            "ceil": np.ceil(at),
        }[call.text("nearest_mode", "round_prefer_floor")]
        return library(x).take(x, np.clip(rounded, 0, before - 1).astype(int), axis)
    if mode != "linear":
        raise UnsupportedError(f"the mode {mode}")
    at = np.clip(at, 0, before - 1)
    low = np.floor(at).astype(int)
    share = (at - low).astype(x.dtype).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    ends = (library(x).take(x, np.minimum(low + up, before - 1), axis) for up in (0, 1))
    return next(ends) * (1 - share) + next(ends) * share


ARRAYS: dict[str, Operator] = {
    **{"Identity": _identity, "Dropout": _identity, "Cast": _cast, "CastLike": _cast_like},
    **{"Constant": _constant, "ConstantOfShape": _constant_of_shape, "Range": _arange},
    **{"Shape": _shape, "Size": _size, "Gather": _gather, "Concat": _concat},
    **{"Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Flatten": _flatten, "Reshape": _reshape},
    **{"Transpose": _transpose, "Slice": _slices, "Split": _split, "Expand": _expand},
    **{"Tile": _tile, "Where": _where, "Pad": _pad},
    **{"DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth},
    **{"Resize": _resize, "Upsample": _upsample},
}
"""Operator -> its function."""
