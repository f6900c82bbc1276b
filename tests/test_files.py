import ast
from pathlib import Path

import pytest

import ppl_cnn
from ppl_cnn.files import write_aside

ROOT = Path(ppl_cnn.__file__).parents[1]
SOURCES = sorted([*(ROOT / "ppl_cnn").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def test_writing_aside_replaces_a_file_and_leaves_no_partial_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_aside(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def lacks_encoding(call: ast.Call) -> bool:
    """Whether a call opens a text file in the encoding of the user's locale."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = any(keyword.arg == "encoding" for keyword in call.keywords)
    texts = [each.value for each in call.args if isinstance(each, ast.Constant)]
    if name == "open":
        of_a_module = isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)
        other = of_a_module and call.func.value.id in (
            "Image",
            "tarfile",
            "zipfile",
            "gzip",
            "self",
        )
        return not (given or other or any("b" in str(text) for text in texts))
    place = {"read_text": 0, "write_text": 1}.get(name)
    return place is not None and not given and len(call.args) <= place


@pytest.mark.parametrize("code", ["open(p)", "open(p, 'w')", "p.read_text()", "p.write_text(t)"])
def test_a_file_in_the_locales_encoding_is_found(code):
    assert lacks_encoding(ast.parse(code, mode="eval").body)


def test_all_text_files_are_opened_as_utf_8():
    for path in SOURCES:
        calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
        found = [call.lineno for call in calls if lacks_encoding(call)]
        assert not found, f"{path} opens files without an encoding in lines {found}"
