import os
import socket

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.data.walk import LeftOut, account, list_images
from ppl_cnn.errors import FileError, shown


@pytest.fixture
def put(tmp_path):
    """A function that writes an image to a path below the folder, of a format."""

    def write(path: str, kind: str = "PNG", level: int = 0):
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), level, np.uint8)).save(place, kind)
        return place

    return write


def names(folder) -> list[str]:
    return [each.path for each in list_images(folder).files]


def reasons(folder) -> dict[str, str]:
    return {each.path: each.why for each in list_images(folder).left_out}


def test_images_are_known_by_suffix_or_else_by_content(put, tmp_path):
    for path, kind in (
        *(("a.png", "PNG"), ("b.JFIF", "JPEG"), ("c.pgm", "PPM"), ("none", "PNG")),
        *(("subject01.happy", "GIF"), ("x.y.z", "TIFF"), ("odd.dat", "WEBP"), ("e.JPEG", "JPEG")),
    ):
        put(path, kind)
    (tmp_path / "damaged.jpg").write_bytes(b"")  # named later, as one that can't be read
    (tmp_path / "notes.txt").write_text("BM, II*, P5 and so on")
    (tmp_path / "README").touch()
    (tmp_path / "video.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    assert sorted(names(tmp_path)) == sorted(
        {*os.listdir(tmp_path)} - {"notes.txt", "README", "video.mp4"}
    )
    found = reasons(tmp_path)
    assert found["notes.txt"] == "with the suffix .txt, no images"
    assert found["README"] == "without a suffix, no images"


def test_what_is_hidden_or_a_systems_is_left_out_at_every_depth(put, tmp_path):
    put("a/b/x.png")
    left = (".git/x.png", "a/.ipynb_checkpoints/x.png", "a/b/.x.png", "__MACOSX/a/x.png")
    for path in (*left, "a/@eaDir/x.png"):
        put(path)
    assert names(tmp_path) == ["a/b/x.png"]
    assert reasons(tmp_path) == {
        ".git": "hidden",
        "a/.ipynb_checkpoints": "hidden",
        "a/b/.x.png": "hidden",
        "__MACOSX": "that a system left behind",
        "a/@eaDir": "that a system left behind",
    }
    assert list_images(tmp_path).folders == ("a", "a/b")
    assert names(tmp_path / "a" / ".ipynb_checkpoints") == ["x.png"]  # where it is asked for


def test_links_are_followed_and_each_image_stands_once_at_its_own_place(put, tmp_path):
    put("tree/b/x.png")
    put("elsewhere/deep/y.png")
    tree = tmp_path / "tree"
    (tree / "a").mkdir()
    (tree / "a" / "first.png").symlink_to("../b/x.png")
    (tree / "a" / "loop").symlink_to("..")
    (tree / "a" / "self").symlink_to("self")
    (tree / "c").symlink_to(tmp_path / "elsewhere")
    (tree / "d").symlink_to(tmp_path / "elsewhere" / "deep")
    (tree / "gone.png").symlink_to("/nowhere/gone.png")
    os.link(tree / "b" / "x.png", tree / "b" / "z.png")
    assert names(tree) == ["b/x.png", "d/y.png"]
    assert reasons(tree) == {
        "a/first.png": "seen at another place",
        "a/loop": "seen at another place",
        "a/self": "links that lead nowhere",
        "b/z.png": "seen at another place",
        "c/deep": "seen at another place",
        "gone.png": "links that lead nowhere",
    }


def test_what_is_no_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(os.path.relpath(tmp_path / "socket.png"))
        assert set(reasons(tmp_path).values()) == {"that are no files"}


def test_a_folder_that_cannot_be_read_is_named(put, tmp_path, refused, monkeypatch):
    put("a/closed/x.png")
    closed, scandir = tmp_path / "a" / "closed", os.scandir

    def scan(place):  # root may read any folder
        if os.path.samefile(place, closed):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    with refused(closed, "Permission denied", kind=FileError, path=closed):
        list_images(tmp_path)


def test_odd_names(put, tmp_path):
    odd = (
        "#1, 50%?.png",
        "two\nlines.png",
        "caf\udce9.png",
        "猫.png",
        " .png",
        "[*].png",
        "-r.png",
    )
    for name in odd:
        put(f"a b/{name}")
    assert names(tmp_path) == sorted(f"a b/{name}" for name in odd)
    assert shown("two\nlines") == r"two\nlines"
    assert shown("caf\udce9") == r"caf\xe9"


def test_the_account_counts_reasons_and_names_some_files():
    hidden = tuple(LeftOut(f"a/.{index}", "hidden") for index in range(1_200))
    lines = account((LeftOut("x\n", "without a suffix, no images"), *hidden))
    assert lines == [
        "left out 1,200 hidden: a/.0, a/.1, a/.2, ...",
        r"left out 1 without a suffix, no images: x\n",
    ]
    assert account(()) == []
