import re

import pytest

from ppl_cnn.errors import RunFolderError
from ppl_cnn.inference.runs.record import read_record, same_setting, second_side, unit_folder


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


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_record_is_refused(content, tmp_path, refused):
    (tmp_path / "run.json").write_text(content)
    with refused(tmp_path / "run.json", "damaged", kind=RunFolderError, path=tmp_path):
        read_record(tmp_path)


def test_a_folder_without_a_record_is_refused(tmp_path, refused):
    with refused(tmp_path, "run.json", kind=RunFolderError, path=tmp_path):
        read_record(tmp_path)


def test_settings_that_older_versions_wrote_otherwise_are_the_same():
    assert same_setting("init", "two-sided", "two-sided:rto")
    assert same_setting("init", "two-sided:anneal:16", "two-sided:anneal")
    assert not same_setting("init", "anneal:8", "anneal")
    assert not same_setting("model", "anneal:16", "anneal")


@pytest.mark.parametrize(
    ("config", "second"),
    [
        ({"init": "two-sided:rto"}, "rto"),
        ({"init": "two-sided"}, "rto"),  # of an older version
        ({"init": "two-sided:rto:300"}, "rto"),
        ({"init": "two-sided:image:0123456789abcdef"}, "image"),
        ({"init": "prior"}, None),
        ({"init": "rto"}, None),
        ({}, None),
    ],
)
def test_the_second_side_is_told_by_the_record(config, second):
    assert second_side(config) == second
