import json
import os

import numpy as np
import pytest
import safetensors.numpy

from ppl_cnn.errors import FileError
from ppl_cnn.models.formats import read_tensors, tensors_of


def test_the_content_tells_the_format_and_not_the_name(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(safetensors.numpy.save({"module.a.weight": np.ones(3, np.float32)}))
    assert set(read_tensors(path)) == {"a.weight"}


def test_files_that_cannot_be_read_are_refused(tmp_path, refused):
    missing = tmp_path / "nowhere.pth"
    with refused(missing, "missing", kind=FileError, path=missing):
        read_tensors(missing)
    with refused(tmp_path, "cannot be read", kind=FileError, path=tmp_path):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"", ["empty"]),
        (b"\xff" * 300, []),
        (b"\x89HDF\r\n\x1a\n", ["HDF5", "Keras"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:01\n", ["git lfs pull"]),
        (b"\n<!DOCTYPE html><html>Sign in</html>", ["web page"]),
        (b"<HTML>", ["web page"]),
        (b"name: 'AlexNet'", ["prototxt", ".caffemodel"]),
        (b"# a net\nlayer { name: 'conv1' }", ["prototxt"]),
        (b"\x1f\x8b\x08\0", ["gzip"]),
        (b"BZh91AY", ["bzip2"]),
        (b'{"architectures": ["a"]}', ["JSON"]),
        (b"\x08\x90N\x12\x03net\x1a\x02\x2a\x00", ["solverstate"]),
        (b"\x08\x01\x10\x01\x18\x01 \x01*\x04\0\0\0\0", ["binaryproto"]),
        (b"*\x04\0\0\0\0:\x03\n\x01\x01", ["binaryproto"]),
    ],
)
def test_other_formats_are_refused_and_named(content, facts, tmp_path, refused, unreadable):
    path = tmp_path / "file"
    path.write_bytes(content)
    formats = ("none of the formats", "safetensors", "PyTorch", "caffemodel", "npz", "pickles")
    with refused(path, *formats, *facts, kind=FileError, path=path):
        read_tensors(path)
    with unreadable("The file", *formats):
        tensors_of(content)


def test_half_precision_of_little_bytes_may_not_grow_without_bound(unreadable):
    import pickle

    array = np.ones(1000, np.float16)
    content = pickle.dumps({str(i): array for i in range(500)})
    with unreadable("more than 64 times"):
        tensors_of(content)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        *((name, "other folders") for name in ("", "..", "/", "d/a", "../a", "/dev/zero")),
        *((name, "aren't text") for name in ("a\0b", "\ud800", "a\nb", "x" * 300, 1, None, [])),
        ("pipe", "is no file"),
        ("folder", "is no file"),
        ("absent", "is missing"),
        ("index.json", "none of the formats"),
    ],
)
def test_an_index_names_files_beside_it(place, words, tmp_path, refused):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"weight_map": {"a": place}}))
    with refused(tmp_path, words, kind=FileError):
        read_tensors(path)
