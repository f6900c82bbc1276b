import ast
import contextlib
from pathlib import Path

import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.files import read_arrays, write_aside

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


def test_arrays_are_read_back_and_damage_is_one_kind_of_error(tmp_path):
    path, values = tmp_path / "x.npz", {"a": np.arange(5), "b": np.ones((2, 3), np.float32)}
    np.savez_compressed(path, **values)
    for name, array in read_arrays(path).items():
        np.testing.assert_array_equal(array, values[name])
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            read_arrays(path)
    for _ in range(300):
        changed = bytearray(whole)
        changed[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(ValueError):
            read_arrays(path)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz")
