from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.models.networks.catalogue import (
    ALEXNET,
    ALEXNET_FASHION,
    ALEXNET_TORCHVISION,
    CAFFENET,
    LENET,
    NETWORKS,
    SQUEEZENET,
    VGG16,
    ZFNET,
)
from ppl_cnn.models.networks.declaration import IMAGE, Network, Preprocessing
from ppl_cnn.models.networks.elementwise import Elementwise
from ppl_cnn.models.networks.forward import scaled, scores
from ppl_cnn.models.networks.graph import sources
from ppl_cnn.models.networks.layers import BatchNorm, Concat, Conv, Dense, GlobalMean, ReLU
from ppl_cnn.models.units.listing import unit_layers
from ppl_cnn.models.units.names import UnitName
from ppl_cnn.models.units.score_function import Scored
from ppl_cnn.models.units.unit import Unit, find_units

# Up to its last convolution, which spares the 58 million weights of the dense layers.
ALEXNET_CONVOLUTIONS = replace(ALEXNET, layers=ALEXNET.layers[:13])

# Two branches of different reach, one of them past the other, and the image itself beside them.
FORKED = Network(
    "forked",
    (9, 8, 2),
    Preprocessing((0.0, 0.0), (1.0, 0.5)),
    layers=(
        Conv("conv1", 4, kernel=3, stride=2, padding=1),
        ReLU("relu1"),
        Conv("wide", 3, kernel=3, padding=1),
        ReLU("relu_wide"),
        Conv("wider", 2, kernel=5, padding=2, after=("relu1",)),
        Concat("both", after=("wider", "relu_wide", "relu1")),
        Conv("conv2", 6, kernel=3, padding=1, groups=3),
        ReLU("relu2"),
        Conv("image2", 2, kernel=1, stride=2, after=(IMAGE,)),
        Conv("conv3", 5, kernel=2, after=("relu2", "image2", "both")),
        GlobalMean("mean"),
    ),
)

# Units of several layers side by side, whose channels can't be computed one by one.
BESIDE = replace(FORKED, name="beside", layers=FORKED.layers[:6])

# A residual block without biases, and a depthwise convolution in it.
RESIDUAL = Network(
    "residual",
    (13, 11, 2),
    Preprocessing((0.0, 0.0), (1.0, 0.5)),
    layers=(
        Conv("conv1", 6, kernel=3, stride=2, padding=1, has_bias=False),
        BatchNorm("bn1"),
        Elementwise("relu6", "clip", (0.0, 6.0)),
        Conv("depthwise", 6, kernel=3, padding=1, groups=6, has_bias=False),
        BatchNorm("bn2"),
        Elementwise("sum", "add", after=("bn2", "relu6")),
        ReLU("block"),
        GlobalMean("mean"),
        Dense("fc", 4),
    ),
    with_units=("conv1", "bn1", "depthwise", "bn2", "sum", "block", "mean", "fc"),
)

# Hundreds of slabs are compiled here and run once: a compilation without LLVM's optimizations
# takes a fourth of the time.
QUICK = {"xla_backend_optimization_level": 0}


def the_unit(text, network, params, **options):
    (unit,) = find_units(text, network, params, **options)
    return unit


def random_image(network, seed=0):
    image = np.random.default_rng(seed).normal(0, 60, network.image_shape)
    return image.astype(np.float32)


def whole_responses(network, params, image):
    """The responses of all layers with units to a whole image, without `Slab`."""
    responses = {IMAGE: scaled(network.preprocessing, image[None])}
    for layer in network.layers:
        read = [responses[name] for name in sources(network)[layer.name]]
        off = [
            layer.windows[0].inputs(range(layer.windows[0].outputs(n)), n)[1]
            for n in read[0].shape[1:3]
        ]
        padding = tuple(off) if read[0].ndim == 4 else ((0, 0), (0, 0))
        responses[layer.name] = layer.respond(params.get(layer.name, {}), read, padding, None)
    return {layer.name: responses[layer.name][0] for layer in unit_layers(network)}


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _whole_maps(network, params, image):
    return whole_responses(network, params, image)


def whole_maps(network, params, image):
    return {name: np.asarray(x) for name, x in _whole_maps(network, params, image).items()}


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def whole_gradient(network, layer, params, image, index):
    """The gradient of one entry of a layer's response to a whole image."""
    return jax.grad(lambda image: whole_responses(network, params, image)[layer][index])(image)


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _score(program, params, image):
    return program.score(params, image)


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _score_gradient(program, params, image):
    return jax.grad(program.score, argnums=1)(params, image)


def program(unit: Unit) -> Unit:
    """The same for all units whose slabs differ in where they lie alone: compiled once."""
    slab = replace(unit.slab, rows=range(len(unit.rows)), cols=range(len(unit.cols)))
    return replace(unit, name=UnitName("", 0, None), slab=slab, params={})


def crop(unit: Unit, image: np.ndarray) -> np.ndarray:
    """A view of the unit's part of an image."""
    return image[unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop]


def score(unit: Unit, image: np.ndarray):
    return float(_score(program(unit), unit.params, crop(unit, image)))


def score_gradient(unit: Unit, image: np.ndarray):
    return np.asarray(_score_gradient(program(unit), unit.params, crop(unit, image)))


def tolerance(scale):
    """How far two float32 computations of a response may lie apart, given the largest of its map.

    Adding n products one after another errs by about 6e-8 sqrt(n) of the sum's deviation: 1e-5
    for VGG16's fc6 with 25,088, of whose responses the largest is four deviations; so 2.5e-6, and
    twice that between two orders. At most 1e-6 was seen, and no growth with the depth.
    """
    return 5e-6 * scale


# The whole network's responses.


def sampled_units(network, count, random):
    """As many units, of all layers in turn; their rows and columns are every other time an end."""

    def position(size):
        return random.choice([0, size - 1]) if random.integers(2) else random.integers(size)

    layers = unit_layers(network)
    for index in range(count):
        layer = layers[index % len(layers)]
        place = "" if layer.places is None else "@{},{}".format(*map(position, layer.places))
        yield f"{layer.name}:{random.integers(layer.channels)}{place}"


# One of each pattern: the layers of VGG16's two declarations are the same.
PATTERNS = {network.layers: network for network in (*NETWORKS.values(), FORKED, BESIDE, RESIDUAL)}
PLAIN = {"alexnet", "alexnet-torchvision", "caffenet", "squeezenet1.1", "vgg16-caffe", "zfnet"}
PLAIN |= {"googlenet", "mobilenet_v2", "resnet18", "resnet50", "vgg16_bn", "alexnet-fashion"}
"""Nothing in their patterns that isn't in the others', but larger."""
DEEP = {"resnet34", "resnet101", "resnet152", "wide_resnet50_2"}
"""More of the same."""


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(network, marks=pytest.mark.long) if network.name in PLAIN else network
        for network in PATTERNS.values()
        if network.name not in DEEP
    ],
    ids=lambda network: network.name,
)
def test_units_respond_as_the_whole_network_does(network, random_params):
    params, image = random_params(network), random_image(network)
    maps = whole_maps(network, params, image)
    for text in sampled_units(network, 25, np.random.default_rng(0)):
        unit = the_unit(text, network, params)
        layer, channel, place = unit.name
        expected = maps[layer][(*(place or ()), channel)]
        atol = tolerance(np.abs(maps[layer]).max())
        assert abs(score(unit, image) - expected) < atol, text


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (LENET, "conv2"),
        pytest.param(ALEXNET_FASHION, "conv5", marks=pytest.mark.long),
        (FORKED, "conv3"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_at_all_places_a_units_response_is_the_whole_networks(network, layer, random_params):
    params, image = random_params(network), random_image(network)
    expected = whole_maps(network, params, image)[layer]
    rows, cols, channels = expected.shape
    # Another channel at every place, of the two groups in turn.
    chosen = np.arange(rows * cols).reshape(rows, cols) * (channels // 2 + 1) % channels
    actual = [
        score(the_unit(f"{layer}:{channel}@{row},{col}", network, params), image)
        for (row, col), channel in np.ndenumerate(chosen)
    ]
    atol = tolerance(np.abs(expected).max())
    expected = np.take_along_axis(expected, chosen[..., None], -1)[..., 0]
    np.testing.assert_allclose(actual, expected.ravel(), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("network", "texts"),
    [
        (LENET, ["conv1:7@0,23", "conv2:3@7,0", "fc4:9"]),
        (ALEXNET_FASHION, ["conv5:63@0,6", "fc8:3"]),
        (FORKED, ["conv2:5@4,3", "conv3:1@3,2", "mean:4"]),
        (BESIDE, ["both:0@0,0", "both:4@4,3", "both:6@2,0"]),
        *(
            pytest.param(network, texts, marks=pytest.mark.long)  # larger, of the same patterns
            for network, texts in (
                (ALEXNET_FASHION, ["conv2:40@13,13", "conv4:90@6,2"]),
                (ALEXNET_CONVOLUTIONS, ["conv2:40@26,0", "conv5:12", "conv5:255@0,12"]),
                (CAFFENET, ["conv3:300@12,12"]),
                (ALEXNET_TORCHVISION, ["conv4:0@0,5"]),
                (ZFNET, ["conv5:77@12,3"]),
                (VGG16, ["conv3_2:11@55,0"]),
                (SQUEEZENET, ["fire5/expand3x3:7@27,0", "pool10:999"]),
            )
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_units_gradient_is_the_whole_networks_and_zero_outside(network, texts, random_params):
    # What comes after the units' layers has no part in it.
    last = max(network.layers.index(network.layer(text.partition(":")[0])) for text in texts)
    network = replace(network, layers=network.layers[: last + 1])
    params, image = random_params(network), random_image(network)
    for text in texts:
        unit = the_unit(text, network, params)
        layer, channel, place = unit.name
        index = (*(place or ()), channel)
        whole = np.array(whole_gradient(network, layer, params, image, index))
        gradient = score_gradient(unit, image)
        assert gradient.shape == unit.shape
        # As far as the responses, and as far back again.
        atol = 2 * tolerance(np.abs(gradient).max())
        np.testing.assert_allclose(gradient, crop(unit, whole), rtol=0, atol=atol)
        crop(unit, whole)[...] = 0
        assert not whole.any()


# What of a unit: side of the nonlinearity, mean, probability.


@pytest.mark.parametrize(
    ("network", "texts"),
    [
        (ALEXNET_FASHION, "conv1:0-5@0,0,conv5:9-14,fc6:0-5"),
        (SQUEEZENET, "fire2/expand3x3:0-5@55,55"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_response_after_the_nonlinearity_is_the_positive_part(network, texts, random_params):
    params, image = random_params(network), random_image(network)
    before = find_units(texts, network, params)
    after = find_units(texts, network, params, response="post")
    responses = np.asarray([score(unit, image) for unit in before])
    assert (responses < 0).any()
    assert (responses > 0).any()
    np.testing.assert_array_equal([score(unit, image) for unit in after], responses.clip(0))
    assert {unit.settings["response"] for unit in after} == {"post"}
    assert before[0] != after[0]


@pytest.mark.parametrize(
    ("network", "text"),
    [(LENET, "conv1:0"), (LENET, "fc4:0"), (SQUEEZENET, "pool10:0"), (FORKED, "wider:1")],
    ids=lambda value: getattr(value, "name", value),
)
def test_layers_without_a_nonlinearity_have_no_response_after_it(
    network, text, random_params, refused
):
    with refused(text.partition(":")[0], network.name, "`response=pre`", kind=MismatchError):
        find_units(text, network, random_params(network), response="post")


@pytest.mark.parametrize(
    ("network", "layer"),
    [(ALEXNET_FASHION, "conv3"), (ALEXNET_CONVOLUTIONS, "conv5"), (BESIDE, "both")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_mean_unit_is_the_mean_of_the_whole_map(network, layer, random_params):
    params, image = random_params(network), random_image(network)
    whole = whole_maps(network, params, image)[layer]
    units = find_units(f"{layer}:2-4@mean", network, params)
    assert [unit.name for unit in units] == [UnitName(layer, c, "mean") for c in (2, 3, 4)]
    assert units[0].shape == network.image_shape
    actual = [score(unit, image) for unit in units]
    atol = tolerance(np.abs(whole).max())
    np.testing.assert_allclose(actual, whole.mean((0, 1))[2:5], rtol=0, atol=atol)


def test_a_mean_unit_after_the_nonlinearity_is_the_mean_of_positive_parts(random_params):
    params, image = random_params(ALEXNET_FASHION), random_image(ALEXNET_FASHION)
    whole = whole_maps(ALEXNET_FASHION, params, image)["conv3"]
    unit = the_unit("conv3:7@mean", ALEXNET_FASHION, params, response="post")
    atol = tolerance(np.abs(whole).max())
    assert abs(score(unit, image) - whole[..., 7].clip(0).mean()) < atol


@pytest.mark.parametrize(
    "network", [LENET, ALEXNET_FASHION, SQUEEZENET, FORKED], ids=lambda network: network.name
)
def test_log_probabilities_are_the_classifiers(network, random_params):
    params, image = random_params(network), random_image(network)
    count = unit_layers(network)[-1].channels
    alpha = 2 * jax.random.normal(jax.random.key(1), (count,))
    F = jax.jit(scores, static_argnums=0)(network, params, image[None])[0]
    names = f"class:0-2,class:{count - 1}"
    for offsets in (None, alpha):
        expected = jax.nn.log_softmax(F if offsets is None else F + offsets)
        units = find_units(names, network, params, alpha=offsets, target="log-prob")
        actual = [score(unit, image) for unit in units]
        atol = tolerance(np.abs(F).max() + 10)
        np.testing.assert_allclose(actual, expected[jnp.asarray([0, 1, 2, -1])], rtol=0, atol=atol)
    assert units[0].settings["target"] == "log-prob"


def test_alpha_is_no_part_of_a_class_score(random_params):
    params, image = random_params(LENET), random_image(LENET)
    alpha = jnp.arange(10.0)
    plain, with_alpha = (the_unit("fc4:3", LENET, params, alpha=a) for a in (None, alpha))
    assert score(plain, image) == score(with_alpha, image)


def test_only_classes_have_probabilities(random_params, refused):
    with refused("conv1", "lenet", "fc4", "`target=log-prob`", kind=MismatchError):
        find_units("conv1:0", LENET, random_params(LENET), target="log-prob")
    with refused("fc4", "lenet", "`response=pre`", kind=MismatchError):
        find_units("fc4:0", LENET, random_params(LENET), response="post", target="log-prob")


def test_a_response_is_before_or_after_the_nonlinearity(random_params, refused):
    with refused("'after'", "pre or post", kind=ArgumentError, argument="response"):
        find_units("conv1:0", LENET, random_params(LENET), response="after")


# Several units side by side.


def test_units_of_one_place_share_their_weights_by_identity(random_params):
    params = random_params(ALEXNET_FASHION)
    units = find_units("conv3:5,fc6:1,conv3:9,conv3:0@0,0", ALEXNET_FASHION, params)
    first, dense, second, corner = units
    for layer in ("conv1", "conv2", "conv3"):
        for key in ("kernel", "bias"):
            assert first.params[layer][key] is second.params[layer][key]
    for layer in ("conv1", "conv2"):
        for unit in units:
            assert unit.params[layer]["kernel"] is params[layer]["kernel"]
    assert list(first.params) == ["conv1", "conv2", "conv3", "unit"]
    assert first.params["conv3"]["kernel"].shape == (3, 3, 64, 2)
    assert corner.params["conv3"]["kernel"].shape == (3, 3, 64, 1)
    assert dense.params["fc6"]["kernel"].shape[1] == 1
    assert first.slab is second.slab


def test_a_vmap_over_channels_gives_every_units_score(random_params):
    # How units are sampled side by side: one program, shared weights, each chain its channel.
    params, image = random_params(ALEXNET_FASHION), random_image(ALEXNET_FASHION)
    units = find_units("conv5:3-6@0,0", ALEXNET_FASHION, params)
    channels = jnp.stack([unit.params["unit"]["channel"] for unit in units])
    rest = {name: weights for name, weights in units[0].params.items() if name != "unit"}

    x = jnp.asarray(crop(units[0], image))

    def one(channel):
        return units[0].score({**rest, "unit": {"channel": channel}}, x)

    together = jax.jit(jax.vmap(one))(channels)
    alone = [score(the_unit(str(unit), ALEXNET_FASHION, params), image) for unit in units]
    atol = tolerance(np.abs(together).max())
    np.testing.assert_allclose(together, alone, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (ALEXNET_FASHION, "conv5:0,conv5:63,conv5:31,conv5:32"),
        (ALEXNET_FASHION, "conv4:47-48@0,6"),
        (FORKED, "conv2:5@0,3,conv2:0@0,3,conv2:2-3@0,3"),
        (BESIDE, "both:5-6@4,0,both:0@4,0"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_channels_of_different_groups_are_computed_together(network, text, random_params):
    params, image = random_params(network), random_image(network)
    units = find_units(text, network, params)
    layer, _, place = units[0].name
    expected = whole_maps(network, params, image)[layer]
    for unit in units:
        atol = tolerance(np.abs(expected).max())
        assert abs(score(unit, image) - expected[(*place, unit.name.channel)]) < atol


# Places and names.


def test_a_units_image_lies_where_its_receptive_field_does(random_params):
    params = random_params(ALEXNET_CONVOLUTIONS)
    centre = the_unit("conv5:12", ALEXNET_CONVOLUTIONS, params)
    assert (centre.name.place, centre.shape) == ((6, 6), (163, 163, 3))
    assert (centre.rows, centre.cols) == (range(32, 195), range(32, 195))
    corner = the_unit("conv5:12@0,12", ALEXNET_CONVOLUTIONS, params)
    assert (corner.rows, corner.cols) == (range(0, 99), range(128, 227))


@pytest.mark.parametrize(
    ("text", "place", "shown"),
    [
        ("conv5:12", (3, 3), "conv5:12@3,3"),
        ("conv2:0", (7, 7), "conv2:0@7,7"),
        ("conv5:63@6,0", (6, 0), "conv5:63@6,0"),
        ("fc8:3", None, "fc8:3"),
    ],
)
def test_a_text_names_a_unit(text, place, shown, random_params):
    params = random_params(ALEXNET_FASHION)
    unit = the_unit(text, ALEXNET_FASHION, params)
    assert (unit.name.place, str(unit)) == (place, shown)
    assert the_unit(shown, ALEXNET_FASHION, params) == unit
    assert isinstance(unit, Scored)


def test_a_units_images_stand_where_the_networks_do(random_params):
    (unit,) = find_units("conv1:0", LENET, random_params(LENET))
    assert (unit.image_shape, unit.preprocessing) == (LENET.image_shape, LENET.preprocessing)
