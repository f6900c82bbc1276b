"""The images of a data set as a reference: its texts, and what is no such text."""

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.errors import ArgumentError, FileError, MismatchError, UnknownNameError
from ppl_cnn.models.references.empirical import Empirical
from ppl_cnn.models.references.parsing import parse_reference


@pytest.mark.parametrize(
    ("text", "name", "split"),
    [
        ("data:fashion-embedded", "fashion-embedded", "train"),
        ("data:fashion-embedded@test", "fashion-embedded", "test"),
        ("data:fashion-embedded@test[10:40]", "fashion-embedded", "test[10:40]"),
    ],
)
def test_a_text_gives_it_and_it_gives_the_text(text, name, split):
    q = parse_reference(text)
    assert isinstance(q, Empirical)
    assert (q.name, q.split, str(q)) == (name, split, text)
    assert q == Empirical(name, split)
    assert parse_reference(str(q)) == q
    assert str(len(q.images)) in q.identity


def test_the_default_split_is_left_out():
    assert str(parse_reference("data:fashion-embedded@train")) == "data:fashion-embedded"


def test_class_folders_are_images_too(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    for label in ("a", "b"):
        (tmp_path / "tree" / "train" / label).mkdir(parents=True)
        (tmp_path / "tree" / "val" / label).mkdir(parents=True)
        for part, count in (("train", 3), ("val", 1)):
            for number in range(count):
                pixels = np.full((8, 9, 3), 40 * number, np.uint8)
                folder = tmp_path / "tree" / part / label
                Image.fromarray(pixels).save(folder / f"{number}.png")
    q = parse_reference(f"data:folder:{tmp_path / 'tree'}@test")
    assert isinstance(q, Empirical)
    assert len(q.images) == 2
    assert q.images.classes == ("a", "b")


def test_what_is_no_data_set_is_refused(refused):
    with refused("fashion-embeded", "fashion-embedded", kind=UnknownNameError):
        parse_reference("data:fashion-embeded")
    with refused("training", kind=UnknownNameError):
        parse_reference("data:fashion-embedded@training")
    with refused("data:NAME", kind=ArgumentError):
        parse_reference("data:")
    with refused("nowhere", kind=FileError):
        parse_reference("data:folder:nowhere")


def test_no_other_reference_contains_images(refused):
    with refused("data:fashion-embedded", kind=MismatchError):
        parse_reference("bounded:data:fashion-embedded")
