"""Class folders of images in ImageNet's layout, named `folder:PATH`.

PATH/train/CLASS/... and PATH/val/CLASS/... (or test, valid, validation) are the two splits. If
PATH has only class folders, a tenth of each class is held out for testing: the images whose paths
have the smallest SHA-256.

A tree is prepared once, and again when it has changed: the prepared folder's name has a
fingerprint of all paths, sizes and times of modification.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from ppl_cnn.data.catalogue import FOLDER, VERSION, Prepared, data_root
from ppl_cnn.errors import FileError, MismatchError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".gif")
"""Suffixes of the files that count as images, in lower case."""
TEST_FOLDERS = ("val", "test", "valid", "validation")
"""Names of the folder of test images; a tree has one of them."""
TEST_SHARE = 10
"""One image in this many of a class is for testing where the tree has no split."""
FOLDER_NAME = "folder_images"
"""The folder of prepared trees below the data directory: the builder's name, as TFDS has it."""

File = tuple[str, int]
"""(path below the tree, label) of an image."""


@dataclass(frozen=True)
class Tree:
    """A listing of the images below a folder."""

    path: Path
    """The folder, absolute."""
    classes: tuple[str, ...]
    """The names of the class folders, sorted."""
    splits: Mapping[str, tuple[File, ...]]
    """The images of `train` and `test`, in the order of their paths."""
    fingerprint: str
    """Hexadecimal digits that change when a path, size or time of modification does."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Lists the images below a folder, without opening them.

        Raises:
            FileError: the folder is missing or has another layout.
            MismatchError: the test images have a class that the training images lack.
        """
        if not path.is_dir():
            raise FileError(f"The folder of images {str(path)!r} is missing.", path=path)
        path = path.absolute()
        if (path / "train").is_dir():
            classes, splits, marks = _split_layout(path)
        else:
            classes, splits, marks = _class_layout(path)
        fingerprint = hashlib.sha256("\n".join(marks).encode("utf-8", "surrogateescape"))
        return cls(path, classes, splits, fingerprint.hexdigest()[:12])

    @property
    def variant(self) -> str:
        """The name of its prepared folder, without the suffix of a short side."""
        name = re.sub(r"[^A-Za-z0-9_.]", "_", self.path.name)
        return f"{name or 'root'}-{self.fingerprint}"


class _Images(NamedTuple):
    """The images of one class."""

    files: list[str]
    """Paths below the class folder."""
    marks: list[str]
    """A text for each image that changes when its file does."""


def _split_layout(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[File, ...]], list[str]]:
    tests = [name for name in TEST_FOLDERS if (path / name).is_dir()]
    if len(tests) != 1:
        raise FileError(
            f"{path} has the folder train and {' and '.join(tests) or 'no folder of test images'}."
            f" Give one of {', '.join(TEST_FOLDERS)}.",
            path=path,
        )
    classes = tuple(_class_folders(path / "train"))
    splits: dict[str, tuple[File, ...]] = {}
    marks: list[str] = []
    for split, name in (("train", "train"), ("test", tests[0])):
        files: list[File] = []
        for label in _class_folders(path / name):
            if label not in classes:
                raise MismatchError(f"{path / name} has the class {label!r}, which train lacks.")
            images = _images(path / name / label)
            files += [(f"{name}/{label}/{file}", classes.index(label)) for file in images.files]
            marks += [f"{name}/{label}/{mark}" for mark in images.marks]
        splits[split] = tuple(files)
    return classes, splits, marks


def _class_layout(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[File, ...]], list[str]]:
    classes = tuple(_class_folders(path))
    train: list[File] = []
    test: list[File] = []
    marks: list[str] = []
    for label, name in enumerate(classes):
        images = _images(path / name)
        own = [f"{name}/{file}" for file in images.files]
        if len(own) < 2:
            raise FileError(
                f"{path / name} contains {len(own)} image(s). Each class needs two or more, as one"
                " is for testing.",
                path=path / name,
            )
        by_hash = sorted(own, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())
        held_out = {*by_hash[: max(1, len(own) // TEST_SHARE)]}
        train += [(file, label) for file in own if file not in held_out]
        test += [(file, label) for file in own if file in held_out]
        marks += [f"{name}/{mark}" for mark in images.marks]
    return classes, {"train": tuple(train), "test": tuple(test)}, marks


def _class_folders(path: Path) -> list[str]:
    found = [each.name for each in os.scandir(path) if each.is_dir() and each.name[0] != "."]
    if not found:
        raise FileError(
            f"{path} has no class folders. The layout is PATH/train/CLASS/image.jpg and"
            " PATH/val/CLASS/image.jpg, or PATH/CLASS/image.jpg.",
            path=path,
        )
    return sorted(found)


def _images(folder: Path) -> _Images:
    """The images in a class folder and in the folders below it, sorted by path."""
    found = []
    for below, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in files:
            if name[0] != "." and os.path.splitext(name)[1].lower() in SUFFIXES:
                full = os.path.join(below, name)
                about = os.stat(full)
                relative = os.path.relpath(full, folder).replace(os.sep, "/")
                found.append((relative, f"{relative} {about.st_size} {about.st_mtime_ns}"))
    found.sort()
    return _Images([file for file, _ in found], [mark for _, mark in found])


def prepared_tree(tree: Tree, data_dir: str | Path | None) -> Prepared | None:
    """The prepared data set of a tree in its present state; None if there is none.

    Raises:
        FileError: the tree is prepared more than once, such as whole and with short sides.
    """
    root = data_root(data_dir) / FOLDER_NAME
    found = sorted(root.glob(f"{tree.variant}*/{VERSION}/dataset_info.json"))
    if len(found) > 1:
        folders = " and ".join(str(info.parent) for info in found)
        raise FileError(
            f"{tree.path} is prepared in {folders}. Delete all but one of them.", path=root
        )
    return Prepared(f"{FOLDER}{tree.path}", found[0].parent) if found else None


def all_prepared(data_dir: str | Path | None) -> Iterator[Prepared]:
    """All prepared trees, whether they have changed since or not."""
    root = data_root(data_dir) / FOLDER_NAME
    for info in sorted(root.glob(f"*/{VERSION}/dataset_info.json")):
        metadata = json.loads((info.parent / "metadata.json").read_text("utf-8"))
        yield Prepared(f"{FOLDER}{metadata['tree']}", info.parent)
