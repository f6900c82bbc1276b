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
