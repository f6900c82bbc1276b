"""Checkpoints as PyTorch wrote them (tests/models/formats/golden/make.py), and others' names."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ppl_cnn.errors import ArgumentError, FileError, MismatchError
from ppl_cnn.models.formats import read_tensors
from ppl_cnn.models.trained.checkpoints.entries import entry_of
from ppl_cnn.models.trained.checkpoints.reparametrized import folded

GOLDEN = Path(__file__).parents[2] / "formats" / "golden" / "checkpoints"
WEIGHT = (np.arange(6, dtype=np.float32) / 8).reshape(2, 3) + np.float32(0.125)
BIAS = np.arange(2, dtype=np.float32) / 8
WANTED = [["fc.weight"], ["fc.bias"]]
FILE = Path("file")


def opened(path, entry=None):
    return entry_of(folded(read_tensors(path), path), WANTED, source=path, entry=entry)


@pytest.mark.parametrize(
    "name", ["objects", "deep", "modules", "legacy", "attributes", "parameters", "average"]
)
def test_the_weights_are_found_wherever_they_are(name):
    found = opened(GOLDEN / f"{name}.pth")
    assert set(found) == {"fc.weight", "fc.bias"}
    np.testing.assert_array_equal(found["fc.weight"], WEIGHT)
    np.testing.assert_array_equal(found["fc.bias"], BIAS)


@pytest.mark.parametrize(
    "name",
    [
        *("weight_norm", "weight_norm_whole", "weight_norm_new"),
        *("spectral_norm", "spectral_norm_new", "pruned"),
    ],
)
def test_factors_are_put_together_as_pytorch_does(name):
    found = opened(GOLDEN / f"{name}.pth")
    assert set(found) == {"fc.weight", "fc.bias", "expected"}
    np.testing.assert_allclose(found["fc.weight"], found["expected"], rtol=2e-6, atol=1e-7)
    assert (found["fc.weight"] == 0).any() == (name == "pruned")


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("quantized", ["quantized", "fc.weight", ".dequantize()"]),
        ("sparse", ["sparse", "fc.weight", ".to_dense()"]),
        ("float8", ["float8_e4m3fn", "fc.weight", ".float()"]),
        ("negated", ["negated", "fc.weight", ".resolve_neg()"]),
        ("list", ["list", "2 tensors"]),
    ],
)
def test_tensors_that_are_not_read_are_named_with_what_to_call(name, facts, refused):
    path = GOLDEN / f"{name}.pth"
    with refused(path, *facts, kind=FileError, path=path):
        read_tensors(path)


def test_an_average_is_taken_if_it_is_named_and_the_choice_is_logged(caplog):
    path = GOLDEN / "average.pth"
    np.testing.assert_array_equal(opened(path)["fc.weight"], WEIGHT)
    assert "took the weights of model; it also holds model_ema" in caplog.text
    np.testing.assert_array_equal(opened(path, "model_ema")["fc.weight"], WEIGHT + 1)


PREFIXES = [
    *("", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.net."),
    *("backbone.", "state_dict.model.module.", "a.b.c.d.e.f.", "ema.", "state_dict_ema.module."),
]


def under(prefix, weight=WEIGHT):
    return {f"{prefix}fc.weight": weight, f"{prefix}fc.bias": BIAS}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_found_by_the_networks_own_names(prefix):
    beside = {"criterion.weight": BIAS, "optimizer.state.fc.weight": BIAS, "epoch": np.array(3)}
    named = prefix not in ("", "_orig_mod.")
    found = entry_of(under(prefix) | (beside if named else {}), WANTED, source=FILE)
    assert set(found) == {"fc.weight", "fc.bias"}
    np.testing.assert_array_equal(found["fc.weight"], WEIGHT)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        (["ema_model.module.", "opt.mu."], "model."),
        (["optimizer.exp_avg.", "optimizer.exp_avg_sq."], "net."),
        (["teacher.", "model_ema."], "student."),
        (["swa_model.module."], ""),
    ],
)
def test_weights_go_before_their_average_and_an_optimizers_state(others, chosen):
    tensors = under(chosen)
    for other in others:
        tensors |= under(other, WEIGHT + 1)
    found = entry_of(tensors, WANTED, source=FILE)
    np.testing.assert_array_equal(found["fc.weight"], WEIGHT)


def test_several_networks_are_refused_until_one_is_named(refused):
    tensors = under("left.") | under("right.", WEIGHT + 1)
    with refused("left", "right", "`entry`", kind=MismatchError):
        entry_of(tensors, WANTED, source=FILE)
    found = entry_of(tensors, WANTED, source=FILE, entry="right")
    np.testing.assert_array_equal(found["fc.weight"], WEIGHT + 1)
    with refused("`entry=middle`", "left", "right", kind=ArgumentError, argument="entry"):
        entry_of(tensors, WANTED, source=FILE, entry="middle")


def test_what_lacks_a_weight_is_given_back_by_the_likeliest_prefix():
    tensors = {"net.fc.weight": WEIGHT, "net.fc.scale": BIAS}
    assert set(entry_of(tensors, WANTED, source=FILE)) == {"fc.weight", "fc.scale"}
    assert entry_of({"other": BIAS}, WANTED, source=FILE).keys() == {"other"}


@pytest.mark.parametrize(
    "factors",
    [
        {"weight_v": (2, 3), "weight_g": (3, 1)},
        {"weight_v": (2, 3), "weight_g": (2,)},
        {"weight_orig": (2, 3), "weight_mask": (2, 1)},
        {"weight_orig": (2, 3), "weight_u": (3,), "weight_v": (3,)},
    ],
)
def test_factors_that_do_not_fit_each_other_are_refused(factors, refused):
    tensors = {f"fc.{name}": np.ones(shape, np.float32) for name, shape in factors.items()}
    with refused(FILE, "fc.weight", kind=FileError, path=FILE):
        folded(tensors, FILE)


def kernels(transposed=True):
    return {"conv1": WEIGHT.reshape(1, 1, 2, 3), "fc8": WEIGHT.T if transposed else WEIGHT}


@pytest.mark.parametrize("form", ["weights", "list", "slash", "underscore", "colon"])
def test_names_of_tensorflow_and_its_converters(form, tmp_path):
    path = tmp_path / ("file.npy" if form in ("weights", "list") else "file.npz")
    if form == "weights":
        value = {name: {"weights": kernel, "biases": BIAS} for name, kernel in kernels().items()}
        np.save(path, np.array(value, object), allow_pickle=True)
    elif form == "list":
        value = {name: [kernel, BIAS] for name, kernel in kernels().items()}
        np.save(path, np.array(value, object), allow_pickle=True)
    else:
        kernel, bias = {
            "slash": ("/weights", "/biases"),
            "underscore": ("_W", "_b"),
            "colon": ("/kernel:0", "/bias:0"),
        }[form]
        arrays = {f"{name}{kernel}": array for name, array in kernels().items()}
        np.savez(path, **arrays, **{f"{name}{bias}": BIAS for name in kernels()})
    found = read_tensors(path)
    assert set(found) == {"conv1.kernel", "conv1.bias", "fc8.kernel", "fc8.bias"}
    np.testing.assert_array_equal(found["fc8.kernel"], WEIGHT.T)


def test_arrays_of_text_in_an_npz_are_left_out_and_dicts_are_opened(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, classes=np.array(["a", "b"]), params=np.array(kernels(), object))
    assert set(read_tensors(path)) == {"params.conv1", "params.fc8"}


def test_a_safetensors_file_in_parts(tmp_path, refused):
    parts = {"one.safetensors": {"fc.weight": WEIGHT}, "two.safetensors": {"fc.bias": BIAS}}
    for name, tensors in parts.items():
        safetensors.numpy.save_file(tensors, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    places = {tensor: name for name, tensors in parts.items() for tensor in tensors}
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert set(read_tensors(index)) == {"fc.weight", "fc.bias"}
    index.write_text(json.dumps({"weight_map": {"fc.bias": "../two.safetensors"}}))
    with refused(index, "other folders", kind=FileError, path=index):
        read_tensors(index)
    index.write_text(json.dumps({"weight_map": {"fc.bias": "three.safetensors"}}))
    with refused("three.safetensors", "missing", kind=FileError):
        read_tensors(index)
    for text in ("{}", "[" * 100_000, '{"weight_map": 3}', "\xff"):
        index.write_text(text, "latin-1")
        with refused(index, kind=FileError, path=index):
            read_tensors(index)


def test_attributes_of_unknown_objects_are_found_without_making_them():
    class Holder:
        """What a file may name, and what must never be made."""

        made = 0

        def __setstate__(self, state):
            Holder.made += 1

    Holder.__module__, Holder.__qualname__ = "tests_holder", "Holder"
    import sys
    import types

    module = types.ModuleType("tests_holder")
    module.Holder = Holder
    holder = Holder()
    holder.inner = {"fc.weight": WEIGHT}
    sys.modules["tests_holder"] = module
    try:
        content = pickle.dumps({"holder": holder, "numbers": {1, 2}})
    finally:
        del sys.modules["tests_holder"]
    from ppl_cnn.models.formats import tensors_of

    assert set(tensors_of(content)) == {"fc.weight"}
    assert Holder.made == 0
