"""Each operator as a network of one layer, against NumPy's formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ppl_cnn.models.formats.onnx_file import read_onnx
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.onnx.network import declared

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1, 3, 4, 6)).astype(np.float32)
C = RNG.normal(size=3).astype(np.float32)
MAP = C.reshape(3, 1, 1)


def raw(channels):
    return Preprocessing((0.0,) * channels, (1.0,) * channels, "RGB")


def integers(*numbers):
    return np.asarray(numbers, np.int64)


def result(content, x=X):
    """The last layer's response with ONNX's axes, but for the batch."""
    network = declared(read_onnx(content), "net", raw)
    assert network.network.end is None, network.network.end
    image = jnp.asarray(x.transpose(0, 2, 3, 1))
    response = np.asarray(Slab.whole(network.network).respond(network.params, image))[0]
    return response.transpose(2, 0, 1) if response.ndim == 3 else response


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def standardized(x, axes, epsilon=1e-5):
    deviation = np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return (x - x.mean(axes, keepdims=True)) / deviation


ELEMENTWISE = [
    ("Relu", {}, np.maximum(X, 0)),
    ("LeakyRelu", {"alpha": 0.5}, np.where(X > 0, X, 0.5 * X)),
    ("Elu", {}, np.where(X > 0, X, np.expm1(X))),
    ("Celu", {"alpha": 2.0}, np.where(X > 0, X, 2 * np.expm1(X / 2))),
    ("Selu", {}, 1.0507009873554805 * np.where(X > 0, X, 1.6732632423543772 * np.expm1(X))),
    ("ThresholdedRelu", {"alpha": 0.5}, np.where(X > 0.5, X, 0)),
    ("Tanh", {}, np.tanh(X)),
    ("HardSigmoid", {}, np.clip(0.2 * X + 0.5, 0, 1)),
    ("HardSwish", {}, X * np.clip(X / 6 + 0.5, 0, 1)),
    ("Softplus", {}, np.log1p(np.exp(X))),
    ("Softsign", {}, X / (1 + abs(X))),
    ("Mish", {}, X * np.tanh(np.log1p(np.exp(X)))),
    ("Gelu", {}, X * (1 + special.erf(X / math.sqrt(2))) / 2),
    ("Swish", {}, X * sigmoid(X)),
    ("Erf", {}, special.erf(X)),
    ("Neg", {}, -X),
    ("Abs", {}, abs(X)),
    ("Exp", {}, np.exp(X)),
    ("Reciprocal", {}, 1 / X),
    ("Clip", {"min": -0.5, "max": 0.25}, np.clip(X, -0.5, 0.25)),
    ("Floor", {}, np.floor(X)),
    ("Sin", {}, np.sin(X)),
]


@pytest.mark.parametrize(("operator", "attributes", "expected"), ELEMENTWISE)
def test_functions_of_a_value(operator, attributes, expected, onnx_node, onnx_content):
    content = onnx_content([onnx_node(operator, "x", "y", **attributes)], image=X.shape)
    np.testing.assert_allclose(result(content), expected[0], rtol=2e-5, atol=1e-6)


OTHERS = [
    ("Add", {}, [MAP], X + MAP),
    ("Sub", {}, [MAP], X - MAP),
    ("Mul", {}, [np.float32(3)], 3 * X),
    ("Div", {}, [MAP], X / MAP),
    ("Pow", {}, [np.float32(2)], X**2),
    ("Max", {}, [MAP], np.maximum(X, MAP)),
    ("Min", {}, [MAP], np.minimum(X, MAP)),
    ("PRelu", {}, [MAP], np.where(X > 0, X, MAP * X)),
    ("Clip", {}, [np.float32(-0.5)], np.maximum(X, -0.5)),
    ("Add", {}, [X[0, :, :1]], X + X[:, :, :1]),
    ("BatchNormalization", {"epsilon": 0.1}, [C, C + 1, C - 1, C**2],
     (X - (MAP - 1)) / np.sqrt(MAP**2 + 0.1) * MAP + MAP + 1),
    ("InstanceNormalization", {}, [C, C + 1], standardized(X, (2, 3)) * MAP + MAP + 1),
    ("GroupNormalization", {"num_groups": 1}, [C[:1], C[1:2]],
     standardized(X, (1, 2, 3)) * C[0] + C[1]),
    ("LayerNormalization", {}, [X[0, 0, 0], X[0, 1, 0]],
     standardized(X, (3,)) * X[0, 0, 0] + X[0, 1, 0]),
    ("LpNormalization", {"axis": 1}, [], X / np.sqrt((X**2).sum(1, keepdims=True))),
    ("LRN", {"size": 2, "alpha": 2.0, "bias": 1.5}, [],
     X / (1.5 + X**2 + np.pad(X, ((0, 0), (0, 1), (0, 0), (0, 0)))[:, 1:] ** 2) ** 0.75),
    ("GlobalAveragePool", {}, [], X.mean((2, 3), keepdims=True)),
    ("ReduceMean", {"axes": (2, 3)}, [], X.mean((2, 3), keepdims=True)),
    ("ReduceMax", {"axes": (3,)}, [], X.max(3, keepdims=True)),
    ("ReduceL2", {"axes": (1,)}, [], np.sqrt((X**2).sum(1, keepdims=True))),
    ("ReduceSum", {}, [integers(-1)], X.sum(3, keepdims=True)),
    ("Transpose", {"perm": (0, 1, 3, 2)}, [], X.transpose(0, 1, 3, 2)),
    ("Reshape", {}, [integers(0, -1, 6, 4)], X.reshape(1, 3, 6, 4)),
    ("Slice", {}, [integers(1), integers(2**63 - 1), integers(1)], X[:, 1:]),
    ("Slice", {}, [integers(-1), integers(-(2**62)), integers(2), integers(-1)], X[:, :, ::-1]),
    ("Gather", {"axis": 1}, [integers(2, 0)], X[:, [2, 0]]),
    ("Pad", {}, [integers(0, 0, 1, 0, 0, 0, 2, 1), np.float32(7)],
     np.pad(X, ((0, 0), (0, 0), (1, 2), (0, 1)), constant_values=7)),
    ("Pad", {"mode": "reflect"}, [integers(0, 0, 1, 1, 0, 0, 1, 1)],
     np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")),
    ("Pad", {}, [integers(0, 0, -1, 0, 0, 0, 0, -2)], X[:, :, 1:, :-2]),
    ("Expand", {}, [integers(2, 1, 1, 1, 1)], np.stack([X, X])),
    ("Tile", {}, [integers(1, 2, 1, 1)], np.tile(X, (1, 2, 1, 1))),
    ("SpaceToDepth", {"blocksize": 2}, [],
     X.reshape(1, 3, 2, 2, 3, 2).transpose(0, 3, 5, 1, 2, 4).reshape(1, 12, 2, 3)),
    ("Resize", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor"}, ["", np.asarray([1, 1, 2, 2], np.float32)],
     X.repeat(2, 2).repeat(2, 3)),
    ("Upsample", {"scales": (1.0, 1.0, 2.0, 1.0)}, [], X.repeat(2, 2)),
    ("MatMul", {}, [X[0, 0].T.copy()], X @ X[0, 0].T),
    ("Softmax", {"axis": 1}, [], special.softmax(X, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "attributes", "others", "expected"), OTHERS)
def test_operators(operator, attributes, others, expected, onnx_node, onnx_content):
    names = ["x", *("" if isinstance(each, str) else f"c{i}" for i, each in enumerate(others))]
    constants = {f"c{i}": each for i, each in enumerate(others) if not isinstance(each, str)}
    nodes = [onnx_node(operator, " ".join(names), "z", **attributes)]
    # A softmax at the end would be left out.
    nodes.append(onnx_node("Neg", "z", "y"))
    found = result(onnx_content(nodes, constants, image=X.shape))
    np.testing.assert_allclose(found.reshape(expected.shape), -expected, rtol=2e-5, atol=1e-6)


def test_linear_resize_keeps_corners_and_halves(onnx_node, onnx_content):
    sizes = {"s": integers(1, 3, 7, 6)}
    node = onnx_node(
        "Resize", "x   s", "y", mode="linear", coordinate_transformation_mode="align_corners"
    )
    found = result(onnx_content([node], sizes, image=X.shape))
    np.testing.assert_allclose(found[:, ::2], X[0], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], (X[0, :, 0] + X[0, :, 1]) / 2, atol=1e-6)


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("counts", [0, 1])
def test_average_pools(ceil, counts, onnx_node, onnx_content):
    node = onnx_node(
        "AveragePool",
        "x",
        "y",
        kernel_shape=(3, 2),
        strides=(2, 2),
        pads=(1, 0, 1, 1),
        ceil_mode=ceil,
        count_include_pad=counts,
    )
    found = result(onnx_content([node], image=X.shape, opset=19))
    rows, cols = found.shape[1:]
    assert (rows, cols) == (2 + ceil, 3)
    for row in range(rows):
        for col in range(cols):
            top, left = 2 * row - 1, 2 * col
            inside = X[0, :, max(top, 0) : top + 3, left : left + 2]
            # Zeros of the padding count, but not what lies beyond it.
            high, wide = min(top + 3, 5) - top, min(left + 2, 7) - left
            count = high * wide if counts else inside[0].size
            expected = inside.sum((1, 2)) / count if count else np.zeros(3)
            np.testing.assert_allclose(found[:, row, col], expected, atol=1e-6)


def test_max_pool_with_dilation(onnx_node, onnx_content):
    node = onnx_node("MaxPool", "x", "y", kernel_shape=(2, 2), dilations=(2, 3))
    found = result(onnx_content([node], image=X.shape))
    expected = np.maximum.reduce([X[0, :, i : i + 2, j : j + 3] for i in (0, 2) for j in (0, 3)])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("groups", "attributes", "pads"),
    [
        (1, {"pads": (0, 1, 2, 1), "strides": (2, 1)}, ((0, 2), (1, 1))),
        (3, {"dilations": (1, 2), "pads": (1, 0, 0, 0)}, ((1, 0), (0, 0))),
        (1, {"auto_pad": "SAME_UPPER", "strides": (2, 2)}, ((0, 1), (0, 1))),
        (1, {"auto_pad": "SAME_LOWER", "strides": (2, 2)}, ((1, 0), (1, 0))),
        (1, {"auto_pad": "VALID"}, ((0, 0), (0, 0))),
    ],
)
def test_convolutions(groups, attributes, pads, onnx_node, onnx_content):
    kernel = RNG.normal(size=(6, 3 // groups, 3, 3)).astype(np.float32)
    node = onnx_node("Conv", "x w b", "y", group=groups, **attributes)
    constants = {"w": kernel, "b": np.arange(6, dtype=np.float32)}
    found = result(onnx_content([node], constants, image=X.shape))
    expected = jax.lax.conv_general_dilated(
        X,
        kernel,
        attributes.get("strides", (1, 1)),
        pads,
        rhs_dilation=attributes.get("dilations", (1, 1)),
        feature_group_count=groups,
    )
    expected = np.asarray(expected[0]) + np.arange(6)[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)


TRANSPOSED = [  # groups, window, attributes, and lax's zeros around the dilated input
    (1, (4, 4), {"strides": (2, 2), "pads": (1, 1, 1, 1)}, ((2, 2), (2, 2))),
    (1, (3, 3), {"strides": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)}, ((1, 2),) * 2),
    (3, (3, 5), {"strides": (3, 2), "pads": (0, 2, 0, 1), "group": 3}, ((2, 2), (2, 3))),
    (1, (2, 2), {"strides": (3, 3)}, ((1, 1), (1, 1))),
    (1, (3, 2), {"strides": (2, 1), "dilations": (2, 3)}, ((4, 4), (3, 3))),
    (1, (3, 3), {"strides": (2, 2), "auto_pad": "SAME_UPPER"}, ((2, 1), (2, 1))),
    (1, (3, 3), {"strides": (2, 2), "output_shape": (8, 11)}, ((1, 2), (1, 1))),
]


@pytest.mark.parametrize(("groups", "window", "attributes", "zeros"), TRANSPOSED)
def test_transposed_convolutions(groups, window, attributes, zeros, onnx_node, onnx_content):
    random = np.random.default_rng(1)
    kernel = random.normal(size=(3, 2, *window)).astype(np.float32)
    bias = random.normal(size=2 * groups).astype(np.float32)
    content = onnx_content(
        [onnx_node("ConvTranspose", "x w b", "y", **attributes)],
        {"w": kernel, "b": bias},
        image=X.shape,
    )
    by_group = [
        jax.lax.conv_general_dilated(
            part,
            weights.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1],
            (1, 1),
            zeros,
            lhs_dilation=attributes["strides"],
            rhs_dilation=attributes.get("dilations", (1, 1)),
        )
        for part, weights in zip(np.split(X, groups, 1), np.split(kernel, groups), strict=True)
    ]
    expected = np.concatenate(by_group, 1)[0] + bias.reshape(-1, 1, 1)
    np.testing.assert_allclose(result(content), expected, atol=1e-5)


@pytest.mark.parametrize(("transposed", "factor"), [(0, 1.0), (1, 0.5)])
def test_dense_layers(transposed, factor, onnx_node, onnx_content):
    kernel = RNG.normal(size=(72, 5)).astype(np.float32)
    constants = {"w": kernel.T.copy() if transposed else kernel, "b": np.ones(5, np.float32)}
    nodes = [
        onnx_node("Flatten", "x", "f"),
        onnx_node("Gemm", "f w b", "y", transB=transposed, alpha=factor, beta=2.0),
    ]
    found = result(onnx_content(nodes, constants, image=X.shape))
    np.testing.assert_allclose(found, factor * X.reshape(-1) @ kernel + 2, rtol=1e-4, atol=1e-5)


def test_shapes_are_computed_when_the_file_is_opened(onnx_node, onnx_content):
    """As PyTorch's first exporter flattens: x.view(x.size(0), -1)."""
    nodes = [
        onnx_node("Shape", "x", "s"),
        onnx_node("Constant", "", "zero", value=integers(0)),
        onnx_node("Gather", "s zero", "n", axis=0),
        onnx_node("Constant", "", "rest", value=integers(-1)),
        onnx_node("Concat", "n rest", "sizes", axis=0),
        onnx_node("Reshape", "x sizes", "y"),
    ]
    np.testing.assert_array_equal(result(onnx_content(nodes, image=X.shape)), X.reshape(-1))
