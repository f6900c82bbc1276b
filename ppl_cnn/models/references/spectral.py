"""The spectral reference: noise with the amplitude spectrum and the colours of photographs."""

import json
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpyro.distributions as dist
from jaxtyping import PyTree

from ppl_cnn.errors import ArgumentError, FileError, MismatchError
from ppl_cnn.files import write_aside
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.filters import SpectralFilter
from ppl_cnn.models.references.photographs import LUMA, FitErrors, measure
from ppl_cnn.models.references.reference import Context, after_colon
from ppl_cnn.models.references.transforms import Covariance, push_forward
from ppl_cnn.numeric import plain_fields, real

STEEPEST = 3.0
"""The largest exponent. R^-1 R z equals z in float32 to 0.4 % at 227x227, and to 2e-6 at 1.2."""
FLATTEST = 1e-5
"""The least eigenvalue of the colour covariance, relative to the largest."""
CONTRASTS = (0.001, 10_000.0)
"""The least and the largest contrast, in grey levels."""


@dataclass(frozen=True)
class Spectral:
    """The reference of Gaussian fields with amplitude 1/f^exponent and correlated colours.

    The field is stationary on the torus that the network's whole image forms; a unit's image is a
    crop of it. `filters.SpectralFilter` states how the spectrum is scaled and its value at
    frequency zero. For networks on BGR images the covariance's channels are reversed; for those on
    grey images it becomes the luma's variance (ITU-R 601).

    `fit` measured the defaults on 27 colour photographs: foolbox's 20 of ImageNet, scikit-image's
    astronaut, chelsea, coffee, motorcycle_left and rocket, and scikit-learn's china and flower.
    The exponent is 1.20 +- 0.04 (standard error; the standard deviation between photographs is
    0.23). The covariance's entries have standard errors of 9 to 13 %. The 12 photographs of
    mate-backgrounds (nature) were left out, as each has one vivid colour: alone they give the
    exponent 1.34 +- 0.09, and 0.54 and 0.29 as red's correlations with green and blue instead of
    0.85 and 0.73.

    Args:
        exponent: exponent of the amplitude, 0 (white) to 3; the power's is twice as large.
        covariance: covariance of a pixel's (R, G, B) in squared grey levels, positive definite.
        fit_errors: how well `fit` knows the two; None if they weren't fitted.
        contrast: standard deviation of a pixel in grey levels (the root of its channels' mean
            square), to which the covariance is scaled; None leaves the covariance as it is, and
            for the default covariance that is 64.

    Raises:
        ArgumentError: exponent, covariance or contrast is out of range.

    Source: Field, Relations between the statistics of natural images and the response properties
    of cortical cells, JOSA A 4 (1987); Ruderman, Origins of scaling in natural images, Vision
    Research 37 (1997).

    Examples:
        >>> import ppl_cnn
        >>> natural = ppl_cnn.Spectral(exponent=1.1, contrast=18.0)
        >>> str(natural)
        'spectral:1.1@18'
        >>> q = natural.distribution((32, 32, 3), ppl_cnn.Preprocessing((0.0,) * 3, (1.0,) * 3))
        >>> q.event_shape
        (32, 32, 3)
    """

    exponent: float = 1.2
    covariance: Covariance = (
        (4250.0, 3420.0, 3080.0),
        (3420.0, 3860.0, 3510.0),
        (3080.0, 3510.0, 4170.0),
    )
    fit_errors: FitErrors | None = field(default=None, compare=False, repr=False)
    _: KW_ONLY
    contrast: float | None = None
    push_is_linear: ClassVar = True
    needs_whole_image: ClassVar = True
    is_invertible: ClassVar = True
    params: ClassVar[PyTree] = {}

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 0 <= real("exponent", self.exponent) <= STEEPEST:
            raise ArgumentError(
                f"The exponent of a spectral reference must be in 0 to {STEEPEST:g}, "
                f"not {self.exponent}.",
                argument="exponent",
            )
        if not _usable(self.covariance):
            raise ArgumentError(
                f"The colour covariance {self.covariance} must be 3x3, symmetric and positive "
                f"definite, in squared grey levels.",
                argument="covariance",
            )
        if self.contrast is not None and not (
            CONTRASTS[0] <= real("contrast", self.contrast) <= CONTRASTS[1]
        ):
            raise ArgumentError(
                f"The contrast of a spectral reference must be in {CONTRASTS[0]:g} to "
                f"{CONTRASTS[1]:g} grey levels, not {self.contrast}.",
                argument="contrast",
            )

    def __str__(self) -> str:
        text = "spectral"
        if (self.exponent, self.covariance) != (Spectral.exponent, Spectral.covariance):
            text += f":{_short(self.exponent)}"
        if self.covariance != Spectral.covariance:
            upper = np.asarray(self.covariance)[np.triu_indices(3)].tolist()
            text += ":" + ",".join(map(_short, upper))
        return text if self.contrast is None else f"{text}@{_short(self.contrast)}"

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference of the text after spectral (see `Parsed.parse`).

        The exponent and the colours that the text leaves out come from the context's photographs,
        or else are the defaults.
        """
        spectrum, contrast = _split_contrast(rest)
        spectrum = spectrum and after_colon(spectrum)
        given: dict[str, Any] = {} if contrast is None else {"contrast": contrast}
        if spectrum.endswith(".json"):
            return replace(cls.load(spectrum), **given)
        exponent, colon, colours = spectrum.partition(":")
        if spectrum:
            given |= {"exponent": float(exponent), "fit_errors": None}
        if colon:
            rr, rg, rb, gg, gb, bb = map(float, colours.split(","))
            given["covariance"] = ((rr, rg, rb), (rg, gg, gb), (rb, gb, bb))
        found = cls(**given)  # refuses unusable numbers before photographs are measured
        if context.photographs is None or colon:
            return found
        return replace(cls(*context.photographs()), **given)

    @classmethod
    def fit(cls, folder: str | Path, progress: bool = True) -> Self:
        """Fits exponent and covariance to the photographs in a folder (see `measure`).

        Args:
            folder: a folder of images of any size and common format; its subfolders are searched
                too.
            progress: whether to show a progress bar.

        Raises:
            FileError: the folder is missing, or holds fewer than two usable photographs.

        Examples:
            >>> import tempfile, jax, numpy as np, ppl_cnn
            >>> from PIL import Image
            >>> mid_grey = ppl_cnn.Preprocessing((128.0,) * 3, (1.0,) * 3)
            >>> q = ppl_cnn.Spectral(0.9, contrast=25.0).distribution((128, 128, 3), mid_grey)
            >>> fields = np.asarray(128 + q.sample(jax.random.key(0), (4,)))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     for index, pixels in enumerate(fields.astype(np.uint8)):
            ...         Image.fromarray(pixels).save(f"{folder}/{index}.png")
            ...     fitted = ppl_cnn.Spectral.fit(folder, progress=False)
            >>> fitted.fit_errors.photographs
            4
            >>> abs(fitted.exponent - 0.9) < 0.2
            True
        """
        return cls(*measure(Path(folder), progress))

    def save(self, path: str | Path) -> None:
        """Writes a JSON file with exponent, covariance (RGB), contrast and the fit's errors."""
        errors = {} if self.fit_errors is None else self.fit_errors._asdict()
        content = {"exponent": self.exponent, "covariance": self.covariance, **errors}
        if self.contrast is not None:
            content["contrast"] = self.contrast
        write_aside(Path(path), json.dumps(content, indent=2).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a file of `save`.

        Raises:
            FileError: the file is missing, or isn't one of `save`.
            ArgumentError: a number in it is out of range.
        """
        try:
            content = json.loads(Path(path).read_bytes())
            exponent, covariance = float(content["exponent"]), _rows(content["covariance"])
            errors = FitErrors.read(content) if "photographs" in content else None
            contrast = float(content["contrast"]) if "contrast" in content else None
        except FileNotFoundError:
            raise FileError(f"Spectral reference {str(path)!r} is missing.", path=path) from None
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise FileError(
                f"{str(path)!r} isn't a spectral reference: write one with `Spectral.save`.",
                path=path,
            ) from None
        return cls(exponent, covariance, errors, contrast=contrast)

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        """The distribution q of fields of a (row, col, channel) shape.

        Raises:
            MismatchError: the images have neither 1 nor 3 channels.
        """
        colours = self.colours(shape[-1], preprocessing)
        return push_forward(shape, [SpectralFilter(self.exponent, colours)])

    def colours(self, channels: int, preprocessing: Preprocessing) -> Covariance:
        """The covariance of a pixel's channels, in the network's channel order.

        Raises:
            MismatchError: the images have neither 1 nor 3 channels.
        """
        covariance = np.asarray(self.covariance)
        if channels == 1:
            covariance = np.asarray(LUMA)[None] @ covariance @ np.asarray(LUMA)[:, None]
        elif channels != 3:
            raise MismatchError(f"{self} is for images with 1 or 3 channels, not {channels}.")
        elif preprocessing.order == "BGR":
            covariance = covariance[::-1, ::-1]
        if self.contrast is not None:
            covariance = covariance * (self.contrast**2 / np.diag(covariance).mean())
        return _rows(covariance)


def _split_contrast(text: str) -> tuple[str, float | None]:
    """The text before @CONTRAST, and the contrast; other signs @ belong to a file's name."""
    spectrum, at, last = text.rpartition("@")
    try:
        return (spectrum, float(last)) if at else (text, None)
    except ValueError:
        return text, None


def _short(value: float) -> str:
    return str(value).removesuffix(".0")


def _rows(matrix: Iterable[Iterable[float]]) -> Covariance:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _usable(covariance: Covariance) -> bool:
    """Whether the matrix is 3x3, symmetric and positive definite, also in float32."""
    if [len(row) for row in covariance] != [3, 3, 3]:
        return False
    matrix = np.asarray(covariance)
    largest = np.abs(matrix).max()
    if not 1e-9 < largest < 1e12 or not (matrix == matrix.T).all():
        return False
    return bool(np.linalg.eigvalsh(matrix / largest)[0] > FLATTEST)
