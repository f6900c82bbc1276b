from pathlib import Path

import numpy as np
import pytest

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.networks.declaration import Network, Preprocessing
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
