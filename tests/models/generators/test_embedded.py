"""The generator that comes with the package: what it is, and that its images are clothes."""

import json

import jax
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.models.generators.loading import EMBEDDED, embedded_generators, load_generator


@pytest.fixture(scope="module")
def generator():
    return load_generator("fashion")


def test_it_takes_two_megabytes_and_says_what_made_it():
    assert embedded_generators() == ("fashion",)
    folder = EMBEDDED / "fashion"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2_000_000
    description = json.loads((folder / "generator.json").read_text())
    assert description["data"] == "fashion_mnist"
    assert description["training_images"] == 40_000
    assert "python -m ppl_cnn.generator" in description["command"]
    assert "MIT" in (folder / "LICENSE").read_text()


def test_the_embedded_network_names_it(generator):
    reference = ppl_cnn.load("alexnet-fashion").reference
    assert reference == "generator:fashion"
    assert ppl_cnn.GeneratorReference.load("fashion").generator == generator


def test_its_images_are_of_all_classes_as_often_as_images_are(generator):
    z = jax.random.normal(jax.random.key(0), (500, *generator.latent_shape))
    images = np.asarray(jax.jit(lambda z: generator(z))(z))
    assert images.shape == (500, 28, 28, 1)
    network = ppl_cnn.load("alexnet-fashion")
    x = images.round() - np.asarray(network.preprocessing.mean, np.float32)
    logits = np.asarray(jax.jit(lambda x: network(x) + network.alpha[...][None])(x))
    shares = np.bincount(logits.argmax(axis=1), minlength=10) / 500
    # A share of 0.1 has a standard error of 0.013 here; generator and network err by some more.
    assert shares.min() > 0.05
    assert shares.max() < 0.16
    # And the network is sure of most of them, as it is of images.
    assert np.median(jax.nn.softmax(logits, axis=1).max(axis=1)) > 0.9
