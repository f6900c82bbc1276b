"""Small ResNets, opened from a state dict, against PyTorch's modules written out with lax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import lax

import ppl_cnn
from ppl_cnn.models.networks.catalogue import NETWORKS, resnet
from ppl_cnn.models.networks.forward import scaled
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.trained.model_folder import save
from ppl_cnn.models.units.listing import nonlinearities

SMALL = {"channels": 3, "image_shape": (37, 45, 3), "classes": 5}
BASIC = resnet("basic", (1, 2), **SMALL)
BOTTLENECK = resnet("bottleneck", (2, 1), bottleneck=True, width=2, **SMALL)


def quick(function):
    """The function compiled in little time: it runs once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def state_dict(network, seed=0):
    """A state dict as PyTorch has it, by the modules' names written out."""
    random = np.random.default_rng(seed)
    state = {}

    def conv(name, out, into, size):
        deviation = (2 / (into * size * size)) ** 0.5
        state[f"{name}.weight"] = random.normal(0, deviation, (out, into, size, size))

    def norm(name, count):
        state[f"{name}.weight"] = random.uniform(0.5, 1.5, count)
        state[f"{name}.bias"] = random.normal(0, 0.2, count)
        state[f"{name}.running_mean"] = random.normal(0, 0.2, count)
        state[f"{name}.running_var"] = random.uniform(0.5, 1.5, count)

    conv("conv1", 3, 3, 7)
    norm("bn1", 3)
    blocks = {
        "basic": [
            ("layer1.0", 3, ((3, 3), (3, 3)), False),
            ("layer2.0", 3, ((6, 3), (6, 3)), True),
            ("layer2.1", 6, ((6, 3), (6, 3)), False),
        ],
        "bottleneck": [
            ("layer1.0", 3, ((6, 1), (6, 3), (12, 1)), True),
            ("layer1.1", 12, ((6, 1), (6, 3), (12, 1)), False),
            ("layer2.0", 12, ((12, 1), (12, 3), (24, 1)), True),
        ],
    }[network.name]
    for block, channels, convolutions, projects in blocks:
        into = channels
        for place, (out, size) in enumerate(convolutions, 1):
            conv(f"{block}.conv{place}", out, into, size)
            norm(f"{block}.bn{place}", out)
            into = out
        if projects:
            conv(f"{block}.downsample.0", into, channels, 1)
            norm(f"{block}.downsample.1", into)
    state["fc.weight"] = random.normal(0, into**-0.5, (5, into))
    state["fc.bias"] = random.normal(0, 0.2, 5)
    counts = {
        name.replace("running_var", "num_batches_tracked"): np.array(9)
        for name in state
        if name.endswith("running_var")
    }
    return {name: array.astype(np.float32) for name, array in state.items()} | counts


def written_out(network, state, x):
    """Module name -> its response to images (n, channel, row, col), in float64."""
    found = {}

    def conv(name, x, stride):
        kernel = state[f"{name}.weight"].astype(np.float64)
        off = kernel.shape[2] // 2
        with jax.enable_x64(True):
            found[name] = np.asarray(
                lax.conv_general_dilated(x, kernel, (stride, stride), [(off, off)] * 2)
            )
        return found[name]

    def norm(name, x):
        weight, bias, mean, variance = (
            state[f"{name}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        found[name] = (x - mean) / np.sqrt(variance + 1e-5) * weight + bias
        return found[name]

    x = norm("bn1", conv("conv1", x, 2)).clip(0)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    x = found["maxpool"] = windows.max((-2, -1))
    blocks = dict.fromkeys(name.rpartition(".conv")[0] for name in state if ".conv" in name)
    for block in blocks:
        places = [place for place in (1, 2, 3) if f"{block}.conv{place}.weight" in state]
        stride = 2 if block == "layer2.0" else 1
        y = x
        for place in places:
            strided = place == (2 if len(places) == 3 else 1)
            y = y if place == 1 else y.clip(0)
            y = norm(
                f"{block}.bn{place}", conv(f"{block}.conv{place}", y, stride if strided else 1)
            )
        if f"{block}.downsample.0.weight" in state:
            x = norm(f"{block}.downsample.1", conv(f"{block}.downsample.0", x, stride))
        found[f"{block}.Add"] = y + x
        x = found[block] = (y + x).clip(0)
    found["avgpool"] = x.mean((2, 3))
    found["fc"] = found["avgpool"] @ state["fc.weight"].T.astype(np.float64) + state["fc.bias"]
    return found


@pytest.fixture(params=[BASIC, BOTTLENECK], ids=lambda network: network.name)
def opened(request, monkeypatch, tmp_path):
    """A network, its state dict, and the network opened from it."""
    network = request.param
    monkeypatch.setitem(NETWORKS, network.name, network)
    state = state_dict(network)
    safetensors.numpy.save_file(state, tmp_path / "state.safetensors")
    return network, state, ppl_cnn.load(network.name, weights=tmp_path / "state.safetensors")


def test_every_layer_responds_as_pytorchs_module(opened):
    network, state, cnn = opened
    x = np.random.default_rng(1).normal(size=(2, 3, 37, 45))
    whole = Slab.whole(network)
    images = jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float32)
    found = quick(whole.responses)(cnn.arrays(), whole.crop(images))
    expected = written_out(network, state, x)
    assert {layer.name for layer in network.layers} - {*expected} == {
        layer.name for layer in network.layers if ".relu" in layer.name or layer.name == "relu"
    }
    for name, response in expected.items():
        theirs = response.transpose(0, 2, 3, 1) if response.ndim == 4 else response
        if theirs.ndim == 4:  # a 1x1 convolution of stride 2 leaves the last row and column unread
            theirs = theirs[:, : found[name].shape[1], : found[name].shape[2]]
        atol = 1e-5 * np.abs(theirs).max()
        np.testing.assert_allclose(found[name], theirs, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("opened", [BOTTLENECK], indirect=True, ids=lambda network: network.name)
def test_units_at_the_centre_and_in_a_corner_respond_as_the_whole_network(opened):
    network, _, cnn = opened
    image = np.random.default_rng(2).normal(0, 60, network.image_shape).astype(np.float32)
    whole = Slab.whole(network)
    seen = scaled(network.preprocessing, jnp.asarray(image)[None])
    maps = quick(whole.responses)(cnn.arrays(), whole.crop(seen))
    for name in ("layer1.1.conv2", "layer2.0.downsample.1", "layer2.0"):
        rows, cols, channels = maps[name].shape[1:]
        for row, col in ((rows // 2, cols // 2), (0, cols - 1)):
            unit = cnn.unit(f"{name}:{channels - 1}@{row},{col}")
            part = image[unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop]
            score = quick(unit.score)(unit.params, jnp.asarray(part))
            atol = 1e-5 * np.abs(maps[name]).max()
            assert abs(score - maps[name][0, row, col, channels - 1]) < atol, (name, row, col)


def test_units_are_named_by_modules(opened):
    network, _, cnn = opened
    last = {"basic": "layer2.1", "bottleneck": "layer2.0"}[network.name]
    for text, name in (
        ("layer2:1@0,0", f"{last}:1@0,0"),
        (f"{last}:1@0,0", f"{last}:1@0,0"),
        ("layer2_0_conv1:3@0,1", "layer2.0.conv1:3@0,1"),
        ("layer2.0.downsample:0@0,0", "layer2.0.downsample.1:0@0,0"),
        ("class:4", "fc:4"),
    ):
        assert str(cnn.unit(text)) == name
    after = nonlinearities(network)
    assert (after["conv1"], after["bn1"]) == ("relu", "relu")
    assert after["layer2.0.Add"] == "layer2.0"
    # The last normalization of a block is added to the shortcut first.
    assert "layer2.0.conv3" not in after


def test_weights_survive_the_folder_of_an_import(opened, tmp_path):
    _, _, cnn = opened
    save(tmp_path, cnn, {})
    again = ppl_cnn.load(tmp_path)
    assert again.declaration == cnn.declaration
    jax.tree.map(np.testing.assert_array_equal, again.arrays(), cnn.arrays())


def test_random_normalizations_are_the_identity():
    params = he_normal(BASIC, jax.random.key(0))
    assert set(params["layer1.0.conv1"]) == {"kernel"}
    np.testing.assert_array_equal(params["layer1.0.bn1"]["scale"], 1)
    np.testing.assert_array_equal(params["layer1.0.bn1"]["shift"], 0)
