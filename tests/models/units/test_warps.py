import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import ks_2samp

from ppl_cnn.models.units.warps import (
    SCALES,
    SHIFT,
    TURN,
    Warp,
    taps_of,
    traced_warp,
    warped,
    warped_by,
)


def warp_one(image, angle=0.0, scale=1.0, shift=(0.0, 0.0), mirrored=False):
    image = jnp.asarray(image, jnp.float32)
    taps = taps_of([Warp(angle, scale, shift, mirrored)], *image.shape[:2])
    return np.asarray(warped(image, taps)[0])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 50, shape).astype(np.float32)


def test_the_identity_leaves_the_image_as_it_is():
    image = noise(7, 4, 3)
    np.testing.assert_array_equal(warp_one(image), image)


@pytest.mark.parametrize("cols", [4, 5])
def test_a_mirrored_image_is_exact(cols):
    image = noise(6, cols, 3)
    np.testing.assert_array_equal(warp_one(image, mirrored=True), image[:, ::-1])
    turned = warp_one(image, angle=180.0, mirrored=True)
    np.testing.assert_array_equal(turned, image[::-1])


@pytest.mark.parametrize("size", [6, 7])
def test_a_quarter_turn_is_exact(size):
    image = noise(size, size, 3)
    np.testing.assert_array_equal(warp_one(image, angle=90.0), np.rot90(image, -1))
    np.testing.assert_array_equal(warp_one(image, angle=-180.0), np.rot90(image, 2))


def test_a_shift_by_whole_pixels_reflects_at_the_border():
    image = noise(8, 4, 2)
    shifted = warp_one(image, shift=(3 / 8, -1 / 4))
    padded = np.pad(image, ((3, 0), (0, 1), (0, 0)), "symmetric")
    np.testing.assert_array_equal(shifted, padded[:8, 1:])


def test_a_magnification_by_two_halves_the_coordinates():
    image = np.arange(9.0)[None, :, None] * np.ones((9, 1, 1))
    magnified = warp_one(image, scale=2.0)
    np.testing.assert_allclose(magnified[4, :, 0], 4 + (np.arange(9) - 4) / 2)


@pytest.mark.parametrize("shape", [(19, 24, 3), (5, 5, 1), (1, 3, 2)])
def test_warps_are_scipys(shape):
    image = noise(*shape)
    for angle, scale, shift, mirrored in Warp.drawn(6, seed=4):
        first = image[:, ::-1] if mirrored else image
        turn = math.radians(angle)
        A = np.asarray([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        A /= scale
        centre = (np.asarray(shape[:2]) - 1) / 2
        offset = centre - A @ (centre + np.asarray(shift) * shape[:2])
        expected = np.stack(
            [
                ndimage.affine_transform(
                    channel.astype(np.float64), A, offset, order=1, mode="reflect"
                )
                for channel in np.moveaxis(first, 2, 0)
            ],
            axis=-1,
        )
        # Coordinates are rounded to 1e-6 of the image's size.
        seen = warp_one(image, angle, scale, shift, mirrored)
        np.testing.assert_allclose(seen, expected, atol=5e-3)


def test_the_gradient_is_the_transposed_map():
    """Against autodiff's own scatter, and so against the definition."""
    image, taps = jnp.asarray(noise(9, 12, 3)), taps_of(Warp.drawn(5, 0), 9, 12)
    weights = jnp.asarray(noise(5, 9, 12, 3, seed=1))

    def plain(image):
        pixels = image.reshape(-1, 3)[taps["from"]]
        views = jnp.sum(pixels * taps["weight"][..., None], axis=1)
        return jnp.sum(weights * views.reshape(weights.shape))

    def ours(image):
        return jnp.sum(weights * warped(image, taps))

    np.testing.assert_allclose(ours(image), plain(image), rtol=1e-4)
    expected = jax.grad(plain)(image)
    np.testing.assert_allclose(jax.grad(ours)(image), expected, atol=1e-4 * np.abs(expected).max())
    # In a loop, over a batch and compiled, as samplers have it.
    batch = jnp.stack([image, 2 * image])
    looped = jax.jit(
        lambda x: jax.lax.fori_loop(0, 1, lambda _, x: jax.vmap(jax.grad(ours))(x), x)
    )(batch)
    for each in looped:
        np.testing.assert_allclose(each, expected, atol=1e-4 * np.abs(expected).max())


def test_the_second_derivative_of_a_function_of_warps_is_that_of_autodiff():
    """In forward mode over reverse mode, and mapped over images."""
    taps = taps_of(Warp.drawn(2, 0), 3, 4)
    images = jnp.asarray(noise(2, 3, 4, 2)) / 50

    def height(views):
        return jnp.sum(jnp.sin(views))

    def plain(image):
        pixels = image.reshape(-1, 2)[taps["from"]]
        return height(jnp.sum(pixels * taps["weight"][..., None], axis=1))

    def ours(image):
        return height(warped(image, taps))

    actual, expected = (jax.jit(jax.vmap(jax.hessian(f)))(images) for f in (ours, plain))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_the_same_seed_gives_the_same_warps_on_all_machines():
    """Written down where Python 3.13 had made them."""
    warps = Warp.drawn(2, seed=0)
    assert Warp.drawn(5, seed=0)[:2] == warps
    assert Warp.drawn(2, seed=1) != warps
    np.testing.assert_allclose(warps[0].angle, (2 * 0.8444218515250481 - 1) * TURN, rtol=1e-9)
    np.testing.assert_allclose(
        warps[0].scale, SCALES[0] * (SCALES[1] / SCALES[0]) ** 0.7579544029403025, rtol=1e-9
    )
    expected = np.asarray([0.420571580830845, 0.25891675029296335]) * 2 * SHIFT - SHIFT
    np.testing.assert_allclose(warps[0].shift, expected, rtol=1e-9)


def test_drawn_warps_fill_their_ranges():
    warps = Warp.drawn(2000, seed=3)
    for values, (least, largest) in (
        ([warp.angle for warp in warps], (-TURN, TURN)),
        ([math.log(warp.scale) for warp in warps], tuple(map(math.log, SCALES))),
        ([warp.shift[0] for warp in warps], (-SHIFT, SHIFT)),
        ([warp.shift[1] for warp in warps], (-SHIFT, SHIFT)),
    ):
        uniform = (np.asarray(values) - least) / (largest - least)
        assert uniform.min() > 0
        assert uniform.max() < 1
        # The mean of n uniforms has the standard error 0.29/sqrt(n).
        assert abs(uniform.mean() - 0.5) < 5 * 0.29 / 2000**0.5


@pytest.mark.parametrize("shape", [(19, 24, 3), (5, 5, 1)])
def test_a_warp_of_traced_numbers_is_that_of_taps(shape):
    image = noise(*shape)
    by = jax.jit(lambda *numbers: warped_by(jnp.asarray(image), *numbers))
    for warp in Warp.drawn(6, seed=4):
        # Taps are rounded to 2^-20, and pixels differ by some 100 grey levels.
        np.testing.assert_allclose(by(*warp), warp_one(image, *warp), atol=0.02)


def test_traced_warps_are_distributed_as_the_fixed_ones():
    keys = jax.random.split(jax.random.key(5), 4_000)
    angle, scale, shift, mirrored = jax.vmap(traced_warp)(keys)
    fixed = Warp.drawn(4_000, seed=6)
    for traced, drawn in (
        (angle, [warp.angle for warp in fixed]),
        (scale, [warp.scale for warp in fixed]),
        (shift[0], [warp.shift[0] for warp in fixed]),
        (shift[1], [warp.shift[1] for warp in fixed]),
    ):
        assert ks_2samp(np.asarray(traced), drawn).pvalue > 1e-3
    assert sum(warp.mirrored for warp in fixed) == 2_000
    assert abs(int(mirrored.sum()) - 2_000) < 4 * math.sqrt(1_000)
