import pytest

from ppl_cnn.errors import FileError, UnknownNameError
from ppl_cnn.inference.sampling.exemplars.sources import OfData, OfFolder, parse_source


@pytest.mark.parametrize("text", ["fashion-embedded@test", "data:fashion-embedded@test"])
def test_a_data_set_is_named_as_in_a_reference(text):
    source = parse_source(text)
    assert isinstance(source, OfData)
    assert str(source) == "fashion-embedded@test"
    assert source.name(3) == "test 3"


def test_a_folder_that_is_called_like_a_data_set(tmp_path, monkeypatch, refused):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    source = parse_source("./mnist")
    assert isinstance(source, OfFolder)
    assert source.name(0) == "a.png"


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [
        ("nowhere", UnknownNameError, ["nowhere", "exemplars", "fashion-embedded"]),
        ("", UnknownNameError, ["exemplars", "fashion-embedded"]),
        ("empty", FileError, ["empty", "no images"]),
        ("fashion-embedded@tset", UnknownNameError, ["tset", "test"]),
    ],
)
def test_sets_that_are_not_there_are_refused(tmp_path, monkeypatch, text, kind, facts, refused):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with refused(*facts, kind=kind):
        parse_source(text)
