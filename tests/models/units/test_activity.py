import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.models.networks.catalogue import LENET, SQUEEZENET
from ppl_cnn.models.networks.declaration import IMAGE, Network, Preprocessing
from ppl_cnn.models.networks.layers import Conv, Dense, MaxPool, ReLU
from ppl_cnn.models.units.activity import activity
from ppl_cnn.models.units.listing import nonlinearities

TINY = Network(
    "tiny",
    (3, 4, 2),
    Preprocessing((0.0, 0.0), (2.0, 0.5)),
    layers=(
        Conv("conv1", 3, kernel=1),
        ReLU("relu1"),
        Conv("linear", 2, kernel=1),
        MaxPool("pool", kernel=2, stride=1),
        Dense("fc2", 5),
        ReLU("relu2"),
        Dense("fc3", 2),
    ),
)


def written_out(params, images):
    """The shares of conv1 and fc2, image by image and place by place."""
    params = {
        name: {key: np.asarray(array, np.float64) for key, array in weights.items()}
        for name, weights in params.items()
    }
    conv1, fc2 = np.zeros(3), np.zeros(5)
    for image in images * np.asarray([2.0, 0.5]):
        x = image @ params["conv1"]["kernel"][0, 0] + params["conv1"]["bias"]
        conv1 += (x > 0).sum((0, 1))
        x = x.clip(0) @ params["linear"]["kernel"][0, 0] + params["linear"]["bias"]
        x = np.maximum(np.maximum(x[:-1, :-1], x[1:, :-1]), np.maximum(x[:-1, 1:], x[1:, 1:]))
        fc2 += (x.ravel() @ params["fc2"]["kernel"] + params["fc2"]["bias"]) > 0
    return {"conv1": conv1 / (12 * len(images)), "fc2": fc2 / len(images)}


@pytest.mark.parametrize("sizes", [[7], [3, 3, 1], [1] * 7])
def test_shares_are_counted_over_images_and_places(sizes, random_params):
    params = random_params(TINY)
    # A channel that never responds, and one that always does.
    for channel, bias in ((0, -1e3), (2, 1e3)):
        params["conv1"]["bias"] = params["conv1"]["bias"].at[channel].set(bias)
    images = np.random.default_rng(0).normal(0, 3, (7, 3, 4, 2)).astype(np.float32)
    batches = [jnp.asarray(part) for part in np.split(images, np.cumsum(sizes)[:-1])]
    found = activity(TINY, params, iter(batches))
    expected = written_out(params, images)
    assert list(found) == ["conv1", "fc2"]
    for name, shares in found.items():
        np.testing.assert_allclose(shares, expected[name], rtol=1e-6)  # counts, then float32
    assert (found["conv1"][0], found["conv1"][2]) == (0, 1)
    assert 0 < found["conv1"][1] < 1


def test_nonlinearities_are_the_relus_that_read_a_layer_alone():
    assert nonlinearities(LENET) == {"fc3": "relu3"}
    found = nonlinearities(SQUEEZENET)
    assert found["fire2/expand3x3"] == "fire2/relu_expand3x3"
    assert not {"conv10", "pool10"} & set(found)
    both = Network(
        "both",
        (2, 2, 1),
        Preprocessing((0.0,), (1.0,)),
        layers=(Conv("a", 1, 1), Conv("b", 1, 1, after=(IMAGE,)), ReLU("r", after=("a", "b"))),
    )
    assert nonlinearities(both) == {}
