"""Tensors of the file formats that trained networks are published in."""

from pathlib import Path

import ml_dtypes
import numpy as np

from ppl_cnn.errors import InputError
from ppl_cnn.models.formats.archives import Archive
from ppl_cnn.models.formats.arrays import read_npz, read_safetensors
from ppl_cnn.models.formats.caffe import read_caffemodel
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.pickled import read_pickle
from ppl_cnn.models.formats.torch_files import LEGACY, read_legacy, read_zip

GROWTH = 64
"""How many times the file's size its tensors may take, compressed, half or overlapping."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file, by their names in it, without a leading "module.".

    The format is told by the content: safetensors, PyTorch (zip or legacy), caffemodel, npz or
    a pickle of NumPy arrays. Half precision becomes float32, other types stay. No code of the
    file is ever run, and memory and time are bounded by its size.

    Returns:
        X.weight and X.bias as PyTorch and Caffe have them: OIHW, or (out, in) with maps
        flattened in the order (channel, row, col). X.kernel and X.bias as we have them: HWIO,
        or (in, out) with maps flattened in the order (row, col, channel).

    Raises:
        InputError: there is no such file, or it is damaged, of another format, or holds
            something else than tensors.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing.") from None
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}).") from None
    try:
        return tensors_of(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def tensors_of(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file's content; see `read_tensors`."""
    tensors: dict[str, np.ndarray] = {}
    for key, array in _read(content).items():
        name = key.removeprefix("module.")
        if name in tensors:
            raise InputError(f"it holds two tensors of the name {shown(name)}.")
        tensors[name] = array
    if not tensors:
        raise InputError("it holds no tensors.")
    size = sum(array.size * max(array.itemsize, 4) for array in tensors.values())
    if size > GROWTH * len(content):
        raise InputError(
            f"its tensors would take {size:,} bytes, more than {GROWTH} times the "
            f"{len(content):,} of the file."
        )
    halves = (np.float16, ml_dtypes.bfloat16)
    return {
        name: array.astype(np.float32) if array.dtype in halves else array
        for name, array in tensors.items()
    }


def _read(content: bytes) -> dict[str, np.ndarray]:
    """Reads with the reader of the format that the first bytes tell."""
    # After the length of its header, which is below 100 MB, comes the header, a JSON object.
    if content[4:9] == b"\0\0\0\0{":
        return read_safetensors(content)
    if content[:4] == b"PK\x03\x04":
        archive = Archive(content)
        if any(f"/{name}".endswith("/data.pkl") for name in archive.entries):
            return read_zip(archive)
        if any(name.endswith(".npy") for name in archive.entries):
            return read_npz(archive)
        raise InputError("it is a zip archive, but neither PyTorch's nor NumPy's.")
    if content[:1] == b"\x80":
        return read_legacy(content) if LEGACY in content[:15] else read_pickle(content)
    if content[257:262] == b"ustar":
        raise InputError(
            "it is in the tar format of PyTorch before 0.1.10: load and save it with a later one."
        )
    if content[:1] in b"\x0a\x12\x1a\xa2" and content:
        return read_caffemodel(content)
    raise InputError(
        "it is in none of the formats that are read: safetensors, PyTorch, caffemodel, npz, or a "
        "pickle of NumPy arrays."
    )
