"""Measures on photographs what a spectral reference needs: exponent and colour covariance."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float
from PIL import Image

from ppl_cnn.data.image_files import ImageError, open_image
from ppl_cnn.data.walk import LeftOut, account, list_images
from ppl_cnn.errors import FileError, shown
from ppl_cnn.models.references.transforms import Covariance
from ppl_cnn.progress import Bar

LUMA = (0.299, 0.587, 0.114)
"""Weights of (R, G, B) in the brightness (ITU-R 601)."""
SIDE = 256
"""Pixels of the short side that a larger photograph is reduced to, about what networks see."""
LEAST_SIDE = 128
"""Pixels of the least short side: below it, the window mixes the lowest waves with the mean."""
BAND = (0.02, 0.25)
"""Lowest and highest frequency of the regression for the exponent, in cycles per pixel."""
BINS = 12
"""Number of frequency rings in the band, of equal width in log f."""


class FitErrors(NamedTuple):
    """How well exponent and covariance are known, and from how many photographs."""

    photographs: int
    """Number of photographs that were measured."""
    skipped: int
    """Number of files that can't be read, are too small or have a single colour."""
    exponent_error: float
    """Standard error of the exponent, from the differences between photographs."""
    covariance_error: Covariance
    """Standard errors of the covariance's entries, from the differences between photographs."""

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """The errors in a JSON object.

        Raises:
            KeyError, TypeError, ValueError: the object lacks a field, or a field isn't numbers.
        """
        return cls(
            int(content["photographs"]),
            int(content["skipped"]),
            float(content["exponent_error"]),
            tuple(tuple(map(float, row)) for row in content["covariance_error"]),
        )


class Measured(NamedTuple):
    """What `measure` finds; `Spectral(*measured)` is the reference."""

    exponent: float
    """Exponent a of the amplitude 1/f^a."""
    covariance: Covariance
    """Covariance of a pixel's (R, G, B), in squared grey levels."""
    fit_errors: FitErrors
    """How well the two are known."""


class Photograph(NamedTuple):
    """The statistics of one photograph."""

    exponent: float
    """Exponent of the luma's amplitude."""
    mean: Float[np.ndarray, "3"]
    """Mean (R, G, B), 0..255."""
    covariance: Float[np.ndarray, "3 3"]
    """Covariance of the pixels' (R, G, B), in squared grey levels."""

    @classmethod
    def of(cls, pixels: Float[np.ndarray, "row col 3"]) -> Self:
        """Measures a photograph's RGB pixels, 0..255.

        Raises:
            ValueError: all pixels have the same brightness.
        """
        colours = pixels.reshape(-1, 3)
        covariance = np.cov(colours, rowvar=False, bias=True)
        return cls(spectral_exponent(pixels @ np.asarray(LUMA)), colours.mean(axis=0), covariance)


def measure(folder: Path, progress: bool = True) -> Measured:
    """Measures the amplitude's exponent and the colour covariance of the photographs in a folder.

    All photographs count alike. A short side above 256 pixels is reduced to 256.

    Exponent: the log periodogram of the luma under a Hann window is averaged over twelve rings of
    equal width in log f from 0.02 to 0.25 cycles per pixel. Its regression on log f has the slope
    -2 exponent. The bias of a log periodogram is the same in all rings, so for Gaussian fields the
    exponent has none.

    Covariance: that of a pixel drawn from a photograph drawn at random, which includes the
    differences between the photographs' mean colours. Eigenvalues below 1e-4 of the largest
    (photographs without colour) are raised to it, so that the field has a density.

    All numbers are rounded to six digits.

    Args:
        folder: the folder; its subfolders are searched too (see `ppl_cnn.data.walk`).
        progress: whether to show a progress bar, and at the end what was left out and why.

    Raises:
        FileError: the folder is missing, can't be read, or holds fewer than two usable photographs.
    """
    if not folder.is_dir():
        raise FileError(f"There is no folder {shown(folder)!r} of photographs.", path=folder)
    listing = list_images(folder)
    found: list[Photograph] = []
    faults: list[LeftOut] = []
    for file in Bar(listing.files, "photographs", unit="file", delay=2, disable=not progress):
        try:
            found.append(Photograph.of(read_photograph(folder / file.path)))
        except ValueError as error:
            faults.append(LeftOut(file.path, f"that can't be used ({error})"))
    left_out = account((*faults, *listing.left_out))
    if len(found) < 2:
        raise FileError(
            f"{shown(folder)!r} holds {len(found)} usable photographs; the fit needs 2 or more"
            + (f" ({'; '.join(left_out)})." if left_out else "."),
            path=folder,
        )
    if progress:
        for line in left_out:
            Bar.write(f"{shown(folder)}: {line}", file=sys.stderr)
    exponents = np.asarray([each.exponent for each in found])
    covariance, covariance_error = _pooled(found)
    errors = FitErrors(
        photographs=len(found),
        skipped=len(faults),
        exponent_error=_rounded(_error(exponents)),
        covariance_error=_rows(covariance_error),
    )
    return Measured(_rounded(exponents.mean()), _rows(_with_density(covariance)), errors)


def read_photograph(path: Path) -> Float[np.ndarray, "row col 3"]:
    """Reads a photograph's RGB pixels (0..255), its short side reduced to `SIDE`.

    Raises:
        ImageError: the file is damaged, no image, or too small.
    """
    with open_image(path) as image:
        short = min(image.size)
        if short < LEAST_SIDE:
            raise ImageError(f"smaller than {LEAST_SIDE} pixels")
        factor = min(1.0, SIDE / short)
        width, height = (round(side * factor) for side in image.size)
        # Large JPEG files are decoded at a fraction of their size, which is faster.
        whole = image.decoded(3, least=(2 * width, 2 * height))
        pixels = whole.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(pixels, np.float64)


def spectral_exponent(luma: Float[np.ndarray, "row col"]) -> float:
    """Fits the exponent a of one image's amplitude c/f^a within `BAND`.

    Raises:
        ValueError: the image has the same brightness everywhere.
    """
    if np.ptp(luma) < 1:
        raise ValueError("the same brightness everywhere")
    window = np.hanning(luma.shape[0])[:, None] * np.hanning(luma.shape[1])
    waves = np.fft.fft2((luma - np.average(luma, weights=window)) * window)
    # The noise of rounding to whole grey levels keeps the logarithms finite.
    log_power = np.log(np.abs(waves) ** 2 + np.sum(window**2) / 12)
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, luma.shape), indexing="ij"))
    ring = np.digitize(frequency, np.geomspace(*BAND, BINS + 1))
    rings = [ring == index for index in range(1, BINS + 1)]
    log_frequency = [np.log(frequency[inside]).mean() for inside in rings]
    slope, _ = np.polyfit(log_frequency, [log_power[inside].mean() for inside in rings], 1)
    return float(-slope / 2)


def _pooled(
    photographs: Sequence[Photograph],
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]:
    """The covariance of pixels drawn from all photographs, and its standard errors."""
    means = np.asarray([each.mean for each in photographs])
    apart = means - means.mean(axis=0)
    count = len(photographs)
    between = count / (count - 1) * apart[:, :, None] * apart[:, None, :]
    each = np.asarray([each.covariance for each in photographs]) + between
    return each.mean(axis=0), _error(each)


def _error(values: Float[np.ndarray, "n ..."]) -> Any:
    """The standard error of a mean over the first axis."""
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def _with_density(covariance: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The covariance with its eigenvalues raised to 1e-4 of the largest."""
    values, vectors = np.linalg.eigh(covariance)
    raised: np.ndarray = (vectors * values.clip(1e-4 * values.max())) @ vectors.T
    return raised


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _rows(matrix: Float[np.ndarray, "3 3"]) -> Covariance:
    return tuple(tuple(_rounded(value) for value in row) for row in matrix)
