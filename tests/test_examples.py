"""The examples in docstrings are run, under the settings of all tests."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import ppl_cnn

PACKAGE = Path(ppl_cnn.__file__).parent


def documented() -> Iterator[tuple[str, str, str, Path, int]]:
    """Each docstring that has examples: its module, the name it is of, itself, file and line.

    Docstrings are read from the source, since under the tests' type checks functions aren't those
    that the modules define, which hides them from `doctest`.
    """
    for file in sorted(PACKAGE.rglob("*.py")):
        source = file.read_text("utf-8")
        if ">>>" in source:
            parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
            module = ".".join(part for part in parts if part != "__init__")
            yield from ((module, *each) for each in _within(ast.parse(source), module, file))


def _within(node: ast.AST, name: str, file: Path) -> Iterator[tuple[str, str, Path, int]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        text = ast.get_docstring(node) or ""
        if ">>>" in text:
            yield name, text, file, getattr(node, "lineno", 1)
    for child in ast.iter_child_nodes(node):
        inner = f"{name}.{child.name}" if hasattr(child, "name") else name
        yield from _within(child, inner, file)


FOUND = list(documented())


def test_there_are_examples():
    assert "ppl_cnn.errors.with_options" in {name for _, name, *_ in FOUND}


@pytest.mark.parametrize(
    ("module", "name", "text", "file", "line"), FOUND, ids=[name for _, name, *_ in FOUND]
)
def test_examples_give_what_they_say(module, name, text, file, line, capsys):
    namespace = dict(vars(importlib.import_module(module)))
    test = doctest.DocTestParser().get_doctest(text, namespace, name, str(file), line)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, tried = doctest.DocTestRunner(optionflags=flags).run(test)
    assert tried
    assert not failed, capsys.readouterr().out
