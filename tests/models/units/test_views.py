import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage
from scipy.stats import ks_2samp

from ppl_cnn import Averaged, ModuleNetwork, ScoreFunction, TiltedDensity, WhiteNoise
from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.units.scored import Scored
from ppl_cnn.models.units.unit import find_units
from ppl_cnn.models.units.views import (
    SCALES,
    SHIFT,
    TURN,
    Warp,
    averaged,
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


class Small(nnx.Module):
    """Two classes of images of any size."""

    def __init__(self):
        self.conv = nnx.Conv(3, 2, (3, 3), rngs=nnx.Rngs(0))

    def __call__(self, x):
        return jnp.mean(nnx.relu(self.conv(x)), axis=(1, 2))


def units(random_params):
    """A class, a filter, a module's class and a plain function."""
    classes = find_units("class:4,conv2:3", LENET, random_params(LENET), target="logit")
    network = ModuleNetwork(Small(), (12, 12, 3))
    own = network.unit("class:1", target="soft-log-prob:3")
    response = ScoreFunction(lambda image: jnp.sum(jnp.sin(image / 20)), (5, 6, 2))
    return [*classes, own, response]


def test_the_response_is_the_mean_over_the_views(random_params):
    for unit in units(random_params):
        image = jnp.asarray(noise(*unit.shape))
        several = Averaged(unit, 3, smooth=4.0, seed=2)
        assert isinstance(several, Scored)
        assert str(several) == str(unit)
        extra = {"warps": 3, "smooth": 4.0, "views_seed": 2}
        assert several.settings == unit.settings | extra
        views = [warp_one(image, *warp) for warp in Warp.drawn(3, seed=2)]
        added = np.random.default_rng(2).standard_normal((3, *unit.shape))
        expected = [
            float(unit.score(unit.params, jnp.asarray(view + 4 * each, jnp.float32)))
            for view, each in zip(views, added, strict=True)
        ]
        actual = float(several.score(several.params, image))
        # The noise is rounded to a 2,048th of 4 grey levels.
        scale = np.abs(expected).max() + 1
        assert abs(actual - np.mean(expected)) < 2e-3 * scale
        assert abs(actual - float(unit.score(unit.params, image))) > 1e-3 * scale


def test_the_gradient_of_a_networks_mean_is_that_of_differences(random_params):
    (unit,) = find_units("class:4", LENET, random_params(LENET), target="soft-log-prob:2")
    several = Averaged(unit, 4)
    params, image = several.params, jnp.asarray(noise(*unit.shape))
    slope = jax.grad(several.score, argnums=1)(params, image)
    value = jax.jit(several.score)
    for seed in range(3):
        direction = noise(*unit.shape, seed=seed + 1) / 50
        step = 0.05 * jnp.asarray(direction)
        difference = (value(params, image + step) - value(params, image - step)) / 0.1
        expected = float(jnp.sum(slope * direction))
        # float32's rounding of the responses over the step, and the kinks of ReLUs.
        error = 0.02 * float(jnp.linalg.norm(slope)) + 1e-4
        assert abs(float(difference) - expected) < error


def test_units_side_by_side_share_their_views(random_params):
    first, second = (
        Averaged(unit, 4) for unit in find_units("class:3,class:5", LENET, random_params(LENET))
    )
    assert first.program == second.program
    assert first.program != Averaged(second.unit, 5).program
    assert first.program != Averaged(second.unit, 4, seed=1).program
    for name, array in first.params["views"].items():
        assert second.params["views"][name] is array


def test_the_views_may_be_asked_for_while_a_program_is_traced(random_params):
    (unit,) = find_units("class:3", LENET, random_params(LENET))
    several = Averaged(unit, 2, smooth=1.0, seed=77)
    image = jnp.zeros(unit.shape)
    traced = jax.jit(lambda image: several.score(several.params, image))(image)
    np.testing.assert_allclose(traced, several.score(several.params, image), rtol=1e-5)


def test_steins_identity_is_exact_for_a_linear_response():
    """f(x) = mean_k <w, W_k x>: p = N(s^2 m / T, s^2 I), m the mean of W_k^T w."""
    slope, shape = jnp.asarray(noise(6, 5, 1)) / 100, (6, 5, 1)
    unit = Averaged(ScoreFunction(lambda image: jnp.sum(slope * image), shape), 3)
    density = TiltedDensity(unit, WhiteNoise(2.0), temperature=0.5)
    rows = [
        np.mean([warp_one(basis.reshape(shape), *warp) for warp in Warp.drawn(3, 0)], axis=0)
        for basis in np.eye(30, dtype=np.float32)
    ]
    m = np.asarray([np.sum(np.asarray(slope) * row) for row in rows]).reshape(shape)
    z = jax.random.normal(jax.random.key(0), shape)
    mean = density.push(jax.grad(density.tilt)(z, unit.params))
    np.testing.assert_allclose(mean, 4 * m / 0.5, atol=1e-5)
    log_partition = 4 * np.sum(m**2) / (2 * 0.5**2)
    mode = jnp.asarray(2 * m / 0.5, jnp.float32)
    np.testing.assert_allclose(density.potential(mode), -log_partition, rtol=1e-5)


def test_no_warp_and_one_are_the_image_itself():
    response = ScoreFunction(jnp.sum, (2, 2, 1))
    assert averaged(response, 0) is averaged(response, 1) is response
    assert averaged(response, 2, 3.0) == Averaged(response, 2, 3.0)


def test_views_that_cannot_be_are_refused(refused):
    response = ScoreFunction(jnp.sum, (2, 2, 1))
    with refused("at least 2", "1", kind=ArgumentError, argument="warps"):
        Averaged(response, 1)
    with refused("at least 0", "-1", kind=ArgumentError, argument="warps"):
        averaged(response, -1)
    with refused("`warps=2`", "`smooth=3`", kind=ArgumentError, argument="smooth"):
        averaged(response, 1, 3.0)
    for sigma in (-1.0, float("nan"), float("inf")):
        with refused(sigma, "at least 0", kind=ArgumentError, argument="smooth"):
            averaged(response, 2, sigma)


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


def test_glimpses_average_to_the_response_over_many_warps():
    unit = ScoreFunction(
        lambda image: jnp.sum(image * jnp.arange(75.0).reshape(5, 5, 3)) / 75, (5, 5, 3)
    )
    view, image = Averaged(unit, 4_000, smooth=3.0), jnp.asarray(noise(5, 5, 3))
    keys = jax.random.split(jax.random.key(7), 4_000)
    seen = jax.vmap(lambda key: view.glimpse(view.params, image, key))(keys)
    # Two independent means of as many views; the one's spread is the other's.
    error = np.sqrt(2 * np.var(seen) / len(seen))
    assert abs(float(seen.mean() - view.score(view.params, image))) < 4 * error
