import json
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ppl_cnn import InputError
from ppl_cnn.data import NAMES, Images, Split, batches, open_split, training_batches
from ppl_cnn.data.catalogue import find


class Numbered(Images):
    """Images of one row of two pixels that tell their own position."""

    def __init__(self, count: int):
        self.image_shape = (1, 2, 1)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, positions):
        positions = np.asarray(positions, np.int64)
        pixels = np.stack([positions // 256, positions % 256], -1).astype(np.uint8)
        return {"image": pixels.reshape(-1, 1, 2, 1), "label": (positions % 7).astype(np.int32)}


def numbered(count: int) -> Split:
    return Split("numbers", "train", Numbered(count), tuple("abcdefg"))


def positions(batch) -> list[int]:
    pixels = batch["image"].reshape(-1, 2).astype(int)
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def take(iterator, steps: int) -> list[list[int]]:
    return [positions(next(iterator)) for _ in range(steps)]


def joined(lists) -> list[int]:
    return list(chain.from_iterable(lists))


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


def test_images_are_those_that_tfds_itself_decodes():
    data = open_split("fashion-embedded", "test")
    peer = tfds.builder_from_directory(find("fashion-embedded").folder).as_data_source("test")
    for i in (0, 1, 499, 999):
        np.testing.assert_array_equal(data.source[i]["image"], peer[i]["image"], strict=True)
        assert data.source[i]["label"] == peer[i]["label"]


def test_source_is_a_sequence():
    source = open_split("fashion-embedded", "test[:10]").source
    assert len(list(source)) == 10
    np.testing.assert_array_equal(source[-1]["image"], source[9]["image"])
    assert source[0]["label"].dtype == np.int32
    with pytest.raises(IndexError):
        source[10]
    assert source.read([])["image"].shape == (0, 28, 28, 1)


def test_an_epoch_is_a_fresh_permutation_without_its_remainder():
    batches_of_three_epochs = take(training_batches(numbered(1_003), 100, seed=0), 30)
    epochs = [joined(batches_of_three_epochs[i : i + 10]) for i in (0, 10, 20)]
    left_out = [set(range(1_003)) - set(epoch) for epoch in epochs]
    assert [len(set(epoch)) for epoch in epochs] == [1_000] * 3
    assert [len(rest) for rest in left_out] == [3] * 3
    assert left_out[0] != left_out[1]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    # Each image goes to about the same places over many epochs: a shuffle, not a rotation.
    assert abs(np.corrcoef(epochs[0], epochs[1])[0, 1]) < 0.15
    assert abs(np.corrcoef(epochs[0], range(1_000))[0, 1]) < 0.15


def test_whole_split_in_one_batch():
    (first, second) = take(training_batches(numbered(64), 64, seed=3), 2)
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second


def test_order_is_the_seeds_alone():
    data = numbered(500)
    orders = [take(training_batches(data, 50, seed=seed), 30) for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    # grain itself would start seed 1 with the second epoch of seed 0.
    assert not any(batch in orders[0] for batch in orders[2])


@pytest.mark.parametrize("threads", [0, 2, 5])
def test_order_does_not_depend_on_threads(threads):
    data = numbered(500)
    one = take(training_batches(data, 50, seed=0, threads=1), 25)
    assert take(training_batches(data, 50, seed=0, threads=threads), 25) == one


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_together_read_what_one_would(processes):
    # 1,003 // 24 = 41 steps, so 90 steps pass two ends of epochs.
    data = numbered(1_003)
    one = take(training_batches(data, 24, seed=5), 90)
    shards = [take(training_batches(data, 24, 5, p, processes), 90) for p in range(processes)]
    assert all(len(batch) == 24 // processes for shard in shards for batch in shard)
    assert [joined(parts) for parts in zip(*shards, strict=True)] == one


def test_state_continues_exactly_whatever_threads_and_processes():
    data = numbered(300)
    first = training_batches(data, 40, seed=1)
    take(first, 9)
    state = json.loads(json.dumps(first.get_state()))
    rest = take(first, 20)

    second = training_batches(data, 40, seed=1, threads=3)
    take(second, 2)
    second.set_state(state)
    assert take(second, 20) == rest

    halves = [training_batches(data, 40, 1, p, 2) for p in (0, 1)]
    for half in halves:
        half.set_state(state)
    assert [positions(next(halves[0])) + positions(next(halves[1])) for _ in range(20)] == rest


def test_real_images_continue_to_the_same_bits():
    data = open_split("fashion-embedded", "train[:500]")
    first = training_batches(data, 128, seed=0, threads=2)
    for _ in range(2):
        next(first)
    state = first.get_state()
    rest = [next(first) for _ in range(4)]
    second = training_batches(data, 128, seed=0)
    second.set_state(state)
    for expected in rest:
        batch = next(second)
        assert batch["image"].shape == (128, 28, 28, 1)
        np.testing.assert_array_equal(batch["image"], expected["image"], strict=True)
        np.testing.assert_array_equal(batch["label"], expected["label"], strict=True)


def test_batches_pass_once_in_order():
    read = [positions(batch) for batch in batches(numbered(103), 25)]
    assert [len(batch) for batch in read] == [25, 25, 25, 25, 3]
    assert joined(read) == list(range(103))


def test_batches_of_processes_are_parts_of_the_whole():
    data = numbered(103)
    whole = [positions(batch) for batch in batches(data, 24)]
    parts = [[positions(b) for b in batches(data, 24, p, 3)] for p in range(3)]
    assert [joined(pieces) for pieces in zip(*parts, strict=True)] == whole
    assert parts[2][-1] == []  # the last 7 images are one process's


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((200, 0), r"batch of 200 is larger than the 100 images of numbers train; 100 or fewer"),
        ((0, 0), r"batch of 0 can't be divided among 1 process.*positive multiple of 1"),
        ((50, 0, 0, 4), r"batch of 50 can't be divided among 4 process.*multiple of 4"),
        ((50, 0, 2, 2), r"process 2 of 2 can't be; 0 to 1"),
        ((50, -1), r"seed of the data order is -1; 0 or more"),
    ],
)
def test_impossible_batches(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        training_batches(numbered(100), *arguments)


def test_impossible_evaluation_batches():
    with pytest.raises(InputError, match="positive multiple of 2"):
        batches(numbered(100), 25, 0, 2)


def test_unknown_names_and_splits(tmp_path):
    with pytest.raises(InputError, match=rf"no data set 'fashion'; there are {', '.join(NAMES)}"):
        open_split("fashion", "train")
    for split in ("trian", "train[5:2]", "train[:0]", "train[:200%]", ""):
        with pytest.raises(InputError, match=r"has no split .*; it has train, test, and parts"):
            open_split("fashion-embedded", split)
    command = rf"python -m ppl_cnn.data prepare fashion_mnist --data-dir {tmp_path}"
    with pytest.raises(InputError, match=command):
        open_split("fashion_mnist", "train", str(tmp_path))


def test_prepared_data_are_found_where_tfds_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"prepare fashion_mnist\.$"):
        open_split("fashion_mnist", "train")
    folder = tmp_path / "fashion_mnist_idx" / "1.0.0"
    shutil.copytree(find("fashion-embedded").folder, folder)
    assert len(open_split("fashion_mnist", "test")) == 1_000


def spoil_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def spoil_middle(content: bytes) -> bytes:
    return content[:300_000] + bytes(1_000) + content[301_000:]


@pytest.mark.parametrize("spoil", [spoil_half, spoil_middle, lambda _: b"", lambda _: None])
def test_damaged_files(tmp_path, spoil):
    folder = tmp_path / "fashion_mnist_idx" / "1.0.0"
    shutil.copytree(find("fashion-embedded").folder, folder)
    (shard,) = folder.glob("*test.array_record*")
    content = spoil(shard.read_bytes())
    shard.unlink() if content is None else shard.write_bytes(content)
    with pytest.raises(InputError, match=rf"images in {folder} are damaged .* delete that folder"):
        list(batches(open_split("fashion_mnist", "test", str(tmp_path)), 100))


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
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")


def test_shipped_files_are_small_and_carry_their_licence():
    folder = find("fashion-embedded").folder
    assert folder.is_relative_to(Path(sys.modules["ppl_cnn"].__file__).parent)
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= 5_000_000
    assert "Copyright (c) 2017 Zalando SE" in (folder / "LICENSE").read_text()
