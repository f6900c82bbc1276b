import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl_cnn import Bounded, Gaussian, ScoreFunction, TiltedDensity
from ppl_cnn.errors import ArgumentError, FileError, MismatchError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.references.reference import Reference

SHAPE = (3, 2, 1)
GREY = Preprocessing((20.0,), (1.0,), "grey")
FLOOR = 4.0


@pytest.fixture
def images():
    """600 of 3x2 pixels that go together, one of them always 7."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(600, 6)) @ rng.normal(0, 25, (6, 6)) + rng.uniform(60, 200, 6)
    found[:, 4] = 7
    return found.reshape(-1, *SHAPE)


@pytest.fixture
def fitted(images, tmp_path):
    return Gaussian.fit(images, tmp_path / "images.npz")


def moments(images):
    """Mean and covariance, whose eigenvalues are at least the floor's square."""
    flat = images.reshape(len(images), -1)
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    return flat.mean(axis=0), (vectors * np.maximum(values, FLOOR**2)) @ vectors.T


def test_its_log_density_is_that_of_the_images_mean_and_covariance(fitted, images):
    mean, covariance = moments(images)
    x = np.random.default_rng(1).normal(100, 60, (5, *SHAPE))
    x[:, 2, 0] = 7  # the pixel that is always 7: far from it the density says nothing of others
    found = fitted.distribution(SHAPE, GREY).log_prob(jnp.asarray(x - 20.0, jnp.float32))
    expected = stats.multivariate_normal(mean, covariance).logpdf(x.reshape(5, -1))
    # R^-1 multiplies float32's 6e-8 of 200 grey levels by up to 1/4 of z's slope, which is |z|.
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_its_draws_have_the_images_mean_and_covariance(fitted, images):
    mean, covariance = moments(images)
    count = 20_000
    draws = fitted.distribution(SHAPE, GREY).sample(jax.random.key(0), (count,))
    flat = np.asarray(draws, np.float64).reshape(count, -1) + 20.0
    spread = np.sqrt(np.diag(covariance))
    assert (abs(flat.mean(axis=0) - mean) < 5 * spread / count**0.5).all()
    # A covariance of n pairs of normals has the error s_i s_j sqrt((1 + r^2)/n).
    error = np.outer(spread, spread) * (2 / count) ** 0.5
    assert (abs(np.cov(flat.T) - covariance) < 5 * error).all()


def test_the_inverse_leads_back(fitted):
    (transform,) = fitted.distribution(SHAPE, GREY).transforms
    z = jax.random.normal(jax.random.key(0), (7, *SHAPE))
    # Steps of float32 at 255 grey levels, in units of the least deviation, 4.
    np.testing.assert_allclose(transform.inv(transform(z)), z, atol=1e-4)


def test_contrast_multiplies_the_deviations(fitted, images, tmp_path):
    pale = Gaussian.fit(images, tmp_path / "pale.npz", contrast=0.5, floor=FLOOR / 2)
    np.testing.assert_allclose(pale.factor, fitted.factor / 2, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(pale.mean, fitted.mean)
    assert pale != fitted


def test_channels_are_in_the_networks_order(tmp_path):
    colours = np.random.default_rng(0).uniform(0, 255, (50, 2, 2, 3))
    fitted = Gaussian.fit(colours, tmp_path / "colours.npz")
    means = (104.0, 117.0, 123.0)
    (rgb,) = fitted.distribution((2, 2, 3), Preprocessing(means[::-1], (1.0,) * 3)).transforms
    (bgr,) = fitted.distribution((2, 2, 3), Preprocessing(means, (1.0,) * 3, "BGR")).transforms
    z = jax.random.normal(jax.random.key(0), (2, 2, 3))
    np.testing.assert_allclose(bgr(z), rgb(z)[..., ::-1], atol=1e-4)
    np.testing.assert_allclose(bgr.inv(bgr(z)), z, atol=1e-4)


def test_a_linear_tilt_moves_the_mean_by_the_covariance(fitted, images):
    """p = N(m + C w/T, C), whose mean is R(w_z/T) with w_z the gradient in z (Stein)."""
    mean, covariance = moments(images)
    weights = np.random.default_rng(2).normal(0, 0.01, SHAPE)
    response = ScoreFunction(lambda x: jnp.sum(x * jnp.asarray(weights, x.dtype)), SHAPE, (20.0,))
    density = TiltedDensity(response, fitted, temperature=0.5)
    gradient = jax.grad(density.tilt)(jnp.zeros(SHAPE))
    expected = mean - 20.0 + covariance @ weights.ravel() / 0.5
    np.testing.assert_allclose(density.push(gradient).ravel(), expected, rtol=1e-4, atol=1e-2)


def test_its_text_names_it_and_what_it_holds(fitted, images, tmp_path, refused):
    reference = parse_reference(f"gaussian:{tmp_path / 'images.npz'}")
    assert reference == fitted
    assert str(reference) == f"gaussian:{tmp_path / 'images.npz'}@{fitted.digest}"
    assert parse_reference(str(reference)) == fitted
    assert parse_reference(f"bounded:{reference}") == Bounded(fitted)
    assert isinstance(reference, Reference)
    assert (reference.push_is_linear, reference.needs_whole_image) == (True, True)
    Gaussian.fit(images[:300], tmp_path / "images.npz")
    with refused("fitted again", fitted.digest, kind=FileError, path=tmp_path / "images.npz"):
        parse_reference(str(reference))


def test_what_it_cannot_be_fitted_to_is_refused(images, tmp_path, refused):
    path = tmp_path / "none.npz"
    with refused("two or more images", kind=ArgumentError, argument="images"):
        Gaussian.fit(images[:1], path)
    with refused("two or more images", kind=ArgumentError, argument="images"):
        Gaussian.fit(images[0], path)
    with refused("4,096", "150,528", kind=ArgumentError, argument="images"):
        Gaussian.fit(np.zeros((2, 224, 224, 3)), path)
    with refused("0.0", kind=ArgumentError, argument="contrast"):
        Gaussian.fit(images, path, contrast=0.0)
    with refused("nan", kind=ArgumentError, argument="floor"):
        Gaussian.fit(images, path, floor=float("nan"))
    assert not path.exists()


def test_other_files_and_shapes_are_refused(fitted, tmp_path, refused):
    missing = tmp_path / "missing.npz"
    with refused(missing, "missing", kind=FileError, path=missing):
        parse_reference(f"gaussian:{missing}")
    other = tmp_path / "other.npz"
    for content in (
        {"mean": fitted.mean},
        {"mean": fitted.mean, "factor": fitted.factor[:5]},
        {"mean": fitted.mean, "factor": -fitted.factor},
        {"mean": fitted.mean, "factor": np.triu(fitted.factor)},
        {"mean": fitted.mean * np.nan, "factor": fitted.factor},
        {"mean": fitted.mean.astype(object), "factor": fitted.factor},
    ):
        np.savez(other, **content)
        with refused(other, "Gaussian.fit", kind=FileError, path=other):
            Gaussian.load(other)
    with open(other, "wb") as file:
        np.save(file, fitted.factor)  # one array, without the archive around it
    with refused(other, "Gaussian.fit", kind=FileError, path=other):
        Gaussian.load(other)
    other.write_bytes(b"PK\x03\x04")
    with refused(other, "Gaussian.fit", kind=FileError, path=other):
        Gaussian.load(other)
    with refused("(3, 2, 1)", "(2, 3, 1)", kind=MismatchError):
        fitted.distribution((2, 3, 1), GREY)
