import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ppl_cnn import Averaged, ModuleNetwork, ScoreFunction, TiltedDensity, WhiteNoise
from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.units.score_function import Scored
from ppl_cnn.models.units.unit import find_units
from ppl_cnn.models.units.views import averaged
from ppl_cnn.models.units.warps import (
    Warp,
    taps_of,
    warped,
)


def warp_one(image, angle=0.0, scale=1.0, shift=(0.0, 0.0), mirrored=False):
    image = jnp.asarray(image, jnp.float32)
    taps = taps_of([Warp(angle, scale, shift, mirrored)], *image.shape[:2])
    return np.asarray(jax.jit(warped)(image, taps)[0])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 50, shape).astype(np.float32)


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
        image, score = noise(*unit.shape), jax.jit(unit.score)
        several = Averaged(unit, 3, smooth=4.0, seed=2)
        assert isinstance(several, Scored)
        assert str(several) == str(unit)
        extra = {"warps": 3, "smooth": 4.0, "views_seed": 2}
        assert several.settings == unit.settings | extra
        views = [warp_one(image, *warp) for warp in Warp.drawn(3, seed=2)]
        added = np.random.default_rng(2).standard_normal((3, *unit.shape))
        expected = [
            float(score(unit.params, np.asarray(view + 4 * each, np.float32)))
            for view, each in zip(views, added, strict=True)
        ]
        actual = float(jax.jit(several.score)(several.params, image))
        # The noise is rounded to a 2,048th of 4 grey levels.
        scale = np.abs(expected).max() + 1
        assert abs(actual - np.mean(expected)) < 2e-3 * scale
        assert abs(actual - float(score(unit.params, image))) > 1e-3 * scale


def test_the_gradient_of_a_networks_mean_is_that_of_differences(random_params):
    (unit,) = find_units("class:4", LENET, random_params(LENET), target="soft-log-prob:2")
    several = Averaged(unit, 4)
    params, image = several.params, noise(*unit.shape)
    slope = np.asarray(jax.jit(jax.grad(several.score, argnums=1))(params, image))
    value = jax.jit(several.score)
    for seed in range(3):
        direction = noise(*unit.shape, seed=seed + 1) / 50
        step = np.float32(0.05) * direction
        ends = [float(value(params, image + sign * step)) for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / 0.1
        expected = float(np.sum(slope * direction))
        # float32's rounding of the responses over the step, and the kinks of ReLUs.
        error = 0.02 * float(np.linalg.norm(slope)) + 1e-4
        assert abs(difference - expected) < error


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
    mean = density.push(jax.grad(density.tilt)(z, density.params))
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


def test_glimpses_average_to_the_response_over_many_warps():
    unit = ScoreFunction(
        lambda image: jnp.sum(image * jnp.arange(75.0).reshape(5, 5, 3)) / 75, (5, 5, 3)
    )
    view, image = Averaged(unit, 4_000, smooth=3.0), jnp.asarray(noise(5, 5, 3))
    keys = jax.random.split(jax.random.key(7), 4_000)
    seen = jax.jit(jax.vmap(lambda key: view.glimpse(view.params, image, key)))(keys)
    # Two independent means of as many views; the one's spread is the other's.
    error = np.sqrt(2 * np.var(seen) / len(seen))
    truth = jax.jit(view.score)(view.params, image)
    assert abs(float(np.mean(seen)) - float(truth)) < 4 * error
