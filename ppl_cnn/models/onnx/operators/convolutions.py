"""Transposed convolutions, which generators and decoders enlarge maps with, as ONNX defines them.

Arrays have ONNX's axes: maps (n, channel, row, col), kernels (c_in, c_out of a group, row, col).
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from ppl_cnn.models.networks.convolution import convolve
from ppl_cnn.models.onnx.call import Call, Operator, UnsupportedError


class _Axis(NamedTuple):
    """Rows or columns of a transposed convolution.

    Input i times entry k of the kernel is added to the output i stride - before + k.
    """

    entries: int
    stride: int
    before: int
    """How many of the first outputs are cut off."""
    size: int
    """The number of the input's rows or columns."""
    result: int
    """The number of outputs that are kept."""

    @property
    def places(self) -> int:
        """Outputs of each phase; the last may lie beyond the result."""
        return math.ceil(self.result / self.stride)

    def phase(self, offset: int) -> tuple[slice, int, int]:
        """The outputs offset, offset + stride, ...: a plain convolution with every stride-th entry.

        Returns:
            The entries, from the last to the first, as they meet inputs of rising index; and the
            inputs that are missing before and after, negative where some are left out.
        """
        first = (offset + self.before) % self.stride
        taps = len(range(first, self.entries, self.stride))
        begin = (offset + self.before) // self.stride - (taps - 1)
        end = begin + self.places - 1 + taps
        last, stop = first + (taps - 1) * self.stride, first - self.stride
        entries = slice(last, stop if stop >= 0 else None, -self.stride) if taps else slice(0)
        return entries, -begin, end - self.size


def _conv_transpose(call: Call, x: Any, kernel: Any, bias: Any = None) -> Any:
    if x.ndim != 4 or kernel.ndim != 4:
        raise UnsupportedError("over other than rows and columns")
    groups = call.whole("group", 1)
    c_in, c_group, *window = kernel.shape
    if c_in != x.shape[1] or c_in % groups:
        raise UnsupportedError(f"of {x.shape[1]} channels, with a kernel for {c_in}")
    # Each output channel reads the inputs of its group: (row, col, c_in of a group, c_out).
    grouped = kernel.reshape(groups, c_in // groups, c_group, *window)
    entries = grouped.transpose(3, 4, 1, 0, 2).reshape(*window, c_in // groups, groups * c_group)
    dilation = _pair(call, "dilations")
    axes = _axes(call, window, dilation, x.shape[2:])
    if dilation != (1, 1):
        between = [(0, 0, dilation[0] - 1), (0, 0, dilation[1] - 1), (0, 0, 0), (0, 0, 0)]
        entries = lax.pad(jnp.asarray(entries), jnp.zeros((), entries.dtype), between)
    pixels = _enlarged(x.transpose(0, 2, 3, 1), entries, axes, groups).transpose(0, 3, 1, 2)
    return pixels if bias is None else pixels + bias.reshape(1, -1, 1, 1)


def _enlarged(x: Any, kernel: Any, axes: tuple[_Axis, _Axis], groups: int) -> Any:
    """The transposed convolution, phase by phase: no zeros stand between the input's pixels."""
    row, col = axes
    lines = []
    for s in range(row.stride):
        parts = [
            _phase(x, kernel, row.phase(s), col.phase(t), axes, groups) for t in range(col.stride)
        ]
        lines.append(jnp.stack(parts, axis=3))
    phases = jnp.stack(lines, axis=2)  # n, row, row's phase, col, col's phase, channel
    n, channels = x.shape[0], kernel.shape[-1]
    whole = phases.reshape(n, row.places * row.stride, col.places * col.stride, channels)
    return whole[:, : row.result, : col.result]


def _phase(x: Any, kernel: Any, row: Any, col: Any, axes: tuple[_Axis, _Axis], groups: int) -> Any:
    entries = kernel[row[0], col[0]]
    if not entries.size:
        return jnp.zeros((x.shape[0], axes[0].places, axes[1].places, kernel.shape[-1]), x.dtype)
    cut = [
        slice(max(0, -before), size - max(0, -after))
        for (_, before, after), size in zip((row, col), x.shape[1:3], strict=True)
    ]
    rows, cols = ((max(0, before), max(0, after)) for _, before, after in (row, col))
    return convolve(x[:, cut[0], cut[1]], entries, stride=1, padding=(rows, cols), groups=groups)


def _axes(
    call: Call, window: list[int], dilation: tuple[int, int], sizes: tuple[int, int]
) -> tuple[_Axis, _Axis]:
    strides, added = _pair(call, "strides"), _pair(call, "output_padding", 0)
    pads = call.integers("pads") or [0, 0, 0, 0]
    wanted, auto = call.integers("output_shape"), call.text("auto_pad", "NOTSET")
    axes = []
    for place, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        entries = (window[place] - 1) * dilation[place] + 1
        whole = stride * (size - 1) + added[place] + entries
        before, result = pads[place], whole - pads[place] - pads[place + 2]
        if wanted is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
            result = size * stride if wanted is None else wanted[place - 2]
            cut = max(0, whole - result)
            before = cut // 2 if auto == "SAME_UPPER" else cut - cut // 2
        if result < 1:
            raise UnsupportedError("that leaves nothing")
        axes.append(_Axis(entries, stride, before, size, result))
    return axes[0], axes[1]


def _pair(call: Call, name: str, default: int = 1) -> tuple[int, int]:
    found = call.integers(name) or [default, default]
    if len(found) != 2 or min(found) < default:
        raise UnsupportedError(f"with {name} {found}")
    return found[0], found[1]


CONVOLUTIONS: dict[str, Operator] = {"ConvTranspose": _conv_transpose}
"""Operator -> function of a `Call` and of arrays with ONNX's axes."""
