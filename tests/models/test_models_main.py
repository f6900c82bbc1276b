import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import FileError, InputError, MismatchError, UnknownNameError
from ppl_cnn.models.__main__ import ImportOptions, import_weights
from ppl_cnn.models.networks.catalogue import LENET, NETWORKS
from ppl_cnn.models.networks.declaration import Preprocessing


@pytest.fixture
def models(command):
    return partial(command, "ppl_cnn.models")


@pytest.fixture
def weights(tmp_path, random_params):
    path = tmp_path / "lenet.npz"
    np.savez(
        path,
        **{
            f"{name}.{key}": np.asarray(array)
            for name, layer in random_params(LENET).items()
            for key, array in layer.items()
        },
    )
    return path


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_the_networks_are_listed(arguments, models):
    run = models(*arguments)
    assert (run.returncode, run.stderr) == (0, "")
    lines = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert set(lines) == {*NETWORKS}
    for fact in ("224 x 224 x 3", "1,000 scores", "25,557,032 weights", "auto"):
        assert fact in lines["resnet50"]
    assert "auto" not in lines["zfnet"]


@pytest.mark.parametrize("names", [(), tuple("abcdefghij")])
def test_a_file_becomes_a_folder_that_load_opens(weights, names, tmp_path, random_params, models):
    # As Notepad saves it.
    text = "".join(f"{name}\n" for name in names)
    (tmp_path / "names").write_text(text, encoding="utf-8-sig")
    options = ["--classes", tmp_path / "names"] if names else []
    out = tmp_path / "runs" / "lenet"
    run = models("import", weights, "--as", "lenet", "--out", out, *options)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"Converted lenet.npz (lenet) to {out}\n"
    assert sorted(path.name for path in out.iterdir()) == ["model.json", "weights.safetensors"]
    cnn = ppl_cnn.load(out)
    assert cnn.classes == names
    assert cnn.declaration == LENET
    for name, layer in random_params(LENET).items():
        for key, array in layer.items():
            np.testing.assert_array_equal(cnn.arrays()[name][key], array)
    description = json.loads((out / "model.json").read_text())
    assert description["imported_from"] == {
        "file": "lenet.npz",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    assert set(description["versions"]) == {"ppl_cnn", "jax", "numpy"}


def test_pixels_and_the_entry_of_a_checkpoint_are_the_users_to_say(
    weights, tmp_path, models, random_params
):
    with np.load(weights) as arrays:
        plain = dict(arrays)
    both = tmp_path / "both.npz"
    average = {f"model_ema.{name}": 2 * array for name, array in plain.items()}
    np.savez(both, **average, **{f"model.{name}": array for name, array in plain.items()})
    pixels = ["--pixels", "mean=72 scale=1/64 order=grey"]
    for entry, factor in (([], 1), (["--entry", "model_ema"], 2)):
        out = tmp_path / f"out-{factor}"
        run = models("import", both, "--as", "lenet", "--out", out, *pixels, *entry)
        assert run.returncode == 0
        cnn = ppl_cnn.load(out)
        assert cnn.preprocessing == Preprocessing((72.0,), (1 / 64,), "grey")
        kernel = np.asarray(random_params(LENET)["conv1"]["kernel"])
        np.testing.assert_array_equal(cnn.arrays()["conv1"]["kernel"], factor * kernel)
    run = models("import", both, "--as", "lenet", "--out", tmp_path / "no", "--pixels", "imagenet")
    assert run.returncode == 2
    for word in ("--pixels imagenet", "torchvision", "keras-tf", "mean="):
        assert word in run.stderr
    assert not (tmp_path / "no").exists()


def test_bad_input_is_one_sentence_and_exit_code_2(weights, tmp_path, models):
    run = models("import", weights, "--as", "alexnet", "--out", tmp_path / "out")
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert str(weights) in run.stderr
    assert "alexnet" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_what_cannot_be_converted_leaves_no_folder(weights, tmp_path, refused):
    (tmp_path / "three").write_text("a\nb\nc\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    given = ImportOptions(str(weights), network="lenet", out=tmp_path / "out")
    three, full, none = (tmp_path / name for name in ("three", "full", "none"))
    for changes, kind, words in (
        ({"network": "resnet"}, UnknownNameError, ("'resnet'", "lenet")),
        ({"file": str(none)}, InputError, (none, "missing")),
        ({"file": "auto"}, UnknownNameError, ("lenet", "alexnet")),
        ({"out": full}, FileError, (full, "`out`")),
        ({"out": three}, FileError, (three, "`out`")),
        ({"classes": str(three)}, MismatchError, (three, "10 classes", "not 3")),
        ({"classes": str(none)}, FileError, (none,)),
        ({"classes": str(weights)}, FileError, (weights, "UTF-8")),
    ):
        with refused(*words, kind=kind):
            import_weights(replace(given, **changes))
        assert not (tmp_path / "out").exists()


def test_help_teaches_and_imports_nothing_heavy():
    line = [sys.executable, "-m", "ppl_cnn.models"]
    overview, details = (
        subprocess.run([*line, *more, "--help"], capture_output=True, text=True, timeout=600)
        for more in ([], ["import"])
    )
    assert (overview.returncode, details.returncode) == (0, 0)
    assert "python -m ppl_cnn.models import" in overview.stdout
    for word in ("FILE", "--as", "--out", "--classes", "auto", "--pixels", "--entry"):
        assert word in details.stdout
    script = (
        "import sys, ppl_cnn.models.__main__;"
        "sys.exit(str({'jax', 'pooch', 'safetensors'} & set(sys.modules) or ''))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600
    )
    assert not run.stderr.strip()
