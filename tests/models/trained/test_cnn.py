from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.catalogue import ALEXNET, LENET, SQUEEZENET
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.layers import Dense
from ppl_cnn.models.trained.cnn import CNN, preprocess
from ppl_cnn.models.trained.network import TrainedNetwork
from ppl_cnn.models.units.activity import activity
from ppl_cnn.models.units.listing import unit_layers

GREY = Preprocessing(mean=(50.0,), scale=(0.1,), order="grey")
BGR = Preprocessing(mean=(10.0, 20.0, 30.0), scale=(1.0, 1.0, 1.0), order="BGR")
RGB = replace(BGR, order="RGB")


def photographs(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def tiny(preprocessing: Preprocessing, channels: int) -> Network:
    return Network("tiny", (2, 3, channels), preprocessing, layers=(Dense("fc", 4),))


def test_scores_are_the_networks_and_weights_its_parameters(random_params):
    params = random_params(LENET)
    cnn = CNN(LENET, params)
    x = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
    np.testing.assert_array_equal(cnn(x), scores(LENET, params, x))
    assert jax.tree.structure(cnn.arrays()) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, cnn.arrays(), params))


def test_it_is_a_trained_network_with_its_declarations_units_and_images():
    cnn = CNN.random(LENET)
    assert isinstance(cnn, TrainedNetwork)
    assert (cnn.name, cnn.image_shape) == (LENET.name, LENET.image_shape)
    assert cnn.preprocessing == LENET.preprocessing
    assert cnn.unit_layers() == unit_layers(LENET)


def test_activity_is_of_its_own_weights(random_params):
    cnn = CNN(LENET, random_params(LENET))
    x = jax.random.normal(jax.random.key(0), (3, 28, 28, 1))
    found = cnn.activity([x[:2], x[2:]])
    expected = activity(LENET, cnn.arrays(), [x])
    assert found.keys() == expected.keys() == {"fc3"}
    for name, share in expected.items():
        np.testing.assert_array_equal(found[name], share)


def test_its_weights_are_trainable_and_its_alpha_is_not():
    state = nnx.state(CNN.random(LENET), nnx.Param)
    assert set(state["params"]) == {"conv1", "conv2", "fc3", "fc4"}
    assert "alpha" not in state


def test_random_weights_follow_the_seed():
    kernels = [CNN.random(LENET, seed).arrays()["conv1"]["kernel"] for seed in (0, 0, 1)]
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_logits_are_the_scores_of_scaled_centred_pixels_plus_alpha(random_params):
    network = tiny(GREY, 1)
    params = random_params(network)
    alpha = jnp.asarray([0.0, 1.0, -2.0, 3.0])
    pixels = photographs(5, 2, 3, 1)
    x = (pixels.reshape(5, 6) - 50.0) * 0.1
    expected = x @ np.asarray(params["fc"]["kernel"]) + np.asarray(params["fc"]["bias"] + alpha)
    logits = CNN(network, params, alpha).logits(pixels)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())  # float32
    without = CNN(network, params).logits(pixels)
    np.testing.assert_allclose(logits - without, np.tile(alpha, (5, 1)), atol=1e-4)


def test_each_channel_has_its_own_mean_and_scale(random_params):
    network = tiny(replace(RGB, scale=(1.0, 0.5, 0.1)), 3)
    params = random_params(network)
    pixels = photographs(5, 2, 3, 3)
    x = (pixels - np.asarray([10, 20, 30])) * np.asarray([1, 0.5, 0.1])
    expected = x.reshape(5, 18) @ np.asarray(params["fc"]["kernel"])
    expected += np.asarray(params["fc"]["bias"])
    actual = CNN(network, params).logits(pixels)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())  # float32


def test_grey_pixels_for_a_grey_network_lose_the_mean_alone():
    pixels = photographs(2, 2, 3, 1)
    np.testing.assert_array_equal(preprocess(pixels, GREY, (2, 3, 1)), pixels - np.float32(50))


def test_colours_become_luma_for_a_grey_network():
    pixels = photographs(2, 2, 3, 3)
    luma = 0.299 * pixels[..., 0] + 0.587 * pixels[..., 1] + 0.114 * pixels[..., 2] - 50
    actual = preprocess(pixels, GREY, (2, 3, 1))
    np.testing.assert_allclose(actual, luma[..., None], atol=1e-4)  # float32 below 256


def test_grey_becomes_three_equal_colours():
    pixels = photographs(2, 2, 3, 1)
    expected = np.repeat(pixels, 3, -1) - np.asarray([10, 20, 30], np.float32)
    np.testing.assert_array_equal(preprocess(pixels, RGB, (2, 3, 3)), expected)
    np.testing.assert_array_equal(preprocess(pixels, BGR, (2, 3, 3)), expected)


def test_colours_are_put_in_the_networks_order():
    pixels = photographs(2, 2, 3, 3)
    mean = np.asarray([10, 20, 30], np.float32)
    np.testing.assert_array_equal(preprocess(pixels, RGB, (2, 3, 3)), pixels - mean)
    np.testing.assert_array_equal(preprocess(pixels, BGR, (2, 3, 3)), pixels[..., ::-1] - mean)


@pytest.mark.parametrize("size", [(8, 6), (6, 8), (20, 9), (9, 33), (3, 4), (4, 3), (1, 1)])
def test_any_size_is_scaled_and_cropped_to_the_networks(size):
    x = preprocess(np.full((1, *size, 3), 200, np.uint8), RGB, (4, 6, 3))
    np.testing.assert_allclose(x, np.full((1, 4, 6, 3), [190.0, 180.0, 170.0]), atol=1e-3)


def test_the_centre_is_what_is_cropped():
    pixels = np.zeros((1, 8, 24, 1), np.uint8)
    pixels[:, :, 8:16] = 200  # a third, around the middle column
    x = preprocess(pixels, GREY, (4, 4, 1))
    np.testing.assert_allclose(np.asarray(x)[0, :, 1:3, 0], 150, atol=1e-3)  # off the edges
    left = preprocess(pixels[:, :, ::-1], GREY, (4, 4, 1))
    np.testing.assert_allclose(x, left, atol=1e-3)  # symmetric


def test_a_short_side_is_scaled_to_its_length_before_the_centre_is_cropped():
    # A bright frame of a sixteenth on either side, which a crop of 4 of 8 leaves out.
    pixels = np.full((1, 32, 64, 1), 250, np.uint8)
    pixels[:, 2:-2, 4:-4] = 100
    network = replace(GREY, short_side=8)
    np.testing.assert_allclose(preprocess(pixels, network, (4, 4, 1)), 50, atol=1e-3)
    # And no crop at all is left where the short side is the image's own.
    whole = preprocess(pixels, replace(GREY, short_side=4), (4, 8, 1))
    np.testing.assert_array_equal(whole, preprocess(pixels, GREY, (4, 8, 1)))
    assert np.asarray(whole).max() > 60


def test_photographs_of_the_networks_size_are_not_scaled():
    pixels = photographs(1, 4, 4, 1)
    x = preprocess(pixels, replace(GREY, short_side=8), (4, 4, 1))
    np.testing.assert_array_equal(x, pixels - np.float32(50))


def test_halving_the_size_averages_smoothly():
    ramp = np.broadcast_to(
        np.arange(0, 160, 10, dtype=np.uint8)[None, None, :, None], (1, 16, 16, 1)
    )
    x = preprocess(ramp, GREY, (8, 8, 1))
    middles = np.arange(5, 160, 20) - 50  # between pairs of pixels
    np.testing.assert_allclose(np.asarray(x)[0, 4, 1:-1, 0], middles[1:-1], atol=1e-3)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 28, 28, 1), np.float32),
        np.zeros((1, 28, 28, 1), np.int64),
        np.zeros((28, 28, 1), np.uint8),
        np.zeros((28, 28), np.uint8),
        np.zeros((1, 28, 28, 4), np.uint8),
        np.zeros((1, 28, 28, 2), np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype}{pixels.shape}",
)
def test_what_is_no_photograph_is_refused(pixels, refused):
    words = ("uint8", pixels.shape, pixels.dtype)
    with refused(*words, kind=ArgumentError, argument="pixels"):
        CNN.random(LENET).logits(pixels)


def test_unit_names_a_unit_with_these_weights(random_params):
    params = random_params(LENET)
    unit = CNN(LENET, params).unit("conv2:7@0,1")
    assert str(unit) == "conv2:7@0,1"
    np.testing.assert_array_equal(unit.params["conv1"]["kernel"], params["conv1"]["kernel"])


def test_units_are_named_by_these_classes_and_their_probabilities_hold_alpha(random_params):
    params, alpha = random_params(LENET), np.linspace(-1, 1, 10, dtype=np.float32)
    cnn = CNN(LENET, params, alpha, classes=tuple("abcdefghij"))
    image = jax.random.normal(jax.random.key(0), (28, 28, 1))
    expected = jax.nn.log_softmax(cnn(image[None])[0] + alpha)
    units = cnn.units("class:c,class:7", target="log-prob")
    assert [str(unit) for unit in units] == ["fc4:2", "fc4:7"]
    actual = [unit.score(unit.params, image) for unit in units]
    np.testing.assert_allclose(actual, expected[np.asarray([2, 7])], atol=1e-5)  # float32


def test_unit_wants_exactly_one(refused):
    with refused("'conv1:0-2'", "3 units", kind=ArgumentError):
        CNN.random(LENET).unit("conv1:0-2")


@pytest.mark.long
def test_a_network_without_dense_layers_takes_images_of_another_size():
    """Against its declaration with that size, of the same weights."""
    cnn = CNN.random(SQUEEZENET)
    small = cnn.resized(64)
    shape = (64, 64, 3)
    assert small.declaration.image_shape == shape
    x = 40 * jax.random.normal(jax.random.key(0), (1, *shape))
    declared = replace(SQUEEZENET, image_shape=shape)
    expected = jax.jit(partial(scores, declared))(cnn.arrays(), x)
    np.testing.assert_array_equal(small(x), expected)
    assert cnn.resized(227) is cnn
    unit = small.unit("class:3")
    assert unit.settings["size"] == 64
    assert unit.image_shape == shape
    assert "size" not in cnn.unit("class:3").settings


def test_photographs_of_a_resized_network_show_as_much():
    network = replace(SQUEEZENET, preprocessing=replace(SQUEEZENET.preprocessing, short_side=256))
    small = CNN.random(network).resized(64)
    assert small.declaration.preprocessing.short_side == round(256 * 64 / 227)


@pytest.mark.parametrize("network", [LENET, ALEXNET], ids=lambda network: network.name)
def test_weights_of_one_size_are_refused_another(network, refused):
    words = (network.name, network.image_shape[0], "`size`", "squeezenet1.1")
    with refused(*words, kind=ArgumentError, argument="size"):
        CNN.random(network).resized(128)
    assert CNN.random(network).resized(network.image_shape[0]).declaration == network


@pytest.mark.parametrize("side", [0, -5, 1, 8])
def test_images_that_leave_nothing_for_a_layer_are_refused(side, refused):
    words = ("too small", f"{side}x{side}", "squeezenet1.1")
    with refused(*words, kind=ArgumentError, argument="size"):
        CNN.random(SQUEEZENET).resized(side)
