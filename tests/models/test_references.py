import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl_cnn.models.references import Reference, WhiteNoise, parse_reference

SHAPE = (3, 2, 1)


def test_white_noises_log_density_is_that_of_independent_normals():
    x = np.random.default_rng(0).normal(0, 30, SHAPE)
    log_density = WhiteNoise(10.0).distribution(SHAPE).log_prob(jnp.asarray(x, jnp.float32))
    assert log_density.shape == ()  # one event: the image
    # A sum of six float32 terms of order 10.
    np.testing.assert_allclose(log_density, stats.norm(0, 10).logpdf(x).sum(), rtol=1e-6)


def test_white_noises_draws_have_its_sigma():
    draws = WhiteNoise(10.0).distribution(SHAPE).sample(jax.random.key(0), (4_000,))
    assert draws.shape == (4_000, *SHAPE)
    # From n normals, a mean has the error sigma/sqrt(n), a standard deviation sigma/sqrt(2 n).
    assert abs(draws.std() / 10 - 1) < 5 / (2 * draws.size) ** 0.5
    assert abs(draws.mean() / 10) < 5 / draws.size**0.5


def test_push_is_the_distributions_transform():
    reference = WhiteNoise(7.5)
    z = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    distribution = reference.distribution(SHAPE)
    np.testing.assert_array_equal(reference.push(z), 7.5 * z)
    np.testing.assert_array_equal(reference.push(z), distribution.transforms[0](z))
    np.testing.assert_allclose(
        distribution.base_dist.log_prob(z), stats.norm.logpdf(z).sum((1, 2, 3)), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("text", "sigma"), [("white:10", 10.0), ("white:0.1234567", 0.1234567), ("white:1e-05", 1e-5)]
)
def test_a_text_names_a_reference(text, sigma):
    reference = parse_reference(text)
    assert reference == WhiteNoise(sigma)
    assert str(reference) == text
    assert isinstance(reference, Reference)


@pytest.mark.parametrize("text", ["white:-1", "white:0", "white:nan", "white:inf", "white:1e999"])
def test_noise_without_a_positive_finite_sigma_is_refused(text, refused):
    with refused("sigma", "positive and finite"):
        parse_reference(text)


@pytest.mark.parametrize(
    "text", ["uniform", "white", "white:", "white:abc", "", "pink:10", "White:10"]
)
def test_texts_that_name_no_reference_are_refused(text, refused):
    with refused(repr(text), "white:SIGMA"):
        parse_reference(text)
