"""The layouts of class folders: which folders are classes, and which images train and test.

Two layouts are known. With splits, PATH/train/CLASS/... and the like for val or test or both, the
splits' folders may have any usual name: Training, valid, test_set, seg_train. Without splits,
PATH/CLASS/..., a tenth of each class is held out for testing: the images whose paths have the
smallest SHA-256.
"""

import hashlib
import os
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from ppl_cnn.data.walk import Found, LeftOut, Listing
from ppl_cnn.errors import FileError, MismatchError, shown

TEST_SHARE = 10
"""One image in this many of a class is for testing where the tree has no split."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Usual names of folders, in lower case, and the split that each has."""
_NAME = re.compile(
    rf"(?:(?P<set>.+)[ _.-]+)?(?P<split>{'|'.join(_SPLITS)})(?:[ _.-]*(?:set|data|split|images?))?",
    re.IGNORECASE,
)
"""A split's folder: train, Training_Set, seg_train."""
_LAYOUT = (
    "The layout is PATH/train/CLASS/image.jpg and PATH/val/CLASS/image.jpg, or PATH/CLASS/image.jpg"
)


class Layout(NamedTuple):
    """A tree's images by class and split."""

    classes: tuple[str, ...]
    """The names of the class folders, as `shown`, in their order."""
    splits: dict[str, tuple[tuple[Found, int], ...]]
    """The images of `train` and `test`, and of `validation` if there are both, with labels."""
    images: tuple[Found, ...]
    """All these images, in the order of the folders."""
    left_out: tuple[LeftOut, ...]
    """Images and folders that are no part of the layout."""


@dataclass(frozen=True)
class _Tree:
    """A listing, by folder."""

    root: Path
    listing: Listing

    def place(self, folder: str) -> Path:
        return self.root / folder if folder else self.root

    def within(self, folder: str) -> list[str]:
        """The names of the folders directly in a folder, sorted."""
        start = f"{folder}/" if folder else ""
        below = (each for each in self.listing.folders if each.startswith(start))
        return [each[len(start) :] for each in below if "/" not in each[len(start) :]]

    def images(self, folder: str) -> Sequence[Found]:
        """The images at any depth below a folder, sorted by path."""
        files = self.listing.files
        if not folder:
            return files
        ends = (bisect_left(files, end, key=lambda each: each.path) for end in _ends(folder))
        return files[slice(*ends)]

    def loose(self, folder: str) -> list[Found]:
        """The images directly in a folder."""
        start = len(folder) + 1 if folder else 0
        return [each for each in self.images(folder) if "/" not in each.path[start:]]

    def refuse(self, folder: str, fault: str) -> NoReturn:
        place = self.place(folder)
        raise FileError(f"{shown(place)} {fault}", path=place)


def _ends(folder: str) -> tuple[str, str]:
    """Paths below the folder lie between these, as the character 0 follows the slash."""
    return f"{folder}/", f"{folder}0"


def layout_of(root: Path, listing: Listing) -> Layout:
    """The layout of the images below a folder.

    Args:
        root: the folder.
        listing: what lies below it.

    Raises:
        FileError: the folder has another layout; the message says which folder would be right.
        MismatchError: test images have a class that the training images lack.
    """
    tree = _Tree(root, listing)
    folders = _split_folders(tree)
    if folders:
        return _with_splits(tree, folders)
    _check_depth(tree)
    return _held_out(tree)


def _split_folders(tree: _Tree) -> dict[str, str]:
    """The folder of each split; empty where the folders are classes.

    Raises:
        FileError: folders are named as splits are, and it isn't clear how they are meant.
    """
    top = tree.within("")
    sets = _sets(top)
    complete = [each for each in sets.values() if _is_complete(each)]
    if len(complete) > 1:
        found = " and ".join(shown(each["train"][0]) for each in complete)
        tree.refuse("", f"has several sets of splits: {found}. Keep one of them in a folder.")
    if complete:
        for names in complete[0].values():
            if len(names) > 1:
                said = " and ".join(map(shown, names))
                tree.refuse("", f"has {said}, which mean the same split. Keep one of them.")
        return {split: _innermost(tree, names[0]) for split, names in complete[0].items()}
    alone = sets.get("", {})
    named = {name for names in alone.values() for name in names}
    if any(tree.within(name) for name in alone.get("train", ())):
        train = shown(alone["train"][0])
        tree.refuse(
            "",
            f"has the folder {train} and no folder of test images, such as val, test or validation."
            f" Add one, or give folder:PATH/{train} to hold a tenth out.",
        )
    if named and named == {*top}:
        said = " and ".join(map(shown, sorted(named)))
        tree.refuse("", f"has no classes, only {said}. {_LAYOUT}.")
    return {}


def _sets(names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Folders that are named as splits are, by what precedes the split, and by split."""
    sets: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if found := _NAME.fullmatch(name):
            before = (found["set"] or "").lower()
            sets[before][_SPLITS[found["split"].lower()]].append(name)
    return sets


def _is_complete(splits: dict[str, list[str]]) -> bool:
    return "train" in splits and len(splits) > 1


def _innermost(tree: _Tree, folder: str) -> str:
    """A split's folder, or the folder of the same name that is all it has, as archives make it."""
    while not tree.loose(folder):
        match tree.within(folder):
            case [name] if name.lower() == folder.rpartition("/")[2].lower():
                folder = f"{folder}/{name}"
            case _:
                break
    return folder


def _with_splits(tree: _Tree, folders: dict[str, str]) -> Layout:
    """The layout of a tree with a folder for each split."""
    loose = [each for folder in ("", *folders.values()) for each in tree.loose(folder)]
    left_out = [LeftOut(each.path, "in no class folder") for each in loose]
    tops = {folder.partition("/")[0] for folder in folders.values()}
    beside = [name for name in tree.within("") if name not in tops]
    left_out += [LeftOut(name, "beside the splits' folders") for name in beside]
    labelled = {split: each for split, each in folders.items() if tree.within(each)}
    for split, folder in folders.items():
        enough = "train" in labelled and len(labelled) > 1
        if split not in labelled and not (enough and tree.loose(folder)):
            _refuse_flat(tree, folder)
    if len(labelled) == 2:
        (other,) = labelled.keys() - {"train"}
        labelled = {"train": labelled["train"], "test": labelled[other]}
    own = tree.within(labelled["train"])
    order = [split for split in ("train", "validation", "test") if split in labelled]
    splits: dict[str, tuple[tuple[Found, int], ...]] = {
        split: tuple(_labelled(tree, labelled[split], own)) for split in order
    }
    images = tuple(each for split in splits.values() for each, _ in split)
    return Layout(_names(tree, own), splits, images, tuple(left_out))


def _labelled(tree: _Tree, folder: str, classes: list[str]) -> Iterator[tuple[Found, int]]:
    """The images of one split, with their labels."""
    for name in tree.within(folder):
        if name not in classes:
            alike = [each for each in classes if each.casefold() == name.casefold()]
            hint = f" Rename one of {shown(name)!r} and {shown(alike[0])!r}." if alike else ""
            raise MismatchError(
                f"{shown(tree.place(folder))} has the class {shown(name)!r}, which train"
                f" lacks.{hint}"
            )
        for each in _enough(tree, f"{folder}/{name}", 1):
            yield each, classes.index(name)


def _held_out(tree: _Tree) -> Layout:
    """The layout of a tree of classes, a tenth of each held out for testing."""
    own = tree.within("")
    if not own:
        loose = f"{len(tree.loose('')):,} images and " if tree.loose("") else ""
        tree.refuse("", f"has {loose}no class folders. {_LAYOUT}.")
    images: list[Found] = []
    train: list[tuple[Found, int]] = []
    test: list[tuple[Found, int]] = []
    for label, name in enumerate(own):
        of_class = _enough(tree, name, 2)
        by_hash = sorted(of_class, key=lambda each: hashlib.sha256(os.fsencode(each.path)).digest())
        held_out = {*by_hash[: max(1, len(of_class) // TEST_SHARE)]}
        images += of_class
        train += [(each, label) for each in of_class if each not in held_out]
        test += [(each, label) for each in of_class if each in held_out]
    splits = {"train": tuple(train), "test": tuple(test)}
    left_out = tuple(LeftOut(each.path, "in no class folder") for each in tree.loose(""))
    return Layout(_names(tree, own), splits, tuple(images), left_out)


def _enough(tree: _Tree, folder: str, least: int) -> Sequence[Found]:
    """The images of a class, which are no fewer than needed."""
    images = tree.images(folder)
    if len(images) < least:
        left = [each for each in tree.listing.left_out if each.path.startswith(f"{folder}/")]
        besides = f", and {len(left)} were left out as {left[0].why}" if left else ""
        needed = "two or more, as one is for testing" if least == 2 else "one or more"
        tree.refuse(folder, f"contains {len(images)} image(s){besides}. Each class needs {needed}.")
    return images


def _names(tree: _Tree, classes: list[str]) -> tuple[str, ...]:
    # TFDS would strip spaces at the ends.
    names = tuple(re.sub(r"^ | $", r"\\x20", shown(name)) for name in classes)
    if len({*names}) < len(names):
        tree.refuse("", "has class folders whose names can't be told apart in print. Rename them.")
    return names


def _refuse_flat(tree: _Tree, folder: str) -> NoReturn:
    count = len(tree.loose(folder))
    if not count:
        tree.refuse(folder, f"has no class folders. {_LAYOUT}.")
    tree.refuse(
        folder,
        f"has {count:,} images and no class folders, so their classes are unknown. Sort them into"
        " the class folders that train has; ImageNet's come so, and `data=imagenet2012` reads them"
        " and their labels from its tar files.",
    )


def _check_depth(tree: _Tree) -> None:
    """Refuses a folder that isn't the one meant: the splits or the classes lie deeper."""
    inside: dict[str, list[str]] = defaultdict(list)
    for folder in tree.listing.folders:
        parent, _, name = folder.rpartition("/")
        inside[parent].append(name)
    for parent, names in sorted(inside.items()):
        sets = [each for each in _sets(names).values() if _is_complete(each)]
        if parent and sets:
            said = " and ".join(shown(each[0]) for each in sets[0].values())
            place = shown(tree.place(parent))
            tree.refuse("", f"has no splits itself: {said} lie in {place}. Give folder:{place}.")
    match tree.within(""):
        case [only] if not tree.loose(only) and len(tree.within(only)) > 1:
            place = shown(tree.place(only))
            tree.refuse("", f"has one folder, and the classes lie in it. Give folder:{place}.")
