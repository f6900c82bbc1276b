"""The spectral references: noise with the amplitude spectrum and the colours of photographs."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpyro.distributions as dist

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.photographs import LUMA, Evidence, measure
from ppl_cnn.models.references.transforms import (
    BandFilter,
    Covariance,
    SpectralFilter,
    push_forward,
)

STEEPEST = 3.0
"""The largest exponent: in float32, R^-1 R z is z to 0.4 % at 227x227, and to 2e-6 at 1.2."""
FLATTEST = 1e-5
"""The least variance of a mixture of colours, as a part of the largest one's."""
CONTRASTS = (0.001, 10_000.0)
"""The least and the largest contrast, in grey levels."""


@dataclass(frozen=True)
class Spectral:
    """Gaussian fields of amplitude 1/f^exponent whose pixels' colours have a covariance.

    The field is stationary on the torus that the network's whole image is, and a unit's image is
    a crop of it. `transforms.SpectralFilter` says how the spectrum is scaled and what its value
    at frequency zero is. Networks on BGR images have the covariance's channels turned round;
    those on grey ones its luma's variance (ITU-R 601).

    The defaults were measured by `fit` on 27 colour photographs: foolbox's 20 of ImageNet,
    scikit-image's astronaut, chelsea, coffee, motorcycle_left and rocket, scikit-learn's china
    and flower. The exponent is 1.20 +- 0.04 (standard error; 0.23 is the standard deviation from
    one photograph to another), the entries of the covariance are known to 9 to 13 %. The 12
    photographs of mate-backgrounds (nature) were left out, as backgrounds of one vivid colour
    each: by themselves they have 1.34 +- 0.09, and red's correlations with green and blue are
    0.54 and 0.29 in place of 0.85 and 0.73.

    Args:
        exponent: of the amplitude, 0 (white) to 3; the power's is twice that.
        covariance: of a pixel's (R, G, B), in squared pixel units, positive definite.
        evidence: what these were measured on, if `fit` did.
        contrast: the standard deviation of a pixel in grey levels, the root of its channels' mean
            square, to which the covariance is scaled; by default that of the covariance as it is
            (of the default one, 64).

    Raises:
        InputError: exponent, covariance or contrast can't be used.

    Source: Field, Relations between the statistics of natural images and the response properties
    of cortical cells, JOSA A 4 (1987); Ruderman, Origins of scaling in natural images, Vision
    Research 37 (1997).
    """

    exponent: float = 1.2
    covariance: Covariance = (
        (4250.0, 3420.0, 3080.0),
        (3420.0, 3860.0, 3510.0),
        (3080.0, 3510.0, 4170.0),
    )
    evidence: Evidence | None = field(default=None, compare=False, repr=False)
    contrast: float | None = None
    linear: ClassVar = True
    whole: ClassVar = True

    def __post_init__(self) -> None:
        if not 0 <= self.exponent <= STEEPEST:
            raise InputError(
                f"The exponent of a spectral reference must be in 0 to {STEEPEST:g}, "
                f"not {self.exponent}."
            )
        if not _usable(self.covariance):
            raise InputError(
                f"The colour covariance {self.covariance} must be 3x3, symmetric and positive "
                f"definite, in squared grey levels."
            )
        if self.contrast is not None and not CONTRASTS[0] <= self.contrast <= CONTRASTS[1]:
            raise InputError(
                f"The contrast of a spectral reference must be in {CONTRASTS[0]:g} to "
                f"{CONTRASTS[1]:g} grey levels, not {self.contrast}."
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
    def parse(cls, text: str, natural: Self) -> Self:
        """The reference of a text after "spectral".

        Args:
            text: EXPONENT, FILE.json, or EXPONENT:RR,RG,RB,GG,GB,BB with a colour covariance, or
                nothing; and then @CONTRAST, if it has one of its own.
            natural: what it is where the text doesn't say.

        Raises:
            InputError: the text, its numbers or its file can't be used.
        """
        spectrum, at, last = text.rpartition("@")
        try:
            contrast = float(last) if at else None
        except ValueError:  # a sign in a file's name
            contrast = None
        if contrast is None:
            return cls._spectrum(text, natural)
        return replace(cls._spectrum(spectrum, natural), contrast=contrast)

    @classmethod
    def _spectrum(cls, text: str, natural: Self) -> Self:
        """That of a text without a contrast."""
        if not text:
            return natural
        if text.endswith(".json"):
            return cls.load(Path(text))
        first, colon, others = text.partition(":")
        try:
            exponent = float(first)
            rr, rg, rb, gg, gb, bb = map(float, others.split(",")) if colon else (0.0,) * 6
        except ValueError:
            raise InputError(
                f"{text!r} is no spectrum: write spectral:EXPONENT, for example spectral:1.1, "
                f"spectral:FILE.json or spectral:EXPONENT:RR,RG,RB,GG,GB,BB, and @CONTRAST after "
                f"it for another contrast, for example spectral:1.1@18."
            ) from None
        if not colon:
            return replace(natural, exponent=exponent, evidence=None)
        return cls(exponent, ((rr, rg, rb), (rg, gg, gb), (rb, gb, bb)))

    @classmethod
    def fit(cls, folder: Path, progress: bool = True) -> Self:
        """Estimates exponent and covariance from the photographs in a folder (`measure`).

        Args:
            folder: of PNG, JPEG, WebP, TIFF, BMP or PPM files of any size, also in folders in it.
            progress: whether to show a bar.

        Raises:
            InputError: the folder holds fewer than two photographs that can be used.
        """
        return cls(*measure(Path(folder), progress))

    def save(self, path: Path) -> None:
        """Writes a JSON file: exponent, covariance (RGB) and what they were measured on."""
        evidence = {} if self.evidence is None else self.evidence._asdict()
        content = {"exponent": self.exponent, "covariance": self.covariance, **evidence}
        if self.contrast is not None:
            content["contrast"] = self.contrast
        write_aside(Path(path), json.dumps(content, indent=2).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            InputError: the file is missing or no spectral reference.
        """
        try:
            content = json.loads(Path(path).read_bytes())
            exponent, covariance = float(content["exponent"]), _rows(content["covariance"])
            evidence = Evidence.read(content) if "photographs" in content else None
            contrast = float(content["contrast"]) if "contrast" in content else None
        except FileNotFoundError:
            raise InputError(f"There is no file {str(path)!r} of a spectral reference.") from None
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise InputError(f"{str(path)!r} is no file of a spectral reference.") from None
        return cls(exponent, covariance, evidence, contrast)

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over fields of a (row, col, channel) shape, the torus.

        Raises:
            InputError: the images are neither grey nor of three colours.
        """
        colours = self.colours(shape[-1], preprocessing)
        return push_forward(shape, [SpectralFilter(self.exponent, colours)])

    def colours(self, channels: int, preprocessing: Preprocessing) -> Covariance:
        """The covariance of a pixel's channels, in the order of a network's.

        Raises:
            InputError: the images are neither grey nor of three colours.
        """
        covariance = np.asarray(self.covariance)
        if channels == 1:
            covariance = np.asarray(LUMA)[None] @ covariance @ np.asarray(LUMA)[:, None]
        elif channels != 3:
            raise InputError(
                f"A spectral reference is of images with 1 or 3 channels, not {channels}."
            )
        elif preprocessing.order == "BGR":
            covariance = covariance[::-1, ::-1]
        if self.contrast is not None:
            covariance = covariance * (self.contrast**2 / np.diag(covariance).mean())
        return _rows(covariance)


@dataclass(frozen=True)
class Band:
    """Fields of the lowest waves alone, with the amplitudes and colours of a spectral reference.

    z has side x side x channels dimensions, whatever the image's size, and chains in it mix far
    sooner. The waves are cosines (`transforms.BandFilter`), so that opposite borders of the image
    have nothing to do with each other, as they have on the spectral reference's torus. The colour
    covariance is that of a pixel in the mean over the image.

    These fields have no density among all images, only within the band. Samplers that work in z
    don't need it; of the NumPyro model, `TiltedDensity.whitened` is the one to sample.

    Args:
        side: the waves along each of the image's sides.
        spectral: whose exponent, colours and contrast they have.

    Raises:
        InputError: there are no waves.
    """

    side: int
    spectral: Spectral = field(default_factory=Spectral)
    linear: ClassVar = True
    whole: ClassVar = True

    def __post_init__(self) -> None:
        if self.side < 1:
            raise InputError(f"A band has at least 1 wave along each side, not {self.side}.")

    def __str__(self) -> str:
        return f"band:{self.side}" + str(self.spectral).removeprefix("spectral")

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over fields of a (row, col, channel) shape; its base is smaller.

        Raises:
            InputError: the images are smaller than the band, or neither grey nor of three colours.
        """
        if self.side > min(shape[:2]):
            raise InputError(
                f"{self} has more waves than images of {shape[0]}x{shape[1]} hold: write "
                f"band:{min(shape[:2])}, or fewer."
            )
        colours = self.spectral.colours(shape[-1], preprocessing)
        waves = BandFilter(self.side, shape, self.spectral.exponent, colours)
        return push_forward((self.side, self.side, shape[-1]), [waves])


def _short(value: float) -> str:
    return str(value).removesuffix(".0")


def _rows(matrix: Iterable[Iterable[float]]) -> Covariance:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _usable(covariance: Covariance) -> bool:
    """Whether it is 3x3, symmetric and positive definite, also in float32."""
    if [len(row) for row in covariance] != [3, 3, 3]:
        return False
    matrix = np.asarray(covariance)
    largest = np.abs(matrix).max()
    if not 1e-9 < largest < 1e12 or not (matrix == matrix.T).all():
        return False
    return bool(np.linalg.eigvalsh(matrix / largest)[0] > FLATTEST)
