import gzip
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.data import open_split


@pytest.fixture
def data(command):
    return partial(command, "ppl_cnn.data")


@pytest.fixture
def originals(tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    for prefix, count in (("train", 20), ("t10k", 10)):
        head = bytes([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28])
        images = np.arange(count * 784, dtype=np.uint32).astype(np.uint8).tobytes()
        labels = bytes([0, 0, 8, 1, 0, 0, 0, count]) + bytes(i % 10 for i in range(count))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def test_prepares_once_and_leaves_it_then(originals, tmp_path, data):
    data_dir = tmp_path / "made" / "here"
    arguments = ["prepare", "fashion_mnist", f"--manual-dir={originals}", f"--data-dir={data_dir}"]
    first, second = data(*arguments), data(*arguments)
    folder = data_dir / "fashion_mnist_idx" / "1.0.0"
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    classes = "10 classes: T-shirt/top, Trouser, Pullover, Dress, Coat, ...\n"
    assert first.stdout == f"fashion_mnist: 20 train + 10 test images in {folder}\n{classes}"
    assert "20/20" in first.stderr  # the progress bar
    there = f"fashion_mnist is there already. To prepare it again, delete {folder}\n"
    assert second.stdout == there + classes
    assert [entry.name for entry in data_dir.iterdir()] == ["fashion_mnist_idx"]
    assert len(open_split("fashion_mnist", "train", str(data_dir))) == 20


def test_list_shows_what_is_prepared_and_how_to_prepare_the_rest(originals, tmp_path, data):
    data("prepare", "fashion_mnist", f"--manual-dir={originals}", f"--data-dir={tmp_path}")
    listed = data("list", f"--data-dir={tmp_path}")
    assert (listed.returncode, listed.stderr) == (0, "")
    folder = tmp_path / "fashion_mnist_idx" / "1.0.0"
    assert f"--data fashion_mnist: 20 train + 10 test in {folder}\n" in listed.stdout
    assert "--data fashion-embedded: 6,000 train + 1,000 test in " in listed.stdout
    assert f"prepare mnist --manual-dir DIR --data-dir {tmp_path}\n" in listed.stdout
    assert "imagenet2012: ImageNet" in listed.stdout
    assert "(1,281,167 + 50,000 images in 1,000 classes)" in listed.stdout
    assert "fashion-embedded" in data().stdout


def test_class_folders_are_prepared_and_what_is_damaged_is_told(tree, photograph, tmp_path, data):
    path = tree({"cat": 2, "dog": 2}, {"cat": 1})
    for index in range(1_100):
        (path / "train" / "dog" / f"tiny{index}.jpg").write_bytes(photograph(8, 8))
    (path / "train" / "dog" / "tiny7.jpg").write_bytes(b"no image")
    (path / "train" / "dog" / ".DS_Store").touch()
    frames = [Image.new("L", (9, 9), level) for level in (0, 9)]
    frames[0].save(path / "train" / "cat" / "moves.gif", save_all=True, append_images=frames[1:])
    data_dir = f"--data-dir={tmp_path / 'data'}"
    run = data("prepare", f"folder:{path}", "--short-side", "32", data_dir)
    assert run.returncode == 0, run.stderr
    first, classes, hidden, moving, second, third = run.stdout.splitlines()
    assert classes == "2 classes: cat, dog"
    assert hidden == "left out 1 hidden: train/dog/.DS_Store"
    assert moving == "took the first frame of 1: train/cat/moves.gif"
    assert first.startswith(f"folder:{path}: 1,104 train + 1 test images in {tmp_path / 'data'}")
    assert second == "left out as damaged (1):"
    assert third.startswith("  train/dog/tiny7.jpg: no intact image")
    assert f"--data folder:{path}: 1,104 train + 1 test in " in data("list", data_dir).stdout


def test_help_teaches_and_imports_nothing_heavy():
    line = [sys.executable, "-m", "ppl_cnn.data"]
    overview, details = (
        subprocess.run([*line, *more, "--help"], capture_output=True, text=True, timeout=600)
        for more in ([], ["prepare"])
    )
    assert (overview.returncode, details.returncode) == (0, 0)
    assert "python -m ppl_cnn.data prepare fashion_mnist" in overview.stdout
    for word in (
        "--manual-dir",
        "--data-dir",
        "--short-side",
        "folder:PATH",
        "/usr/share/datasets/fashion-mnist",
        "TFDS_DATA_DIR",
    ):
        assert word in details.stdout
    script = (
        "import sys, ppl_cnn.data.__main__;"
        "sys.exit(str({'grain', 'jax', 'tensorflow_datasets'} & set(sys.modules) or ''))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600
    )
    assert not run.stderr.strip()


def test_bad_input_is_one_line_and_exit_code_2(originals, tmp_path, data):
    (tmp_path / "file").touch()
    (originals / "t10k-labels-idx1-ubyte.gz").write_bytes(b"cut short")
    needed = "four idx .gz files of Fashion-MNIST"
    for arguments, facts in (
        (["fashion-mnist"], ("'fashion-mnist'", "fashion-embedded")),
        (
            ["fashion_mnist", f"--manual-dir={originals}", f"--data-dir={tmp_path / 'file'}"],
            (f"write to {tmp_path / 'file'}",),
        ),
        (["fashion_mnist", f"--manual-dir={tmp_path / 'file'}"], (tmp_path / "file", needed)),
        (["fashion_mnist", f"--manual-dir={tmp_path / 'none'}"], (tmp_path / "none", needed)),
        (["fashion_mnist", f"--manual-dir={originals}"], ("t10k-labels-idx1-ubyte.gz", "gzip")),
        (["folder:nowhere"], ("'nowhere'",)),
        (["mnist"], ("mnist", "MNIST's four idx files")),
        (["mnist", f"--manual-dir={tmp_path}"], (tmp_path, "MNIST's four idx files")),
        (["fashion-embedded", f"--manual-dir={tmp_path}"], ("ubyte.gz is missing", needed)),
    ):
        data_dir = [] if "--data-dir" in arguments[-1] else [f"--data-dir={tmp_path / 'data'}"]
        run = data("prepare", *arguments, *data_dir)
        assert run.returncode == 2, run.stderr
        for fact in facts:
            assert str(fact) in run.stderr
        assert "Traceback" not in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1
