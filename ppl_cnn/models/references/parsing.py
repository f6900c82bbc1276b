"""The parser of a reference's text."""

import importlib
import re
from collections.abc import Callable
from typing import cast

from ppl_cnn.errors import ArgumentError, InputError, MismatchError, unknown
from ppl_cnn.models.references.empirical import Empirical
from ppl_cnn.models.references.photographs import Measured
from ppl_cnn.models.references.reference import Context, Parsed, Reference
from ppl_cnn.models.references.registry import REFERENCES, known_forms
from ppl_cnn.user_modules import has_module, names_an_object

_TEXT = re.compile(r"([a-z]+)((?:[:@].*)?)", re.DOTALL)
"""A keyword and the rest of the text."""


def parse_reference(
    text: str, *, fit: Callable[[], Measured] | None = None
) -> Reference | Empirical:
    """The reference that a text names.

    Args:
        text: a form of `registry.REFERENCES`, such as white:10, spectral:1.1@18 or
            bounded:band:24; or package.module:attribute, a generator of yours.
        fit: measures photographs, as `lambda: measure(folder)` does. A spectral or band
            reference takes from them the exponent and the colours that its text leaves out. It is
            called only once the text has proved usable.

    Raises:
        UnknownNameError: no reference has this keyword.
        ArgumentError: the text doesn't have its reference's form, a number in it is out of
            range, or `fit` is given and the reference takes nothing from photographs.
        FileError: a file or data set that the text names can't be used.
        MismatchError: the images of a data set would be within another reference.

    Examples:
        >>> parse_reference("bounded:white:60")
        Bounded(reference=WhiteNoise(sigma=60.0))
        >>> str(parse_reference("band:8@20"))
        'band:8@20'
    """
    measured: list[Measured] = []

    def measure() -> Measured:
        assert fit is not None
        measured.append(fit())
        return measured[-1]

    reference = _parse(text, None if fit is None else measure)
    if fit is not None and not measured:
        raise ArgumentError(
            f"Reference {text!r} takes nothing from photographs: leave out `fit`, or give a "
            f"spectral or band reference without colours of its own.",
            argument="fit",
        )
    return reference


def _parse(text: str, photographs: Callable[[], Measured] | None) -> Reference | Empirical:
    found = _TEXT.fullmatch(text)
    if found is None or found[1] not in REFERENCES:
        if not names_an_object(text) or not has_module(text):
            raise unknown("reference", text, known_forms())
        return _parse(f"generator:{text}", photographs)
    form = REFERENCES[found[1]]
    module, _, name = form.home.rpartition(".")
    home = importlib.import_module(f"ppl_cnn.models.references.{module}")
    kind = cast(type[Parsed | Empirical], getattr(home, name))
    context = Context(lambda inner: _pushed(_parse(inner, photographs)), photographs)
    try:
        return kind.parse(found[2], context)
    except InputError:
        raise
    except ValueError:
        raise ArgumentError(
            f"Reference {text!r} doesn't have the form {form.text}.", argument="reference"
        ) from None


def _pushed(reference: Reference | Empirical) -> Reference:
    """A reference within another, which must be a push-forward."""
    if isinstance(reference, Empirical):
        raise MismatchError(
            f"{reference} is a set of images, which another reference can't contain. Give it alone."
        )
    return reference
