import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ppl_cnn
from ppl_cnn import errors


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ppl_cnn.__all__)
def test_public_names_are_what_their_modules_define(name):
    thing = getattr(ppl_cnn, name)
    assert getattr(thing, "__name__", name) == name
    assert thing.__doc__


def signatures(thing):
    """Those of a public function, or of a class and its public methods."""
    functions = {"": thing}
    if isinstance(thing, type):
        functions |= {
            f".{name}": each
            for name, each in inspect.getmembers(thing, callable)
            if not name.startswith("_") and (each.__module__ or "").startswith("ppl_cnn")
        }
    for name, function in functions.items():
        yield name, inspect.signature(function)


@pytest.mark.parametrize("name", ppl_cnn.__all__)
def test_whoever_takes_many_arguments_takes_them_by_keyword(name):
    thing = getattr(ppl_cnn, name)
    if not callable(thing) or (isinstance(thing, type) and issubclass(thing, Exception | tuple)):
        return
    numpyros = {".init"} if hasattr(thing, "sample_field") else set[str]()  # as its MCMC calls it
    for method, signature in signatures(thing):
        if method in numpyros:
            continue
        by_place = [
            each
            for each in signature.parameters.values()
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
            and each.name not in ("self", "cls")
        ]
        assert len(by_place) <= 3, f"{name}{method}{signature}"


def test_completion_offers_the_public_names():
    """Though none is imported before it is used."""
    script = "import ppl_cnn; print(*dir(ppl_cnn)); print(*vars(ppl_cnn))"
    offered, imported = map(str.split, run(script).splitlines())
    assert set(ppl_cnn.__all__) <= set(offered)
    assert "TiltedDensity" not in imported


def test_type_checkers_and_programs_find_the_same_names():
    """Type checkers read imports that programs never run."""
    tree = ast.parse(Path(ppl_cnn.__file__).read_text())
    (unrun,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    found = {
        alias.asname or alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in unrun.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert found
    for name, thing in found.items():
        assert getattr(ppl_cnn, name) is thing
    assert set(ppl_cnn.__all__) - set(found) <= set(vars(errors))


def test_functions_share_their_names_with_commands():
    script = """
import importlib
import ppl_cnn
for name in ("report", "evidence"):
    command = importlib.import_module(f"ppl_cnn.{name}")
    exec(f"import ppl_cnn.{name}")
    assert command.main is not None
    print(type(getattr(ppl_cnn, name)).__name__)
"""
    assert run(script).split() == ["function", "function"]


def test_an_old_name_warns_of_the_new_one():
    with pytest.warns(DeprecationWarning, match=r"ppl_cnn\.ScoreFunction"):
        assert ppl_cnn.Response is ppl_cnn.ScoreFunction


def test_other_names_are_missing_attributes():
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = ppl_cnn.nothing_here


def test_all_errors_are_input_errors_and_these_value_errors():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, Exception)]
    assert len(kinds) > 3
    assert all(issubclass(kind, ppl_cnn.InputError) for kind in kinds)
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
