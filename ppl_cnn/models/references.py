"""Reference distributions q of images, each a push-forward of standard normal noise.

They are plain declarations. Where images stand (their shape, the network's mean and the order of
its channels) is told when the distribution is made; `TiltedDensity` does so for its unit.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpyro.distributions as dist
from numpyro.distributions.transforms import AffineTransform

from ppl_cnn import InputError
from ppl_cnn.models.gaussian import Gaussian
from ppl_cnn.models.networks import Preprocessing
from ppl_cnn.models.spectral import Band, Spectral
from ppl_cnn.models.transforms import NormalToUniform, Squash, push_forward


@runtime_checkable
class Reference(Protocol):
    """A distribution of images x = R(z), z ~ N(0, I), in pixel units minus the network's mean.

    Its text, `str(reference)`, is all that determines it: `parse_reference` gives it back.
    """

    @property
    def linear(self) -> bool:
        """Whether R is linear: then E_p[x] = R(E_p[grad_z f(R(z))])/T, by Stein's identity."""

    @property
    def whole(self) -> bool:
        """Whether pixels depend on others far away.

        Then the field is the network's whole image, and a unit's image is a crop of it: the
        pixels outside are integrated out by sampling them along. Otherwise the unit's image is
        all the field there need be.
        """

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over fields of a (row, col, channel) shape; its base is N(0, I), its transforms R.

        The base has the field's shape or, of a reference with fewer dimensions than pixels, a
        smaller one.

        Raises:
            InputError: there is no such reference for images of these channels.
        """


@dataclass(frozen=True)
class WhiteNoise:
    """Independent pixels N(0, sigma^2) about the mean image: R(z) = sigma z.

    Args:
        sigma: in pixel units (0..255).
    """

    sigma: float
    linear: ClassVar = True
    whole: ClassVar = False

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise InputError(f"The noise's sigma must be positive and finite, not {self.sigma}.")

    def __str__(self) -> str:
        return f"white:{self.sigma}".removesuffix(".0")

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over images of a (row, col, channel) shape."""
        return push_forward(shape, [AffineTransform(0.0, self.sigma)])


@dataclass(frozen=True)
class Uniform:
    """Independent pixels, uniform between 0 and 255: R(z) = 255 Phi(z) - mean."""

    linear: ClassVar = False
    whole: ClassVar = False

    def __str__(self) -> str:
        return "uniform"

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over images of a (row, col, channel) shape."""
        return push_forward(shape, [NormalToUniform(preprocessing.mean)])


@dataclass(frozen=True)
class Bounded:
    """Another reference whose pixels are squashed into 0..255, smoothly (`transforms.Squash`).

    Pixels between 40 and 215 stay as they are to 0.2 grey levels; those beyond 0..255 end up
    near the ends.

    Args:
        reference: unbounded, about the network's mean image: white noise or a spectral one.

    Raises:
        InputError: that reference is bounded already.
    """

    reference: Reference
    linear: ClassVar = False

    def __post_init__(self) -> None:
        if not self.reference.linear:
            raise InputError(f"The pixels of {self.reference} are in 0..255: leave out bounded.")

    def __str__(self) -> str:
        return f"bounded:{self.reference}"

    @property
    def whole(self) -> bool:
        """As the other reference."""
        return self.reference.whole

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over fields of a (row, col, channel) shape."""
        unbounded = self.reference.distribution(shape, preprocessing)
        return dist.TransformedDistribution(unbounded, [Squash(preprocessing.mean)])


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
