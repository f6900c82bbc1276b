import os

import pytest
from PIL import Image

from ppl_cnn.data import open_split
from ppl_cnn.data.sources.folders import Tree
from ppl_cnn.errors import FileError, MismatchError, shown


@pytest.fixture
def plant(tmp_path):
    """A function of numbers of images by folder to a tree, whose images all differ."""

    def make(folders: dict[str, int]):
        for folder, count in folders.items():
            (tmp_path / "tree" / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                Image.new("L", (3, 3)).save(tmp_path / "tree" / folder / f"{index}.png")
        return tmp_path / "tree"

    return make


def two(*folders: str) -> dict[str, int]:
    """Two classes in each of these folders, of five images and two."""
    return {f"{folder}/{label}": n for folder in folders for label, n in (("a", 5), ("b", 2))}


def sizes(tree: Tree) -> dict[str, int]:
    return {split: len(files) for split, files in tree.splits.items()}


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "val"),
        ("train", "valid"),
        ("Training", "Testing"),
        ("TRAIN", "Validation"),
        ("training_set", "test_set"),
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train-images", "test-images"),
        ("train", "dev"),
    ],
)
def test_splits_have_any_usual_name(plant, folders):
    tree = Tree.read(plant(two(*folders)))
    assert (tree.classes, sizes(tree)) == (("a", "b"), {"train": 7, "test": 7})
    assert tree.splits["train"][0] == (f"{folders[0]}/a/0.png", 0)
    assert tree.splits["test"][-1] == (f"{folders[1]}/b/1.png", 1)


def test_three_splits_are_kept_apart_and_said(plant):
    tree = Tree.read(plant(two("train", "test", "val")))
    assert sizes(tree) == {"train": 7, "validation": 7, "test": 7}
    assert tree.splits["validation"][0] == ("val/a/0.png", 0)
    assert any("--test validation" in line for line in tree.account())


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        ({"test": 4, "control": 4}, ("control", "test")),
        ({"train": 4, "plane": 4, "car": 4}, ("car", "plane", "train")),
        ({"steam train": 4, "bullet train": 4}, ("bullet train", "steam train")),
        ({"cars/red": 4, "cars/blue": 4, "trucks": 4}, ("cars", "trucks")),
        ({"all": 4}, ("all",)),
        ({"contest": 4, "interval": 4}, ("contest", "interval")),
        ({"two\nlines": 4, "caf\udce9": 4, " x": 4}, (r"\x20x", r"caf\xe9", r"two\nlines")),
    ],
)
def test_other_folders_are_classes(plant, folders, classes):
    tree = Tree.read(plant(folders))
    assert tree.classes == classes
    assert sum(sizes(tree).values()) == sum(folders.values())


@pytest.mark.parametrize(
    ("folders", "kind", "facts"),
    [
        (
            two("data/train", "data/val"),
            FileError,
            ("train and val lie in", "folder:", "tree/data"),
        ),
        (two("x/y/z/Training", "x/y/z/Test"), FileError, ("folder:", "tree/x/y/z")),
        (two("images"), FileError, ("one folder", "tree/images")),
        (two("train"), FileError, ("no folder of test images", "folder:PATH/train", "validation")),
        (two("val", "test"), FileError, ("no classes", "val", "test")),
        (
            {"Training": 4, "Testing": 4},
            FileError,
            ("tree/Test", "4 images", "no class folders"),
        ),
        (
            {**two("train"), "val": 6},
            FileError,
            ("tree/val", "6 images", "ImageNet", "imagenet2012"),
        ),
        ({**two("train", "val"), "train/c": 0}, FileError, ("train/c", "0 image")),
        ({**two("train", "val"), "val/c": 1}, MismatchError, ("'c'", "train")),
        ({"a": 4, "b": 4, "c": 0}, FileError, ("tree/c", "0 image", "two")),
        ({"a": 4, "b": 1}, FileError, ("tree/b", "1 image", "two")),
        ({"a": 4, "b/.cache": 4}, FileError, ("tree/b", "0 image", "1 were left out as hidden")),
        ({"train/Cat": 4, "val/cat": 4}, MismatchError, ("'cat'", "'Cat'", "Rename")),
        (two("train", "val", "valid"), FileError, ("val and valid", "same split")),
        (two("x_train", "x_test", "y_train", "y_test"), FileError, ("x_train and y_train",)),
        ({"": 7}, FileError, ("7 images", "no class folders", "PATH/CLASS")),
        ({}, FileError, ("no class folders", "PATH/train/CLASS")),
        ({"two\nlines": 4, r"two\nlines": 4}, FileError, ("can't be told apart",)),
    ],
)
def test_other_layouts_are_told_what_would_be_right(plant, folders, kind, facts, refused):
    path = plant({"": 0, **folders})
    with refused(*facts, kind=kind):
        Tree.read(path)


def test_what_is_no_part_of_the_layout_is_told(plant):
    path = plant({**two("train", "val"), "": 7, "train": 2, "test": 3, "masks": 1})
    (path / "train" / "a" / "labels.csv").touch()
    tree = Tree.read(path)
    assert sizes(tree) == {"train": 7, "test": 7}
    told = "\n".join(tree.account())
    assert "left out 12 in no class folder: 0.png, 1.png" in told
    assert "left out 1 beside the splits' folders: masks" in told
    assert "left out 1 with the suffix .csv, no images: train/a/labels.csv" in told
    assert "left out 2 in no class folder" in "\n".join(
        Tree.read(plant({"train/a": 5}) / "train").account()
    )


def test_class_folders_may_be_links_and_a_loop_counts_no_image_twice(plant, tmp_path):
    path = plant({"a": 20, "b": 20})
    os.symlink("../a", path / "a" / "again")
    os.symlink("..", path / "b" / "up")
    (tmp_path / "farm").mkdir()
    for label in ("a", "b"):
        os.symlink(path / label, tmp_path / "farm" / label)
    assert sizes(Tree.read(path)) == {"train": 36, "test": 4}
    farmed = Tree.read(tmp_path / "farm")
    assert sizes(farmed) == {"train": 36, "test": 4}
    assert (farmed.splits, farmed.fingerprint) == (
        Tree.read(path).splits,
        Tree.read(path).fingerprint,
    )


def test_three_splits_are_prepared_and_opened_by_name(plant, tmp_path, capsys):
    path = plant(two("train", "val", "test"))
    opened = {
        split: open_split(f"folder:{path}", split, tmp_path / "data")
        for split in ("train", "validation", "test")
    }
    assert {split: len(each) for split, each in opened.items()} == dict.fromkeys(opened, 7)
    assert capsys.readouterr().err.count("--test validation") == 1  # at the first use


def test_names_in_errors_stand_on_one_line(plant, refused):
    path = plant({"a\nb/train/x": 2, "a\nb/val/x": 2, "c": 2})
    with refused(shown(path / "a\nb"), kind=FileError):
        Tree.read(path)
