import re

import pytest

from ppl_cnn.inference.runs.record import unit_folder


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("conv5:12", "conv5-12"),
        ("conv5:12@0,3", "conv5-12-at-0,3"),
        ("conv5:3@mean", "conv5-3-at-mean"),
        ("class:goldfish", "class-goldfish"),
    ],
)
def test_a_units_folder_is_named_after_it(text, name):
    assert unit_folder(text) == name


def test_names_are_safe_and_different():
    texts = ["../a", "..", "", ".a", "a b", "a-b", "a/b", "a:b", "a" * 300, "a" * 301, "<b>", "ß:é"]
    names = [unit_folder(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert all(re.fullmatch(r"[\w,-][\w.,-]*", name) and len(name) < 80 for name in names)
