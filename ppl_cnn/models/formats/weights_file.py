"""Tensors of a weights file of any known format; the content tells the format."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from ppl_cnn.errors import FileError
from ppl_cnn.models.formats.archives import Archive
from ppl_cnn.models.formats.arrays import read_npz, read_safetensors
from ppl_cnn.models.formats.caffe import read_caffemodel
from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.numpy_pickles import read_pickle
from ppl_cnn.models.formats.torch_files import LEGACY, read_legacy, read_zip

GROWTH = 64
"""Largest ratio of the tensors' size to the file's; compressed, half-precision and overlapping
tensors take more memory than the file."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a weights file by their names in it, without a leading "module.".

    The content tells the format: safetensors, PyTorch (zip or legacy), caffemodel, npz, or a pickle
    of NumPy arrays. Half precision becomes float32; other types stay. Code in the file is never
    run, and the file's size bounds memory and time.

    Args:
        path: the file.

    Returns:
        Tensors by name. X.weight and X.bias are as PyTorch and Caffe have them: OIHW, or (out, in)
        with maps flattened in the order (channel, row, col). X.kernel and X.bias are as ppl_cnn has
        them: HWIO, or (in, out) with maps flattened in the order (row, col, channel).

    Raises:
        FileError: the file is missing, unreadable, damaged, of another format, or contains
            something other than tensors.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/weights.npz", **{"conv1.bias": np.zeros(3)})
        ...     read_tensors(Path(folder, "weights.npz"))
        {'conv1.bias': array([0., 0., 0.])}
    """
    return read_file(path, tensors_of)


def read_file(
    path: Path, reader: Callable[[bytes], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The tensors that a reader of content finds in a file.

    Args:
        path: the file.
        reader: a function of the content that raises `ContentError`.

    Raises:
        FileError: the file is missing or unreadable, or the reader refuses its content.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"{path} is missing.", path=path) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}).", path=path) from None
    try:
        return reader(content)
    except ContentError as error:
        raise FileError(f"{path} {error.fault}", path=path) from None


def tensors_of(content: bytes) -> dict[str, np.ndarray]:
    """The tensors in the content of a weights file of any known format; see `read_tensors`.

    Raises:
        ContentError: the content is damaged, of another format, or not tensors.
    """
    tensors: dict[str, np.ndarray] = {}
    for key, array in _read(content).items():
        name = key.removeprefix("module.")
        if name in tensors:
            raise ContentError(f"contains two tensors named {shown(name)}.")
        tensors[name] = array
    if not tensors:
        raise ContentError("contains no tensors.")
    size = sum(array.size * max(array.itemsize, 4) for array in tensors.values())
    if size > GROWTH * len(content):
        raise ContentError(
            f"contains tensors of {size:,} bytes, more than {GROWTH} times its own size of "
            f"{len(content):,}."
        )
    halves = (np.float16, ml_dtypes.bfloat16)
    return {
        name: array.astype(np.float32) if array.dtype in halves else array
        for name, array in tensors.items()
    }


def _read(content: bytes) -> dict[str, np.ndarray]:
    """Reads the content with the reader of the format that its first bytes tell."""
    # The length of the header, below 100 MB, comes first; the header itself is a JSON object.
    if content[4:9] == b"\0\0\0\0{":
        return read_safetensors(content)
    if content[:4] == b"PK\x03\x04":
        archive = Archive(content)
        if any(f"/{name}".endswith("/data.pkl") for name in archive.entries):
            return read_zip(archive)
        if any(name.endswith(".npy") for name in archive.entries):
            return read_npz(archive)
        raise ContentError("is a zip archive of neither PyTorch nor NumPy.")
    if content[:1] == b"\x80":
        return read_legacy(content) if LEGACY in content[:15] else read_pickle(content)
    if content[257:262] == b"ustar":
        raise ContentError(
            "is in the tar format of PyTorch before 0.1.10. Load and save it with a later version."
        )
    if content[:1] in b"\x0a\x12\x1a\xa2" and content:
        return read_caffemodel(content)
    raise ContentError(
        "is in none of the formats that can be read: safetensors, PyTorch, caffemodel, npz, and "
        "pickles of NumPy arrays."
    )
