"""Checkpoints of adversarial training, as MadryLab's robustness writes them."""

import logging

import numpy as np
import pytest
import safetensors.numpy

import ppl_cnn
from ppl_cnn.errors import MismatchError
from ppl_cnn.models.networks.catalogue import NETWORKS, resnet
from ppl_cnn.models.networks.graph import weight_shapes

TINY = resnet("tiny", (1, 1), bottleneck=True, channels=2, image_shape=(32, 32, 3), classes=9)


@pytest.fixture
def state(monkeypatch):
    """A state dict of a small ResNet under PyTorch's names."""
    monkeypatch.setitem(NETWORKS, TINY.name, TINY)
    random = np.random.default_rng(0)
    found = {}
    for layer, weights in weight_shapes(TINY).items():
        if "kernel" in weights:
            shape = weights["kernel"]
            shape = (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape[::-1]
            found[f"{layer}.weight"] = random.normal(size=shape).astype(np.float32)
        else:
            parts = ("weight", "bias", "running_mean", "running_var")
            for part in parts:
                found[f"{layer}.{part}"] = random.random(weights["scale"], np.float32)
            found[f"{layer}.num_batches_tracked"] = np.array(3)
        if "bias" in weights:
            found[f"{layer}.bias"] = random.random(weights["bias"], np.float32)
    return found


def robust(state, *, attacked=None, mean=(0.485, 0.456, 0.406)):
    """The state dict of robustness' wrapper in a DataParallel, whose attacker has the model too."""
    pixels = {
        f"module.{where}.new_{key}": np.float32(value).reshape(3, 1, 1)
        for where in ("normalizer", "attacker.normalize")
        for key, value in (("mean", mean), ("std", (0.229, 0.224, 0.225)))
    }
    models = {"module.model.": state, "module.attacker.model.": attacked or state}
    named = {
        f"{prefix}{name}": array for prefix, own in models.items() for name, array in own.items()
    }
    return pixels | named


def test_a_robust_networks_weights_are_found_once(state, tmp_path, caplog):
    safetensors.numpy.save_file(robust(state), tmp_path / "robust.safetensors")
    safetensors.numpy.save_file(state, tmp_path / "plain.safetensors")
    with caplog.at_level(logging.WARNING, "ppl_cnn"):
        net = ppl_cnn.load("tiny", weights=tmp_path / "robust.safetensors")
    assert not caplog.records
    plain = ppl_cnn.load("tiny", weights=tmp_path / "plain.safetensors")
    for name, array in plain.tensors().items():
        np.testing.assert_array_equal(array, net.tensors()[name])
    assert str(net.unit("layer2.0:7")) == "layer2.0:7@2,2"


def test_other_pixels_than_the_declared_ones_are_said(state, tmp_path, caplog):
    path = tmp_path / "robust.safetensors"
    safetensors.numpy.save_file(robust(state, mean=(0.4717, 0.4499, 0.3837)), path)
    ppl_cnn.load("tiny", weights=path)
    said = caplog.text[caplog.text.index("mean=") : caplog.text.index("'.")]
    assert "tiny" in caplog.text
    caplog.clear()
    pixels = ppl_cnn.load("tiny", weights=path, pixels=said).preprocessing
    assert not caplog.records
    np.testing.assert_allclose(pixels.mean, 255 * np.array([0.4717, 0.4499, 0.3837]), rtol=1e-5)
    np.testing.assert_allclose(pixels.scale, 1 / (255 * np.array([0.229, 0.224, 0.225])), rtol=1e-5)


def test_an_attacker_with_another_network_has_to_be_told_apart(state, tmp_path, refused):
    other = {name: np.asarray(array + np.ones_like(array)) for name, array in state.items()}
    path = tmp_path / "robust.safetensors"
    safetensors.numpy.save_file(robust(state, attacked=other), path)
    with refused("model", "attacker.model", "`entry`", kind=MismatchError):
        ppl_cnn.load("tiny", weights=path)
    net = ppl_cnn.load("tiny", weights=path, entry="attacker.model")
    np.testing.assert_array_equal(net.tensors()["fc.bias"], other["fc.bias"])
