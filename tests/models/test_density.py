import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import initialize_model, log_density
from scipy import stats

from ppl_cnn import Response, TiltedDensity, WhiteNoise
from ppl_cnn.models.networks import LENET
from ppl_cnn.models.units import find_units

SHAPE = (2, 2, 1)
SLOPE = jnp.asarray([[0.3, -0.2], [0.0, 0.5]])[..., None]


def linear(image):
    return jnp.sum(SLOPE * image)


def curved(image):
    return jnp.sum(jnp.sin(image)) + linear(image)


def test_log_density_is_the_tilt_plus_the_references():
    density = TiltedDensity(Response(curved, SHAPE), WhiteNoise(3.0), temperature=0.5)
    image = jax.random.normal(jax.random.key(0), SHAPE)
    actual, _ = log_density(density.model, (), {}, {"image": image})
    expected = curved(image) / 0.5 + stats.norm(0, 3).logpdf(image).sum()
    np.testing.assert_allclose(actual, expected, rtol=1e-6)  # float32, a handful of terms


def test_the_models_weights_may_be_given_as_an_argument(random_params):
    unit = find_units("conv2:7", LENET, random_params(LENET))[0]
    density = TiltedDensity(unit, WhiteNoise(10.0))
    image = 10 * jax.random.normal(jax.random.key(0), unit.shape)
    other = random_params(LENET, seed=1)
    moved = find_units("conv2:7", LENET, other)[0]
    own, _ = log_density(density.model, (), {}, {"image": image})
    given, _ = log_density(density.model, (moved.params,), {}, {"image": image})
    expected, _ = log_density(
        TiltedDensity(moved, WhiteNoise(10.0)).model, (), {}, {"image": image}
    )
    assert given == expected != own
    z = image / 10
    assert density.potential(z, moved.params) == TiltedDensity(moved, WhiteNoise(10.0)).potential(z)
    assert density.potential(z) == density.potential(z, unit.params)


def test_the_potential_is_the_whitened_models_up_to_the_normals_constant():
    density = TiltedDensity(Response(curved, SHAPE), WhiteNoise(3.0), temperature=2.0)
    model = initialize_model(jax.random.key(0), density.whitened)
    assert list(model.param_info.z) == ["image_base"]
    constant = 4 / 2 * np.log(2 * np.pi)  # -log N(0; 0, I) in four dimensions
    for seed in range(3):
        z = jax.random.normal(jax.random.key(seed), SHAPE)
        whitened = model.potential_fn({"image_base": z})
        np.testing.assert_allclose(whitened - density.potential(z), constant, rtol=1e-5)


def test_a_linear_scores_potential_is_the_closed_form():
    # U(z) = -s <w, z>/T + |z|^2/2: its gradient is z - s w/T, its minimum -s^2 |w|^2/(2 T^2).
    density = TiltedDensity(Response(linear, SHAPE), WhiteNoise(3.0), temperature=1.5)
    z = jax.random.normal(jax.random.key(0), SHAPE)
    mode = 3.0 * SLOPE / 1.5
    np.testing.assert_allclose(jax.grad(density.potential)(z), z - mode, atol=1e-6)
    log_partition = 9.0 * jnp.sum(SLOPE**2) / (2 * 1.5**2)
    np.testing.assert_allclose(density.potential(mode), -log_partition, rtol=1e-6)


def test_numpyros_own_nuts_recovers_a_linear_scores_mean_and_variance():
    sigma, temperature = 2.0, 0.8
    density = TiltedDensity(Response(linear, SHAPE), WhiteNoise(sigma), temperature)
    mcmc = MCMC(
        NUTS(density.model),
        num_warmup=200,
        num_samples=500,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.numpy_dtype_promotion("standard"):  # NumPyro divides floats by integers
        mcmc.run(jax.random.key(0))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["image"])
    assert draws.shape == (4, 500, *SHAPE)
    mean = sigma**2 * np.asarray(SLOPE) / temperature
    squares = (draws - mean) ** 2
    # Five Monte Carlo standard errors: sigma/sqrt(ESS) of the mean and, of a normal's variance,
    # sqrt(2) sigma^2/sqrt(ESS).
    error = sigma / np.sqrt(effective_sample_size(draws))
    square_error = 2**0.5 * sigma**2 / np.sqrt(effective_sample_size(squares))
    assert (error < 0.2 * sigma).all()
    assert (abs(draws.mean((0, 1)) - mean) < 5 * error).all()
    assert (abs(squares.mean((0, 1)) - sigma**2) < 5 * square_error).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_that_are_not_positive_and_finite_are_refused(temperature, refused):
    with refused("temperature", "positive and finite"):
        TiltedDensity(Response(linear, SHAPE), WhiteNoise(1.0), temperature)
