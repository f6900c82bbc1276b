import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from ppl_cnn.errors import MismatchError, UnknownNameError
from ppl_cnn.models.networks.catalogue import (
    ALEXNET,
    ALEXNET_FASHION,
    ALEXNET_TORCHVISION,
    CAFFENET,
    LENET,
    LENET_ADVERTORCH,
    NETWORKS,
    SQUEEZENET,
    VGG16,
    network_named,
)
from ppl_cnn.models.networks.declaration import IMAGE, Network, Preprocessing
from ppl_cnn.models.networks.forward import dropout_masks, scores
from ppl_cnn.models.networks.graph import input_shape, shapes, sources
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.networks.layers import (
    LRN,
    Concat,
    Conv,
    Dense,
    Dropout,
    GlobalMean,
    MaxPool,
    ReLU,
)
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.networks.window import positions

# Not all is read: conv1 leaves a row over at the bottom, pool1 one of conv1's, pool2 hangs over.
UNEVEN = Network(
    "uneven",
    (20, 17, 2),
    Preprocessing((0.0, 0.0), (0.5, 0.5)),
    layers=(
        Conv("conv1", 4, kernel=4, stride=3, padding=1),
        MaxPool("pool1", kernel=2, stride=2),
        ReLU("relu1"),
        Conv("conv2", 6, kernel=3, padding=1, groups=2),
        MaxPool("pool2", kernel=2, stride=2, ceil=True),
        Dense("fc3", 5),
    ),
)

# Two branches from one layer, of different reach, and the image's own beside them.
FORKED = Network(
    "forked",
    (9, 8, 2),
    Preprocessing((0.0, 0.0), (1.0, 0.5)),
    layers=(
        Conv("conv1", 4, kernel=3, padding=1),
        ReLU("relu1"),
        Conv("near", 3, kernel=1),
        Conv("far", 2, kernel=5, padding=2, after=("relu1",)),
        Concat("both", after=("far", "near")),
        Conv("beside", 2, kernel=1, after=(IMAGE,)),
        MaxPool("pool", kernel=3, stride=2, after=("both", "beside")),
        GlobalMean("mean"),
    ),
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


def numpy_dense(weights, x):
    return x.reshape(len(x), -1) @ np.asarray(weights["kernel"]) + np.asarray(weights["bias"])


def numpy_responses(network: Network, params, images):
    """Layer name -> response."""
    found = {IMAGE: images * np.asarray(network.preprocessing.scale, np.float32)}
    previous = IMAGE
    for layer in network.layers:
        x = np.concatenate([found[name] for name in layer.after or (previous,)], -1)
        match layer:
            case Conv():
                x = numpy_convolution(layer, params[layer.name], x)
            case Dense():
                x = numpy_dense(params[layer.name], x)
            case MaxPool():
                args = layer.kernel, layer.stride, layer.padding, layer.ceil, -np.inf
                x = numpy_windows(x, *args).max((-2, -1))
            case LRN():
                x = numpy_normalization(layer, x)
            case ReLU():
                x = np.maximum(x, 0)
            case GlobalMean():
                x = x.mean((1, 2))
            case Dropout() | Concat():
                pass
        found[layer.name] = x
        previous = layer.name
    return found


def numpy_scores(network: Network, params, images):
    return numpy_responses(network, params, images)[network.layers[-1].name]


@pytest.mark.parametrize(
    ("network", "count", "deviation"),
    [
        (LENET, 3, 100.0),
        (LENET_ADVERTORCH, 2, 100.0),
        (ALEXNET_FASHION, 2, 100.0),
        (UNEVEN, 3, 2.0),
        (FORKED, 3, 2.0),
        (SQUEEZENET, 1, 50.0),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_scores_are_those_of_the_network_written_out(network, count, deviation, random_params):
    params = random_params(network)
    images = np.random.default_rng(1).normal(0, deviation, (count, *network.image_shape))
    images = images.astype(np.float32)
    F = jax.jit(scores, static_argnums=0)(network, params, jnp.asarray(images))
    expected = numpy_scores(network, params, images)
    assert F.shape == (count, shapes(network)[network.layers[-1].name][-1])
    # float32 on both sides through at most 18 layers of sums, each good to about 1e-6.
    np.testing.assert_allclose(F, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


# Declarations.


@pytest.mark.parametrize("network", NETWORKS.values(), ids=str)
def test_a_declaration_is_hashable_and_its_layers_have_names_of_their_own(network):
    assert hash(network) == hash(replace(network))
    assert len({layer.name for layer in network.layers}) == len(network.layers)
    assert len(network.preprocessing.mean) == network.image_shape[-1]
    assert network_named(network.name) is network


def test_input_shape_is_that_of_what_is_read():
    assert input_shape(LENET, LENET.layer("conv1")) == (28, 28, 1)
    assert input_shape(LENET, LENET.layer("fc3")) == (4, 4, 50)
    assert input_shape(LENET, LENET.layer("fc4")) == (500,)
    assert input_shape(FORKED, FORKED.layer("far")) == (9, 8, 4)
    assert input_shape(FORKED, FORKED.layer("beside")) == (9, 8, 2)
    assert input_shape(FORKED, FORKED.layer("pool")) == (9, 8, 2 + 3 + 2)


def test_a_layer_reads_the_one_before_it_unless_it_says_after_which():
    assert sources(FORKED) == {
        "conv1": (IMAGE,),
        "relu1": ("conv1",),
        "near": ("relu1",),
        "far": ("relu1",),
        "both": ("far", "near"),
        "beside": (IMAGE,),
        "pool": ("both", "beside"),
        "mean": ("pool",),
    }


@pytest.mark.parametrize(
    ("layers", "kind", "words"),
    [
        ((ReLU("a"), ReLU("a")), MismatchError, ["'a'", "already used"]),
        ((ReLU("image"),), MismatchError, ["'image'", "reserved"]),
        ((ReLU("unit"),), MismatchError, ["'unit'", "reserved"]),
        ((ReLU("class"),), MismatchError, ["'class'", "reserved"]),
        ((ReLU("a", after=("b",)), ReLU("b")), UnknownNameError, ["a of broken reads b", "before"]),
        ((ReLU("a", after=("a",)),), UnknownNameError, ["a of broken reads a", "before"]),
        ((Concat("a", after=("z", "image", "y")),), UnknownNameError, ["reads y, z", "before"]),
    ],
    ids=str,
)
def test_a_declaration_that_is_no_graph_in_order_is_refused(layers, kind, words, refused):
    with refused("broken", *words, kind=kind):
        Network("broken", (4, 4, 1), Preprocessing((0.0,), (1.0,)), layers=layers)


def test_maps_of_different_sizes_cannot_be_read_side_by_side(refused):
    layers = (Conv("a", 2, kernel=2), Conv("b", 2, kernel=3, after=(IMAGE,)))
    for mixed, sizes in (
        ((*layers, Concat("c", after=("a", "b"))), "(3, 3, 2), (2, 2, 2)"),
        ((Dense("d", 3), ReLU("e", after=("d", IMAGE))), "(3,), (4, 4, 1)"),
    ):
        network = Network("broken", (4, 4, 1), Preprocessing((0.0,), (1.0,)), layers=mixed)
        with refused(mixed[-1].name, "broken", sizes, kind=MismatchError):
            shapes(network)


def test_unknown_networks_and_layers_are_refused(refused):
    with refused("lenet, lenet-advertorch", kind=UnknownNameError, name="vgg", known=(*NETWORKS,)):
        network_named("vgg")
    layers = ("conv1", "pool1", "conv2", "pool2", "fc3", "relu3", "fc4")
    with refused("lenet", kind=UnknownNameError, name="conv9", known=layers):
        LENET.layer("conv9")


# Slabs.


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.name)
def test_the_whole_slab_is_the_whole_image_but_for_what_no_window_reads(network):
    slab = Slab.whole(network)
    unread = 2 if network is ALEXNET_TORCHVISION else 0  # 224 + 2*2 is 11 + 54*4 and 1 left over
    for positions_, size in zip((slab.rows, slab.cols), network.image_shape[:2], strict=True):
        assert positions_.start == 0
        assert size - positions_.stop in (0, unread)


UNEVEN_CONV2 = [
    (UNEVEN, "conv2", range(*rows), range(*cols))
    for rows in ((0, 1), (0, 2), (1, 3), (2, 3))
    for cols in ((0, 1), (1, 2), (0, 2))
]
FORKED_PARTS = [
    (FORKED, name, range(*rows), range(*cols))
    for name in ("both", "pool")
    for rows, cols in (((0, 1), (0, 1)), ((2, 3), (1, 3)), ((3, 4), (0, 3)))
]


@pytest.mark.parametrize(("network", "layer", "rows", "cols"), UNEVEN_CONV2 + FORKED_PARTS)
def test_a_slab_of_a_rectangle_is_that_part_of_the_whole_map(
    network, layer, rows, cols, random_params
):
    params = random_params(network)
    images = np.random.default_rng(0).normal(0, 1, (2, *network.image_shape)).astype(np.float32)
    slab = Slab.of(network, layer, rows, cols)
    unscaled = replace(network, preprocessing=Preprocessing((0.0,), (1.0,)))
    whole = numpy_responses(unscaled, params, images)[layer]
    expected = whole[:, rows.start : rows.stop, cols.start : cols.stop]
    actual = jax.jit(slab.respond)(params, slab.crop(jnp.asarray(images)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_branches_read_their_parts_of_the_hull():
    slab = Slab.of(FORKED, "both", range(4, 5), range(0, 1))
    steps = {step.layer.name: step for step in slab.steps}
    assert list(steps) == ["conv1", "relu1", "near", "far", "both"]
    # far reads rows 2 to 6 and columns -2 to 2, near 4 and 0: relu1 is computed on far's.
    assert (slab.rows, slab.cols) == (range(1, 8), range(0, 4))
    assert steps["far"].readings == (("relu1", slice(0, 5), slice(0, 3)),)
    assert steps["far"].padding == ((0, 0), (2, 0))
    assert steps["near"].readings == (("relu1", slice(2, 3), slice(0, 1)),)
    assert steps["conv1"].padding == ((0, 0), (1, 0))
    assert [reading.name for reading in steps["both"].readings] == ["far", "near"]


def test_a_slab_leaves_out_layers_that_nothing_in_it_reads():
    slab = Slab.of(FORKED, "near", range(1, 2), range(1, 2))
    assert [step.layer.name for step in slab.steps] == ["conv1", "relu1", "near"]


def test_multiplications_are_positions_times_the_kernels_sizes():
    # conv1 on 5 x 3 positions for far, near on one, far on one.
    slab = Slab.of(FORKED, "both", range(4, 5), range(0, 1))
    expected = 15 * 3 * 3 * 2 * 4 + 1 * 4 * 3 + 5 * 5 * 4 * 2
    assert slab.multiplications == expected
    assert [step.multiplications for step in slab.steps] == [15 * 72, 0, 12, 200, 0]


@pytest.mark.parametrize(
    ("network", "millions"),
    [(ALEXNET, 724.4), (CAFFENET, 724.4), (ALEXNET_TORCHVISION, 714.2), (VGG16, 15_470.3)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_whole_networks_multiplications_are_the_published_ones(network, millions):
    # Canziani and others, An analysis of deep neural network models, 2016, and torchvision's
    # tables, which round to 0.72, 0.71 and 15.47 billion.
    assert Slab.whole(network).multiplications / 1e6 == pytest.approx(millions, rel=1e-4)


def test_a_conv5_unit_of_alexnet_takes_less_than_a_quarter_of_the_whole_map():
    rows, cols = positions(shapes(ALEXNET)["conv5"])
    whole = Slab.of(ALEXNET, "conv5", rows, cols)
    slab = Slab.of(ALEXNET, "conv5", range(6, 7), range(6, 7))
    assert whole.multiplications == 665_784_864
    assert slab.multiplications < whole.multiplications / 4


def test_dropout_is_on_with_masks_that_differ_between_layers_and_keys():
    network = Network(
        "drop",
        (1, 1, 1),
        Preprocessing((0.0,), (1.0,)),
        layers=(Dense("fc1", 40), Dropout("a"), Dropout("b", 0.2)),
    )
    params = {"fc1": {"kernel": jnp.zeros((1, 40)), "bias": jnp.ones(40)}}
    x = jnp.zeros((50, 1, 1, 1))
    np.testing.assert_array_equal(scores(network, params, x), np.ones((50, 40)))
    keep = dropout_masks(network, jax.random.key(0), 50)
    F = np.asarray(scores(network, params, x, keep=keep))
    keep = {name: np.asarray(mask) for name, mask in keep.items()}
    np.testing.assert_allclose(F, 2.5 * (keep["a"] & keep["b"]), rtol=1e-6)
    # 2,000 tosses of a share, five binomial standard errors.
    for mask, share in ((keep["a"], 0.5), (keep["b"], 0.8), (keep["a"] & keep["b"], 0.4)):
        assert abs(np.mean(mask) - share) < 5 * (share * (1 - share) / 2_000) ** 0.5
    again, other = (dropout_masks(network, jax.random.key(seed), 50) for seed in (0, 1))
    np.testing.assert_array_equal(again["a"], keep["a"])
    assert not np.array_equal(other["a"], keep["a"])


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
