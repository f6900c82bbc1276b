"""The tilted empirical density: how its images come to the unit, and what is refused."""

import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.data import batches
from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.empirical_density import EmpiricalDensity
from ppl_cnn.models.references.empirical import Empirical

Q = Empirical("fashion-embedded", "test[:6]")


def test_images_are_those_of_evaluation_cropped_to_the_units_field():
    network = ppl_cnn.load("alexnet-fashion")
    unit = network.unit("conv2:3@0,7")
    (batch,) = batches(Q.images, 6)
    seen = EmpiricalDensity(unit, Q).seen(batch["image"])
    assert seen.shape == (6, *unit.shape)
    pixels = batch["image"][:, unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop]
    np.testing.assert_allclose(seen + network.preprocessing.mean[0], pixels, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf")])
def test_a_temperature_is_positive_and_finite(temperature, refused):
    score = ppl_cnn.ScoreFunction(lambda image: image.sum(), (28, 28, 1))
    with refused("temperature", temperature, kind=ArgumentError, argument="temperature"):
        EmpiricalDensity(score, Q, temperature)
