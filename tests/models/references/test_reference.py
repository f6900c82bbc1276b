import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppl_cnn import InputError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.bounded import Bounded
from ppl_cnn.models.references.named import parse_reference
from ppl_cnn.models.references.noise import Uniform, WhiteNoise
from ppl_cnn.models.references.reference import Reference
from ppl_cnn.models.references.spectral import Band, Spectral

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
    with refused("band:5", "4x7", "band:4"):
        Band(5).distribution((4, 7, 3), BGR)
    with refused("1 or 3 channels", "not 2"):
        Band(2).distribution((4, 4, 2), Preprocessing((0.0,) * 2, (1.0,) * 2))


def test_a_spectral_reference_is_of_grey_or_three_colours(refused):
    with refused("1 or 3 channels", "not 4"):
        Spectral().distribution((4, 4, 4), Preprocessing((0.0,) * 4, (1.0,) * 4))


NAMED = [
    ("white:10", WhiteNoise(10.0)),
    ("white:0.1234567", WhiteNoise(0.1234567)),
    ("white:1e-05", WhiteNoise(1e-5)),
    ("uniform", Uniform()),
    ("spectral", Spectral()),
    ("spectral:0.9", Spectral(0.9)),
    ("spectral:0", Spectral(0.0)),
    (
        "spectral:1.1:4000,3000.5,2000,4100,3100,4200",
        Spectral(
            1.1, ((4000.0, 3000.5, 2000.0), (3000.5, 4100.0, 3100.0), (2000.0, 3100.0, 4200.0))
        ),
    ),
    ("spectral@18", Spectral(contrast=18.0)),
    ("spectral:0.9@12.5", Spectral(0.9, contrast=12.5)),
    (
        "spectral:1.1:4000,3000.5,2000,4100,3100,4200@25",
        Spectral(
            1.1,
            ((4000.0, 3000.5, 2000.0), (3000.5, 4100.0, 3100.0), (2000.0, 3100.0, 4200.0)),
            contrast=25.0,
        ),
    ),
    ("band:32", Band(32)),
    ("band:8:0.9", Band(8, Spectral(0.9))),
    ("band:8@18", Band(8, Spectral(contrast=18.0))),
    ("bounded:band:24:1.5@18", Bounded(Band(24, Spectral(1.5, contrast=18.0)))),
    ("bounded:spectral@18", Bounded(Spectral(contrast=18.0))),
    ("bounded:white:60", Bounded(WhiteNoise(60.0))),
    ("bounded:spectral", Bounded(Spectral())),
    ("bounded:spectral:0.9", Bounded(Spectral(0.9))),
]


@pytest.mark.parametrize(("text", "expected"), NAMED)
def test_a_text_names_a_reference(text, expected):
    reference = parse_reference(text)
    assert reference == expected
    assert str(reference) == text
    assert isinstance(reference, Reference)
    assert hash(reference) == hash(expected)


@pytest.mark.parametrize(
    ("text", "linear", "whole"),
    [
        ("white:10", True, False),
        ("uniform", False, False),
        ("spectral", True, True),
        ("bounded:white:10", False, False),
        ("bounded:spectral", False, True),
        ("band:2", True, True),
        ("bounded:band:2", False, True),
    ],
)
def test_what_the_sampler_must_know_of_a_reference(text, linear, whole):
    reference = parse_reference(text)
    assert (reference.linear, reference.whole) == (linear, whole)


def test_what_the_text_leaves_open_is_taken_from_the_photographs(tmp_path, refused):
    colours = ((900.0, 500.0, 200.0), (500.0, 800.0, 300.0), (200.0, 300.0, 700.0))
    natural = Spectral(1.4, colours)
    assert parse_reference("spectral", natural) == natural
    assert parse_reference("spectral:0.8", natural) == Spectral(0.8, colours)
    assert parse_reference("bounded:spectral", natural) == Bounded(natural)
    assert parse_reference(str(natural)) == natural
    natural.save(tmp_path / "fit.json")
    assert parse_reference(f"bounded:spectral:{tmp_path / 'fit.json'}") == Bounded(natural)
    assert parse_reference("band:5", natural) == Band(5, natural)
    assert parse_reference("band:5:0.8@9", natural) == Band(5, Spectral(0.8, colours, contrast=9.0))
    own = Spectral(1.4, colours, contrast=7.0)
    assert parse_reference("spectral@7", natural) == own
    assert parse_reference(f"spectral:{tmp_path / 'fit.json'}@7") == own
    own.save(tmp_path / "a@b.json")
    assert parse_reference(f"spectral:{tmp_path / 'a@b.json'}") == own
    for text in ("white:10", "uniform", "bounded:white:3"):
        with refused(text, "photographs"):
            parse_reference(text, natural)


@pytest.mark.parametrize("text", ["white:-1", "white:0", "white:nan", "white:inf", "white:1e999"])
def test_noise_without_a_positive_finite_sigma_is_refused(text, refused):
    for each in (text, f"bounded:{text}"):
        with refused("sigma", "positive and finite"):
            parse_reference(each)


NAMELESS = ["white", "white:", "white:abc", "", "pink:10", "White:10", "uniform:", "uniform:3"]
NAMELESS += ["spectral:", "bounded", "bounded:", "bounded:bounded:white:3", "band", "band:"]
NAMELESS += ["band:x", "band:-3", "band:3:", "band:99999", "band:1.5", "spectral18", "white@3"]


@pytest.mark.parametrize("text", NAMELESS)
def test_texts_that_name_no_reference_are_refused(text, refused):
    with refused(repr(text), "white:SIGMA", "spectral:EXPONENT"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bounded:uniform", ("uniform", "leave out bounded")),
        ("spectral:x", ("'x'", "spectral:EXPONENT")),
        ("spectral:1:2", ("'1:2'", "RR,RG,RB")),
        ("spectral:1:", ("'1:'", "RR,RG,RB")),
        ("spectral:1:1,2,3,4,5,6,7", ("RR,RG,RB",)),
        ("spectral:-0.1", ("exponent", "-0.1")),
        ("spectral:3.1", ("exponent", "0 to 3")),
        ("spectral:nan", ("exponent", "nan")),
        ("spectral:1:1,1,1,1,1,1", ("positive definite",)),
        ("spectral:1:1,0,0,-1,0,1", ("positive definite",)),
        ("spectral:1:nan,0,0,1,0,1", ("positive definite",)),
        ("spectral:1:inf,0,0,1,0,1", ("positive definite",)),
        ("spectral:1:1e-300,0,0,1e-300,0,1e-300", ("grey levels",)),
        ("spectral:nowhere.json", ("nowhere.json", "no file")),
        ("spectral:nowhere.json@3", ("nowhere.json", "no file")),
        ("spectral@", ("'@'", "@CONTRAST")),
        ("spectral:1.2@x", ("'1.2@x'", "@CONTRAST")),
        ("spectral@0", ("contrast", "grey levels", "not 0")),
        ("spectral@-3", ("contrast", "not -3")),
        ("spectral@nan", ("contrast", "not nan")),
        ("band:3@1e9", ("contrast", "not 1000000000")),
        ("band:0", ("at least 1 wave", "not 0")),
        ("band:3:4", ("exponent", "0 to 3")),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(text, words, refused):
    with refused(*words):
        parse_reference(text)


PIECES = ["white", "uniform", "spectral", "bounded", ":", ",", "-", "1", "0", ".5", "1e9", "nan"]
PIECES += ["band:", "@", "18", ".json", "\0", "\n", " ", "/", "4000,3000,2000,4100,3100,4200"]


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=9).map("".join)))
def test_any_text_names_a_reference_or_is_refused_in_a_sentence(text):
    refusal = "."
    try:
        reference = parse_reference(text)
    except InputError as error:
        refusal = str(error)
    else:
        assert parse_reference(str(reference)) == reference
    assert refusal.endswith(".")
    assert "\n" not in refusal
