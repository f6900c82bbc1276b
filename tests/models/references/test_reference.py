import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl_cnn.errors import MismatchError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.band import Band
from ppl_cnn.models.references.bounded import Bounded
from ppl_cnn.models.references.noise import Uniform, WhiteNoise
from ppl_cnn.models.references.spectral import Spectral

SHAPE = (3, 2, 1)
GREY = Preprocessing((0.0,), (1.0,), "grey")
BGR = Preprocessing((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), "BGR")


def test_white_noises_log_density_is_that_of_independent_normals():
    x = np.random.default_rng(0).normal(0, 30, SHAPE)
    log_density = WhiteNoise(10.0).distribution(SHAPE, GREY).log_prob(jnp.asarray(x, jnp.float32))
    assert log_density.shape == ()  # one event: the image
    # A sum of six float32 terms of order 10.
    np.testing.assert_allclose(log_density, stats.norm(0, 10).logpdf(x).sum(), rtol=1e-6)


def test_white_noises_draws_have_its_sigma():
    draws = WhiteNoise(10.0).distribution(SHAPE, GREY).sample(jax.random.key(0), (4_000,))
    assert draws.shape == (4_000, *SHAPE)
    # From n normals, a mean has the error sigma/sqrt(n), a standard deviation sigma/sqrt(2 n).
    assert abs(draws.std() / 10 - 1) < 5 / (2 * draws.size) ** 0.5
    assert abs(draws.mean() / 10) < 5 / draws.size**0.5


def test_uniform_draws_fill_0_to_255_less_the_networks_mean():
    draws = Uniform().distribution((5, 4, 3), BGR).sample(jax.random.key(0), (1_000,))
    pixels = np.asarray(draws, np.float64) + BGR.mean
    for channel in range(3):
        found = stats.kstest(pixels[..., channel].ravel() / 255, "uniform")
        assert found.pvalue > 1e-4


def test_bounded_draws_are_in_0_to_255_about_the_mean_image():
    draws = Bounded(WhiteNoise(5.0)).distribution((5, 4, 3), BGR).sample(jax.random.key(0), (500,))
    # At 104 to 123 grey levels the squashing is the identity but for 5e-4.
    assert abs(draws.std() / 5 - 1) < 5 / (2 * draws.size) ** 0.5
    assert (abs(draws.mean((0, 1, 2))) < 5 * 5 / (draws.size / 3) ** 0.5 + 5e-4).all()
    wide = Bounded(WhiteNoise(500.0)).distribution((5, 4, 3), BGR).sample(jax.random.key(1), (500,))
    pixels = np.asarray(wide, np.float64) + BGR.mean
    assert pixels.min() > -1e-4
    assert pixels.max() < 255 + 1e-4
    assert (pixels < 5).mean() > 0.3
    assert (pixels > 250).mean() > 0.3


@pytest.mark.parametrize(
    ("order", "channels"), [("RGB", (0, 1, 2)), ("BGR", (2, 1, 0))], ids=["RGB", "BGR"]
)
def test_spectral_colours_are_in_the_networks_order(order, channels):
    colours = ((900.0, 500.0, 200.0), (500.0, 800.0, 300.0), (200.0, 300.0, 700.0))
    preprocessing = Preprocessing((0.0,) * 3, (1.0,) * 3, order)
    (transform,) = Spectral(1.0, colours).distribution((4, 4, 3), preprocessing).transforms
    expected = np.asarray(colours)[np.ix_(channels, channels)]
    np.testing.assert_array_equal(transform.covariance, expected)


def test_a_grey_network_has_the_lumas_variance():
    colours = ((900.0, 500.0, 200.0), (500.0, 800.0, 300.0), (200.0, 300.0, 700.0))
    distribution = Spectral(0.0, colours).distribution((4, 4, 1), GREY)
    pixels = np.random.default_rng(0).multivariate_normal(np.zeros(3), colours, 100_000)
    luma = (pixels @ (0.299, 0.587, 0.114)).var()
    (transform,) = distribution.transforms
    # A variance of n normals has the relative error sqrt(2/n).
    np.testing.assert_allclose(transform.covariance, luma, rtol=5 * (2 / 100_000) ** 0.5)


@pytest.mark.parametrize(("channels", "preprocessing"), [(3, BGR), (1, GREY)])
def test_a_contrast_is_a_pixels_standard_deviation(channels, preprocessing):
    """The root of the channels' mean square, with the colours' correlations."""
    field = Spectral(1.2, contrast=18.0).distribution((32, 32, channels), preprocessing)
    own = Spectral(1.2).distribution((32, 32, channels), preprocessing)
    scaled, plain = (np.asarray(each.transforms[0].covariance) for each in (field, own))
    np.testing.assert_allclose(np.diag(scaled).mean(), 18**2)
    np.testing.assert_allclose(scaled / scaled[0, 0], plain / plain[0, 0])
    # White: of n independent pixels, and so of 1 to 3 n numbers, a relative error of 1/sqrt(2 n).
    white = Spectral(0.0, contrast=18.0).distribution((32, 32, channels), preprocessing)
    draws = white.sample(jax.random.key(0), (100,))
    assert abs(float(jnp.sqrt(jnp.mean(draws**2))) / 18 - 1) < 5 / (2 * 100 * 32 * 32) ** 0.5


def test_a_bands_draws_have_its_closed_forms_covariance():
    """Monte Carlo against R R^T, which test_transforms holds against scipy's transform."""
    distribution = Band(2, Spectral(contrast=18.0)).distribution((4, 3, 3), BGR)
    assert distribution.base_dist.event_shape == (2, 2, 3)
    (transform,) = distribution.transforms
    root = np.asarray(jax.jacfwd(transform)(jnp.zeros((2, 2, 3))), np.float64).reshape(36, 12)
    covariance = root @ root.T
    np.testing.assert_allclose(np.diag(covariance).mean(), 18**2, rtol=1e-5)
    draws = distribution.sample(jax.random.key(0), (20_000,))
    draws = np.asarray(draws, np.float64).reshape(20_000, 36)
    variances = np.diag(covariance)
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / len(draws))
    # The largest of 666 standard normals exceeds 5 with probability 4e-4.
    assert (np.abs(draws.T @ draws / len(draws) - covariance) < 5 * error).all()


def test_a_band_is_no_finer_than_the_image(refused):
    with refused("band:5", "4x7", "band:4", kind=MismatchError):
        Band(5).distribution((4, 7, 3), BGR)
    with refused("1 or 3", "not 2", kind=MismatchError):
        Band(2).distribution((4, 4, 2), Preprocessing((0.0,) * 2, (1.0,) * 2))


def test_a_spectral_reference_is_of_grey_or_three_colours(refused):
    with refused("1 or 3", "not 4", kind=MismatchError):
        Spectral().distribution((4, 4, 4), Preprocessing((0.0,) * 4, (1.0,) * 4))
