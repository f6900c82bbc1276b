import os
import re
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import FileError, MismatchError, UnknownNameError
from ppl_cnn.models.formats import read_tensors
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.graph import input_shape
from ppl_cnn.models.networks.layers import Conv, Dense, MaxPool
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.importing import as_wide_as, params_from, with_score_layer

TORCH_PYTHON = os.environ.get("PPL_CNN_TORCH_PYTHON")
SOURCE = Path("file")
NETWORK = Network(
    name="small",
    image_shape=(6, 8, 4),
    preprocessing=Preprocessing((0.0,) * 4, (1.0,) * 4, "RGB"),
    layers=(
        Conv("conv1", 6, kernel=3, groups=2),
        MaxPool("pool1", kernel=2, stride=2),
        Dense("fc2", 5),
        Dense("fc3", 3),
    ),
    aliases=(("features.0", "conv1"), ("classifier.1", "fc2"), ("ip3", "fc3")),
)


def published(network, params, legacy=False):
    """Our weights as PyTorch and Caffe have them: OIHW; (out, in) with maps as CHW."""
    tensors = {}
    for name, weights in params.items():
        kernel, bias = np.asarray(weights["kernel"]), np.asarray(weights["bias"])
        maps = input_shape(network, network.layer(name))
        if kernel.ndim == 4:
            weight = np.einsum("rcio->oirc", kernel)
        elif len(maps) == 3:
            rows, cols, channels = maps
            weight = np.empty((kernel.shape[1], channels, rows, cols), np.float32)
            for place, (row, col, channel) in enumerate(np.ndindex(*maps)):
                weight[:, channel, row, col] = kernel[place]
            weight = weight.reshape(kernel.shape[1], -1)
        else:
            weight = kernel.T
        four = (1,) * (4 - weight.ndim) if legacy else ()
        tensors[f"{name}.weight"] = weight.reshape(four + weight.shape)
        tensors[f"{name}.bias"] = bias.reshape(((1,) * 3 if legacy else ()) + bias.shape)
    return tensors


def check_same(found, params):
    assert {name: set(weights) for name, weights in found.items()} == {
        name: set(weights) for name, weights in params.items()
    }
    for name, weights in params.items():
        for key, array in weights.items():
            assert found[name][key].dtype == np.float32
            np.testing.assert_array_equal(found[name][key], array)


def ours(params):
    return {
        f"{n}.{key}": np.asarray(a) for n, weights in params.items() for key, a in weights.items()
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_published_layouts_become_ours(legacy, random_params):
    params = random_params(NETWORK)
    check_same(params_from(published(NETWORK, params, legacy), NETWORK, SOURCE), params)
    check_same(params_from(ours(params), NETWORK, SOURCE), params)


def test_names_of_published_files_are_known(random_params):
    params = random_params(NETWORK)
    names = {own: alias for alias, own in NETWORK.aliases}
    tensors = {
        f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}": array
        for name, array in published(NETWORK, params).items()
    }
    assert "classifier.1.weight" in tensors
    check_same(params_from(tensors, NETWORK, SOURCE), params)


def test_doubles_and_halves_become_float32(random_params):
    tensors = ours(random_params(NETWORK))
    for dtype in (np.float64, np.float16):
        cast = {name: array.astype(dtype) for name, array in tensors.items()}
        found = ours(params_from(cast, NETWORK, SOURCE))
        for name, array in cast.items():
            np.testing.assert_array_equal(found[name], array.astype(np.float32))


@pytest.fixture
def tensors(random_params):
    return published(NETWORK, random_params(NETWORK))


def test_what_is_missing_left_over_and_misshapen_is_said_at_once(tensors, refused):
    del tensors["fc3.bias"]
    tensors["fc2.weight"] = tensors["fc2.weight"].T
    tensors |= {f"bn{index}.num_batches_tracked": np.array(index) for index in range(7)}
    with refused(
        "file doesn't hold the weights of small",
        "lacks fc3.bias",
        "bn3.num_batches_tracked, bn4.num_batches_tracked and 2 more, which small doesn't have",
        "fc2.weight has the shape (36, 5), not (5, 36)",
        kind=MismatchError,
    ):
        params_from(tensors, NETWORK, SOURCE)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv1.weight", (6, 2, 3, 3, 1)),
        ("fc2.weight", (5, 36, 1, 1)),
        ("fc2.weight", (5, 6, 2, 3)),
        ("fc2.weight", (1, 5, 36)),
        ("fc3.bias", (3, 1, 1, 1)),
        ("conv1.weight", (6, 4, 3, 3)),
    ],
)
def test_other_shapes_are_refused(name, shape, tensors, refused):
    tensors[name] = np.resize(tensors[name], shape)
    with refused(name, shape, kind=MismatchError):
        params_from(tensors, NETWORK, SOURCE)


@pytest.mark.parametrize("count", [1, 2, 37])
@pytest.mark.parametrize("layout", ["ours", "published", "legacy"])
def test_a_last_layer_of_another_width_is_a_network_of_as_many_classes(
    layout, count, random_params
):
    """As fine-tuning makes it."""
    wide = NETWORK.with_classes(count)
    params = random_params(wide)
    tensors = ours(params) if layout == "ours" else published(wide, params, layout == "legacy")
    assert as_wide_as(tensors, NETWORK) == wide
    check_same(params_from(tensors, wide, SOURCE), params)


@pytest.mark.parametrize(
    "damage",
    [
        {"fc3.bias": np.zeros(7, np.float32)},
        {"fc3.weight": np.zeros((7, 5), np.float32)},
        {"fc3.weight": np.zeros((7, 6), np.float32), "fc3.bias": np.zeros(7, np.float32)},
        {"fc3.weight": np.zeros((0, 5), np.float32), "fc3.bias": np.zeros(0, np.float32)},
    ],
)
def test_last_weights_that_do_not_fit_each_other_tell_no_width(damage, tensors):
    assert as_wide_as(tensors | damage, NETWORK) is NETWORK
    del tensors["fc3.bias"]
    assert as_wide_as(tensors, NETWORK) is NETWORK


@pytest.mark.parametrize("head", ["fc3_flickr", "fc.1", "new/head"])
@pytest.mark.parametrize("layout", ["ours", "published", "legacy"])
def test_a_last_layer_that_fine_tuning_renamed_is_known_by_its_inputs(
    layout, head, random_params, caplog
):
    wide = NETWORK.with_classes(4)
    params = random_params(wide)
    tensors = ours(params) if layout == "ours" else published(wide, params, layout == "legacy")
    renamed = {re.sub("^fc3", head, name): array for name, array in tensors.items()}
    found = with_score_layer(renamed, NETWORK, SOURCE)
    check_same(params_from(found, as_wide_as(found, NETWORK), SOURCE), params)
    assert f"took {head} as fc3" in caplog.text


@pytest.mark.parametrize(
    ("lost", "added"),
    [
        ((), {"head": 5}),  # nothing is missing
        (("fc3", "fc2"), {"head": 5}),  # more is
        (("fc3",), {"head": 6}),  # another number of inputs
        (("fc3",), {"head": 5, "auxiliary": 5}),  # which one?
        (("fc3",), {}),
    ],
)
def test_other_layers_are_not_taken_for_the_last(lost, added, tensors):
    held = {name: array for name, array in tensors.items() if name.split(".")[0] not in lost}
    for name, inputs in added.items():
        held[f"{name}.weight"] = np.ones((4, inputs), np.float32)
        held[f"{name}.bias"] = np.ones(4, np.float32)
    assert with_score_layer(held, NETWORK, SOURCE) is held


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_a_file_is_read_in_the_order_of_maps_that_is_given(layout, tmp_path, random_params, caplog):
    params = random_params(LENET)
    tensors = ours(params) if layout == "ours" else published(LENET, params)
    wrong = "fc3.kernel" if layout == "ours" else "fc3.weight"
    kernel = np.asarray(params["fc3"]["kernel"])
    channels_first = kernel.reshape(4, 4, 50, 500).transpose(2, 0, 1, 3).reshape(800, 500)
    other = channels_first if layout == "ours" else kernel.T
    np.savez(tmp_path / "usual.npz", **tensors)
    np.savez(tmp_path / "other.npz", **{**tensors, wrong: other})
    usual, unusual = ("channels-last", "channels-first")[:: 1 if layout == "ours" else -1]
    for name, flatten in (("usual", None), ("usual", usual), ("other", unusual)):
        caplog.clear()
        opened = ppl_cnn.load("lenet", tmp_path / f"{name}.npz", flatten=flatten)
        check_same(opened.arrays(), params)
        assert ("fc3.kernel" in caplog.text) == (layout == "ours" and flatten is None)


def test_a_fine_tuned_network_opens_and_a_file_names_its_classes(
    tmp_path, command, random_params, refused
):
    network = LENET.with_classes(3)
    np.savez(tmp_path / "fine.npz", **published(network, random_params(network)))
    opened = ppl_cnn.load("lenet", weights=tmp_path / "fine.npz")
    assert opened(jnp.zeros((1, 28, 28, 1))).shape == (1, 3)
    assert (opened.classes, len(opened.units("class:0-2"))) == ((), 3)
    single = CNN.random(LENET.with_classes(1))
    assert single.unit("class:0").shape == (28, 28, 1)
    with refused("fc4", "`target=logit`", kind=MismatchError):  # its probability is 1
        single.unit("class:0", target="auto")
    (tmp_path / "names.txt").write_text("cat\ndog\ncar\n")
    line = ["import", tmp_path / "fine.npz", "--as", "lenet", "--out", tmp_path / "out"]
    done = command("ppl_cnn.models", *line, "--classes", tmp_path / "names.txt")
    assert done.returncode == 0, done.stderr
    named = ppl_cnn.load(tmp_path / "out")
    assert named.classes == ("cat", "dog", "car")
    assert named.class_of(named.unit("class:car").name) == "car"


def test_a_one_by_one_convolution_is_no_dense_layer(refused):
    network = Network("one", (1, 1, 4), NETWORK.preprocessing, layers=(Conv("conv", 3, kernel=1),))
    tensors = {"conv.weight": np.zeros((3, 4), np.float32), "conv.bias": np.zeros(3, np.float32)}
    with refused("(3, 4), not (3, 4, 1, 1)", kind=MismatchError):
        params_from(tensors, network, SOURCE)


def test_a_one_by_one_convolutions_kernel_is_no_dense_layers(random_params, refused):
    tensors = ours(random_params(NETWORK))
    tensors["fc3.kernel"] = tensors["fc3.kernel"][None, None]
    with refused("(1, 1, 5, 3), not (5, 3)", kind=MismatchError):
        params_from(tensors, NETWORK, SOURCE)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_in_float32_are_refused(value, tensors, refused):
    tensors["fc2.weight"] = tensors["fc2.weight"].astype(np.float64)
    tensors["fc2.weight"][1, 2] = value
    with refused("file: fc2.weight", "NaN or infinite", kind=FileError, path=SOURCE):
        params_from(tensors, NETWORK, SOURCE)


def test_integers_are_no_weights(tensors, refused):
    tensors["fc3.bias"] = np.zeros(3, np.int8)
    with refused("fc3.bias", "int8", kind=FileError, path=SOURCE):
        params_from(tensors, NETWORK, SOURCE)


def test_one_tensor_under_two_names_is_left_over(tensors, refused):
    tensors["ip3.bias"] = tensors["fc3.bias"]
    with refused("ip3.bias, which small doesn't have", kind=MismatchError):
        params_from(tensors, NETWORK, SOURCE)


@pytest.mark.parametrize("form", ["npz", "zip", "legacy", "caffe", "v1"])
def test_load_reads_every_format(
    form, tmp_path, random_params, torch_zip, torch_legacy, caffemodel
):
    params = random_params(LENET)
    path = tmp_path / "weights"
    arrays = published(LENET, params)
    layers = {name: [arrays[f"{name}.weight"], arrays[f"{name}.bias"]] for name in params}
    if form == "npz":
        with open(path, "wb") as file:
            np.savez(file, **ours(params))
    elif form in ("zip", "legacy"):
        write = torch_zip if form == "zip" else torch_legacy
        path.write_bytes(
            write({f"module.{name}": np.ascontiguousarray(a) for name, a in arrays.items()})
        )
    else:
        path.write_bytes(caffemodel(layers, v1=form == "v1"))
    cnn = ppl_cnn.load("lenet", weights=path)
    check_same(cnn.arrays(), params)
    assert cnn.classes == ()
    assert cnn.declaration == LENET


def test_weights_go_with_a_declared_network(tmp_path, refused):
    with refused("'runs/lenet'", "lenet-advertorch", kind=UnknownNameError, name="runs/lenet"):
        ppl_cnn.load("runs/lenet", weights=tmp_path / "weights")
    with refused("weights is missing"):
        ppl_cnn.load("lenet", weights=tmp_path / "weights")


PEER = """
import sys, numpy, torch
torch.manual_seed(3)
net = torch.nn.Sequential(
    torch.nn.Conv2d(4, 6, 3, groups=2), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
    torch.nn.Linear(36, 5), torch.nn.Linear(5, 3))
names = {"0": "features.0", "3": "classifier.1", "4": "ip3"}
state = {names[name[0]] + name[1:]: tensor for name, tensor in net.state_dict().items()}
torch.save(state, sys.argv[1])
x = torch.randn(10, 4, 6, 8)
numpy.savez(sys.argv[2], x=x.permute(0, 2, 3, 1).numpy(), scores=net(x).detach().numpy())
"""


@pytest.mark.skipif(TORCH_PYTHON is None, reason="PPL_CNN_TORCH_PYTHON names no Python")
def test_scores_are_those_of_pytorch(tmp_path):
    weights, expected = tmp_path / "weights.pth", tmp_path / "expected.npz"
    subprocess.run([TORCH_PYTHON, "-c", PEER, weights, expected], check=True)
    cnn = CNN(NETWORK, params_from(read_tensors(weights), NETWORK, weights))
    with np.load(expected) as peer:
        np.testing.assert_allclose(
            cnn(jnp.asarray(peer["x"])), peer["scores"], rtol=1e-5, atol=1e-6
        )
