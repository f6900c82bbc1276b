"""The idx format, in which MNIST and Fashion-MNIST are published."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ppl_cnn.errors import InputError

IMAGE_SHAPE = (28, 28)  # row, col
CLASS_COUNT = 10

_FILE_PREFIXES = {"train": "train", "test": "t10k"}


def read_idx(path: Path, needed: str) -> UInt8[np.ndarray, "..."]:
    """Array of unsigned bytes in an idx file, gzipped if its name ends in .gz.

    The file holds the magic bytes 0, 0, 8 (unsigned byte), the number of axes, each axis's length
    as a big-endian 32-bit integer, and the values, last axis fastest.

    Args:
        path: the file.
        needed: what to tell whoever lacks it, a clause.

    Raises:
        InputError: the file is missing, not gzip, cut short, or not such an idx file.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise InputError(f"{path} isn't there: {needed}.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is not a whole gzip file ({error}); get it again from where it came."
        ) from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise InputError(
            f"{path} is not an idx file of unsigned bytes: it begins with"
            f" {content[:4].hex(' ') or 'nothing'}, and 00 00 08 would be right."
        )
    shape = np.frombuffer(content, ">u4", count=min(content[3], (len(content) - 4) // 4), offset=4)
    header = 4 + 4 * content[3]
    expected = math.prod(map(int, shape))
    if len(shape) < content[3] or len(content) - header != expected:
        raise InputError(
            f"{path} announces {expected} values and holds {max(0, len(content) - header)};"
            " get it again from where it came."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape([int(n) for n in shape])


def read_split(
    folder: Path, split: str, needed: str
) -> tuple[UInt8[np.ndarray, "n row col"], UInt8[np.ndarray, " n"]]:
    """Images (0..255) and labels (0..9) of the split `train` or `test` of the files in `folder`.

    Raises `InputError` when a file can't be read or the two don't belong together.
    """
    image_path = _file(folder, f"{_FILE_PREFIXES[split]}-images-idx3-ubyte")
    label_path = _file(folder, f"{_FILE_PREFIXES[split]}-labels-idx1-ubyte")
    images, labels = read_idx(image_path, needed), read_idx(label_path, needed)
    if images.shape[1:] != IMAGE_SHAPE or not len(images):
        raise InputError(
            f"{image_path} holds an array of shape {images.shape}, and (n, 28, 28) would be right."
        )
    if labels.shape != images.shape[:1]:
        raise InputError(
            f"{label_path} holds labels of shape {labels.shape} for the {len(images)} images of"
            f" {image_path.name}, and there must be one for each."
        )
    if labels.size and labels.max() >= CLASS_COUNT:
        raise InputError(f"{label_path} holds the label {labels.max()}, and 0 to 9 would be right.")
    return images, labels


def _file(folder: Path, name: str) -> Path:
    """The file as it is published, or unpacked."""
    unpacked = folder / name
    return unpacked if unpacked.is_file() else folder / f"{name}.gz"
