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
TORCHVISION_PEER = Path(__file__).with_name("torchvision_peer.py")


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


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "googlenet", "mobilenet_v2", "vgg16_bn"])
def test_layers_and_gradients_are_torchvisions(name, torch_python, tmp_path):
    asked = [torch_python, "-c", "import torchvision"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip(f"{torch_python} has no torchvision")
    subprocess.run([torch_python, TORCHVISION_PEER, name, tmp_path], check=True)
    net = ppl_cnn.load(name, weights=tmp_path / "state.pth")
    with np.load(tmp_path / "run.npz") as run:
        theirs = {key: channels_last(run[key]) for key in run.files}
    for path in tmp_path.iterdir():
        path.unlink()
    x, gradient = theirs.pop("x"), theirs.pop("gradient")
    names = dict(net.declaration.aliases) | {"scores": net.declaration.scores}
    whole, params = Slab.whole(net.declaration), net.arrays()
    ours = jax.jit(whole.responses)(params, whole.crop(jnp.asarray(x)))
    compared = set()
    for module, expected in theirs.items():
        layer = module if module in ours else names.get(module)
        # VGG's modules of modules have no layers of their own.
        if layer is not None:
            found = np.asarray(ours[layer])
            read = tuple(slice(size) for size in found.shape)  # the part that later layers read
            expected = expected.reshape(found.shape) if found.ndim == 2 else expected[read]
            atol = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=module)
            compared.add(layer)
    assert set(params) <= compared
    with jax.enable_x64(True):
        double = jax.tree.map(lambda array: array.astype(jnp.float64), params)
        score = jax.grad(lambda x: whole.respond(double, whole.crop(x))[0, 5])
        found = np.asarray(jax.jit(score)(jnp.asarray(x, jnp.float64)))
    assert np.linalg.norm(found - gradient) < 1e-6 * np.linalg.norm(gradient)


def channels_last(array):
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
