"""Class folders of images, named `folder:PATH`; `layouts` says how they may lie.

A tree is prepared once, and again when it has changed: the prepared folder's name has a
fingerprint of all paths, sizes and times of modification.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ppl_cnn.data.catalogue import FOLDER, VERSION, Prepared, data_root
from ppl_cnn.data.sources.layouts import layout_of
from ppl_cnn.data.walk import LeftOut, account, list_images
from ppl_cnn.errors import FileError, shown

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
    """The names of the class folders, sorted; what can't be printed in them is escaped."""
    splits: Mapping[str, tuple[File, ...]]
    """The images of `train` and `test`, and of `validation` where the tree has all three, in the
    order of their classes and paths."""
    fingerprint: str
    """Hexadecimal digits that change when a path, size or time of modification does."""
    left_out: tuple[LeftOut, ...] = ()
    """What lies there and is no part of the tree."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Lists the images below a folder; only files without a usual suffix are opened.

        Raises:
            FileError: the folder is missing, can't be read, or has another layout.
            MismatchError: the test images have a class that the training images lack.
        """
        if not path.is_dir():
            raise FileError(f"The folder of images {shown(path)!r} is missing.", path=path)
        path = path.absolute()
        listing = list_images(path)
        layout = layout_of(path, listing)
        splits = {
            split: tuple((each.path, label) for each, label in images)
            for split, images in layout.splits.items()
        }
        marks = (f"{each.path} {each.size} {each.modified}" for each in layout.images)
        fingerprint = hashlib.sha256("\n".join(marks).encode("utf-8", "surrogateescape"))
        left_out = (*listing.left_out, *layout.left_out)
        return cls(path, layout.classes, splits, fingerprint.hexdigest()[:12], left_out)

    def account(self) -> tuple[str, ...]:
        """Lines on what lies there and was not taken, and on validation images."""
        lines = account(self.left_out)
        if "validation" in self.splits:
            count = len(self.splits["validation"])
            lines.append(
                f"the {count:,} images of validation choose a training's best checkpoint, and those"
                " of test give its test error; --test validation takes the former for both"
            )
        return tuple(lines)

    @property
    def variant(self) -> str:
        """The name of its prepared folder, without the suffix of a short side."""
        name = re.sub(r"[^A-Za-z0-9_.]", "_", self.path.name)
        return f"{name or 'root'}-{self.fingerprint}"


def prepared_tree(tree: Tree, data_dir: str | Path | None) -> Prepared | None:
    """The prepared data set of a tree in its present state; None if there is none.

    Raises:
        FileError: the tree is prepared more than once, such as whole and with short sides.
    """
    root = data_root(data_dir) / FOLDER_NAME
    found = sorted(root.glob(f"{tree.variant}*/{VERSION}/dataset_info.json"))
    if len(found) > 1:
        folders = " and ".join(shown(info.parent) for info in found)
        raise FileError(
            f"{shown(tree.path)} is prepared in {folders}. Delete all but one of them.", path=root
        )
    return Prepared(f"{FOLDER}{tree.path}", found[0].parent) if found else None


def all_prepared(data_dir: str | Path | None) -> Iterator[Prepared]:
    """All prepared trees, whether they have changed since or not."""
    root = data_root(data_dir) / FOLDER_NAME
    for info in sorted(root.glob(f"*/{VERSION}/dataset_info.json")):
        metadata = json.loads((info.parent / "metadata.json").read_text("utf-8"))
        yield Prepared(f"{FOLDER}{metadata['tree']}", info.parent)
