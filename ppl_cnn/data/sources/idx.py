"""Reader of idx files, the format in which MNIST and Fashion-MNIST are published."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ppl_cnn.errors import FileError, MismatchError

IMAGE_SHAPE = (28, 28)
"""(row, col) of the images of MNIST and Fashion-MNIST."""
CLASS_COUNT = 10
"""Number of classes of MNIST and of Fashion-MNIST."""

_FILE_PREFIXES = {"train": "train", "test": "t10k"}


def read_idx(path: Path, advice: str) -> UInt8[np.ndarray, "..."]:
    """The array of unsigned bytes in an idx file, gzipped if its name ends in .gz.

    The file holds the magic bytes 0, 0, 8 (unsigned byte), the number of axes, each axis's length
    as a big-endian 32-bit integer, and the values, last axis fastest.

    Args:
        path: the file.
        advice: the sentence that the error for a missing file ends with.

    Raises:
        FileError: the file is missing, not gzip, cut short, or not such an idx file.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise FileError(f"{path} is missing. {advice}", path=path) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FileError(
            f"{path} is not an intact gzip file ({error}). Replace it by a fresh copy.", path=path
        ) from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise FileError(
            f"{path} is not an idx file of unsigned bytes: it begins with"
            f" {content[:4].hex(' ') or 'nothing'}, not with 00 00 08.",
            path=path,
        )
    shape = np.frombuffer(content, ">u4", count=min(content[3], (len(content) - 4) // 4), offset=4)
    header = 4 + 4 * content[3]
    expected = math.prod(map(int, shape))
    if len(shape) < content[3] or len(content) - header != expected:
        raise FileError(
            f"{path} contains {max(0, len(content) - header)} values, and its header announces"
            f" {expected}. Replace it by a fresh copy.",
            path=path,
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape([int(n) for n in shape])


def read_split(
    folder: Path, split: str, advice: str
) -> tuple[UInt8[np.ndarray, "n row col"], UInt8[np.ndarray, " n"]]:
    """The images (pixels 0..255) and labels (0..9) of one split.

    Args:
        folder: the folder with the idx files, packed or unpacked, at any depth.
        split: `train` or `test`.
        advice: the sentence that the error for a missing file ends with.

    Raises:
        FileError: a file is missing or damaged, or contains something else.
        MismatchError: images and labels differ in number.
    """
    image_path, label_path = _file(folder, split, "images"), _file(folder, split, "labels")
    images, labels = read_idx(image_path, advice), read_idx(label_path, advice)
    if images.shape[1:] != IMAGE_SHAPE or not len(images):
        raise FileError(
            f"{image_path} contains an array of shape {images.shape}, not (n, 28, 28).",
            path=image_path,
        )
    if labels.shape != images.shape[:1]:
        raise MismatchError(
            f"{label_path} contains labels of shape {labels.shape}, and {image_path.name}"
            f" {len(images)} images. Give two files of one set."
        )
    if labels.size and labels.max() >= CLASS_COUNT:
        raise FileError(
            f"{label_path} contains the label {labels.max()}. Labels are 0 to {CLASS_COUNT - 1}.",
            path=label_path,
        )
    return images, labels


def find_idx(folder: Path, prefix: str = "*", content: str = "*") -> list[Path]:
    """The idx files in a folder and below it that lie least deep, unpacked ones first.

    Copies of MNIST have train-images-idx3-ubyte or train-images.idx3-ubyte, packed or not, some in
    MNIST/raw, some in a folder of the file's own name.

    Args:
        folder: the folder.
        prefix: train or t10k; by default both.
        content: images or labels; by default both.
    """
    found = [
        path
        for path in folder.rglob(f"{prefix}-{content}?idx[13]-ubyte*", case_sensitive=False)
        if path.name.lower().endswith(("-ubyte", "-ubyte.gz")) and path.is_file()
    ]
    least = min((len(path.parts) for path in found), default=0)
    return sorted(
        (path for path in found if len(path.parts) == least),
        key=lambda path: (path.suffix == ".gz", path),
    )


def _file(folder: Path, split: str, content: str) -> Path:
    """The file of a split's images or labels; if there is none, the published one's path.

    Raises:
        FileError: several folders have one.
    """
    prefix = _FILE_PREFIXES[split]
    found = find_idx(folder, prefix, content)
    folders = {path.parents[path.parent.name.lower() == path.name.lower()] for path in found}
    if len(folders) > 1:
        several = " and ".join(sorted(str(each) for each in folders))
        raise FileError(
            f"{folder} has {prefix}-{content} in {several}. Give one of these as `manual_dir`.",
            path=folder,
        )
    axes = 3 if content == "images" else 1
    return found[0] if found else folder / f"{prefix}-{content}-idx{axes}-ubyte.gz"
