"""Class folders of images, ImageNet's layout: `folder:PATH`.

PATH/train/CLASS/... and PATH/val/CLASS/... (or test, valid, validation) are the two splits. If
PATH has just class folders, a tenth of each class is held out for testing: the images whose paths
have the smallest SHA-256.

A tree is prepared once, and again when it has changed: the prepared folder bears a fingerprint of
all paths, sizes and times of modification.
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
from ppl_cnn.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".gif")
TEST_FOLDERS = ("val", "test", "valid", "validation")
TEST_SHARE = 10
"""Of so many images of a class one is held out, where the tree isn't split."""
FOLDER_NAME = "folder_images"
"""Below the data directory: the builder's name, as TFDS has it."""

File = tuple[str, int]
"""Path below the tree and label."""


@dataclass(frozen=True)
class Tree:
    """The images below a folder."""

    path: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[File, ...]]
    fingerprint: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Lists the images below the folder; they aren't opened.

        Raises:
            InputError: there is no such folder, or it has not the layout.
        """
        if not path.is_dir():
            raise InputError(f"there is no folder {str(path)!r} of images.")
        path = path.absolute()
        if (path / "train").is_dir():
            classes, splits, marks = _split_layout(path)
        else:
            classes, splits, marks = _class_layout(path)
        fingerprint = hashlib.sha256("\n".join(marks).encode("utf-8", "surrogateescape"))
        return cls(path, classes, splits, fingerprint.hexdigest()[:12])

    @property
    def variant(self) -> str:
        """What its prepared folder is called."""
        name = re.sub(r"[^A-Za-z0-9_.]", "_", self.path.name)
        return f"{name or 'root'}-{self.fingerprint}"


class _Images(NamedTuple):
    files: list[str]  # below the class folder
    marks: list[str]  # of each: what changes when the file does


def _split_layout(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[File, ...]], list[str]]:
    tests = [name for name in TEST_FOLDERS if (path / name).is_dir()]
    if len(tests) != 1:
        raise InputError(
            f"{path} has the folder train and {' and '.join(tests) or 'none for testing'};"
            f" one of {', '.join(TEST_FOLDERS)} would be right."
        )
    classes = tuple(_class_folders(path / "train"))
    splits: dict[str, tuple[File, ...]] = {}
    marks: list[str] = []
    for split, name in (("train", "train"), ("test", tests[0])):
        files: list[File] = []
        for label in _class_folders(path / name):
            if label not in classes:
                raise InputError(f"{path / name} has the class {label!r}, and train has it not.")
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
            raise InputError(
                f"{path / name} has {len(own)} image(s), and two are the least, one of them for"
                " testing."
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
        raise InputError(
            f"{path} has no class folders; PATH/train/CLASS/image.jpg and PATH/val/CLASS/image.jpg,"
            " or PATH/CLASS/image.jpg, would be right."
        )
    return sorted(found)


def _images(folder: Path) -> _Images:
    """The images in a class folder and the folders in it."""
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


def prepared_tree(tree: Tree, data_dir: str | None) -> Prepared | None:
    """Where the tree as it is now has been prepared.

    Raises:
        InputError: it has been prepared both whole and with shorter sides.
    """
    root = data_root(data_dir) / FOLDER_NAME
    found = sorted(root.glob(f"{tree.variant}*/{VERSION}/dataset_info.json"))
    if len(found) > 1:
        folders = " and ".join(str(info.parent) for info in found)
        raise InputError(f"{tree.path} is prepared in {folders}; delete all but one of them.")
    return Prepared(f"{FOLDER}{tree.path}", found[0].parent) if found else None


def all_prepared(data_dir: str | None) -> Iterator[Prepared]:
    """All trees that have been prepared, changed since or not."""
    root = data_root(data_dir) / FOLDER_NAME
    for info in sorted(root.glob(f"*/{VERSION}/dataset_info.json")):
        metadata = json.loads((info.parent / "metadata.json").read_text())
        yield Prepared(f"{FOLDER}{metadata['tree']}", info.parent)
