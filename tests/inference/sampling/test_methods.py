"""Methods by their names, and which fits which density."""

import jax.numpy as jnp
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError, UnknownNameError
from ppl_cnn.inference.kernels.registry import KERNELS
from ppl_cnn.inference.sampling.methods import method_for, parse_method, with_latents

SCORE = ppl_cnn.ScoreFunction(jnp.mean, (28, 28, 1))
WHITE = ppl_cnn.TiltedDensity(SCORE, ppl_cnn.WhiteNoise(1.0))
IMAGES = ppl_cnn.EmpiricalDensity(SCORE, ppl_cnn.Empirical("fashion-embedded", "test[:20]"))


@pytest.mark.parametrize("text", [*KERNELS, "resample", "tempered:4", "resample:99"])
def test_a_text_gives_a_method(text):
    assert str(parse_method(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "split(step_size=0.006, angle=0.15)",
        "split(angle=0.2)",
        "langevin(step_size=0.01)",
        "hmc(trajectory_length=0.5)",
        "nuts(max_tree_depth=4)",
    ],
)
def test_settings_are_read_as_records_have_them(text):
    assert str(parse_method(text)) == text
    assert str(parse_method(text.replace("=", " = ").replace("(", "( "))) == text


def test_a_setting_is_the_kernels():
    assert parse_method("split(target_accept_prob=0.9)").target_accept_prob == 0.9
    assert str(parse_method("tempered(rungs=4)")) == "tempered:4"


@pytest.mark.parametrize(
    "text",
    [
        "split()",
        "split(",
        "split(0.006)",
        "split(step_size)",
        "split(step_size=)",
        "split(step_size=small)",
        "split(step_size=0.006",
        "split(step_size=0.006,)",
        "split(step=0.006)",
        "split(tilt=1)",
        "split(step_size=0.006)(angle=1)",
        "split(step_size=0.1, step_size=0.2)",
        "nuts(max_tree_depth=4.5)",
    ],
)
def test_settings_that_cannot_be_read_are_refused(text, refused):
    with refused(text, "SETTING=VALUE", kind=ArgumentError, argument="kernel"):
        parse_method(text)


@pytest.mark.parametrize("text", ["split(step_size=0)", "split(angle=-1)", "split(angle=nan)"])
def test_settings_out_of_range_are_refused(text, refused):
    with refused(text[6:].partition("=")[0], kind=ArgumentError):
        parse_method(text)


def test_an_unknown_method_is_unknown_with_settings_too(refused):
    for text in ("resamble(step_size=1)", "resample(5000)"):
        with refused(text, kind=UnknownNameError):
            parse_method(text)


def test_an_unknown_method_is_told_of_all(refused):
    with refused(
        "resamble", "split", "resample", kind=UnknownNameError, known=(*KERNELS, "resample")
    ):
        parse_method("resamble")


def test_each_density_has_a_method_by_default():
    assert str(method_for(WHITE, None)) == "split"
    assert str(method_for(IMAGES, None)) == "resample"
    learned = ppl_cnn.TiltedDensity(SCORE, ppl_cnn.GeneratorReference.load("fashion"))
    assert str(method_for(learned, None)) == "isir"
    assert str(method_for(WHITE, "resample:50")) == "resample:50"


@pytest.mark.parametrize("given", ["split", "nuts", "resample:50"])
def test_images_are_resampled_all_of_them(given, refused):
    with refused(given, "data:fashion-embedded", kind=ArgumentError, argument="kernel"):
        method_for(IMAGES, given)
    with refused("data:fashion-embedded", kind=ArgumentError, argument="reference"):
        with_latents([IMAGES])


def test_independent_draws_start_nowhere(refused):
    with refused("rto", "resample", kind=ArgumentError, argument="start"):
        ppl_cnn.draw(WHITE, kernel="resample:50", start="rto", progress=False)
