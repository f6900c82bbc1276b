"""AlexNet and CaffeNet against a forward pass written out in numpy, and against ONNX's graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from ppl_cnn.models.networks.catalogue import ALEXNET, CAFFENET
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.graph import weight_shapes
from ppl_cnn.models.networks.layers import LRN, Conv, Dense, Dropout, MaxPool, ReLU

# The graph in PyPI onnx 1.23.2, onnx/backend/test/data/light/light_bvlc_alexnet.onnx: its nodes
# in order, and the shapes of their weights. Its pools' pads are left out: the exporter chose them
# for images of 224, where Caffe's rounding falls elsewhere than at 227.
ONNX_ALEXNET = [
    ("Conv", {"kernel_shape": 11, "strides": 4, "pads": 0, "group": 1, "w": (96, 3, 11, 11)}),
    ("Relu", {}),
    ("LRN", {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}),
    ("MaxPool", {"kernel_shape": 3, "strides": 2}),
    ("Conv", {"kernel_shape": 5, "strides": 1, "pads": 2, "group": 2, "w": (256, 48, 5, 5)}),
    ("Relu", {}),
    ("LRN", {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}),
    ("MaxPool", {"kernel_shape": 3, "strides": 2}),
    ("Conv", {"kernel_shape": 3, "strides": 1, "pads": 1, "group": 1, "w": (384, 256, 3, 3)}),
    ("Relu", {}),
    ("Conv", {"kernel_shape": 3, "strides": 1, "pads": 1, "group": 2, "w": (384, 192, 3, 3)}),
    ("Relu", {}),
    ("Conv", {"kernel_shape": 3, "strides": 1, "pads": 1, "group": 2, "w": (256, 192, 3, 3)}),
    ("Relu", {}),
    ("MaxPool", {"kernel_shape": 3, "strides": 2}),
    ("Gemm", {"w": (4096, 9216)}),
    ("Relu", {}),
    ("Dropout", {"ratio": 0.5}),
    ("Gemm", {"w": (4096, 4096)}),
    ("Relu", {}),
    ("Dropout", {"ratio": 0.5}),
    ("Gemm", {"w": (1000, 4096)}),
]


def as_onnx(layer):
    """A declared layer in ONNX's words; weights OIHW and (out, in)."""
    kernel = weight_shapes(ALEXNET).get(layer.name, {}).get("kernel", ())
    match layer:
        case Conv(kernel=size, stride=stride, padding=padding, groups=groups):
            w = tuple(kernel[axis] for axis in (3, 2, 0, 1))
            window = {"kernel_shape": size, "strides": stride, "pads": padding}
            return "Conv", {**window, "group": groups, "w": w}
        case ReLU():
            return "Relu", {}
        case LRN(size=size, alpha=alpha, beta=beta, k=k):
            return "LRN", {"size": size, "alpha": alpha, "beta": beta, "bias": k}
        case MaxPool(kernel=size, stride=stride):
            return "MaxPool", {"kernel_shape": size, "strides": stride}
        case Dense():
            return "Gemm", {"w": kernel[::-1]}
        case Dropout(rate=rate):
            return "Dropout", {"ratio": rate}


def test_alexnet_is_the_graph_that_onnx_has_of_it():
    assert [as_onnx(layer) for layer in ALEXNET.layers] == ONNX_ALEXNET


# A forward pass of one image (row, col, channel), written out: nothing is taken from the
# declarations but the weights' names.


def convolution(x, weights, stride=1, pad=0, groups=1):
    kernel, bias = weights["kernel"], weights["bias"]
    k, _, width, channels = kernel.shape
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(x, (k, k), (0, 1))[::stride, ::stride]  # row col channel k k
    maps = []
    for group in range(groups):
        part = windows[:, :, group * width : (group + 1) * width]
        own = kernel[..., group * channels // groups : (group + 1) * channels // groups]
        maps.append(np.tensordot(part, own, axes=((2, 3, 4), (2, 0, 1))))
    return np.concatenate(maps, -1) + bias


def rectified(x):
    return np.maximum(x, 0)


def pool(x):
    """3x3 windows at strides of 2; all sizes here are odd, so that none hangs over."""
    assert x.shape[0] % 2 == 1
    return sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max((-2, -1))


def normalized(x):
    squares = np.pad(x * x, ((0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., shift : shift + x.shape[-1]] for shift in range(5))
    return x / (1 + 1e-4 / 5 * total) ** 0.75


def dense(x, weights):
    return x.ravel() @ weights["kernel"] + weights["bias"]


def numpy_scores(x, p, after_conv):
    x = after_conv(rectified(convolution(x, p["conv1"], stride=4)))
    assert x.shape == (27, 27, 96)
    x = after_conv(rectified(convolution(x, p["conv2"], pad=2, groups=2)))
    assert x.shape == (13, 13, 256)
    x = rectified(convolution(x, p["conv3"], pad=1))
    x = rectified(convolution(x, p["conv4"], pad=1, groups=2))
    x = pool(rectified(convolution(x, p["conv5"], pad=1, groups=2)))
    assert x.shape == (6, 6, 256)
    x = rectified(dense(x, p["fc6"]))
    x = rectified(dense(x, p["fc7"]))
    return dense(x, p["fc8"])


@pytest.fixture(scope="module")
def weights():
    """The weights of both networks, as numpy arrays."""
    random = np.random.default_rng(0)
    return {
        name: {
            key: np.float32(np.sqrt(2 / np.prod(shape[:-1])) if key == "kernel" else 0.2)
            * random.standard_normal(shape, np.float32)
            for key, shape in wanted.items()
        }
        for name, wanted in weight_shapes(ALEXNET).items()
    }


@pytest.mark.parametrize(
    ("network", "after_conv"),
    [(ALEXNET, lambda x: pool(normalized(x))), (CAFFENET, lambda x: normalized(pool(x)))],
    ids=["alexnet", "caffenet"],
)
def test_scores_are_those_of_the_network_written_out(network, after_conv, weights):
    image = np.random.default_rng(1).normal(0, 60, (227, 227, 3)).astype(np.float32)
    expected = numpy_scores(image, weights, after_conv)
    params = jax.tree.map(jnp.asarray, weights)
    F = jax.jit(scores, static_argnums=0)(network, params, jnp.asarray(image[None]))
    # float32 on both sides through eight layers of sums, each good to about 1e-6.
    np.testing.assert_allclose(F[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
