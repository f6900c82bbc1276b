"""torchvision's networks and files against PyTorch itself, in an environment that has PyTorch.

PPL_CNN_TORCH_PYTHON=/path/to/python python -m pytest tests/models/trained/test_torch_networks.py
"""

import os
import subprocess
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.models.networks.catalogue import ALEXNET_TORCHVISION, VGG16
from ppl_cnn.models.networks.slab import Slab

PEER = Path(__file__).with_name("torch_peer.py")


@pytest.fixture(scope="module")
def torch_python():
    """A Python that has PyTorch."""
    python = os.environ.get("PPL_CNN_TORCH_PYTHON")
    if not python:
        pytest.skip("PPL_CNN_TORCH_PYTHON names no Python that has PyTorch")
    asked = subprocess.run([python, "-c", "import torch, numpy"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip(f"{python} has no PyTorch and NumPy")
    return python


@pytest.mark.parametrize("network", [ALEXNET_TORCHVISION, VGG16], ids=lambda network: network.name)
def test_logits_are_pytorchs(network, torch_python, tmp_path):
    subprocess.run([torch_python, PEER, network.name, "0", tmp_path], check=True)
    params = ppl_cnn.load(network.name, weights=tmp_path / "state.pth").arrays()
    with np.load(tmp_path / "run.npz") as run:
        images, expected = run["images"], run["logits"]
    for path in tmp_path.iterdir():
        path.unlink()  # VGG's take a gigabyte, and pytest keeps its folders
    # The images as the first layer sees them, in both libraries.
    x = jnp.asarray(images.transpose(0, 2, 3, 1))
    whole = Slab.whole(network)
    logits = jax.jit(partial(Slab.respond, whole))(params, whole.crop(x))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
