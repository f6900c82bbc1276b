"""Operators that move values without leaving their place on a map."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ppl_cnn.models.onnx.call import Call, axis_of
from ppl_cnn.models.onnx.forms import Form, Layout
from ppl_cnn.models.onnx.operation import Channels
from ppl_cnn.models.onnx.operators.registry import OPERATORS
from ppl_cnn.models.onnx.site import Signal, Site, Value

_FLOATS = (1, 10, 11, 16)
"""ONNX's numbers of the types of real numbers."""


def _same(site: Site) -> Value:
    return site.read[0]


def _cast(site: Site) -> Value:
    return site.read[0] if site.call.whole("to", 1) in _FLOATS else None


def _transpose(site: Site) -> Value:
    """A transposition between the layouts of maps, which moves nothing."""
    axes = tuple(site.call.integers("perm") or ())
    (signal,) = site.signals
    if axes == tuple(range(len(axes))) and axes:
        return signal
    after: Layout
    if (signal.form.layout, axes) == ("NCHW", (0, 2, 3, 1)):
        after = "NHWC"
    elif (signal.form.layout, axes) == ("NHWC", (0, 3, 1, 2)):
        after = "NCHW"
    else:
        return None
    return Signal(signal.layer, Form(tuple(signal.form.shape[axis] for axis in axes), after))


def _reshape(site: Site) -> Value:
    """A new shape that moves nothing, or the end of a channel shuffle."""
    if not site.is_constant_but(0):
        return None
    (signal,) = site.signals
    x = jax.ShapeDtypeStruct(signal.form.shape, jnp.float32)
    made = jax.eval_shape(lambda x: OPERATORS[site.node.operator](site.call, x, *site.read[1:]), x)
    if made.shape == signal.form.shape:
        return signal
    if signal.form.layout == "NHW" and made.shape == (1, 1, *signal.form.shape[1:]):
        return Signal(signal.layer, Form(made.shape, "NCHW"))
    return _shuffle(site) if site.node.operator == "Reshape" else None


def _shuffle(site: Site) -> Value:
    """The channels of a map, mixed by a reshape, a transposition and a reshape."""
    chain = [site.node]
    while chain[0].inputs:
        before = site.made.maker(chain[0].inputs[0])
        if before is None or before.operator not in ("Reshape", "Transpose"):
            break
        chain.insert(0, before)
    source = site.made.value(chain[0].inputs[0])
    if len(chain) < 3 or not isinstance(source, Signal) or source.form.layout != "NCHW":
        return None

    def moved(x: np.ndarray) -> np.ndarray:
        for node in chain:
            rest = [site.made.value(name) for name in node.inputs[1:]]
            x = OPERATORS[node.operator](Call(node.attributes, site.call.opset), x, *rest)
        return x

    return _of_channels(site, source, moved)


def _slice(site: Site) -> Value:
    if not site.is_constant_but(0):
        return None
    (signal,) = site.signals

    def moved(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = OPERATORS[site.node.operator](site.call, x, *site.read[1:])
        return found

    return _of_channels(site, signal, moved)


def _gather(site: Site) -> Value:
    index = site.constant(1)
    (signal, *_) = site.signals
    if index is None or site.read[0] is not signal:
        return None
    form = signal.form
    axis = axis_of(site.call.whole("axis", 0), len(form.shape))
    if index.ndim == 1:
        return _slice(site)
    if index.ndim or form.layout != "NCHW" or axis != 1:
        return None
    channel = int(index) % form.shape[1]
    layer = Channels(site.name, (channel,), after=(signal.layer,))
    return site.make(layer, Form((1, *form.shape[2:]), "NHW"))


def _of_channels(site: Site, signal: Signal, moved: Callable[[np.ndarray], np.ndarray]) -> Value:
    """The layer of a function that only picks channels; None if it does something else.

    Args:
        site: the node whose layer it is.
        signal: what the function is given.
        moved: a function of an array with ONNX's axes, which may move and drop values.
    """
    form, axis = signal.form, signal.form.channel_axis
    if axis is None:
        return None
    picked = moved(_numbered(form.shape, axis))
    if picked.ndim != len(form.shape) or picked.size == 0:
        return None
    for other, size in enumerate(form.shape):
        if other != axis and not np.array_equal(
            moved(_numbered(form.shape, other)), _numbered(picked.shape, other)
        ):
            return None
        if other != axis and picked.shape[other] != size:
            return None
    numbers = np.moveaxis(picked, axis, 0).reshape(picked.shape[axis], -1)
    if (numbers != numbers[:, :1]).any():
        return None
    channels = tuple(int(number) for number in numbers[:, 0])
    layer = Channels(site.name, channels, after=(signal.layer,))
    return site.make(layer, form.with_channels(len(channels)))


def _numbered(shape: Sequence[int], axis: int) -> np.ndarray:
    """An array whose values are their places along an axis."""
    along = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(along, tuple(shape))


def _split(site: Site) -> Value | tuple[Value, ...]:
    if not site.is_constant_but(0):
        return None
    (signal,) = site.signals
    axis = axis_of(site.call.whole("axis", 0), len(signal.form.shape))
    if axis != signal.form.channel_axis:
        return None
    numbers = _numbered(
        [size if a == axis else 1 for a, size in enumerate(signal.form.shape)], axis
    )
    parts = OPERATORS["Split"](site.call, numbers, *site.read[1:])
    made = []
    for number, part in enumerate(parts):
        name = f"{site.name}.{number}" if number else site.name
        channels = tuple(int(channel) for channel in part.reshape(-1))
        layer = Channels(name, channels, after=(signal.layer,))
        made.append(site.make(layer, signal.form.with_channels(len(channels))))
    return tuple(made)


SHAPE_RULES = {
    **dict.fromkeys(("Identity", "Dropout", "CastLike"), _same),
    "Cast": _cast,
    "Transpose": _transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Slice": _slice,
    "Gather": _gather,
    "Split": _split,
}
"""Operator -> the rule that makes its layer."""
