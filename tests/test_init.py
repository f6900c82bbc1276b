import subprocess
import sys
from pathlib import Path

import pytest

import ppl_cnn


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ppl_cnn.__all__)
def test_public_names_are_what_their_modules_define(name):
    assert getattr(ppl_cnn, name).__name__ == name


def test_dir_lists_the_public_names():
    assert dir(ppl_cnn) == sorted(ppl_cnn.__all__)
    assert {"draw", "load", "TiltedDensity", "WhiteNoise", "ScoreFunction"} <= set(dir(ppl_cnn))
    assert {"Uniform", "Spectral", "Bounded"} <= set(dir(ppl_cnn))


def test_an_old_name_warns_of_the_new_one():
    with pytest.warns(DeprecationWarning, match=r"ppl_cnn\.ScoreFunction"):
        assert ppl_cnn.Response is ppl_cnn.ScoreFunction


def test_other_names_are_missing_attributes():
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = ppl_cnn.nothing_here


def test_bad_input_is_a_value_error():
    assert issubclass(ppl_cnn.InputError, ValueError)


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"jax", "numpy", "numpyro", "flax", "arviz", "tensorflow_datasets", "orbax"}
    loaded = run("import sys, ppl_cnn; print(*sys.modules)")
    assert not heavy & set(loaded.split())


def test_importing_every_module_creates_no_array():
    package = Path(ppl_cnn.__file__).parent
    modules = [
        ".".join(("ppl_cnn", *path.relative_to(package).with_suffix("").parts))
        for room in ("models", "inference")
        for path in (package / room).rglob("[!_]*.py")
    ]
    script = (
        f"import {', '.join(modules)}\n"
        "from jax._src.xla_bridge import backends_are_initialized\n"
        "print(backends_are_initialized())"
    )
    assert run(script).strip() == "False"
