import json
from itertools import chain

import numpy as np
import pytest

from ppl_cnn.data import Images, ImageSplit, batches, open_split, training_batches
from ppl_cnn.errors import ArgumentError


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


def numbered(count: int) -> ImageSplit:
    return ImageSplit("numbers", "train", Numbered(count), classes=tuple("abcdefg"))


def process(index: int, count: int) -> dict[str, int]:
    return {"process_index": index, "process_count": count}


def positions(batch) -> list[int]:
    pixels = batch["image"].reshape(-1, 2).astype(int)
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def take(iterator, steps: int) -> list[list[int]]:
    return [positions(next(iterator)) for _ in range(steps)]


def joined(lists) -> list[int]:
    return list(chain.from_iterable(lists))


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


def test_order_is_that_of_earlier_versions():
    # A run that another version of ppl_cnn or grain began must resume with the same images.
    first, second = take(training_batches(numbered(40), 8, seed=3), 2)
    assert first == [19, 3, 14, 35, 31, 5, 32, 30]
    assert second == [21, 23, 6, 1, 11, 38, 12, 18]


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
    shards = [
        take(training_batches(data, 24, 5, **process(p, processes)), 90) for p in range(processes)
    ]
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

    halves = [training_batches(data, 40, 1, **process(p, 2)) for p in (0, 1)]
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
    parts = [[positions(b) for b in batches(data, 24, **process(p, 3))] for p in range(3)]
    assert [joined(pieces) for pieces in zip(*parts, strict=True)] == whole
    assert parts[2][-1] == []  # the last 7 images are one process's


@pytest.mark.parametrize(
    ("arguments", "options", "argument", "facts"),
    [
        ((200, 0), {}, "batch_size", ("`batch_size=200`", "100 images of numbers train")),
        ((0, 0), {}, "batch_size", ("`batch_size=0`", "multiple of 1")),
        ((50, 0), process(0, 4), "batch_size", ("`batch_size=50`", "4 process", "multiple of 4")),
        ((50, 0), process(2, 2), "process_index", ("`process_index=2`", "0 to 1")),
        ((50, -1), {}, "seed", ("`seed=-1`", "0 or more")),
    ],
)
def test_impossible_batches(arguments, options, argument, facts, refused):
    with refused(*facts, kind=ArgumentError, argument=argument):
        training_batches(numbered(100), *arguments, **options)


def test_impossible_evaluation_batches(refused):
    with refused("25", "multiple of 2", kind=ArgumentError, argument="batch_size"):
        batches(numbered(100), 25, **process(0, 2))
