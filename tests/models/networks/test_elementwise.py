"""Sums of branches, gates and normalizations in declared networks."""

import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.errors import MismatchError
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.elementwise import Elementwise
from ppl_cnn.models.networks.graph import shapes, weight_shapes
from ppl_cnn.models.networks.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    GlobalMean,
    ReLU,
)
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.units.listing import nonlinearities, unit_layers

BLOCK = Network(
    name="block",
    image_shape=(9, 8, 2),
    preprocessing=Preprocessing((0.0,) * 2, (1.0,) * 2),
    layers=(
        Conv("conv1", 4, kernel=(3, 1), padding=((1, 1), (0, 0))),
        BatchNorm("bn1"),
        ReLU("relu1"),
        Conv("conv2", 4, kernel=3, padding=1),
        Elementwise("sum", "add", after=("conv2", "relu1")),
        GlobalMean("mean", is_map=True),
        Elementwise("gate", "multiply", after=("sum", "mean")),
        AveragePool("pool", kernel=2, stride=2),
        Dense("fc", 3),
    ),
    with_units=("conv1", "bn1", "sum", "gate", "fc"),
)


def weights(seed=0):
    random = np.random.default_rng(seed)

    def normal(size):
        return jnp.asarray(random.normal(size=size), jnp.float32)

    return {
        layer: {name: normal(size) for name, size in wanted.items()}
        for layer, wanted in weight_shapes(BLOCK).items()
    }


def test_the_block_is_the_written_out_one():
    params, x = (
        weights(),
        jnp.asarray(np.random.default_rng(1).normal(size=(2, 9, 8, 2)), jnp.float32),
    )
    found = {
        name: np.asarray(each) for name, each in Slab.whole(BLOCK).responses(params, x).items()
    }
    norm = {name: np.asarray(array) for name, array in params["bn1"].items()}
    np.testing.assert_allclose(
        found["bn1"], found["conv1"] * norm["scale"] + norm["shift"], rtol=1e-6
    )
    np.testing.assert_allclose(found["sum"], found["conv2"] + found["relu1"], rtol=1e-6)
    # The last row of the gate isn't read.
    gated = found["sum"] * found["sum"].mean((1, 2), keepdims=True)
    np.testing.assert_allclose(found["gate"], gated[:, :8], rtol=1e-4, atol=1e-5)
    blocks = found["gate"].reshape(2, 4, 2, 4, 2, 4)
    np.testing.assert_allclose(found["pool"], blocks.mean((2, 4)), rtol=1e-4, atol=1e-5)


def test_branches_are_read_where_they_are_added():
    assert shapes(BLOCK)["gate"] == (9, 8, 4)
    seen = {layer.name: layer.image for layer in unit_layers(BLOCK)}
    assert seen == {"conv1": (3, 1), "bn1": (3, 1), "sum": (5, 3), "gate": (9, 8), "fc": (9, 8)}


def test_a_nonlinearity_may_follow_a_normalization():
    assert nonlinearities(BLOCK) == {"conv1": "relu1", "bn1": "relu1"}


def test_branches_of_other_sizes_are_refused():
    layers = (
        Conv("a", 2, kernel=1),
        Conv("b", 2, kernel=2),
        Elementwise("c", "add", after=("a", "b")),
    )
    with pytest.raises(MismatchError, match="c of net reads maps of different sizes"):
        shapes(Network("net", (4, 4, 1), Preprocessing((0.0,), (1.0,), "grey"), layers=layers))
