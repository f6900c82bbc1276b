"""Batches of images that vary in size."""

import json

import numpy as np
import pytest

from ppl_cnn.data import batches, open_split, ten_view_batches, training_batches
from ppl_cnn.data.augmentation import CentreView
from ppl_cnn.data.sources import photographs as preparing_photographs
from ppl_cnn.errors import ArgumentError, FileError, MismatchError

AUGMENTED = {"augment": "resized-crop+flip+colour", "image_shape": (24, 24, 3)}


@pytest.fixture
def split(tree, tmp_path):
    path = tree({"a": 11, "b": 8, "c": 6}, {"a": 4, "b": 3})
    return open_split(f"folder:{path}", "train", str(tmp_path / "data"))


def take(iterator, steps: int) -> list[tuple[bytes, bytes]]:
    """Bits of images and labels of so many batches."""
    read = [next(iterator) for _ in range(steps)]
    return [(batch["image"].tobytes(), batch["label"].tobytes()) for batch in read]


def half(index: int) -> dict[str, int]:
    return {"process_index": index, "process_count": 2}


def both(parts) -> tuple[bytes, bytes]:
    """The parts of two processes as one batch."""
    return tuple(first + second for first, second in zip(*parts, strict=True))


@pytest.mark.parametrize("augment", ["none", "crop+flip", "resized-crop+flip+colour"])
def test_batches_are_of_the_wanted_shape_and_bits_are_the_seeds(split, augment):
    def loader(seed: int, threads: int):
        return training_batches(
            split, 6, seed, augment=augment, image_shape=(24, 24, 3), threads=threads
        )

    batch = next(loader(0, 1))
    assert (batch["image"].shape, batch["image"].dtype) == ((6, 24, 24, 3), np.uint8)
    assert len({image.tobytes() for image in batch["image"]}) == 6
    one = take(loader(0, 1), 10)
    assert take(loader(0, 4), 10) == one
    assert take(loader(1, 1), 10) != one


def test_an_epoch_sees_each_image_once_and_the_next_sees_it_otherwise(split):
    seen: dict[bytes, list[bytes]] = {}
    plain = training_batches(split, 5, 0, image_shape=(24, 24, 3))
    augmented = training_batches(split, 5, 0, **AUGMENTED)
    for _ in range(10):
        for image, view in zip(next(plain)["image"], next(augmented)["image"], strict=True):
            seen.setdefault(image.tobytes(), []).append(view.tobytes())
    assert [len(views) for views in seen.values()] == [2] * 25
    assert all(first != second for first, second in seen.values())


def test_two_processes_read_the_halves_of_one_batch(split):
    one = take(training_batches(split, 6, 3, **AUGMENTED), 9)
    halves = [take(training_batches(split, 6, 3, **half(p), **AUGMENTED), 9) for p in (0, 1)]
    assert [both(parts) for parts in zip(*halves, strict=True)] == one


def test_augmented_batches_continue_to_the_same_bits(split):
    first = training_batches(split, 6, 7, threads=3, **AUGMENTED)
    take(first, 6)
    state = json.loads(json.dumps(first.get_state()))
    rest = take(first, 8)
    second = training_batches(split, 6, 7, **AUGMENTED)
    second.set_state(state)
    assert take(second, 8) == rest
    halves = [training_batches(split, 6, 7, **half(p), **AUGMENTED) for p in (0, 1)]
    for each in halves:
        each.set_state(state)
    assert [both((take(halves[0], 1)[0], take(halves[1], 1)[0])) for _ in range(8)] == rest


def test_evaluation_sees_centres_once_in_order(split):
    read = list(batches(split, 10, image_shape=(16, 16, 1), short_side=20))
    assert [batch["image"].shape for batch in read] == [(n, 16, 16, 1) for n in (10, 10, 5)]
    whole = split.source.read(range(25), CentreView((16, 16, 1), 20))
    np.testing.assert_array_equal(np.concatenate([b["image"] for b in read]), whole["image"])
    np.testing.assert_array_equal(np.concatenate([b["label"] for b in read]), whole["label"])
    assert np.bincount(whole["label"]).tolist() == [11, 8, 6]


def test_ten_views_of_photographs_and_of_small_images(split):
    (views, *_) = ten_view_batches(split, 25, image_shape=(16, 16, 3))
    assert views["image"].shape == (25, 10, 16, 16, 3)
    np.testing.assert_array_equal(views["image"][:, 5:], views["image"][:, :5, :, ::-1])
    (small,) = ten_view_batches(open_split("fashion-embedded", "test[:7]"), 10)
    assert small["image"].shape == (7, 10, 28, 28, 1)


def test_small_images_can_be_augmented_in_their_own_size():
    data = open_split("fashion-embedded", "train[:200]")
    plain = training_batches(data, 50, 0)
    flipped = training_batches(data, 50, 0, augment="flip", image_shape=(227, 227, 3))
    images, views = next(plain)["image"], next(flipped)["image"]
    kept = (images == views).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(views[~kept], images[~kept][:, :, ::-1])
    assert 10 < kept.sum() < 40
    assert next(training_batches(data, 50, 0, augment="crop"))["image"].shape == (50, 28, 28, 1)


def test_what_is_wanted_must_be_said(split, refused):
    for door in (
        training_batches(split, 5, 0, **AUGMENTED),
        batches(split, 5, image_shape=(9, 9, 3)),
    ):
        assert next(door)["image"].dtype == np.uint8
    for door in (batches, ten_view_batches, lambda *a: training_batches(*a, 0)):
        with refused(split.name, "vary in size", kind=ArgumentError, argument="image_shape"):
            door(split, 5)
    with refused("vary in size", "CentreView", kind=ArgumentError, argument="view"):
        split.source[0]
    with refused("`augment=flip+colour`", split.name, kind=MismatchError):
        training_batches(split, 5, 0, augment="flip+colour", image_shape=(9, 9, 1))
    with refused("'flop'", kind=ArgumentError, argument="augment"):
        training_batches(split, 5, 0, augment="flop", image_shape=(9, 9, 3))


@pytest.fixture
def spoiled(tree, tmp_path, photograph, monkeypatch):
    """A function of a number to a prepared set of 1,000 images, as many of them cut short."""
    monkeypatch.setattr(preparing_photographs, "stored", lambda content, short_side: content)

    def make(damaged: int):
        path = tree({"a": 1}, {"a": 1}, f"spoiled{damaged}")
        for index in range(999):
            content = photograph(9, 9, index % 50)
            cut = len(content) // 2 if index < damaged else len(content)
            (path / "train" / "a" / f"tiny{index}.jpg").write_bytes(content[:cut])
        return open_split(f"folder:{path}", "train", str(tmp_path / "data"))

    return make


def test_damaged_images_are_replaced_by_their_neighbours_and_counted(spoiled):
    split = spoiled(1)
    assert split.damage() == ""
    shape = (8, 8, 3)
    read = list(batches(split, 500, image_shape=shape, readers=1))
    assert [len(batch["image"]) for batch in read] == [500] * 2
    ((bad, fault),) = split.source.damaged.items()
    assert "truncated" in fault.lower()
    sentence = split.damage()
    assert sentence.startswith("1 of the 1000 images of folder:")
    assert f"such as image {bad} (" in sentence
    images = np.concatenate([batch["image"] for batch in read])
    np.testing.assert_array_equal(images[bad], images[bad + 1])
    one = take(training_batches(split, 200, 0, image_shape=shape), 5)
    assert take(training_batches(split, 200, 0, image_shape=shape, threads=3), 5) == one


def test_more_than_a_thousandth_of_damaged_images_is_an_error(spoiled, refused):
    split = spoiled(2)
    with refused("folder_images", "2 of 1000", "0.1 %", kind=FileError):
        list(batches(split, 500, image_shape=(8, 8, 3)))
