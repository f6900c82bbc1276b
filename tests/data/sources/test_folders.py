import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ppl_cnn.data import open_split, preparing
from ppl_cnn.data.augmentation import CentreView
from ppl_cnn.data.preparing import prepare
from ppl_cnn.data.sources.folders import Tree, all_prepared
from ppl_cnn.errors import ArgumentError, FileError, MismatchError


class ShortSide(CentreView):
    """A view that tells the stored image's short side."""

    def __call__(self, image, position):
        return np.full(self.shape, min(image.size), np.uint8)


def names(files) -> list[str]:
    return [name for name, _ in files]


def test_split_trees_are_listed_by_class_and_path(tree):
    found = Tree.read(tree({"b": 2, "a": 1}, {"a": 1}))
    assert found.classes == ("a", "b")
    assert found.splits["train"] == (
        ("train/a/0000.JPEG", 0),
        ("train/b/0000.JPEG", 1),
        ("train/b/0001.JPEG", 1),
    )
    assert found.splits["test"] == (("val/a/0000.JPEG", 0),)


def test_trees_of_class_folders_hold_a_tenth_of_each_class_out(tree):
    path = tree({"a": 40, "b": 25, "c": 2}, {"a": 1}) / "train"
    (path / "a" / "deeper").mkdir()
    shutil.move(path / "a" / "0000.JPEG", path / "a" / "deeper" / "x.jpg")
    (path / "a" / "notes.txt").touch()
    (path / ".cache").mkdir()
    found = Tree.read(path)
    train, test = names(found.splits["train"]), names(found.splits["test"])
    assert [sum(name.startswith(label) for name in test) for label in "abc"] == [4, 2, 1]
    assert (len(train), len({*train, *test})) == (60, 67)
    assert "a/deeper/x.jpg" in {*train, *test}
    assert Tree.read(path).splits == found.splits
    # A further image moves no other from one part to the other, or one at most.
    shutil.copy(path / "b" / "0000.JPEG", path / "b" / "further.jpg")
    assert len({*names(Tree.read(path).splits["test"])} ^ {*test}) <= 2


def test_every_change_of_the_tree_changes_its_fingerprint(tree):
    path = tree({"a": 3, "b": 3}, {"a": 1, "b": 1})
    image = path / "train" / "b" / "0001.JPEG"
    seen = [Tree.read(path).fingerprint]

    def changed() -> bool:
        seen.append(Tree.read(path).fingerprint)
        return seen[-1] not in seen[:-1]

    assert not changed()
    os.utime(image, ns=(0, 10**18))
    assert changed()
    about = image.stat()
    image.write_bytes(image.read_bytes() + b"x")
    os.utime(image, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert changed()
    image.rename(image.with_name("0009.JPEG"))
    assert changed()
    image.with_name("0009.JPEG").unlink()
    assert changed()
    (path / "val").rename(path / "test")
    assert changed()


@pytest.mark.parametrize(
    ("train", "test", "change", "kind", "facts"),
    [
        ({"a": 1}, {"b": 1}, None, MismatchError, ("tree/val", "'b'", "train")),
        ({"a": 1}, {"a": 1}, "test", FileError, ("tree/test", "no class folders")),
        ({"a": 1}, {}, None, FileError, ("tree has", "no folder of test images", "validation")),
        ({}, {"a": 1}, "train", FileError, ("tree/train", "PATH/train/CLASS/image.jpg")),
        ({}, {"a": 1}, None, FileError, ("tree/val/a", "1 image", "two")),
    ],
)
def test_other_layouts_are_told_what_would_be_right(
    tree, train, test, change, kind, facts, refused
):
    path = tree(train, test)
    if change:
        (path / change).mkdir()
    with refused(*facts, kind=kind):
        Tree.read(path if train or change else path / "val")


def test_no_folder(tmp_path, refused):
    path = tmp_path / "none"
    with refused(path, "missing", kind=FileError, path=path):
        open_split(f"folder:{path}", "train", str(tmp_path))


def test_trees_are_prepared_at_first_use_and_when_they_have_changed(tree, tmp_path, capsys):
    path, data_dir = tree({"cat": 5, "dog": 4}, {"cat": 2, "dog": 2}), str(tmp_path / "data")
    split = open_split(f"folder:{path}", "train", data_dir)
    assert (split.name, len(split), split.classes) == (f"folder:{path}", 9, ("cat", "dog"))
    assert split.image_shape == (None, None, 3)
    assert split.identity.startswith("folder_images/tree-")
    assert prepare(f"folder:{path}", data_dir).images is None
    assert open_split(f"folder:{path}", "test", data_dir).identity == split.identity
    capsys.readouterr()
    (path / "train" / "cat" / "0004.JPEG").unlink()
    again = open_split(f"folder:{path}", "train", data_dir)
    assert "has changed since" in capsys.readouterr().err
    assert len(again) == 8
    assert again.identity != split.identity
    assert [each.name for each in all_prepared(data_dir)] == [split.name] * 2


def test_a_tree_that_another_process_has_just_prepared_has_not_changed(
    tree, tmp_path, monkeypatch, capsys
):
    path, data_dir = tree({"a": 4, "b": 4}, {"a": 2, "b": 2}), str(tmp_path / "data")
    first = preparing.prepare_tree(path, data_dir)
    capsys.readouterr()
    monkeypatch.setattr(preparing, "prepared_tree", lambda *given: None)
    again = preparing.prepare_tree(path, data_dir)
    assert again.data_set == first.data_set
    assert capsys.readouterr().err == ""


def test_processes_that_open_a_new_tree_at_the_same_time_prepare_it_once(tree, tmp_path):
    path = tree({"a": 40, "b": 40}, {"a": 2, "b": 2})
    script = f"""
from ppl_cnn.data import open_split
print(open_split("folder:{path}", "train", "{tmp_path / "data"}").identity)
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [run.communicate(timeout=600) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert sorted(bool(error) for _, error in said) == [False, True]  # one has shown its bar
    assert len(list(all_prepared(str(tmp_path / "data")))) == 1


def test_images_are_stored_as_they_are_in_a_mixed_order(tree, tmp_path):
    path = tree({"a": 30, "b": 30}, {"a": 1, "b": 1})
    open_split(f"folder:{path}", "train", str(tmp_path))
    import tensorflow_datasets as tfds

    (found,) = all_prepared(str(tmp_path))
    source = tfds.builder_from_directory(found.folder).as_data_source(
        "train", decoders={"image": tfds.decode.SkipDecoding()}
    )
    for example in source:
        file = path / example["name"].decode()
        assert example["image"] == file.read_bytes()
        assert example["label"] == "ab".index(file.parent.name)
    labels = [example["label"] for example in source]
    assert 5 < sum(labels[:30]) < 25


def test_short_sides_are_part_of_what_is_prepared(tree, tmp_path, refused):
    path, data_dir = tree({"a": 5, "b": 5}, {"a": 2, "b": 2}), str(tmp_path / "data")
    done = prepare(f"folder:{path}", data_dir, short_side=32)
    assert done.data_set.folder.parent.name.endswith("-short-32")
    split = open_split(f"folder:{path}", "train", data_dir)
    assert split.identity.endswith("-short-32/1.0.0")
    sizes = split.source.read(range(len(split)), ShortSide((1, 1, 1)))["image"]
    assert (sizes == 32).all()
    with refused(path, kind=ArgumentError, argument="manual_dir"):
        prepare(f"folder:{path}", data_dir, manual_dir=path)
    with refused("`short_side=3`", "32", kind=ArgumentError, argument="short_side"):
        prepare(f"folder:{path}", str(tmp_path / "other"), short_side=3)


def test_damaged_images_are_left_out_up_to_a_thousandth(tree, tmp_path, photograph, refused):
    path, data_dir = tree({"a": 3, "b": 3}, {"a": 1, "b": 1}), tmp_path / "data"
    damaged = path / "train" / "a" / "0001.JPEG"
    damaged.write_bytes(damaged.read_bytes()[:300])
    fault = "train/a/0001.JPEG: Trunc"
    with refused("1 of the 6 train images", "0.1 %", fault, kind=FileError, path=path):
        prepare(f"folder:{path}", str(data_dir))
    assert not list(data_dir.rglob("dataset_info.json"))
    tiny = photograph(8, 8)
    for index in range(1_000):
        (path / "train" / "b" / f"tiny{index}.jpg").write_bytes(tiny)
    done = prepare(f"folder:{path}", str(data_dir))
    assert done.images == "1,005 train + 2 test images"
    assert list(done.left_out) == ["train/a/0001.JPEG"]
    assert "Truncated" in done.left_out["train/a/0001.JPEG"]
