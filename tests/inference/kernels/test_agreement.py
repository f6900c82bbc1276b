"""All kernels, and another library's, draw the same density: LeNet's class, random weights."""

import math
from functools import lru_cache, partial
from itertools import cycle

import arviz_stats
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import ppl_cnn
from ppl_cnn.inference.kernels.moves.trajectory import _kicked as kicked
from ppl_cnn.inference.kernels.moves.trajectory import metropolis
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.trained.cnn import CNN

CHAINS, WARMUP = 4, 150
QUICK, LONG = 600, 6000
"""Draws of each chain."""
ALARM = 4.5
"""Standard errors. The largest of 520 differences, five kernels' from split in 104 means, exceeds
it with probability 0.004 if all are standard normal."""


@pytest.fixture(scope="module")
def density():
    """Tilted so strongly that the response moves by over two of its own deviations."""
    unit = CNN.random(LENET).unit("fc4:3")
    return ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0), 1 / 300)


def quantities(response, lp, image):
    """Response, lp and 50 projections of the image: (chain, draw, quantity)."""
    directions = np.random.default_rng(0).standard_normal((28 * 28, 50), np.float32) / 28
    along = np.asarray(image).reshape(*image.shape[:2], -1) @ directions
    scalars = np.stack([np.asarray(response), np.asarray(lp)], axis=-1)
    return np.concatenate([scalars, along], axis=-1).astype(np.float64)


def drawn(density, kernel, count, **settings):
    settings |= {"chains": CHAINS, "draws": count, "warmup": WARMUP, "progress": False}
    draws = ppl_cnn.draw(density, kernel=kernel, **settings)
    response, image = draws["posterior/response"], draws["posterior/image"]
    return quantities(response, draws["sample_stats/lp"], image)


def drawn_by_blackjax(density, count):
    params, shape = density.params, density.latent_shape
    kernel = blackjax.hmc.build_kernel()
    identity = jnp.ones(math.prod(shape))

    @jax.jit
    def chain(params, key):
        def log_density(z):
            return -density.potential(z.reshape(shape), params)

        def move(state, key):
            state, _ = kernel(key, state, log_density, 0.25, identity, num_integration_steps=6)
            return state, (state.position, state.logdensity)

        key_start, key = jax.random.split(key)
        z = jax.random.normal(key_start, identity.shape)
        keys = jax.random.split(key, WARMUP + count)
        _, found = jax.lax.scan(move, blackjax.hmc.init(z, log_density), keys)
        return jax.tree.map(lambda values: values[WARMUP:], found)

    keys = jax.random.split(jax.random.key(5), CHAINS)
    z, lp = jax.vmap(chain, (None, 0))(params, keys)
    image = density.push(z.reshape(CHAINS, count, *shape))
    score = jax.jit(jax.vmap(jax.vmap(density.unit.score, (None, 0)), (None, 0)))
    constant = math.prod(shape) / 2 * math.log(2 * math.pi)
    return quantities(score(params.unit, image), np.asarray(lp) - constant, image)


def moments(values, about):
    """Means of the quantities and of their squares about a point, with standard errors."""
    both = np.concatenate([values, (values - about) ** 2], axis=-1)
    error = arviz_stats.mcse(xr.Dataset({"x": (("chain", "draw", "quantity"), both)}))["x"]
    return both.mean((0, 1)), error.values


def largest_difference(values, others):
    """In means and second moments, in units of its standard error."""
    centre = values.mean((0, 1))
    (ours, our_error), (theirs, error) = moments(values, centre), moments(others, centre)
    return np.abs((ours - theirs) / np.hypot(our_error, error)).max()


@pytest.fixture(scope="module")
def split(density):
    """Draws of the split kernel, of a number that is asked for once."""
    return lru_cache(partial(drawn, density, "split"))


pytestmark = pytest.mark.long
COUNTS = [QUICK, LONG]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    "kernel", ["split(moves=trajectories)", "isir:4", "tempered:4", "hmc", "nuts"]
)
def test_kernels_agree(density, split, kernel, count):
    assert largest_difference(split(count), drawn(density, kernel, count)) < ALARM


@pytest.mark.parametrize("count", COUNTS)
def test_another_library_agrees(density, split, count):
    assert largest_difference(split(count), drawn_by_blackjax(density, count)) < ALARM


@pytest.mark.parametrize("count", COUNTS)
def test_they_saw_the_tilt(density, split, count):
    """The reference's own response is many standard errors off."""
    z = jax.random.normal(jax.random.key(1), (1000, *density.latent_shape))
    score = jax.vmap(density.unit.score, (None, 0))(density.unit.params, density.push(z))
    found, our_error = moments(split(count), 0.0)
    error = math.hypot(float(score.std()) / math.sqrt(len(score)), our_error[0])
    assert found[0] > score.mean() + 6 * error, "the density is not tilted"


# Were a kernel wrong, they wouldn't


def all_accepted(tilt, start, key, step_size, steps, strength=1.0):
    """No Metropolis step; the adaptation still sees how probable acceptance would be."""
    moved = metropolis(tilt, start, key, step_size, steps, strength)
    return moved._replace(point=moved.end.point, energy_change=moved.end.energy_change)


def signs_in_turn():
    """Kicks of which every second, the one that ends a step, has the wrong sign."""
    signs = cycle((1, -1))
    return lambda momentum, force, half: kicked(momentum, force, next(signs) * half)


def test_a_kernel_with_a_wrong_sign_is_found_out(density, split, monkeypatch):
    """With short trajectories: no step suits it, and longer ones would have a thousand."""
    ours = split(QUICK)
    monkeypatch.setattr("ppl_cnn.inference.kernels.moves.trajectory._kicked", signs_in_turn())
    monkeypatch.setattr("ppl_cnn.inference.kernels.adaptation.LONGEST", 0.05)
    wrong = drawn(density, "split(moves=trajectories)", QUICK, target_accept=0.3)
    assert largest_difference(ours, wrong) > ALARM


def a_third_too_strong(tilt, start, key, step_size, steps, strength=1.0):
    """Kicks and energies of another temperature."""
    return metropolis(tilt, start, key, step_size, steps, 4 / 3 * strength)


@pytest.mark.parametrize("wrong", [all_accepted, a_third_too_strong])
def test_a_wrong_kernel_is_found_out(density, split, monkeypatch, wrong):
    """With coarse steps, whose errors Metropolis's rule has to make good."""
    ours = split(QUICK)
    monkeypatch.setattr("ppl_cnn.inference.kernels.split.metropolis", wrong)
    found = drawn(density, "split(moves=trajectories)", QUICK, target_accept=0.3)
    assert largest_difference(ours, found) > ALARM


def test_a_right_kernel_with_coarse_steps_is_not(density, split):
    coarse = drawn(density, "split", QUICK, target_accept=0.3)
    assert largest_difference(split(QUICK), coarse) < ALARM
