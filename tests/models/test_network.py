import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from ppl_cnn.models.layers import LRN, Conv, Dense, Dropout, MaxPool, ReLU
from ppl_cnn.models.network import Slab, he_normal, input_shape, scores, shapes, weight_shapes
from ppl_cnn.models.networks import (
    ALEXNET,
    ALEXNET_FASHION,
    LENET,
    NETWORKS,
    Network,
    Preprocessing,
    network_named,
)

# Not all is read: conv1 leaves a row over at the bottom, pool1 one of conv1's, pool2 hangs over.
UNEVEN = Network(
    "uneven",
    (20, 17, 2),
    Preprocessing((0.0, 0.0), (0.5, 0.5)),
    (
        Conv("conv1", 4, kernel=4, stride=3, padding=1),
        MaxPool("pool1", kernel=2, stride=2),
        ReLU("relu1"),
        Conv("conv2", 6, kernel=3, padding=1, groups=2),
        MaxPool("pool2", kernel=2, stride=2, ceil=True),
        Dense("fc3", 5),
    ),
)


def parameters(network: Network) -> int:
    return sum(
        math.prod(shape)
        for weights in weight_shapes(network).values()
        for shape in weights.values()
    )


# A network written out in numpy, layer by layer, apart from `Layer.apply` and `Slab`.


def numpy_windows(x, kernel: int, stride: int, padding: int, ceil: bool, fill: float):
    """(n, row, col, channel, k_row, k_col) with Caffe's count of windows."""
    pads = []
    for size in x.shape[1:3]:
        room = size + 2 * padding - kernel
        count = (math.ceil if ceil else math.floor)(room / stride) + 1
        if ceil and (count - 1) * stride >= size + padding:
            count -= 1
        pads.append((padding, max(0, (count - 1) * stride + kernel - size - padding)))
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    return sliding_window_view(x, (kernel, kernel), (1, 2))[:, ::stride, ::stride]


def numpy_convolution(layer: Conv, weights, x):
    kernel, bias = np.asarray(weights["kernel"]), np.asarray(weights["bias"])
    windows = numpy_windows(x, layer.kernel, layer.stride, layer.padding, False, 0.0)
    inputs, outputs = x.shape[-1] // layer.groups, layer.channels // layer.groups
    maps = [
        np.tensordot(
            windows[:, :, :, group * inputs : (group + 1) * inputs],
            kernel[..., group * outputs : (group + 1) * outputs],
            axes=((3, 4, 5), (2, 0, 1)),
        )
        for group in range(layer.groups)
    ]
    return np.concatenate(maps, -1) + bias


def numpy_normalization(layer: LRN, x):
    half, channels = layer.size // 2, x.shape[-1]
    squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (half, half)))
    total = sum(squares[..., shift : shift + channels] for shift in range(layer.size))
    return x / (layer.k + layer.alpha / layer.size * total) ** layer.beta


def numpy_scores(network: Network, params, images):
    x = images * np.asarray(network.preprocessing.scale, np.float32)
    for layer in network.layers:
        match layer:
            case Conv():
                x = numpy_convolution(layer, params[layer.name], x)
            case Dense():
                weights = params[layer.name]
                x = x.reshape(len(x), -1) @ np.asarray(weights["kernel"])
                x = x + np.asarray(weights["bias"])
            case MaxPool():
                args = layer.kernel, layer.stride, layer.padding, layer.ceil, -np.inf
                x = numpy_windows(x, *args).max((-2, -1))
            case LRN():
                x = numpy_normalization(layer, x)
            case ReLU():
                x = np.maximum(x, 0)
            case Dropout():
                pass
    return x


@pytest.mark.parametrize(
    ("network", "count", "deviation"),
    [(LENET, 3, 100.0), (ALEXNET_FASHION, 2, 100.0), (UNEVEN, 3, 2.0), (ALEXNET, 1, 50.0)],
)
def test_scores_are_those_of_the_network_written_out(network, count, deviation, random_params):
    params = random_params(network)
    images = np.random.default_rng(1).normal(0, deviation, (count, *network.image_shape))
    images = images.astype(np.float32)
    F = jax.jit(scores, static_argnums=0)(network, params, jnp.asarray(images))
    expected = numpy_scores(network, params, images)
    assert F.shape == (count, shapes(network)[network.layers[-1].name][-1])
    # float32 on both sides through at most 8 layers of sums, each good to about 1e-6.
    np.testing.assert_allclose(F, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


# Declarations.


def test_lenets_shapes_and_parameters_are_caffes():
    found = shapes(LENET)
    assert [found[name] for name in ("conv1", "pool1", "conv2", "pool2")] == [
        (24, 24, 20),
        (12, 12, 20),
        (8, 8, 50),
        (4, 4, 50),
    ]
    assert parameters(LENET) == 431_080


def test_alexnets_shapes_and_parameters_are_caffes():
    found = shapes(ALEXNET)
    sizes = {name: found[name][0] for name in found if len(found[name]) == 3}
    assert [sizes[f"conv{index}"] for index in range(1, 6)] == [55, 27, 13, 13, 13]
    assert found["pool5"] == (6, 6, 256)
    assert [found[name] for name in ("fc6", "fc7", "fc8")] == [(4096,), (4096,), (1000,)]
    assert weight_shapes(ALEXNET)["conv2"]["kernel"] == (5, 5, 48, 256)
    assert weight_shapes(ALEXNET)["fc6"]["kernel"] == (9216, 4096)
    assert parameters(ALEXNET) == 60_965_224


def test_alexnet_fashion_has_alexnets_layers_and_at_most_two_million_parameters():
    def pattern(network):
        return [(type(layer), layer.name) for layer in network.layers]

    assert pattern(ALEXNET_FASHION) == pattern(ALEXNET)
    assert parameters(ALEXNET_FASHION) <= 2_000_000
    grouped = [layer.name for layer in ALEXNET_FASHION.layers if getattr(layer, "groups", 1) == 2]
    assert grouped == ["conv2", "conv4", "conv5"]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=str)
def test_a_declaration_is_hashable_and_its_layers_have_names_of_their_own(network):
    assert hash(network) == hash(replace(network))
    assert len({layer.name for layer in network.layers}) == len(network.layers)
    assert len(network.preprocessing.mean) == network.image_shape[-1]
    assert network_named(network.name) is network


def test_input_shape_is_the_response_before():
    assert input_shape(LENET, LENET.layer("conv1")) == (28, 28, 1)
    assert input_shape(LENET, LENET.layer("fc3")) == (4, 4, 50)
    assert input_shape(LENET, LENET.layer("fc4")) == (500,)


def test_unknown_networks_and_layers_are_refused(refused):
    with refused("'vgg'", "lenet, alexnet, alexnet-fashion"):
        network_named("vgg")
    with refused("'conv9'", "conv1"):
        LENET.layer("conv9")


# Slabs.


def test_the_whole_slab_is_the_whole_image():
    for network in (LENET, ALEXNET, ALEXNET_FASHION):
        slab = Slab.whole(network)
        assert (slab.rows, slab.cols) == (
            range(network.image_shape[0]),
            range(network.image_shape[1]),
        )


@pytest.mark.parametrize("rows", [range(0, 1), range(0, 2), range(1, 3), range(2, 3)])
@pytest.mark.parametrize("cols", [range(0, 1), range(1, 2), range(0, 2)])
def test_a_slab_of_a_rectangle_is_that_part_of_the_whole_map(rows, cols, random_params):
    params = random_params(UNEVEN)
    images = jnp.asarray(np.random.default_rng(0).normal(0, 1, (2, 20, 17, 2)), jnp.float32)
    slab = Slab.of(UNEVEN, "conv2", rows, cols)
    conv2 = UNEVEN.layers.index(UNEVEN.layer("conv2"))
    cut = replace(
        UNEVEN, layers=UNEVEN.layers[: conv2 + 1], preprocessing=Preprocessing((0.0,), (1.0,))
    )
    whole = numpy_scores(cut, params, np.asarray(images))
    expected = whole[:, rows.start : rows.stop, cols.start : cols.stop]
    assert (slab.rows, slab.cols) != (range(20), range(17))
    np.testing.assert_allclose(
        slab.respond(params, slab.crop(images)), expected, rtol=0, atol=1e-5 * np.abs(whole).max()
    )


def test_dropout_is_on_with_a_key_and_differs_between_layers():
    network = Network(
        "drop",
        (1, 1, 1),
        Preprocessing((0.0,), (1.0,)),
        (Dense("fc1", 40), Dropout("a"), Dropout("b")),
    )
    params = {"fc1": {"kernel": jnp.zeros((1, 40)), "bias": jnp.ones(40)}}
    x = jnp.zeros((50, 1, 1, 1))
    np.testing.assert_array_equal(scores(network, params, x), np.ones((50, 40)))
    F = np.asarray(scores(network, params, x, jax.random.key(0)))
    assert set(np.unique(F)) == {0.0, 4.0}
    # Two equal masks would keep a half; 2,000 tosses of 1/4, five binomial standard errors.
    assert abs((F != 0).mean() - 0.25) < 5 * (0.25 * 0.75 / 2_000) ** 0.5
    np.testing.assert_array_equal(scores(network, params, x, jax.random.key(0)), F)


def test_random_weights_are_he_normal():
    params = he_normal(LENET, jax.random.key(0))
    for name, weights in params.items():
        kernel = np.asarray(weights["kernel"])
        fan_in = math.prod(kernel.shape[:-1])
        expected = 0.01 if name == "fc4" else math.sqrt(2 / fan_in)
        # The standard deviation of n normals has the relative error 1/sqrt(2 n).
        assert abs(kernel.std() / expected - 1) < 5 / math.sqrt(2 * kernel.size)
        np.testing.assert_array_equal(weights["bias"], 0)
    assert not np.array_equal(
        params["conv1"]["kernel"], he_normal(LENET, jax.random.key(1))["conv1"]["kernel"]
    )
