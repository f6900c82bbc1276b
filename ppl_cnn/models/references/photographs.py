"""What a spectral reference takes from photographs: the amplitude's exponent and the colours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float
from PIL import Image
from tqdm import tqdm

from ppl_cnn.errors import InputError
from ppl_cnn.models.references.transforms import Covariance

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
LUMA = (0.299, 0.587, 0.114)
"""Of (R, G, B), as ITU-R 601 has it."""
SIDE = 256
"""Pixels of the short side that a larger photograph is brought to, about what networks see."""
LEAST_SIDE = 128
"""The smallest photograph: its third wave is the first that the window keeps apart from zero."""
BAND = (0.02, 0.25)
"""Cycles per pixel between which the exponent is read."""
BINS = 12
"""Of frequency in the band, of equal width in log f."""


class Evidence(NamedTuple):
    """What exponent and covariance were measured on."""

    photographs: int
    skipped: int
    """Files that couldn't be read, are too small or of a single colour."""
    exponent_error: float
    """Standard error, from the differences between photographs."""
    covariance_error: Covariance
    """Likewise."""

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """From a JSON object; `KeyError`, `TypeError` or `ValueError` if it holds no evidence."""
        return cls(
            int(content["photographs"]),
            int(content["skipped"]),
            float(content["exponent_error"]),
            tuple(tuple(map(float, row)) for row in content["covariance_error"]),
        )


class Photograph(NamedTuple):
    """The statistics of one photograph."""

    exponent: float
    mean: Float[np.ndarray, "3"]
    covariance: Float[np.ndarray, "3 3"]

    @classmethod
    def of(cls, pixels: Float[np.ndarray, "row col 3"]) -> Self:
        """From its RGB pixels; `ValueError` if it is the same everywhere."""
        colours = pixels.reshape(-1, 3)
        covariance = np.cov(colours, rowvar=False, bias=True)
        return cls(spectral_exponent(pixels @ np.asarray(LUMA)), colours.mean(axis=0), covariance)


def measure(folder: Path, progress: bool = True) -> tuple[float, Covariance, Evidence]:
    """The amplitude's exponent and the colour covariance of the photographs in a folder.

    Every photograph counts the same. Its short side is brought to 256 pixels if it is longer. Its
    luma's log periodogram under a Hann window is averaged over rings, twelve of equal width in
    log f from 0.02 to 0.25 cycles per pixel; the regression on log f has the slope -2 exponent,
    without bias for Gaussian fields, as a power's logarithm is low by the same in every ring. The
    covariance is that of pixels drawn at random from all photographs, so it
    holds the differences between their mean colours. What has less than 1e-4 of the variance of
    the strongest mixture of colours (photographs without colour) is raised to that, so that the
    field has a density. All is rounded to six digits.

    Args:
        folder: searched with the folders in it.
        progress: whether to show a bar.

    Raises:
        InputError: there are fewer than two photographs.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r} of photographs.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    found, faults = [], []
    for path in tqdm(files, "photographs", unit="file", delay=2, disable=not progress):
        try:
            found.append(Photograph.of(read_photograph(path)))
        except ValueError as error:
            faults.append(f"{path.name} {error}")
    if len(found) < 2:
        raise InputError(
            f"{str(folder)!r} holds {len(found)} photographs that can be used, and two are the "
            f"least" + (f"; {faults[0]}." if faults else ".")
        )
    exponents = np.asarray([each.exponent for each in found])
    covariance, covariance_error = _pooled(found)
    evidence = Evidence(
        photographs=len(found),
        skipped=len(faults),
        exponent_error=_rounded(_error(exponents)),
        covariance_error=_rows(covariance_error),
    )
    return _rounded(exponents.mean()), _rows(_with_density(covariance)), evidence


def read_photograph(path: Path) -> Float[np.ndarray, "row col 3"]:
    """The RGB pixels (0..255) of a photograph, its short side brought down to `SIDE`.

    Raises:
        ValueError: the file is damaged or the photograph too small; the text says which.
    """
    try:
        with Image.open(path) as image:
            short = min(image.size)
            factor = min(1.0, SIDE / short)
            width, height = (round(side * factor) for side in image.size)
            image.draft("RGB", (2 * width, 2 * height))  # decodes large JPEG files at less cost
            pixels = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    except Exception:  # damaged files make decoders raise whatever they stumble on
        raise ValueError("is no intact image") from None
    if short < LEAST_SIDE:
        raise ValueError(f"is smaller than {LEAST_SIDE} pixels")
    return np.asarray(pixels, np.float64)


def spectral_exponent(luma: Float[np.ndarray, "row col"]) -> float:
    """The exponent of one image's amplitude in the band.

    Raises:
        ValueError: it is the same everywhere.
    """
    if np.ptp(luma) < 1:
        raise ValueError("has the same brightness everywhere")
    window = np.hanning(luma.shape[0])[:, None] * np.hanning(luma.shape[1])
    waves = np.fft.fft2((luma - np.average(luma, weights=window)) * window)
    # The noise of rounding to whole pixels keeps logarithms finite where there is nothing else.
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
    """The covariance of pixels drawn from all photographs, and its standard error."""
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
    """With no mixture of colours below 1e-4 of the strongest one's variance."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * values.clip(1e-4 * values.max())) @ vectors.T


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _rows(matrix: Float[np.ndarray, "3 3"]) -> Covariance:
    return tuple(tuple(_rounded(value) for value in row) for row in matrix)
