import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.models.generators.generator_folder import open_generator, rounded, save_generator
from ppl_cnn.models.generators.layers import depth_to_space, space_to_depth
from ppl_cnn.models.generators.loading import load_generator
from ppl_cnn.models.generators.refined_flow import RefinedFlow, encode, encoder_weights

SIZES = RefinedFlow(
    image_shape=(8, 12, 1), latent=4, noise=2, hidden=(6, 5), couplings=2, coupling_width=5,
    channels=(8, 4),
)  # fmt: skip


def weights(sizes=SIZES, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        **sizes.flow.weights(keys[0]),
        **sizes.decoder_weights(keys[1]),
        **sizes.refiner_weights(keys[2]),
    }


@pytest.mark.long
def test_pixels_of_any_leading_axes_lie_in_0_to_255():
    params = weights()
    z = 3 * jax.random.normal(jax.random.key(1), (2, 3, 6))
    images = SIZES.apply(params, z)
    assert images.shape == (2, 3, 8, 12, 1)
    assert images.min() >= 0
    assert images.max() <= 255
    np.testing.assert_allclose(images[1, 2], SIZES.apply(params, z[1, 2]), atol=1e-3)


def test_at_first_the_refiner_adds_next_to_nothing_but_its_noise():
    params = weights()
    u, silent = jax.random.normal(jax.random.key(2), (3, 4)), jnp.zeros((3, 2))
    smooth = jax.nn.sigmoid(SIZES.smooth(params, u))
    np.testing.assert_allclose(SIZES.refined(params, u, silent), smooth, atol=0.05)


def test_a_large_image_is_decoded_at_a_part_of_its_size():
    sizes = RefinedFlow(image_shape=(64, 64, 3), hidden=(8, 8), channels=(8, 4))
    assert sizes.coarse_shape == (32, 32, 3)
    image = sizes.apply(weights(sizes), jnp.zeros(64))
    assert image.shape == (64, 64, 3)


def test_the_encoder_gives_a_mean_and_a_log_variance():
    images = jnp.full((3, 8, 12, 1), 0.5)
    mean, log_variance = encode(SIZES, encoder_weights(SIZES, jax.random.key(0)), images)
    assert mean.shape == log_variance.shape == (3, 4)


def test_blocks_become_channels_and_back():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    folded = space_to_depth(x, 2)
    assert folded.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(folded[0, 0, 0, :3], x[0, 0, 0])
    np.testing.assert_array_equal(folded[0, 0, 0, 9:], x[0, 1, 1])
    np.testing.assert_array_equal(depth_to_space(folded, 2), x)


def test_rows_that_4_does_not_divide_are_refused(refused):
    with refused("rows", argument="size"):
        RefinedFlow(image_shape=(30, 28, 1))


@pytest.fixture
def folder(tmp_path):
    save_generator(tmp_path, SIZES, weights(), {"data": "toy", "judge": "lenet"})
    return tmp_path


def test_a_saved_generator_gives_the_same_images(folder):
    opened = load_generator(str(folder))
    z = jax.random.normal(jax.random.key(3), (2, 6))
    np.testing.assert_array_equal(opened(z), SIZES.apply(rounded(weights()), z))
    np.testing.assert_allclose(opened(z), SIZES.apply(weights(), z), atol=1)
    assert (opened.latent_shape, opened.image_shape) == ((6,), (8, 12, 1))
    assert opened.training == {"data": "toy"}


def test_generators_are_equal_if_their_weights_are(folder, tmp_path):
    one, same = open_generator(folder, "a"), open_generator(folder, "b")
    assert one == same
    assert hash(one) == hash(same)
    save_generator(folder, SIZES, weights(seed=1), {})
    assert one != open_generator(folder, "a")


def test_what_is_no_generator_is_refused(folder, tmp_path, refused):
    with refused("clothing", known=("fashion",)):
        load_generator("clothing")
    with refused("vgan", "dcgan64"):
        load_generator("faces.pth@vgan")
    (folder / "generator.json").write_text("[]")
    with refused("generator.json", path=folder / "generator.json"):
        load_generator(str(folder))
    (folder / "generator.json").write_text('{"architecture": "other"}')
    with refused("generator.json", "other", path=folder / "generator.json"):
        load_generator(str(folder))
    save_generator(folder, SIZES, weights(), {})
    other = RefinedFlow(image_shape=(8, 8, 1), hidden=(6, 5))
    text = (folder / "generator.json").read_text()
    save_generator(folder, other, weights(other), {})
    (folder / "generator.json").write_text(text)
    with refused("decoder.0.weight", "shape"):
        load_generator(str(folder))


def test_a_run_that_has_not_ended_is_said_to_be_one(tmp_path, refused):
    (tmp_path / "run.json").write_text("{}")
    with refused("hasn't ended", path=tmp_path):
        load_generator(str(tmp_path))
