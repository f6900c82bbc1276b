"""All kernels, and another library's, draw the same density: LeNet's class, random weights."""

import math

import arviz_stats
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import ppl_cnn
from ppl_cnn.inference.kernels import KERNELS
from ppl_cnn.models.cnn import CNN
from ppl_cnn.models.networks import LENET

CHAINS, DRAWS, WARMUP = 4, 600, 150
DIRECTIONS = np.random.default_rng(0).standard_normal((28 * 28, 50), np.float32) / 28


@pytest.fixture(scope="module")
def density():
    """Tilted so strongly that the response moves by over two of its own deviations."""
    unit = CNN.random(LENET).unit("fc4:3")
    return ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0), 1 / 300)


def quantities(response, lp, image):
    """Response, lp and 50 projections of the image: (chain, draw, quantity)."""
    along = np.asarray(image).reshape(CHAINS, DRAWS, -1) @ DIRECTIONS
    scalars = np.stack([np.asarray(response), np.asarray(lp)], axis=-1)
    return np.concatenate([scalars, along], axis=-1).astype(np.float64)


def drawn(density, kernel):
    draws = ppl_cnn.draw(density, kernel, CHAINS, DRAWS, WARMUP, progress=False)
    response, image = draws["posterior/response"], draws["posterior/image"]
    return quantities(response, draws["sample_stats/lp"], image)


def drawn_by_blackjax(density):
    params, shape = density.unit.params, density.latent_shape
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
        keys = jax.random.split(key, WARMUP + DRAWS)
        _, found = jax.lax.scan(move, blackjax.hmc.init(z, log_density), keys)
        return jax.tree.map(lambda values: values[WARMUP:], found)

    keys = jax.random.split(jax.random.key(5), CHAINS)
    z, lp = jax.vmap(chain, (None, 0))(params, keys)
    image = density.push(z.reshape(CHAINS, DRAWS, *shape))
    score = jax.jit(jax.vmap(jax.vmap(density.unit.score, (None, 0)), (None, 0)))
    constant = math.prod(shape) / 2 * math.log(2 * math.pi)
    return quantities(score(params, image), np.asarray(lp) - constant, image)


def moments(values, about):
    """Means of the quantities and of their squares about a point, with standard errors."""
    both = np.concatenate([values, (values - about) ** 2], axis=-1)
    error = arviz_stats.mcse(xr.Dataset({"x": (("chain", "draw", "quantity"), both)}))["x"]
    return both.mean((0, 1)), error.values


def test_kernels_and_blackjax_agree(density):
    found = {kernel: drawn(density, kernel) for kernel in KERNELS}
    found["blackjax"] = drawn_by_blackjax(density)
    centre = found["split"].mean((0, 1))
    means = {name: moments(values, centre) for name, values in found.items()}
    ours, our_error = means.pop("split")
    for name, (theirs, error) in means.items():
        # The largest of 312 standard normal errors exceeds 4.5 with probability 0.002.
        assert np.abs((ours - theirs) / np.hypot(our_error, error)).max() < 4.5, name
    # And they saw the tilt: the reference's own response is many standard errors off.
    z = jax.random.normal(jax.random.key(1), (1000, *density.latent_shape))
    score = jax.vmap(density.unit.score, (None, 0))(density.unit.params, density.push(z))
    error = math.hypot(float(score.std()) / math.sqrt(len(score)), our_error[0])
    assert ours[0] > score.mean() + 6 * error, "the density is not tilted"
