import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppl_cnn.data import NAMES, batches, open_split
from ppl_cnn.data.catalogue import find
from ppl_cnn.errors import FileError, UnknownNameError


@pytest.mark.parametrize(
    ("split", "count", "first_labels"),
    [("train", 6_000, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]), ("test", 1_000, [9, 2, 1, 1, 6, 1, 4, 6])],
)
def test_embedded_split_is_balanced_and_begins_as_fashion_mnist_does(split, count, first_labels):
    data = open_split("fashion-embedded", split)
    whole = data.source.read(range(count))
    assert len(data) == len(data.source) == count
    assert (data.name, data.split, data.image_shape) == ("fashion-embedded", split, (28, 28, 1))
    assert len(data.classes) == 10
    assert (data.classes[0], data.classes[9]) == ("T-shirt/top", "Ankle boot")
    assert whole["image"].shape == (count, 28, 28, 1)
    assert (whole["image"].dtype, whole["label"].dtype) == (np.uint8, np.int32)
    assert whole["label"][: len(first_labels)].tolist() == first_labels
    assert np.bincount(whole["label"]).tolist() == [count // 10] * 10


def test_unknown_names_and_splits(tmp_path, refused):
    for name in ("fashion", "folder:", ""):
        with refused(repr(name), *NAMES, "folder:PATH", kind=UnknownNameError, name=name):
            open_split(name, "train")
    for split in ("trian", "train[5:2]", "train[:0]", "train[:200%]", ""):
        with refused(f"{split!r}", kind=UnknownNameError, name=split, known=("train", "test")):
            open_split("fashion-embedded", split)
    folder = tmp_path / "fashion_mnist_idx"
    command = f"python -m ppl_cnn.data prepare fashion_mnist --data-dir {tmp_path}`"
    with refused("'fashion_mnist'", folder, command, kind=FileError, path=folder):
        open_split("fashion_mnist", "train", str(tmp_path))


def test_prepared_data_are_found_where_tfds_keeps_them(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with refused(tmp_path, "prepare fashion_mnist`", kind=FileError):
        open_split("fashion_mnist", "train")
    folder = tmp_path / "fashion_mnist_idx" / "1.0.0"
    shutil.copytree(find("fashion-embedded").folder, folder)
    assert len(open_split("fashion_mnist", "test")) == 1_000


def spoil_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def spoil_middle(content: bytes) -> bytes:
    return content[:300_000] + bytes(1_000) + content[301_000:]


@pytest.mark.parametrize("spoil", [spoil_half, spoil_middle, lambda _: b"", lambda _: None])
def test_damaged_files(tmp_path, spoil, refused):
    folder = tmp_path / "fashion_mnist_idx" / "1.0.0"
    shutil.copytree(find("fashion-embedded").folder, folder)
    (shard,) = folder.glob("*test.array_record*")
    content = spoil(shard.read_bytes())
    shard.unlink() if content is None else shard.write_bytes(content)
    with refused("damaged", "Delete that folder", kind=FileError, path=folder):
        list(batches(open_split("fashion_mnist", "test", str(tmp_path)), 100))


def test_the_summary_has_the_number_of_classes_and_the_first_names():
    assert open_split("fashion-embedded", "test[:9]").summary() == (
        "fashion-embedded: 9 images of test[:9] in 10 classes: T-shirt/top, Trouser, Pullover,"
        " Dress, Coat, ..."
    )


def test_reading_imports_no_tensorflow_and_importing_nothing_heavy(tmp_path):
    # Whoever has installed TensorFlow to prepare ImageNet must not pay for it when training.
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('tensorflow imported')")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from ppl_cnn.data import open_split
from ppl_cnn.data import training_batches
heavy = {{"grain", "jax", "tensorflow_datasets", "PIL"}} & set(sys.modules)
assert not heavy, heavy
batch = next(training_batches(open_split("fashion-embedded", "train"), 8, seed=0))
assert batch["image"].shape == (8, 28, 28, 1)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_shipped_files_are_small_and_carry_their_licence():
    folder = find("fashion-embedded").folder
    assert folder.is_relative_to(Path(sys.modules["ppl_cnn"].__file__).parent)
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= 5_000_000
    assert "Copyright (c) 2017 Zalando SE" in (folder / "LICENSE").read_text()
