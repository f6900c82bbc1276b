"""Densities in forward mode and their second derivatives, alone and in NumPyro's algorithms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoLaplaceApproximation

from ppl_cnn import ScoreFunction, TiltedDensity, WhiteNoise, load
from ppl_cnn.models.networks.convolution import convolve


@pytest.fixture
def filter_density():
    """A filter of the embedded network, with convolutions, ReLU, LRN and pooling before it."""
    return TiltedDensity(load("alexnet-fashion").unit("conv2:3"), WhiteNoise(10.0))


def test_the_hessian_of_a_small_density_is_that_of_differences():
    """A convolution and a nonlinearity on images of 4 x 4."""
    random = np.random.default_rng(0)
    kernel = jnp.asarray(random.standard_normal((3, 3, 1, 2)) / 3, jnp.float32)

    def score(image):
        maps = convolve(image[None], kernel, stride=1, padding=((1, 1), (0, 0)))
        return jnp.sum(jnp.tanh(maps) * jnp.arange(1.0, 3.0)[None, None, None, :])

    density = TiltedDensity(ScoreFunction(score, (4, 4, 1)), WhiteNoise(1.0), temperature=0.5)
    z = random.standard_normal((4, 4, 1)).astype(np.float32)
    hessian = jax.jit(jax.hessian(density.log_density))(z).reshape(16, 16)
    slope = jax.jit(jax.grad(density.log_density))
    step = 0.01
    differences = [
        np.subtract(*(slope(z + sign * step * direction) for sign in (1, -1))).ravel() / (2 * step)
        for direction in np.eye(16, dtype=np.float32).reshape(16, *z.shape)
    ]
    assert np.abs(np.asarray(hessian) + np.eye(16)).max() > 0.5  # more than the reference's
    # float32's rounding over the step, and a third derivative of some tens times its square.
    np.testing.assert_allclose(hessian, np.stack(differences), atol=3e-3)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-5)


def test_a_networks_directional_derivatives_are_the_gradients(filter_density):
    key_z, key_v = jax.random.split(jax.random.key(0))
    z = jax.random.normal(key_z, filter_density.latent_shape)
    direction = jax.random.normal(key_v, filter_density.latent_shape)
    log_density, params = filter_density.log_density, filter_density.params

    @jax.jit
    def derivatives(z, params):
        gradient = jax.grad(log_density)(z, params)
        _, slope = jax.jvp(lambda z: log_density(z, params), (z,), (direction,))
        return gradient, slope, jax.jacfwd(log_density)(z, params)

    gradient, slope, forward = derivatives(z, params)
    scale = float(jnp.linalg.norm(gradient))
    np.testing.assert_allclose(slope, jnp.sum(gradient * direction), atol=1e-4 * scale)
    np.testing.assert_allclose(forward, gradient, atol=1e-5 * scale)


def test_numpyros_laplace_approximation_fits_a_filter(filter_density):
    guide = AutoLaplaceApproximation(filter_density.whitened)
    svi = SVI(filter_density.whitened, guide, numpyro.optim.Adam(0.05), Trace_ELBO())
    with jax.numpy_dtype_promotion("standard"):
        result = svi.run(jax.random.key(0), 20, progress_bar=False)
        assert result.losses[-1] < result.losses[0]
        posterior = jax.jit(guide.get_posterior)(result.params)
    # The precision is minus the Hessian of the log-density at the mode.
    mode = posterior.mean.reshape(filter_density.latent_shape)
    hessian = jax.jit(jax.hessian(filter_density.log_density))(mode)
    covariance = np.asarray(posterior.covariance_matrix, np.float64)
    precision = -np.asarray(hessian, np.float64).reshape(covariance.shape)
    np.testing.assert_allclose(covariance @ precision, np.eye(len(covariance)), atol=1e-2)


@pytest.mark.long
def test_numpyros_nuts_runs_in_forward_mode(filter_density):
    kernel = NUTS(
        filter_density.whitened,
        step_size=0.2,
        max_tree_depth=2,
        adapt_step_size=False,
        adapt_mass_matrix=False,
        forward_mode_differentiation=True,
    )
    reverse = NUTS(
        filter_density.whitened,
        step_size=0.2,
        max_tree_depth=2,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    found = []
    for each in (kernel, reverse):
        mcmc = MCMC(each, num_warmup=0, num_samples=2, progress_bar=False)
        with jax.numpy_dtype_promotion("standard"):
            mcmc.run(jax.random.key(0))
        found.append(mcmc.get_samples()["image_base"])
    assert found[0].shape == (2, *filter_density.latent_shape)
    # The same draws but for rounding.
    np.testing.assert_allclose(*found, atol=1e-2)
