import logging
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import ppl_cnn
from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.networks.catalogue import NETWORKS, resnet
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.graph import weight_shapes
from ppl_cnn.models.networks.layers import BatchNorm, Conv
from ppl_cnn.models.trained.checkpoints.batch_norms import normalized

FILE = Path("file")
NETWORK = Network(
    "normal",
    (4, 4, 1),
    Preprocessing((0.0,), (1.0,)),
    layers=(Conv("conv", 2, 3, has_bias=False), BatchNorm("bn", epsilon=0.25)),
    aliases=(("features.1", "bn"),),
)
PARTS = {
    "weight": np.array([3, -4], np.float32),
    "bias": np.array([1, 2], np.float32),
    "running_mean": np.array([5, 6], np.float32),
    "running_var": np.array([2, 0], np.float32),
}


def stored(name="bn", **others):
    parts = {**PARTS, **others}
    return {f"{name}.{key}": array for key, array in parts.items() if array is not None}


@pytest.mark.parametrize("name", ["bn", "features.1"])
def test_four_tensors_become_a_scale_and_a_shift(name):
    tensors = stored(name) | {f"{name}.num_batches_tracked": np.array(7), "conv.weight": np.ones(1)}
    found = normalized(tensors, NETWORK, FILE)
    assert set(found) == {f"{name}.scale", f"{name}.shift", "conv.weight"}
    np.testing.assert_allclose(found[f"{name}.scale"], [3 / 1.5, -4 / 0.5])
    np.testing.assert_allclose(found[f"{name}.shift"], [1 - 5 * 2, 2 + 6 * 8])


def test_scales_and_shifts_stay():
    tensors = {"bn.scale": PARTS["weight"], "bn.shift": PARTS["bias"]}
    assert normalized(tensors, NETWORK, FILE) == tensors


@pytest.mark.parametrize(
    ("others", "kind", "facts"),
    [
        ({"running_var": None, "running_mean": None}, MismatchError, ["bn.running_mean, bn.run"]),
        ({"weight": None}, MismatchError, ["it lacks bn.weight"]),
        ({"running_var": np.ones(3, np.float32)}, MismatchError, ["bn.running_var", "(3,)"]),
        ({"running_var": np.array([1, -2], np.float32)}, FileError, ["bn.running_var", "negative"]),
        ({"running_mean": np.array([1, np.nan])}, FileError, ["bn.running_mean", "NaN"]),
        ({"weight": np.array([1, 2])}, FileError, ["bn.weight", "int64"]),
    ],
)
def test_what_cannot_be_put_together_is_named(others, kind, facts, refused):
    with refused(FILE, *facts, kind=kind):
        normalized(stored(**others), NETWORK, FILE)


# Checkpoints of adversarial training (MadryLab's robustness).

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


def test_an_attacker_with_another_network_has_to_be_told_apart(state, tmp_path, refused):
    other = {name: np.asarray(array + np.ones_like(array)) for name, array in state.items()}
    path = tmp_path / "robust.safetensors"
    safetensors.numpy.save_file(robust(state, attacked=other), path)
    with refused("model", "attacker.model", "`entry`", kind=MismatchError):
        ppl_cnn.load("tiny", weights=path)
    net = ppl_cnn.load("tiny", weights=path, entry="attacker.model")
    np.testing.assert_array_equal(net.tensors()["fc.bias"], other["fc.bias"])
