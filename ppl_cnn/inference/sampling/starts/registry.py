"""The texts of starts, and the one place where they are parsed."""

from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.errors import unknown
from ppl_cnn.inference.sampling.starts.drawn import Annealed, Prior, Rto, TwoSided
from ppl_cnn.inference.sampling.starts.images import FromRun, Images, Photographs, Zero
from ppl_cnn.inference.sampling.starts.resampled import Resampled
from ppl_cnn.inference.sampling.starts.start import Start

FORMS = (
    *("prior", "rto", "rto:STEPS", "anneal", "anneal:PARTICLES", "resample", "resample:DRAWS"),
    *("zero", "image:FILE"),
    *("image:FILE,FILE,...", "run:FOLDER", "two-sided", "two-sided:START"),
)
"""The texts that `parse_start` knows."""


def parse_start(text: str) -> Start:
    """The start that a text names.

    Args:
        text: "prior", "rto" or "rto:STEPS", "anneal" or "anneal:PARTICLES", "resample" or
            "resample:DRAWS", "zero", "image:FILE" or several files between commas, "run:FOLDER", or
            "two-sided:START" with one of these; "two-sided" is "two-sided:rto".

    Raises:
        UnknownNameError: no start has that text.
        ArgumentError: a number in it is too small, or both sides would be the reference.
        FileError: an image file can't be read.

    Examples:
        >>> parse_start("two-sided:anneal:64")
        TwoSided(start=Annealed(particles=64))
        >>> str(parse_start("two-sided"))
        'two-sided:rto'
    """
    name, colon, value = text.partition(":")
    number = int(value) if value.isascii() and value.isdigit() else None
    match name:
        case "prior" if not colon:
            return Prior()
        case "zero" if not colon:
            return Zero()
        case "rto" if not colon:
            return Rto()
        case "rto" if number is not None:
            return Rto(number)
        case "anneal" if not colon:
            return Annealed()
        case "anneal" if number is not None:
            return Annealed(number)
        case "resample" if not colon:
            return Resampled()
        case "resample" if number is not None:
            return Resampled(number)
        case "image" if value:
            return Photographs.read(_files(value))
        case "run" if value:
            return FromRun(value)
        case "two-sided":
            return TwoSided(parse_start(value) if colon else Rto())
    raise unknown("start", text, FORMS)


def _files(text: str) -> list[str]:
    """The files between commas; names of files that exist may have commas themselves."""
    parts, files = text.split(","), []
    while parts:
        joined = [",".join(parts[:count]) for count in range(1, len(parts) + 1)]
        files.append(next((each for each in reversed(joined) if Path(each).is_file()), joined[0]))
        del parts[: files[-1].count(",") + 1]
    return files


def as_start(given: str | Start | Float[Array | np.ndarray, "image row col channel"]) -> Start:
    """The start that a text, a start object or an array of images gives.

    Args:
        given: a text for `parse_start`, a start, or images for `Images`: (image, row, col,
            channel), in pixel units minus the mean.

    Raises:
        InputError: no start has that text, or the array holds no images.
    """
    if isinstance(given, Start):
        return given
    return parse_start(given) if isinstance(given, str) else Images(given)
