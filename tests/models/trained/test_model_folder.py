import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

import ppl_cnn
from ppl_cnn.errors import ArgumentError, FileError, MismatchError, UnknownNameError
from ppl_cnn.models.networks.catalogue import ALEXNET_FASHION, LENET
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.model_folder import (
    embedded_names,
    model_folder,
    read_description,
    read_weights,
    save,
)

CLASSES = tuple("abcdefghij")


@pytest.fixture
def folder(tmp_path, random_params):
    """A saved LeNet."""
    alpha = np.linspace(-1, 1, 10, dtype=np.float32)
    save(tmp_path, CNN(LENET, random_params(LENET), alpha, classes=CLASSES), {"test_error": 0.125})
    return tmp_path


@pytest.fixture
def tensors(folder):
    return safetensors.numpy.load_file(folder / "weights.safetensors")


def change_description(folder, **changes):
    """Changes entries of model.json; None takes one away."""
    description = json.loads((folder / "model.json").read_text()) | changes
    kept = {key: value for key, value in description.items() if value is not None}
    (folder / "model.json").write_text(json.dumps(kept))


def test_what_is_saved_is_loaded_to_the_bit(folder, random_params):
    cnn = ppl_cnn.load(folder)
    params = random_params(LENET)
    assert cnn.declaration == LENET
    assert cnn.classes == CLASSES
    np.testing.assert_array_equal(cnn.alpha[...], np.linspace(-1, 1, 10, dtype=np.float32))
    assert cnn.alpha[...].dtype == np.float32
    found = cnn.arrays()
    assert {name: set(weights) for name, weights in found.items()} == {
        name: set(weights) for name, weights in params.items()
    }
    for name, weights in params.items():
        for key, array in weights.items():
            assert found[name][key].dtype == np.float32
            np.testing.assert_array_equal(found[name][key], array)


def test_a_models_folder_may_be_given_as_text(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert ppl_cnn.load(str(folder)).classes == ppl_cnn.load(folder.name).classes == CLASSES


def test_the_description_holds_what_is_said_of_the_model(folder):
    description = read_description(folder)
    assert description["test_error"] == 0.125
    assert (description["network"], description["classes"]) == ("lenet", list(CLASSES))
    assert description["preprocessing"] == {
        "mean": [0.0],
        "scale": [1 / 256],
        "order": "grey",
        "short_side": None,
    }


def test_the_files_preprocessing_is_the_networks(folder):
    given = {"mean": [33], "scale": [0.5], "order": "grey", "short_side": 40}
    change_description(folder, preprocessing=given)
    network = ppl_cnn.load(folder).declaration
    wanted = Preprocessing((33.0,), (0.5,), "grey", short_side=40)
    assert network == replace(LENET, preprocessing=wanted)


def test_a_description_without_a_short_side_has_none(folder):
    change_description(folder, preprocessing={"mean": [33], "scale": [0.5], "order": "grey"})
    assert ppl_cnn.load(folder).declaration.preprocessing.short_side is None


@pytest.mark.parametrize("side", [0, -1, 1.5, "256", True, [256]])
def test_a_short_side_that_is_no_length_is_refused(folder, side, refused):
    given = {"mean": [0.0], "scale": [1.0], "order": "grey", "short_side": side}
    change_description(folder, preprocessing=given)
    with refused("short_side", repr(side), kind=FileError, path=folder / "model.json"):
        ppl_cnn.load(folder)


def test_half_precision_weights_are_read_as_float32(folder, tensors):
    halves = {name: array.astype(np.float16) for name, array in tensors.items()}
    safetensors.numpy.save_file(halves, folder / "weights.safetensors")
    for name, weights in ppl_cnn.load(folder).arrays().items():
        for key, array in weights.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, halves[f"{name}.{key}"].astype(np.float32))


def test_saving_leaves_its_two_files_alone(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]


# Models that are not there.


def test_a_missing_folder_is_refused(tmp_path, refused):
    path = tmp_path / "nowhere"
    with refused(path, "model.json", "alexnet-fashion", kind=UnknownNameError, name=str(path)):
        ppl_cnn.load(path)


@pytest.mark.parametrize("name", ["resnet", "", ".."])
def test_an_unknown_name_is_refused(name, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    with refused(repr(name), *embedded_names(), kind=UnknownNameError, name=name):
        ppl_cnn.load(name)


def test_a_network_that_comes_without_weights_says_what_to_give(refused):
    words = ("without weights", "alexnet", "`weights`", "folder")
    with refused(*words, kind=ArgumentError, argument="weights"):
        ppl_cnn.load("alexnet")


def test_a_folder_is_found_by_name_only_if_it_is_embedded(folder):
    assert model_folder(folder) == folder
    assert all((model_folder(name) / "model.json").is_file() for name in embedded_names())


# Damaged weights.


def test_missing_weights_are_refused(folder, refused):
    (folder / "weights.safetensors").unlink()
    path = folder / "weights.safetensors"
    with refused(path, "missing", kind=FileError, path=path):
        ppl_cnn.load(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, 1_000, 1_000_000])
def test_truncated_weights_are_refused(folder, kept, refused):
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    assert len(whole) > kept
    path.write_bytes(whole[:kept])
    with refused(path, kind=FileError, path=path):
        ppl_cnn.load(folder)


@pytest.mark.parametrize("content", [b"garbage " * 100, b"\xff" * 64, b"PK\x03\x04", b"\n" * 40])
def test_garbage_for_weights_is_refused(folder, content, refused):
    path = folder / "weights.safetensors"
    path.write_bytes(content)
    with refused(path, kind=FileError, path=path):
        ppl_cnn.load(folder)


@pytest.mark.parametrize("name", ["conv1.kernel", "fc4.bias"])
def test_a_missing_tensor_is_refused(folder, tensors, name, refused):
    del tensors[name]
    safetensors.numpy.save_file(tensors, folder / "weights.safetensors")
    with refused("lacks", name, kind=MismatchError):
        ppl_cnn.load(folder)


def test_left_over_tensors_are_refused(folder, tensors, refused):
    tensors |= {"fc5.bias": np.zeros(3, np.float32), "fc5.kernel": np.zeros(3, np.float32)}
    safetensors.numpy.save_file(tensors, folder / "weights.safetensors")
    with refused("fc5.bias, fc5.kernel", "lenet", kind=MismatchError):
        ppl_cnn.load(folder)


def test_a_tensor_of_the_wrong_shape_is_refused(folder, tensors, refused):
    tensors["conv2.kernel"] = tensors["conv2.kernel"].transpose(3, 2, 0, 1).copy()
    safetensors.numpy.save_file(tensors, folder / "weights.safetensors")
    words = ("conv2.kernel", "(50, 20, 5, 5)", "(5, 5, 20, 50)")
    with refused(*words, kind=MismatchError):
        ppl_cnn.load(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(folder, tensors, value, refused):
    tensors["fc3.kernel"][3, 4] = value
    safetensors.numpy.save_file(tensors, folder / "weights.safetensors")
    path = folder / "weights.safetensors"
    with refused("fc3.kernel", "NaN or infinite", kind=FileError, path=path):
        ppl_cnn.load(folder)


def test_another_networks_weights_are_refused(folder, refused):
    with refused("conv1.kernel", "alexnet-fashion", kind=MismatchError):
        read_weights(folder / "weights.safetensors", ALEXNET_FASHION)


# Damaged descriptions.


@pytest.mark.parametrize("content", [b"", b"{", b"not JSON", b"\xff\xfe", b'{"network": "lenet"'])
def test_a_description_that_is_no_json_is_refused(folder, content, refused):
    (folder / "model.json").write_bytes(content)
    with refused("JSON", kind=FileError, path=folder / "model.json"):
        ppl_cnn.load(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', '["network", "alpha"]'])
def test_a_description_that_is_no_object_is_refused(folder, content, refused):
    (folder / "model.json").write_text(content)
    with refused("JSON object", kind=FileError, path=folder / "model.json"):
        ppl_cnn.load(folder)


@pytest.mark.parametrize("name", ["network", "preprocessing", "alpha", "classes"])
def test_a_description_that_lacks_something_is_refused(folder, name, refused):
    change_description(folder, **{name: None})
    with refused("lacks", name, kind=FileError, path=folder / "model.json"):
        ppl_cnn.load(folder)


@pytest.mark.parametrize("name", ["vgg", "", 3, ["lenet"], {}])
def test_a_description_of_an_unknown_network_is_refused(folder, name, refused):
    change_description(folder, network=name)
    words = (f"unknown network {name!r}", "lenet, lenet-advertorch, alexnet")
    with refused(*words, kind=FileError, path=folder / "model.json"):
        ppl_cnn.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": [0.0] * 9},
        {"alpha": [0.0] * 11},
        {"alpha": [0.0] * 9 + [float("nan")]},
        {"alpha": ["a"] * 10},
        {"alpha": [[0.0], [0.0, 1.0]]},
        {"alpha": 3},
        {"classes": list("abc")},
        {"classes": "abcdefghij"},
        {"classes": 10},
        {"classes": list(range(10))},
    ],
    ids=str,
)
def test_alpha_and_classes_that_do_not_fit_are_refused(folder, changes, refused):
    change_description(folder, **changes)
    with refused("10 finite alpha", "10 classes", kind=FileError, path=folder / "model.json"):
        ppl_cnn.load(folder)


@pytest.mark.parametrize(
    "preprocessing",
    [
        {},
        [],
        "grey",
        {"mean": [0.0], "scale": [1.0]},
        {"mean": 0.0, "scale": [1.0], "order": "grey"},
        {"mean": [0.0, 0.0, 0.0], "scale": [1.0], "order": "grey"},
        {"mean": ["dark"], "scale": [1.0], "order": "grey"},
        {"mean": [float("nan")], "scale": [1.0], "order": "grey"},
        {"mean": [0.0], "scale": "big", "order": "grey"},
        {"mean": [0.0], "scale": 1.0, "order": "grey"},
        {"mean": [0.0], "scale": [1.0, 1.0], "order": "grey"},
        {"mean": [0.0], "scale": [1.0], "order": "RGB"},
        {"mean": [0.0], "scale": [1.0], "order": ["grey"]},
    ],
    ids=str,
)
def test_preprocessing_that_does_not_fit_is_refused(folder, preprocessing, refused):
    change_description(folder, preprocessing=preprocessing)
    words = ("preprocessing", "mean", "scale", "order")
    with refused(*words, kind=FileError, path=folder / "model.json"):
        ppl_cnn.load(folder)
