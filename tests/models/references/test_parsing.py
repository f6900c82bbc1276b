import re
import sys
from pathlib import Path

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_cnn.errors import ArgumentError, FileError, InputError, UnknownNameError
from ppl_cnn.models import references
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.band import Band
from ppl_cnn.models.references.bounded import Bounded
from ppl_cnn.models.references.noise import Uniform, WhiteNoise
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.references.photographs import FitErrors, Measured
from ppl_cnn.models.references.reference import Reference
from ppl_cnn.models.references.registry import REFERENCES, Form, known_forms, reference_help
from ppl_cnn.models.references.spectral import Spectral

EXPLICIT = "spectral:1.1:4000,3000.5,2000,4100,3100,4200"
NAMED = [
    ("white:10", WhiteNoise(10.0)),
    ("white:0.1234567", WhiteNoise(0.1234567)),
    ("white:1e-05", WhiteNoise(1e-5)),
    ("uniform", Uniform()),
    ("spectral", Spectral()),
    ("spectral:0.9", Spectral(0.9)),
    ("spectral:0", Spectral(0.0)),
    (
        "spectral:1.1:4000,3000.5,2000,4100,3100,4200",
        Spectral(
            1.1, ((4000.0, 3000.5, 2000.0), (3000.5, 4100.0, 3100.0), (2000.0, 3100.0, 4200.0))
        ),
    ),
    ("spectral@18", Spectral(contrast=18.0)),
    ("spectral:0.9@12.5", Spectral(0.9, contrast=12.5)),
    (
        "spectral:1.1:4000,3000.5,2000,4100,3100,4200@25",
        Spectral(
            1.1,
            ((4000.0, 3000.5, 2000.0), (3000.5, 4100.0, 3100.0), (2000.0, 3100.0, 4200.0)),
            contrast=25.0,
        ),
    ),
    ("band:32", Band(32)),
    ("band:8:0.9", Band(8, Spectral(0.9))),
    ("band:8@18", Band(8, Spectral(contrast=18.0))),
    ("bounded:band:24:1.5@18", Bounded(Band(24, Spectral(1.5, contrast=18.0)))),
    ("bounded:spectral@18", Bounded(Spectral(contrast=18.0))),
    ("bounded:white:60", Bounded(WhiteNoise(60.0))),
    ("bounded:spectral", Bounded(Spectral())),
    ("bounded:spectral:0.9", Bounded(Spectral(0.9))),
]


@pytest.mark.parametrize(("text", "expected"), NAMED)
def test_a_text_names_a_reference(text, expected):
    reference = parse_reference(text)
    assert reference == expected
    assert str(reference) == text
    assert isinstance(reference, Reference)
    assert hash(reference) == hash(expected)


@pytest.mark.parametrize(
    ("text", "linear", "whole"),
    [
        ("white:10", True, False),
        ("uniform", False, False),
        ("spectral", True, True),
        ("bounded:white:10", False, False),
        ("bounded:spectral", False, True),
        ("band:2", True, True),
        ("bounded:band:2", False, True),
    ],
)
def test_what_the_sampler_must_know_of_a_reference(text, linear, whole):
    reference = parse_reference(text)
    assert (reference.push_is_linear, reference.needs_whole_image) == (linear, whole)


COLOURS = ((900.0, 500.0, 200.0), (500.0, 800.0, 300.0), (200.0, 300.0, 700.0))
ERRORS = FitErrors(12, 1, 0.02, ((9.0, 5.0, 2.0), (5.0, 8.0, 3.0), (2.0, 3.0, 7.0)))


def measured():
    """What photographs would give."""
    return Measured(1.4, COLOURS, ERRORS)


def never():
    raise AssertionError("the photographs are measured before the text has proved usable")


def test_what_the_text_leaves_open_is_taken_from_the_photographs(tmp_path):
    natural = Spectral(1.4, COLOURS)
    found = parse_reference("spectral", fit=measured)
    assert found == natural
    assert found.fit_errors == ERRORS
    found = parse_reference("spectral:0.8", fit=measured)
    assert found == Spectral(0.8, COLOURS)
    assert found.fit_errors is None
    assert parse_reference("bounded:spectral", fit=measured) == Bounded(natural)
    assert parse_reference(str(natural)) == natural
    natural.save(tmp_path / "fit.json")
    assert parse_reference(f"bounded:spectral:{tmp_path / 'fit.json'}") == Bounded(natural)
    assert parse_reference("band:5", fit=measured) == Band(5, natural)
    own = Band(5, Spectral(0.8, COLOURS, contrast=9.0))
    assert parse_reference("band:5:0.8@9", fit=measured) == own
    own = Spectral(1.4, COLOURS, contrast=7.0)
    assert parse_reference("spectral@7", fit=measured) == own
    assert parse_reference(f"spectral:{tmp_path / 'fit.json'}@7") == own
    own.save(tmp_path / "a@b.json")
    assert parse_reference(f"spectral:{tmp_path / 'a@b.json'}") == own


def test_photographs_are_measured_once():
    calls = []

    def count():
        calls.append(None)
        return measured()

    parse_reference("bounded:band:3", fit=count)
    assert len(calls) == 1


@pytest.mark.parametrize("text", ["white:10", "uniform", "bounded:white:3", EXPLICIT])
def test_a_reference_that_takes_nothing_from_photographs_is_refused_them(text, refused):
    with refused(repr(text), "`fit`", kind=ArgumentError, argument="fit"):
        parse_reference(text, fit=never)


@pytest.mark.parametrize(
    "text", ["spectral:x", "spectral:9", "spectral@0", "band:0", "band:2@0", "bounded:band:x", "pi"]
)
def test_a_text_is_refused_before_photographs_are_measured(text, refused):
    with refused():
        parse_reference(text, fit=never)


@pytest.mark.parametrize("text", ["white:-1", "white:0", "white:nan", "white:inf", "white:1e999"])
def test_noise_without_a_positive_finite_sigma_is_refused(text, refused):
    for each in (text, f"bounded:{text}"):
        with refused(str(float(text[6:])), kind=ArgumentError, argument="sigma"):
            parse_reference(each)


UNKNOWN = [
    "",
    "pink:10",
    "White:10",
    "spectral18",
    "bounded:pink",
    "bounded:spectral18",
    " white:1",
]


@pytest.mark.parametrize("text", UNKNOWN)
def test_texts_that_name_no_reference_are_refused(text, refused):
    name = text.removeprefix("bounded:")
    with refused(repr(name), *known_forms(), kind=UnknownNameError, name=name):
        parse_reference(text)


MALFORMED = {
    "white:SIGMA": ["white", "white:", "white:abc", "white@3"],
    "uniform": ["uniform:", "uniform:3"],
    "spectral[:EXPONENT": [
        *("spectral:", "spectral:x", "spectral:1:2", "spectral:1:", "spectral@"),
        *("spectral:1.2@x", "spectral:1:1,2,3,4,5,6,7", "spectral:@3"),
    ],
    "band:SIDE": ["band", "band:", "band:x", "band:-3", "band:3:", "band:99999", "band:1.5"],
    "gaussian:FILE.npz": ["gaussian", "gaussian:", "gaussian@3"],
    "bounded:REFERENCE": ["bounded", "bounded:", "bounded@3"],
}


@pytest.mark.parametrize(
    ("form", "text"), [(form, text) for form, texts in MALFORMED.items() for text in texts]
)
def test_texts_that_are_not_of_their_references_form_are_refused(form, text, refused):
    with refused(repr(text), form, kind=ArgumentError, argument="reference"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "argument", "words"),
    [
        ("bounded:uniform", "reference", ("uniform", "leave out bounded")),
        ("bounded:bounded:white:3", "reference", ("bounded:white:3", "leave out bounded")),
        ("spectral:-0.1", "exponent", ("-0.1",)),
        ("spectral:3.1", "exponent", ("0 to 3", "3.1")),
        ("spectral:nan", "exponent", ("nan",)),
        ("spectral:1:1,1,1,1,1,1", "covariance", ("positive definite",)),
        ("spectral:1:1,0,0,-1,0,1", "covariance", ("positive definite",)),
        ("spectral:1:nan,0,0,1,0,1", "covariance", ("positive definite",)),
        ("spectral:1:inf,0,0,1,0,1", "covariance", ("positive definite",)),
        ("spectral:1:1e-300,0,0,1e-300,0,1e-300", "covariance", ("grey levels",)),
        ("spectral@0", "contrast", ("grey levels", "not 0")),
        ("spectral@-3", "contrast", ("not -3",)),
        ("spectral@nan", "contrast", ("not nan",)),
        ("band:3@1e9", "contrast", ("not 1000000000",)),
        ("band:0", "side", ("at least 1 wave", "not 0")),
        ("band:3:4", "exponent", ("0 to 3", "not 4")),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(text, argument, words, refused):
    with refused(*words, kind=ArgumentError, argument=argument):
        parse_reference(text)


@pytest.mark.parametrize("text", ["spectral:nowhere.json", "spectral:nowhere.json@3"])
def test_a_missing_file_is_refused(text, refused):
    with refused("'nowhere.json'", kind=FileError, path=Path("nowhere.json")):
        parse_reference(text)


def test_every_registered_reference_is_one_that_texts_here_name():
    """A new entry of the registry needs a text above, which its own `parse` reads."""
    keywords = {re.split("[:@]", text)[0] for text, _ in NAMED}
    # Texts of the others name files and data; their own tests have them.
    assert keywords | {"gaussian", "generator", "data"} == set(REFERENCES)
    for form in REFERENCES.values():
        assert form.text in reference_help()
        assert form.meaning in reference_help()


DIM = '''
"""The reference of dim images."""

from dataclasses import dataclass
from typing import ClassVar, Self

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import PyTree
from numpyro.distributions.transforms import AffineTransform

from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.reference import Context, after_colon
from ppl_cnn.models.references.transforms import WHITE, NormalToUniform, push_forward


@dataclass(frozen=True)
class Dim:
    """Independent pixels, uniform in 0..level: R(z) = level Phi(z) - mean."""

    level: float
    push_is_linear: ClassVar = False
    needs_whole_image: ClassVar = False
    is_invertible: ClassVar = True
    params: ClassVar[PyTree] = {}

    def __str__(self) -> str:
        return f"dim:{self.level}"

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        return cls(float(after_colon(rest)))

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        mean = jnp.asarray(preprocessing.mean).reshape(1, 1, -1)
        dimmed = AffineTransform(-mean, self.level / WHITE)
        return push_forward(shape, [NormalToUniform((0.0,) * shape[-1]), dimmed])
'''


def test_a_new_reference_is_a_file_and_a_line_of_the_registry(tmp_path, monkeypatch, refused):
    (tmp_path / "dim.py").write_text(DIM)
    monkeypatch.setattr(references, "__path__", [*references.__path__, str(tmp_path)])
    monkeypatch.setitem(REFERENCES, "dim", Form("dim:LEVEL", "uniform in 0..LEVEL", "dim.Dim"))
    dim = parse_reference("dim:60")
    assert isinstance(dim, Reference)
    assert parse_reference(str(dim)) == dim
    x = dim.distribution((9, 9, 1), Preprocessing((50.0,), (1.0,))).sample(jax.random.key(0))
    assert -50 < x.min() < x.max() < 10
    with refused("dim:LEVEL", "'dim'", kind=ArgumentError):
        parse_reference("dim")
    with refused("dim:LEVEL", kind=UnknownNameError):
        parse_reference("vivid")
    del sys.modules["ppl_cnn.models.references.dim"]


PIECES = ["white", "uniform", "spectral", "bounded", ":", ",", "-", "1", "0", ".5", "1e9", "nan"]
PIECES += [
    "band:",
    "gaussian:",
    "@",
    "18",
    ".json",
    "\0",
    "\n",
    " ",
    "/",
    "4000,3000,2000,4100,3100,4200",
]


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=9).map("".join)))
def test_any_text_names_a_reference_or_is_refused_in_a_sentence(text):
    refusal = "."
    try:
        reference = parse_reference(text)
    except InputError as error:
        refusal = str(error)
    else:
        assert parse_reference(str(reference)) == reference
    assert refusal.endswith(".")
    assert "\n" not in refusal
