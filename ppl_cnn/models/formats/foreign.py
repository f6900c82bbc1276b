"""Says what a file is that holds no weights, or holds them in a format that is not read."""

import itertools
import re

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.protobuf import Message

FORMATS = "safetensors, PyTorch, caffemodel, npy, npz, and pickles of NumPy arrays"
"""The formats that are read."""

_AGAIN = "Download the file itself"
_UNPACK = "Decompress it first"
_BEGINNINGS = {
    rb"version https://git-lfs": ("a Git LFS pointer, not the file that it stands for",
                                  "Fetch that with git lfs pull"),
    rb"\s*<(!doctype html|html|head|\?xml)": ("a web page, as of a sign-in or an error", _AGAIN),
    rb"\x89HDF\r\n\x1a\n": (
        "an HDF5 file, as Keras (.h5) and Caffe write them",
        "Save its arrays with numpy.savez, under the names layer.kernel and layer.bias",
    ),
    rb".{4}TFL3": ("a TensorFlow Lite program", "Save its arrays with numpy.savez"),
    rb"\x1f\x8b": ("compressed by gzip", _UNPACK),
    rb"BZh": ("compressed by bzip2", _UNPACK),
    rb"\xfd7zXZ": ("compressed by xz", _UNPACK),
    rb"\x28\xb5\x2f\xfd": ("compressed by zstd", _UNPACK),
    rb"7z\xbc\xaf|Rar!": ("a compressed archive", _UNPACK),
    rb"(\s|#[^\n]*\n)*(name|layers?|input|input_dim|net|train_net|base_lr)\s*[:{]": (
        "a text that describes a network or its training (prototxt), without weights",
        "Give the .caffemodel",
    ),
    rb"\s*[{\[]\s*[\"\]\[{}]": ("JSON text, without weights", "Give the file of the weights"),
}  # fmt: skip
"""First bytes -> what the file is, and what to do."""


def beginning(content: bytes) -> ContentError | None:
    """The error that says what content is whose first bytes tell; None if they don't."""
    for first, (what, advice) in _BEGINNINGS.items():
        if re.match(first, content[:2000], re.IGNORECASE | re.DOTALL):
            return _fault(what, advice)
    return None


def foreign(content: bytes) -> ContentError:
    """The error that says what content of no known format is."""
    if found := beginning(content):
        return found
    if content[:1] in (b"\x08", b"\x2a", b"\x3a") and (found := _caffe(content)):
        return found
    return ContentError(
        f"is {'' if content else 'empty, '}in none of the formats that can be read: {FORMATS}."
    )


def foreign_archive(names: list[str]) -> ContentError:
    """The error that says what a zip archive of these members is."""
    if any(name.endswith("/archive_format") for name in names):
        return _fault(
            "a program of torch.export",
            "Save torch.export.load(file).module().state_dict() with torch.save",
        )
    if any(name.endswith(".weights.h5") for name in names):
        return _fault("a Keras archive", "Save its arrays with numpy.savez")
    return ContentError("is a zip archive of neither PyTorch nor NumPy.")


def _fault(what: str, advice: str) -> ContentError:
    return ContentError(
        f"is {what}, in none of the formats that can be read ({FORMATS}). {advice}."
    )


def _caffe(content: bytes) -> ContentError | None:
    """What a message of Caffe's is, by its first fields; None if it is no such message.

    SolverState has iter = 1, learned_net = 2, history = 3 and current_step = 4; a mean image is a
    BlobProto, whose sizes are 1 ... 4, data 5 and shape 7.
    """
    fields: dict[int, bool] = {}
    try:
        for number, value in itertools.islice(Message("message").fields(memoryview(content)), 20):
            fields.setdefault(number, isinstance(value, int))
    except ContentError:
        return None
    if (fields.get(1) and fields.get(2, True) is False) or fields.get(3, True) is False:
        if fields.keys() <= {1, 2, 3, 4}:
            return _fault("a Caffe solver's state (.solverstate)", "Give the .caffemodel beside it")
    elif fields.get(5, True) is False and fields.keys() <= {1, 2, 3, 4, 5, 6, 7, 8, 9}:
        return _fault("a mean image (.binaryproto)", "Give the .caffemodel")
    return None
