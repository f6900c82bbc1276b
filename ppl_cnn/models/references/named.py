"""The reference that a text names."""

import re

from ppl_cnn.errors import InputError
from ppl_cnn.models.references.bounded import Bounded
from ppl_cnn.models.references.gaussian import Gaussian
from ppl_cnn.models.references.noise import Uniform, WhiteNoise
from ppl_cnn.models.references.reference import Reference
from ppl_cnn.models.references.spectral import Band, Spectral


def parse_reference(text: str, natural: Spectral | None = None) -> Reference:
    """The reference that a text names.

    Args:
        text: white:SIGMA, uniform, spectral, spectral:EXPONENT, spectral:FILE.json (of
            `Spectral.save`) or spectral:EXPONENT:COVARIANCE (of `str(Spectral)`), each of the
            last four also with @CONTRAST after it; band:SIDE in place of spectral for its SIDE x
            SIDE lowest waves; gaussian:FILE.npz (of `Gaussian.fit`); bounded: before one of them
            squashes the pixels into 0..255.
        natural: what a spectral reference is where the text doesn't say: one fitted to the
            user's photographs, for example. By default `Spectral()`.

    Raises:
        InputError: there is no such reference; its numbers or file can't be used; or it takes
            nothing from `natural`, which was given.
    """
    inner = text.removeprefix("bounded:")
    reference = _unbounded(inner, text, natural or Spectral())
    if natural is not None and not isinstance(reference, Spectral | Band):
        raise InputError(
            f"{text} takes nothing from photographs: fit them for spectral, band:SIDE or "
            f"bounded: before one of these."
        )
    return reference if inner == text else Bounded(reference)


_SPECTRAL = re.compile(
    r"(?:spectral|band:(\d{1,4}))(?:$|:(?=[^@])|(?=@))(.*)", re.ASCII | re.DOTALL
)


def _unbounded(
    inner: str, text: str, natural: Spectral
) -> WhiteNoise | Uniform | Spectral | Band | Gaussian:
    if found := _SPECTRAL.fullmatch(inner):
        spectral = Spectral.parse(found[2], natural)
        return spectral if found[1] is None else Band(int(found[1]), spectral)
    if inner.startswith("gaussian:"):
        return Gaussian.parse(inner.removeprefix("gaussian:"))
    if inner == "uniform":
        return Uniform()
    kind, _, value = inner.partition(":")
    try:
        sigma = float(value)
    except ValueError:
        kind = ""
    if kind != "white":
        raise InputError(
            f"{text!r} is no reference: write white:SIGMA, for example white:10, or uniform, "
            f"spectral, spectral:EXPONENT or spectral:FILE.json, these also with @CONTRAST, "
            f"band:SIDE in place of spectral, or gaussian:FILE.npz; bounded: before one of them "
            f"keeps its pixels in 0..255."
        )
    return WhiteNoise(sigma)
