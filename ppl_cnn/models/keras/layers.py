"""Keras' layers in ONNX's operators: a rule for each kind.

A rule adds the nodes of a layer's call to the graph and names their result. It returns None where
the layer is used in a way that it doesn't know.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_cnn.models.formats.onnx_file import Attribute
from ppl_cnn.models.keras.activations import ACTIVATIONS

type Shape = tuple[int | None, ...]
type Operand = str | np.ndarray
"""The name of a value, or a constant."""

_TO_ONNX = (0, 3, 1, 2)
_TO_KERAS = (0, 2, 3, 1)


@dataclass(frozen=True)
class Site:
    """A call of a layer in a graph."""

    layer: Any
    name: str
    read: tuple[Operand, ...]
    """What it reads."""
    shape: Shape
    """The shape of the first tensor that it reads, with Keras' axes."""
    made: Shape
    """The shape of its result, with Keras' axes."""
    graph: Callable[..., str]

    @property
    def x(self) -> Operand:
        """The first value that it reads."""
        return self.read[0]

    @property
    def is_map(self) -> bool:
        """Whether it reads maps (n, row, col, channel)."""
        return len(self.shape) == 4

    def add(self, operator: str, *read: Operand, **attributes: Attribute) -> str:
        """Adds the node that has the layer's name.

        Args:
            operator: ONNX's.
            read: what it reads.
            attributes: ONNX's.
        """
        return self.graph(operator, read, self.name, attributes=attributes)

    def beside(self, part: str, operator: str, *read: Operand, **attributes: Attribute) -> str:
        """Adds another node of the layer, with the name layer/part."""
        return self.graph(operator, read, f"{self.name}/{part}", attributes=attributes)

    def axis(self, axis: int) -> int:
        """ONNX's axis for one of Keras'."""
        return _TO_KERAS[axis % 4] if self.is_map else axis % len(self.shape)

    def weight(self, name: str) -> np.ndarray:
        """A weight of the layer."""
        found = getattr(self.layer, name)
        return np.asarray(getattr(found, "value", found))

    def by_channel(self, numbers: Any) -> np.ndarray:
        """Numbers for each channel, or one for all, as a constant beside what the layer reads."""
        flat = np.asarray(numbers, np.float32).reshape(-1)
        return flat.reshape(-1, 1, 1) if self.is_map else flat

    def moved(self, value: Operand, part: str, axes: tuple[int, ...] = _TO_KERAS) -> str:
        """Maps with Keras' axes, or back again."""
        return self.beside(part, "Transpose", value, perm=axes)

    def activated(self, value: str) -> str | None:
        """A value after the layer's activation."""
        return activated(self, value, self.layer.activation)


def activated(site: Site, value: Operand, activation: Any) -> str | None:
    """A value after an activation: a function, or a layer that was given as one."""
    name = getattr(activation, "__name__", type(activation).__name__)
    if name in ("linear", "NoneType"):
        return value if isinstance(value, str) else None
    if name in LAYERS and hasattr(activation, "get_config"):
        part = f"{site.name}/{activation.name}"
        return LAYERS[name](Site(activation, part, (value,), site.made, site.made, site.graph))
    if name not in ACTIVATIONS:
        return None
    operator, bounds, attributes = ACTIVATIONS[name]
    if operator in ("Softmax", "LogSoftmax"):
        attributes = {"axis": 1 if len(site.made) == 4 else -1}
    if value is site.x:  # the layer is an activation alone
        return site.add(operator, value, *map(_number, bounds), **attributes)
    return site.beside(name, operator, value, *map(_number, bounds), **attributes)


def _number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def _conv(site: Site) -> str | None:
    kernel = site.weight("kernel").transpose(3, 2, 0, 1)
    groups = site.layer.groups
    return site.activated(
        site.add("Conv", site.x, kernel, *_bias(site), **_window(site), group=groups)
    )


def _depthwise(site: Site) -> str | None:
    kernel = _of_each(site.weight("kernel"))
    groups = site.shape[-1]
    return site.activated(
        site.add("Conv", site.x, kernel, *_bias(site), **_window(site), group=groups)
    )


def _separable(site: Site) -> str | None:
    own, mixed = _of_each(site.weight("depthwise_kernel")), site.weight("pointwise_kernel")
    groups = site.shape[-1]
    each = site.beside("depthwise", "Conv", site.x, own, **_window(site), group=groups)
    return site.activated(site.add("Conv", each, mixed.transpose(3, 2, 0, 1), *_bias(site)))


def _of_each(kernel: np.ndarray) -> np.ndarray:
    """The kernel of a depthwise convolution (row, col, in, multiplier) as ONNX has it."""
    row, col, channels, multiplier = kernel.shape
    return kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, row, col)


def _bias(site: Site) -> tuple[np.ndarray, ...]:
    return (site.weight("bias"),) if site.layer.use_bias else ()


def _window(site: Site) -> dict[str, Attribute]:
    layer = site.layer
    given = {"kernel_shape": ("kernel_size", "pool_size"), "strides": ("strides",)}
    given["dilations"] = ("dilation_rate",)
    found: dict[str, Attribute] = {
        key: tuple(getattr(layer, name))
        for key, names in given.items()
        for name in names
        if hasattr(layer, name)
    }
    return {**found, "auto_pad": "SAME_UPPER" if layer.padding == "same" else "VALID"}


def _dense(site: Site) -> str | None:
    kernel, bias = site.weight("kernel"), _bias(site)
    if len(site.shape) == 2:
        return site.activated(site.add("Gemm", site.x, kernel, *bias))
    if site.is_map:
        return site.activated(site.add("Conv", site.x, kernel.T[:, :, None, None], *bias))
    if not bias:
        return site.activated(site.add("MatMul", site.x, kernel))
    return site.activated(site.add("Add", site.beside("kernel", "MatMul", site.x, kernel), *bias))


def _batch_norm(site: Site) -> str | None:
    layer = site.layer
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis % len(site.shape) != len(site.shape) - 1:
        return None
    mean, variance = site.weight("moving_mean"), site.weight("moving_variance")
    scale = site.weight("gamma") if layer.scale else np.ones_like(mean)
    shift = site.weight("beta") if layer.center else np.zeros_like(mean)
    weights = (scale, shift, mean, variance)
    return site.add("BatchNormalization", site.x, *weights, epsilon=float(layer.epsilon))


def _layer_norm(site: Site) -> str | None:
    layer, last = site.layer, len(site.shape) - 1
    axes = [layer.axis] if isinstance(layer.axis, int) else [*layer.axis]
    if [axis % len(site.shape) for axis in axes] != [last] or getattr(layer, "rms_scaling", False):
        return None
    count = site.shape[-1] or 1
    scale = site.weight("gamma") if layer.scale else np.ones(count, np.float32)
    shift = site.weight("beta") if layer.center else np.zeros(count, np.float32)
    x = site.moved(site.x, "last") if site.is_map else site.x
    epsilon = float(layer.epsilon)
    y = site.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)
    return site.moved(y, "first", _TO_ONNX) if site.is_map else y


def _relu(site: Site) -> str | None:
    layer = site.layer
    slope, most = float(layer.negative_slope), layer.max_value
    if layer.threshold or (slope and most is not None):
        return None
    if slope:
        return site.add("LeakyRelu", site.x, alpha=slope)
    if most is None:
        return site.add("Relu", site.x)
    return site.add("Clip", site.x, *map(_number, (0, most)))


def _prelu(site: Site) -> str:
    slope = site.weight("alpha")
    return site.add("PRelu", site.x, slope.transpose(2, 0, 1) if site.is_map else slope)


def _softmax(site: Site) -> str | None:
    if not isinstance(site.layer.axis, int):
        return None
    return site.add("Softmax", site.x, axis=site.axis(site.layer.axis))


def _max_pool(site: Site) -> str:
    return site.add("MaxPool", site.x, **_window(site))


def _average_pool(site: Site) -> str:
    return site.add("AveragePool", site.x, **_window(site))


def _global(operator: str) -> Callable[[Site], str]:
    def rule(site: Site) -> str:
        keep, axes = int(site.layer.keepdims), np.asarray([2, 3])
        return site.add(operator, site.x, axes, keepdims=keep)

    return rule


def _zero_pad(site: Site) -> str:
    (top, bottom), (left, right) = site.layer.padding
    return site.add("Pad", site.x, np.asarray([0, 0, top, left, 0, 0, bottom, right]))


def _crop(site: Site) -> str:
    (top, bottom), (left, right) = site.layer.cropping
    ends = [-end if end else 2**31 for end in (bottom, right)]
    return site.add("Slice", site.x, *map(np.asarray, ([top, left], ends, [2, 3])))


def _up_sample(site: Site) -> str | None:
    scales = np.asarray([1, 1, *site.layer.size], np.float32)
    modes = {"nearest": ("nearest", "asymmetric"), "bilinear": ("linear", "half_pixel")}
    if site.layer.interpolation not in modes:
        return None
    mode, places = modes[site.layer.interpolation]
    given = {"mode": mode, "coordinate_transformation_mode": places, "nearest_mode": "floor"}
    return site.add("Resize", site.x, "", scales, **given)


def _reshape(site: Site) -> str | None:
    if None in site.made[1:]:
        return None
    x = site.moved(site.x, "last") if site.is_map else site.x
    y = site.add("Reshape", x, np.asarray([1, *site.made[1:]], np.int64))
    return site.moved(y, "first", _TO_ONNX) if len(site.made) == 4 else y


def _flatten(site: Site) -> str:
    return site.add("Flatten", site.moved(site.x, "last") if site.is_map else site.x)


def _of_all(operator: str) -> Callable[[Site], str]:
    """The rule of a function of two values or more, one after another."""

    def rule(site: Site) -> str:
        result = site.add(operator, *site.read[:2])
        for number, value in enumerate(site.read[2:], 2):
            result = site.beside(str(number), operator, result, value)
        return result

    return rule


def _average(site: Site) -> str:
    return site.add("Mean", *site.read)


def _concatenate(site: Site) -> str:
    return site.add("Concat", *site.read, axis=site.axis(site.layer.axis))


def _rescaling(site: Site) -> str:
    scaled = site.beside("scale", "Mul", site.x, site.by_channel(site.layer.scale))
    return site.add("Add", scaled, site.by_channel(site.layer.offset))


def _layer_scale(site: Site) -> str:
    return site.add("Mul", site.x, site.by_channel(site.weight("gamma")))


def _normalization(site: Site) -> str | None:
    layer = site.layer
    if layer.invert or {axis % len(site.shape) for axis in layer.axis or ()} - {
        len(site.shape) - 1
    }:
        return None
    deviation = np.maximum(np.sqrt(site.weight("variance")), 1e-7)  # Keras' epsilon
    centred = site.beside("mean", "Sub", site.x, site.by_channel(site.weight("mean")))
    return site.add("Div", centred, site.by_channel(deviation))


def _activation(site: Site) -> str | None:
    return site.activated(site.x) if isinstance(site.x, str) else None


def _same(site: Site) -> str | None:
    return site.x if isinstance(site.x, str) else None


def _simple(operator: str, **attributes: str) -> Callable[[Site], str]:
    """The rule of an operator of one value; attributes are ONNX's, by Keras' names of them."""

    def rule(site: Site) -> str:
        found: dict[str, Attribute] = {
            key: float(getattr(site.layer, name)) for key, name in attributes.items()
        }
        return site.add(operator, site.x, **found)

    return rule


_IN_TRAINING = (
    *("Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    *("ActivityRegularization", "Identity", "RandomFlip", "RandomRotation", "RandomZoom"),
    *("RandomTranslation", "RandomContrast", "RandomBrightness", "StochasticDepth"),
)

LAYERS: dict[str, Callable[[Site], str | None]] = {
    **{"Conv2D": _conv, "DepthwiseConv2D": _depthwise, "SeparableConv2D": _separable},
    **{"Dense": _dense, "BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm},
    **{"Activation": _activation, "ReLU": _relu, "PReLU": _prelu, "Softmax": _softmax},
    **{
        "LeakyReLU": _simple("LeakyRelu", alpha="negative_slope"),
        "ELU": _simple("Elu", alpha="alpha"),
    },
    **{"MaxPooling2D": _max_pool, "AveragePooling2D": _average_pool},
    "GlobalAveragePooling2D": _global("ReduceMean"),
    "GlobalMaxPooling2D": _global("ReduceMax"),
    **{"ZeroPadding2D": _zero_pad, "Cropping2D": _crop, "UpSampling2D": _up_sample},
    **{"Reshape": _reshape, "Flatten": _flatten, "Concatenate": _concatenate, "Average": _average},
    **{"Add": _of_all("Add"), "Subtract": _of_all("Sub"), "Multiply": _of_all("Mul")},
    **{"Maximum": _of_all("Max"), "Minimum": _of_all("Min")},
    **{"Rescaling": _rescaling, "Normalization": _normalization, "LayerScale": _layer_scale},
    **dict.fromkeys(_IN_TRAINING, _same),
}
"""The class of a layer -> its rule."""

FUNCTIONS: dict[str, Callable[[Site], str | None]] = {
    **{name: LAYERS[name] for name in ("Add", "Subtract", "Multiply", "Maximum", "Minimum")},
    **{"TrueDivide": _of_all("Div"), "Divide": _of_all("Div")},
    **{"Reshape": _reshape, "Concatenate": _concatenate},
    **{"Relu": _simple("Relu"), "Sigmoid": _simple("Sigmoid"), "Tanh": _simple("Tanh")},
    **{"Silu": _simple("Swish"), "Softplus": _simple("Softplus"), "Absolute": _simple("Abs")},
    **{"Exp": _simple("Exp"), "Log": _simple("Log"), "Sqrt": _simple("Sqrt")},
}
"""The class of a function of `keras.ops` in a model -> its rule."""
