import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppl_cnn import InputError, Spectral
from ppl_cnn.errors import ArgumentError, FileError
from ppl_cnn.models.references.photographs import FitErrors

COLOURS = ((900.0, 500.0, 200.0), (500.0, 800.0, 300.0), (200.0, 300.0, 700.0))
ERRORS = FitErrors(12, 1, 0.02, ((9.0, 5.0, 2.0), (5.0, 8.0, 3.0), (2.0, 3.0, 7.0)))


def test_a_saved_reference_is_loaded_with_the_errors_of_its_fit(tmp_path):
    fitted = Spectral(1.23456, COLOURS, ERRORS)
    fitted.save(tmp_path / "fit.json")
    again = Spectral.load(tmp_path / "fit.json")
    assert again == fitted
    assert again.fit_errors == ERRORS
    assert set(json.loads((tmp_path / "fit.json").read_text())) == {
        "exponent",
        "covariance",
        *FitErrors._fields,
    }
    Spectral().save(tmp_path / "default.json")
    assert Spectral.load(tmp_path / "default.json") == Spectral()


def test_the_errors_of_a_fit_do_not_make_another_reference():
    assert Spectral(1.1, COLOURS, ERRORS) == Spectral(1.1, COLOURS)
    assert str(Spectral(1.1, COLOURS, ERRORS)) == "spectral:1.1:900,500,200,800,300,700"


def test_the_defaults_are_those_of_colour_photographs():
    """Amplitudes of natural images fall as 1/f, and their channels go together (Field 1987)."""
    assert 0.8 < Spectral().exponent < 1.5
    red_green = Spectral().covariance[0][1]
    assert red_green > 0.8 * (Spectral().covariance[0][0] * Spectral().covariance[1][1]) ** 0.5


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"exponent": 1}',
        '{"exponent": "x", "covariance": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}',
        '{"exponent": 1, "covariance": [1, 0, 0]}',
        '{"exponent": 1, "covariance": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "photographs": 3}',
        "[" * 100_000,
    ],
)
def test_other_files_are_refused(content, tmp_path, refused):
    path = tmp_path / "fit.json"
    path.write_text(content)
    with refused(path, "Spectral.save", kind=FileError, path=path):
        Spectral.load(path)
    with refused(tmp_path, "Spectral.save", kind=FileError, path=tmp_path):
        Spectral.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "argument", "word"),
    [
        ({"exponent": 9, "covariance": COLOURS}, "exponent", "0 to 3"),
        ({"exponent": 1, "covariance": COLOURS[:2]}, "covariance", "3x3"),
        ({"exponent": 1, "covariance": [[1, 2], [2, 1]]}, "covariance", "3x3"),
        ({"exponent": 1, "covariance": [[1, 0, 0], [1, 1, 0], [0, 0, 1]]}, "covariance", "symm"),
    ],
)
def test_files_with_unusable_numbers_are_refused(content, argument, word, tmp_path, refused):
    (tmp_path / "fit.json").write_text(json.dumps(content))
    with refused(word, kind=ArgumentError, argument=argument):
        Spectral.load(tmp_path / "fit.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@settings(
    max_examples=300,
    # The first example may come late where other processes keep the machine busy.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.dictionaries(
        st.sampled_from(["exponent", "covariance", *FitErrors._fields]),
        JSON | st.just([list(row) for row in COLOURS]),
    )
)
def test_any_json_is_a_reference_or_refused(tmp_path, content):
    (tmp_path / "fit.json").write_text(json.dumps(content))
    refusal = "."
    try:
        Spectral.load(tmp_path / "fit.json")
    except InputError as error:
        refusal = str(error)
    assert refusal.endswith(".")
    assert "\n" not in refusal
