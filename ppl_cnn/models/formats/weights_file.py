"""Tensors of a weights file of any known format; the content tells the format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ppl_cnn.errors import FileError
from ppl_cnn.models.formats.archives import Archive
from ppl_cnn.models.formats.arrays import read_npy, read_npz, read_safetensors, with_our_names
from ppl_cnn.models.formats.caffe import CaffeLayer, read_caffemodel
from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.foreign import beginning, foreign, foreign_archive
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.torch_files import LEGACY, read_legacy, read_pickle, read_zip

GROWTH = 64
"""Largest ratio of the tensors' size to the file's; compressed, half-precision and overlapping
tensors take more memory than the file."""
SHARDS = 1000
"""Largest number of files that an index may name."""
_NAME = 255
"""Bytes of the longest name of a file."""


class WeightsFile(NamedTuple):
    """What a weights file holds."""

    tensors: dict[str, np.ndarray]
    """Tensors by their names in the file; see `read_tensors`."""
    layers: tuple[CaffeLayer, ...] = ()
    """The layers that a caffemodel gives, in their order; () for other formats."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a weights file by their names in it, without a leading "module.".

    The content tells the format: safetensors, PyTorch (zip or legacy), caffemodel, npy, npz, a
    pickle of NumPy arrays or PyTorch's tensors, or the index of a file in several parts that lie
    beside it (`model.safetensors.index.json`). Half precision becomes float32; other types stay.
    Code in the file is never run, and the file's size bounds memory and time.

    Args:
        path: the file.

    Returns:
        Tensors by name. X.weight and X.bias are as PyTorch and Caffe have them: OIHW, or (out, in)
        with maps flattened in the order (channel, row, col). X.kernel and X.bias are as ppl_cnn has
        them: HWIO, or (in, out) with maps flattened in the order (row, col, channel).

    Raises:
        FileError: the file is missing, unreadable, damaged, of another format, or contains no
            tensors by names.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/weights.npz", **{"conv1.bias": np.zeros(3)})
        ...     read_tensors(Path(folder, "weights.npz"))
        {'conv1.bias': array([0., 0., 0.])}
    """
    return open_weights(path).tensors


def open_weights(path: Path) -> WeightsFile:
    """What a weights file of any known format holds; see `read_tensors`.

    Raises:
        FileError: the file, or one that it is an index of, can't be read.
    """
    if path.suffix != ".json":
        return read_file(path, _contents)
    tensors: dict[str, np.ndarray] = {}
    for name in read_file(path, _shards):
        shard = path.parent / name
        if shard.exists() and not shard.is_file():  # a pipe would be waited for
            raise FileError(f"{shard} is no file, and {path.name} says that it is.", path=shard)
        tensors |= read_file(shard, tensors_of)
    return WeightsFile(tensors)


def read_file[T](path: Path, reader: Callable[[bytes], T]) -> T:
    """What a reader of content finds in a file.

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
    return _contents(content).tensors


def _contents(content: bytes) -> WeightsFile:
    """What the content of a weights file holds, within the bounds on its size."""
    found = _read(content)
    tensors: dict[str, np.ndarray] = {}
    for key, array in found.tensors.items():
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
    full = {
        name: array.astype(np.float32) if array.dtype in halves else array
        for name, array in tensors.items()
    }
    return WeightsFile(full, found.layers)


def _shards(content: bytes) -> list[str]:
    """The names of the files that an index of shards names, each once."""
    try:
        index = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise foreign(content) from None
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise foreign(content)
    if not all(_is_file_name(name) for name in places.values()):
        raise ContentError(
            "is an index of files in other folders, or of names that aren't text. Put its files "
            "beside it."
        )
    names = list(dict.fromkeys(places.values()))
    if len(names) > SHARDS:
        raise ContentError(f"is an index of {len(names):,} files, more than {SHARDS:,}.")
    return names


def _is_file_name(name: Any) -> bool:
    """Whether an entry of an index names a file beside it."""
    is_text = isinstance(name, str) and name.isprintable() and len(name.encode()) <= _NAME
    return is_text and Path(name).name == name and name not in ("", "..")


def _read(content: bytes) -> WeightsFile:
    """Reads the content with the reader of the format that its first bytes tell."""
    # The length of the header, below 100 MB, comes first; the header itself is a JSON object.
    if content[4:9] == b"\0\0\0\0{":
        return WeightsFile(read_safetensors(content))
    if content[:4] == b"PK\x03\x04":
        archive = Archive(content)
        if any(f"/{name}".endswith("/data.pkl") for name in archive.entries):
            return WeightsFile(read_zip(archive))
        if any(name.endswith(".npy") for name in archive.entries):
            return WeightsFile(read_npz(archive))
        raise foreign_archive([*archive.entries])
    if content[:1] == b"\x80":
        if LEGACY in content[:15]:
            return WeightsFile(read_legacy(content))
        return WeightsFile(with_our_names(read_pickle(content)))
    if content[:6] == b"\x93NUMPY":
        return WeightsFile(read_npy(content))
    if content[257:262] == b"ustar":
        raise ContentError(
            "is in the tar format of PyTorch before 0.1.10. Load and save it with a later version."
        )
    # A caffemodel's first byte may be a new line, with which texts begin too.
    if content[:1] in b"\x0a\x12\x1a\xa2" and content and not beginning(content):
        return WeightsFile(*read_caffemodel(content))
    raise foreign(content)
