from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.models.layers import Conv, Dense
from ppl_cnn.models.network import Slab, positions, scaled, shapes
from ppl_cnn.models.networks import ALEXNET, ALEXNET_FASHION, IMAGE, LENET, Preprocessing
from ppl_cnn.models.unit_names import UnitName
from ppl_cnn.models.units import Response, Scored, Unit, find_units, unit_layers

# Up to its last convolution, which spares the 58 million weights of the dense layers.
ALEXNET_CONVOLUTIONS = replace(ALEXNET, layers=ALEXNET.layers[:13])

# Hundreds of slabs are compiled here and run once: a compilation without LLVM's optimizations
# takes a fourth of the time.
QUICK = {"xla_backend_optimization_level": 0}


def the_unit(text, network, params):
    (unit,) = find_units(text, network, params)
    return unit


def random_image(network, seed=0):
    image = np.random.default_rng(seed).normal(0, 60, network.image_shape)
    return image.astype(np.float32)


@partial(jax.jit, static_argnums=0)
def whole_maps(network, params, image):
    """The responses of all convolutions and dense layers to a whole image."""
    responses, maps = {IMAGE: scaled(network.preprocessing, image[None])}, {}
    last = network.layers[-1].name
    for layer, readings, padding, _ in Slab.of(
        network, last, *positions(shapes(network)[last])
    ).steps:
        read = jnp.concatenate([part.of(responses[part.name]) for part in readings], axis=-1)
        x = responses[layer.name] = layer.apply(params.get(layer.name, {}), read, padding, None)
        if isinstance(layer, Conv | Dense):
            maps[layer.name] = x[0]
    return maps


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def whole_gradient(network, layer, params, image, index):
    """The gradient of one entry of a layer's response to a whole image."""
    return jax.grad(lambda image: whole_maps(network, params, image)[layer][index])(image)


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _score(program, params, image):
    return program.score(params, image)


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _score_gradient(program, params, image):
    return jax.grad(program.score, argnums=1)(params, image)


def program(unit: Unit) -> Unit:
    """The same for all units whose slabs differ in where they lie alone: compiled once."""
    slab = replace(unit.slab, rows=range(len(unit.rows)), cols=range(len(unit.cols)))
    name = UnitName("", 0, None)
    return replace(unit, name=name, slab=slab, params={})


def crop(unit: Unit, image: np.ndarray) -> np.ndarray:
    """A view of the unit's part of an image."""
    return image[unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop]


def score(unit: Unit, image: np.ndarray):
    return float(_score(program(unit), unit.params, crop(unit, image)))


def score_gradient(unit: Unit, image: np.ndarray):
    return np.asarray(_score_gradient(program(unit), unit.params, crop(unit, image)))


@pytest.mark.parametrize(
    ("network", "layer"),
    [(LENET, "conv1"), (LENET, "conv2")]
    + [(ALEXNET_FASHION, f"conv{index}") for index in range(1, 6)],
    ids=lambda value: getattr(value, "name", value),
)
def test_at_all_places_a_units_response_is_the_whole_networks(network, layer, random_params):
    params, image = random_params(network), random_image(network)
    expected = np.asarray(whole_maps(network, params, image)[layer])
    rows, cols, channels = expected.shape
    # Another channel at every place, of the two groups in turn.
    chosen = np.arange(rows * cols).reshape(rows, cols) * (channels // 2 + 1) % channels
    units = [
        the_unit(f"{layer}:{channel}@{row},{col}", network, params)
        for (row, col), channel in np.ndenumerate(chosen)
    ]
    actual = [score(unit, image) for unit in units]
    expected = np.take_along_axis(expected, chosen[..., None], -1)[..., 0]
    # The same sums in another order, in float32: a few 1e-7 of the map's scale per layer.
    atol = 5e-6 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected.ravel(), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("network", "layer", "step"),
    [
        (LENET, "fc3", 71),
        (LENET, "fc4", 1),
        (ALEXNET_FASHION, "fc6", 37),
        (ALEXNET_FASHION, "fc7", 37),
        (ALEXNET_FASHION, "fc8", 1),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_dense_units_response_is_the_whole_networks(network, layer, step, random_params):
    params, image = random_params(network), random_image(network)
    expected = np.asarray(whole_maps(network, params, image)[layer])
    actual = [
        score(the_unit(f"{layer}:{channel}", network, params), image)
        for channel in range(0, len(expected), step)
    ]
    atol = 5e-6 * np.abs(expected).max()  # as above
    np.testing.assert_allclose(actual, expected[::step], rtol=0, atol=atol)


ALEXNET_PLACES = [
    *("conv1:95@0,0", "conv1:3@54,54", "conv2:0@0,0", "conv2:200@13,26", "conv3:7@12,0"),
    *("conv4:300@0,6", "conv4:5@6,6", "conv5:12@0,0", "conv5:12@0,12", "conv5:200@12,0"),
    *("conv5:200@12,12", "conv5:0@0,6", "conv5:130@6,0", "conv5:255@12,5", "conv5:12@6,6"),
]


@pytest.mark.parametrize("text", ALEXNET_PLACES)
def test_alexnets_units_respond_as_the_whole_network_does(text, random_params):
    network = ALEXNET_CONVOLUTIONS
    params, image = random_params(network), random_image(network)
    unit = the_unit(text, network, params)
    expected = np.asarray(whole_maps(network, params, image)[unit.name.layer])
    # Sums of up to 2,400 terms in five layers, with normalizations: 1e-5 of the map's scale.
    atol = 1e-5 * np.abs(expected).max()
    assert abs(score(unit, image) - expected[(*unit.name.place, unit.name.channel)]) < atol


@pytest.mark.parametrize(
    ("network", "texts"),
    [
        (LENET, ["conv1:7@0,23", "conv2:3@7,0", "fc4:9"]),
        (ALEXNET_FASHION, ["conv1:31@0,0", "conv2:40@13,13", "conv3:5@0,3", "conv4:90@6,2"]),
        (ALEXNET_FASHION, ["conv5:12", "conv5:63@0,6", "conv5:0@6,1", "fc8:3"]),
        (ALEXNET_CONVOLUTIONS, ["conv2:40@26,0", "conv5:12", "conv5:255@0,12"]),
    ],
    ids=["lenet", "fashion", "fashion-top", "alexnet"],
)
def test_a_units_gradient_is_the_whole_networks_and_zero_outside(network, texts, random_params):
    params, image = random_params(network), random_image(network)
    for text in texts:
        unit = the_unit(text, network, params)
        index = (*(unit.name.place or ()), unit.name.channel)
        whole = np.array(whole_gradient(network, unit.name.layer, params, image, index))
        gradient = score_gradient(unit, image)
        assert gradient.shape == unit.shape
        # As for the responses, twice as many layers.
        atol = 2e-5 * np.abs(gradient).max()
        np.testing.assert_allclose(gradient, crop(unit, whole), rtol=0, atol=atol)
        crop(unit, whole)[...] = 0
        assert not whole.any()


def test_alexnets_receptive_fields_are_those_of_its_windows():
    fields = {layer.name: layer for layer in unit_layers(ALEXNET)}
    assert [fields[f"conv{index}"].receptive_field[0] for index in range(1, 6)] == [
        *(11, 51, 99, 131, 163)
    ]
    assert [fields[f"conv{index}"].stride for index in range(1, 6)] == [4, 8, 16, 16, 16]
    assert fields["conv5"].image == (163, 163)
    assert fields["conv5"].places == (13, 13)
    assert fields["fc8"] == ("fc8", 1000, None, None, (227, 227), (227, 227))


def test_lenets_receptive_fields_are_those_of_its_windows():
    fields = {layer.name: layer for layer in unit_layers(LENET)}
    assert list(fields) == ["conv1", "conv2", "fc3", "fc4"]
    assert fields["conv1"] == ("conv1", 20, (24, 24), 1, (5, 5), (5, 5))
    assert fields["conv2"] == ("conv2", 50, (8, 8), 2, (14, 14), (14, 14))


def test_a_units_image_lies_where_its_receptive_field_does(random_params):
    params = random_params(ALEXNET_CONVOLUTIONS)
    centre = the_unit("conv5:12", ALEXNET_CONVOLUTIONS, params)
    assert (centre.name.place, centre.shape) == ((6, 6), (163, 163, 3))
    assert (centre.rows, centre.cols) == (range(32, 195), range(32, 195))
    corner = the_unit("conv5:12@0,12", ALEXNET_CONVOLUTIONS, params)
    assert (corner.rows, corner.cols) == (range(0, 99), range(128, 227))


def test_a_unit_holds_no_weights_but_those_it_needs(random_params):
    params = random_params(ALEXNET_FASHION)
    unit = the_unit("conv3:5", ALEXNET_FASHION, params)
    assert list(unit.params) == ["conv1", "conv2", "conv3"]
    assert unit.params["conv3"]["kernel"].shape == (3, 3, 64, 1)
    assert unit.params["conv1"] is params["conv1"]


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


@pytest.mark.parametrize(
    "text",
    [
        *("", "conv5", "conv5:", ":3", "conv5:-1", "conv5:1.5", "conv5:one", "conv5: 1"),
        *("conv5:1@3", "conv5:1@3,", "conv5:1@-1,0", "conv5:1@0,0,0", "conv5:1@", "conv5:1@0;0"),
        *("conv5:1\n", "conv5:\N{ARABIC-INDIC DIGIT ONE}", "conv5:1234567890123", "conv 5:1"),
    ],
)
def test_malformed_units_are_refused(text, random_params, refused):
    with refused("is no unit", "layer:channel@row,col"):
        the_unit(text, LENET, random_params(LENET))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("conv9:0", ["'conv9'", "conv1, conv2, conv3"]),
        ("relu1:0", ["'relu1'", "conv1, conv2, conv3"]),
        ("conv5:64", ["conv5", "0 to 63", "64"]),
        ("fc8:10", ["fc8", "0 to 9", "10"]),
        ("conv5:0@7,0", ["conv5", "6,6", "7,0"]),
        ("conv5:0@0,7", ["conv5", "6,6", "0,7"]),
        ("fc8:0@0,0", ["fc8", "dense", "leave out"]),
    ],
)
def test_units_that_are_not_there_are_refused(text, words, random_params, refused):
    with refused(*words):
        the_unit(text, ALEXNET_FASHION, random_params(ALEXNET_FASHION))


def brightness(image):
    return jnp.mean(image)


def test_a_response_stands_in_for_a_unit():
    response = Response(brightness, (2, 3, 1))
    assert isinstance(response, Scored)
    assert (str(response), response.shape, response.params) == ("brightness", (2, 3, 1), {})
    assert (response.rows, response.cols) == (range(2), range(3))
    assert response.score({}, jnp.full((2, 3, 1), 4.0)) == 4
    assert (response.image_shape, response.preprocessing.mean) == ((2, 3, 1), (0.0,))


def test_a_responses_images_stand_where_it_says():
    response = Response(brightness, (2, 3, 3), mean=(104.0, 117.0, 123.0), order="BGR")
    assert response.preprocessing == Preprocessing((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), "BGR")


def test_a_units_images_stand_where_the_networks_do(random_params):
    (unit,) = find_units("conv1:0", LENET, random_params(LENET))
    assert (unit.image_shape, unit.preprocessing) == (LENET.image_shape, LENET.preprocessing)


def test_means_and_orders_that_do_not_fit_are_refused(refused):
    with refused("mean", "3 channels", "(1.0, 2.0)"):
        Response(brightness, (2, 3, 3), mean=(1.0, 2.0))
    with refused("RGB or BGR", "'grey'"):
        Response(brightness, (2, 3, 3), order="grey")


def test_a_response_without_a_name_is_shown_by_its_class():
    assert str(Response(partial(brightness), (2, 3, 1))) == "partial"
