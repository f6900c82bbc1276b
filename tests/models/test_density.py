import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import HMC, MCMC, NUTS
from numpyro.infer.util import initialize_model, log_density
from scipy import stats

from ppl_cnn import Band, Bounded, ScoreFunction, Spectral, TiltedDensity, Uniform, WhiteNoise
from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.catalogue import ALEXNET, LENET
from ppl_cnn.models.units.unit import find_units

SHAPE = (2, 2, 1)
SLOPE = jnp.asarray([[0.3, -0.2], [0.0, 0.5]])[..., None]


def linear(image):
    return jnp.sum(SLOPE * image)


def curved(image):
    return jnp.sum(jnp.sin(image)) + linear(image)


def test_log_density_is_the_tilt_plus_the_references():
    density = TiltedDensity(ScoreFunction(curved, SHAPE), WhiteNoise(3.0), temperature=0.5)
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
    there = TiltedDensity(moved, WhiteNoise(10.0))
    given, _ = log_density(density.model, (there.params,), {}, {"image": image})
    expected, _ = log_density(there.model, (), {}, {"image": image})
    assert given == expected != own
    z = image / 10
    assert density.potential(z, there.params) == there.potential(z)
    assert density.potential(z) == density.potential(z, density.params)


REFERENCES = [
    WhiteNoise(3.0),
    Uniform(),
    Spectral(1.2),
    Bounded(WhiteNoise(60.0)),
    Bounded(Spectral()),
]


@pytest.mark.parametrize("reference", REFERENCES, ids=str)
@pytest.mark.parametrize("shape", [(3, 2, 3), pytest.param(SHAPE, marks=pytest.mark.long)])
def test_the_potential_is_the_whitened_models_up_to_the_normals_constant(reference, shape):
    response = ScoreFunction(lambda x: jnp.sum(jnp.sin(x / 30)), shape, mean=(100.0,) * shape[2])
    density = TiltedDensity(response, reference, temperature=2.0)
    model = initialize_model(jax.random.key(0), density.whitened)
    assert list(model.param_info.z) == ["image_base"]
    constant = np.prod(shape) / 2 * np.log(2 * np.pi)  # -log N(0; 0, I)
    both = jax.jit(lambda z: (model.potential_fn({"image_base": z}), density.potential(z)))
    for seed in range(3):
        whitened, potential = both(jax.random.normal(jax.random.key(seed), shape))
        np.testing.assert_allclose(whitened - potential, constant, rtol=1e-5)


@pytest.mark.parametrize("reference", REFERENCES, ids=str)
def test_the_models_density_is_the_potentials_by_the_jacobian(reference):
    """log p(R(z)) + log |det dR/dz| = -U(z) + constant."""
    shape = (2, 3, 3)
    response = ScoreFunction(lambda x: jnp.sum(jnp.sin(x / 30)), shape, mean=(90.0, 120.0, 140.0))
    density = TiltedDensity(response, reference, temperature=0.7)

    @jax.jit
    def found(z):
        log_p, _ = log_density(density.model, (), {}, {"image": density.push(z)})
        return jax.jacfwd(density.push)(z), log_p, density.potential(z)

    for seed in range(3):
        z = jax.random.normal(jax.random.key(seed), shape)
        jacobian, log_p, potential = found(z)
        _, log_det = np.linalg.slogdet(np.asarray(jacobian, np.float64).reshape(z.size, z.size))
        expected = -potential - z.size / 2 * np.log(2 * np.pi)
        np.testing.assert_allclose(log_p + log_det, expected, rtol=5e-5)


def test_only_a_spectral_field_is_larger_than_the_units_image(random_params):
    (unit,) = find_units("conv1:3@0,7", LENET, random_params(LENET))
    for reference in REFERENCES:
        density = TiltedDensity(unit, reference)
        spectral = "spectral" in str(reference)
        assert density.latent_shape == ((28, 28, 1) if spectral else (5, 5, 1))
        assert density.has_stein_mean == (type(reference) in (WhiteNoise, Spectral))
        z = np.random.default_rng(0).standard_normal((2, 3, *density.latent_shape), np.float32)
        push = jax.jit(density.push)
        images = np.asarray(push(z))
        assert images.shape == (2, 3, 5, 5, 1)
        np.testing.assert_allclose(images[1, 2], push(z[1, 2]), rtol=1e-5, atol=1e-4)
        vmapped = jax.vmap(jax.vmap(push))(z)
        np.testing.assert_allclose(images, vmapped, rtol=1e-5, atol=1e-4)


def test_a_units_receptive_field_has_the_crop_of_the_spectral_covariance(random_params):
    """Exactly, by R's matrix; and so wherever the unit's place is."""
    params, spectral = random_params(LENET), Spectral(1.1)
    whole = ScoreFunction(jnp.sum, LENET.image_shape)
    push = TiltedDensity(whole, spectral).push
    root = np.asarray(jax.jit(jax.jacfwd(push))(jnp.zeros((28, 28, 1))))
    root = root.reshape(28, 28, 28 * 28).astype(np.float64)
    covariances = []
    for place, rows, cols in (
        ("0,7", slice(0, 5), slice(7, 12)),
        ("23,0", slice(23, 28), slice(5)),
    ):
        (unit,) = find_units(f"conv1:3@{place}", LENET, params)
        density = TiltedDensity(unit, spectral)
        own = np.asarray(jax.jit(jax.jacfwd(density.push))(jnp.zeros((28, 28, 1))))
        own = own.reshape(25, 28 * 28)
        crop = root[rows, cols].reshape(25, -1)
        np.testing.assert_allclose(own, crop, atol=1e-4)
        covariances.append(crop @ crop.T)
    np.testing.assert_allclose(*covariances, rtol=1e-5)
    # And its draws under the model without a tilt.
    z = jax.random.normal(jax.random.key(0), (10_000, 28, 28, 1))
    draws = np.asarray(density.push(z), np.float64).reshape(-1, 25)
    variances = np.diag(covariances[1])
    error = np.sqrt((np.outer(variances, variances) + covariances[1] ** 2) / len(draws))
    # The largest of 325 standard normals exceeds 5 with probability 2e-4.
    assert (np.abs(draws.T @ draws / len(draws) - covariances[1]) < 5 * error).all()


def test_references_stand_where_the_networks_mean_is(random_params):
    (unit,) = find_units("conv1:0", ALEXNET, random_params(ALEXNET))
    for reference in (Uniform(), Bounded(WhiteNoise(200.0))):
        density = TiltedDensity(unit, reference)
        push, shape = jax.jit(density.push), density.latent_shape
        far, near = (np.asarray(push(np.full(shape, z, np.float32))) for z in (12, -12))
        mean = np.asarray(ALEXNET.preprocessing.mean, np.float32)
        np.testing.assert_allclose(far[0, 0], 255 - mean, atol=1e-4)
        np.testing.assert_allclose(near[0, 0], -mean, atol=1e-4)


def test_references_that_do_not_fit_the_images_are_refused(refused):
    with refused("1 or 3 channels"):
        TiltedDensity(ScoreFunction(jnp.sum, (4, 4, 2)), Spectral())


def test_a_linear_scores_potential_is_the_closed_form():
    # U(z) = -s <w, z>/T + |z|^2/2: its gradient is z - s w/T, its minimum -s^2 |w|^2/(2 T^2).
    density = TiltedDensity(ScoreFunction(linear, SHAPE), WhiteNoise(3.0), temperature=1.5)
    z = jax.random.normal(jax.random.key(0), SHAPE)
    mode = 3.0 * SLOPE / 1.5
    np.testing.assert_allclose(jax.grad(density.potential)(z), z - mode, atol=1e-6)
    log_partition = 9.0 * jnp.sum(SLOPE**2) / (2 * 1.5**2)
    np.testing.assert_allclose(density.potential(mode), -log_partition, rtol=1e-6)


@pytest.mark.long
def test_numpyros_own_nuts_recovers_a_linear_scores_mean_and_variance():
    sigma, temperature = 2.0, 0.8
    density = TiltedDensity(ScoreFunction(linear, SHAPE), WhiteNoise(sigma), temperature)
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


def test_blackjax_recovers_a_linear_scores_mean_and_variance_from_the_log_density():
    sigma, temperature = 2.0, 0.8
    density = TiltedDensity(ScoreFunction(linear, SHAPE), WhiteNoise(sigma), temperature)
    sampler = blackjax.nuts(density.log_density, step_size=0.8, inverse_mass_matrix=jnp.ones(4))

    def move(state, key):
        state, _ = sampler.step(key, state)
        return state, density.push(state.position)

    def chain(key):
        first, key = jax.random.split(key)
        state = sampler.init(jax.random.normal(first, density.latent_shape))
        return jax.lax.scan(move, state, jax.random.split(key, 600))[1]

    with jax.numpy_dtype_promotion("standard"):
        draws = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 4))
    draws = np.asarray(draws, np.float64)[:, 100:]
    mean = sigma**2 * np.asarray(SLOPE) / temperature
    squares = (draws - mean) ** 2
    error = sigma / np.sqrt(effective_sample_size(draws))
    square_error = 2**0.5 * sigma**2 / np.sqrt(effective_sample_size(squares))
    assert (error < 0.2 * sigma).all()
    assert (abs(draws.mean((0, 1)) - mean) < 5 * error).all()
    assert (abs(squares.mean((0, 1)) - sigma**2) < 5 * square_error).all()


def test_the_log_density_is_the_negative_potential():
    density = TiltedDensity(ScoreFunction(curved, SHAPE), WhiteNoise(3.0), temperature=0.5)
    z = jax.random.normal(jax.random.key(0), SHAPE)
    value, gradient = jax.value_and_grad(density.log_density)(z)
    # z is standard normal but for the tilt: log N(z; 0, I) without its constant.
    expected = curved(3 * z) / 0.5 + (stats.norm.logpdf(z) - stats.norm.logpdf(0)).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, -jax.grad(density.potential)(z), rtol=1e-6)
    assert value == -density.potential(z)


# A band: z has fewer dimensions than the image.


@pytest.mark.parametrize("reference", [Band(3), Bounded(Band(3, Spectral(contrast=40.0)))], ids=str)
def test_a_bands_latent_is_smaller_than_the_field(reference, random_params):
    (unit,) = find_units("conv1:3@0,7", LENET, random_params(LENET))
    density = TiltedDensity(unit, reference, temperature=0.1)
    assert density.latent_shape == (3, 3, 1)
    assert density.field_shape == (28, 28, 1)
    z = jax.random.normal(jax.random.key(0), (2, 3, 3, 1))
    images = density.push(z)
    assert images.shape == (2, 5, 5, 1)
    field = density.field.sample(jax.random.key(1))
    latent = density.pull(field)
    np.testing.assert_allclose(density.push(latent), field[0:5, 7:12], atol=2e-2)
    model = initialize_model(jax.random.key(0), density.whitened)
    assert model.param_info.z["image_base"].shape == (3, 3, 1)
    constant = 9 / 2 * np.log(2 * np.pi)
    both = jax.jit(lambda z: (model.potential_fn({"image_base": z}), density.potential(z)))
    for each in np.asarray(z):
        whitened, potential = both(each)
        np.testing.assert_allclose(whitened - potential, constant, rtol=1e-4)


def test_a_band_has_a_density_of_its_own_fields_alone():
    """log p(R(z)) + log |det R| = -U(z) + constant, R as a map onto the band."""
    response = ScoreFunction(
        lambda x: jnp.sum(jnp.sin(x / 30)), (4, 5, 3), mean=(90.0, 120.0, 140.0)
    )
    density = TiltedDensity(response, Band(2), temperature=0.7)
    z = jax.random.normal(jax.random.key(0), density.latent_shape)
    root = np.asarray(jax.jacfwd(density.push)(z), np.float64).reshape(60, 12)
    log_det = np.log(np.linalg.svd(root, compute_uv=False)).sum()
    log_p, _ = log_density(density.model, (), {}, {"image": density.push(z)})
    expected = -density.potential(z) - 6 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_p + log_det, expected, rtol=5e-5)
    beside = density.push(z) + jax.random.normal(jax.random.key(1), (4, 5, 3))
    log_p, _ = log_density(density.model, (), {}, {"image": beside})
    assert log_p == -jnp.inf


COLOURS = ((9.0, 5.0, 2.0), (5.0, 8.0, 3.0), (2.0, 3.0, 7.0))


def field_slope():
    """The slope of a linear score of 4 x 4 images in colour."""
    return np.random.default_rng(2).normal(size=(4, 4, 3)).astype(np.float32) / 4


def tilted_field(reference):
    """p = N(C w / T, C) of a linear score, C = R R^T the field's covariance."""
    slope = field_slope()
    response = ScoreFunction(lambda image: jnp.sum(jnp.asarray(slope) * image), slope.shape)
    density = TiltedDensity(response, reference, temperature=1.25)
    zero = jnp.zeros(density.latent_shape)
    root = np.asarray(jax.jit(jax.jacfwd(density.push))(zero), np.float64).reshape(48, zero.size)
    mean = root @ root.T @ slope.ravel() / 1.25
    return density, root @ root.T, mean.reshape(slope.shape)


FIELDS = [Spectral(1.0, COLOURS), Band(2, Spectral(1.0, COLOURS))]


@pytest.mark.parametrize("reference", FIELDS, ids=str)
def test_a_linear_score_moves_a_field_by_its_covariance(reference):
    density, covariance, mean = tilted_field(reference)
    # The mode's z is R^T w/T, and R of that the mean.
    mode = -jax.grad(density.potential)(jnp.zeros(density.latent_shape))
    np.testing.assert_allclose(density.push(mode), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.grad(density.potential)(mode), 0 * mode, atol=1e-5)
    slope = field_slope().ravel()
    log_partition = slope @ covariance @ slope / (2 * 1.25**2)
    np.testing.assert_allclose(density.potential(mode), -log_partition, rtol=1e-5)
    # Stein's mean: R of the mean gradient in z.
    gradient = jax.grad(lambda z: density.unit.score({}, density.push(z)))(mode) / 1.25
    np.testing.assert_allclose(density.push(gradient), mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("reference", "whitened"),
    [
        (FIELDS[0], True),
        pytest.param(FIELDS[0], False, marks=pytest.mark.long),
        pytest.param(FIELDS[1], True, marks=pytest.mark.long),
    ],
)
def test_hmc_recovers_the_tilted_field(reference, whitened):
    density, covariance, mean = tilted_field(reference)
    mcmc = MCMC(
        HMC(density.whitened if whitened else density.model, trajectory_length=np.pi / 2),
        num_warmup=300,
        num_samples=700,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.numpy_dtype_promotion("standard"):
        mcmc.run(jax.random.key(0))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["image"], np.float64)
    errors = (draws - mean).reshape(4, 700, 48)
    root_ess = np.sqrt(effective_sample_size(errors))
    deviation = np.sqrt(np.diag(covariance))
    assert (root_ess > 10).all()
    # The largest of 48 standard normals exceeds 5 with probability 3e-5.
    assert (abs(errors.mean((0, 1))) < 5 * deviation / root_ess).all()
    squares = errors**2
    error = 2**0.5 * deviation**2 / np.sqrt(effective_sample_size(squares))
    assert (abs(squares.mean((0, 1)) - deviation**2) < 5 * error).all()


def test_hmc_recovers_a_bounded_pixels_tilted_mean():
    """One pixel, s(60 z + 40) tilted by itself: against a sum over a fine grid."""
    response = ScoreFunction(lambda image: jnp.sum(image) / 40, (1, 1, 1), mean=(40.0,))
    density = TiltedDensity(response, Bounded(WhiteNoise(60.0)))
    grid = np.linspace(-8, 8, 4001, dtype=np.float32).reshape(-1, 1, 1, 1)
    both = jax.jit(jax.vmap(lambda z: (density.push(z), -density.potential(z))))
    images, log_weight = map(np.asarray, both(grid))
    images, log_weight = images.ravel(), log_weight.astype(np.float64)
    weight = np.exp(log_weight - log_weight.max())
    mean = np.average(images, weights=weight)
    deviation = np.sqrt(np.average((images - mean) ** 2, weights=weight))
    mcmc = MCMC(
        HMC(density.whitened, trajectory_length=np.pi / 2),
        num_warmup=300,
        num_samples=1000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.numpy_dtype_promotion("standard"):
        mcmc.run(jax.random.key(0))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["image"]).reshape(4, 1000)
    error = deviation / np.sqrt(effective_sample_size(draws))
    assert error < 0.1 * deviation
    assert abs(draws.mean() - mean) < 5 * error


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_that_are_not_positive_and_finite_are_refused(temperature, refused):
    with refused(temperature, "positive", kind=ArgumentError, argument="temperature"):
        TiltedDensity(ScoreFunction(linear, SHAPE), WhiteNoise(1.0), temperature)
