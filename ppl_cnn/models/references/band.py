"""The band reference: the lowest waves of spectral noise."""

import re
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpyro.distributions as dist
from jaxtyping import PyTree

from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.filters import BandFilter
from ppl_cnn.models.references.reference import Context
from ppl_cnn.models.references.spectral import Spectral
from ppl_cnn.models.references.transforms import push_forward
from ppl_cnn.numeric import plain_fields

_TEXT = re.compile(r":(\d{1,4})((?:[:@].*)?)", re.ASCII | re.DOTALL)
"""The side, and the rest, which `Spectral.parse` reads."""


@dataclass(frozen=True)
class Band:
    """The reference of fields of the lowest waves alone, with a spectral reference's amplitudes.

    z has side x side x channels dimensions whatever the image's size, so chains mix far sooner.
    The waves are cosines (see `filters.BandFilter`): unlike the spectral reference's torus, they
    don't tie opposite borders of the image to each other. The colour covariance is that of a pixel,
    averaged over the image.

    The fields have a density within the band, but none among all images. Samplers in z don't need
    one; among NumPyro models, sample `TiltedDensity.whitened`.

    Args:
        side: number of waves along each side of the image, at least 1.
        spectral: the reference whose exponent, colours and contrast the waves take.

    Raises:
        ArgumentError: side is less than 1.

    Examples:
        >>> import ppl_cnn
        >>> band = ppl_cnn.Band(8, ppl_cnn.Spectral(contrast=20.0))
        >>> str(band)
        'band:8@20'
        >>> q = band.distribution((32, 32, 3), ppl_cnn.Preprocessing((0.0,) * 3, (1.0,) * 3))
        >>> q.base_dist.event_shape, q.event_shape
        ((8, 8, 3), (32, 32, 3))
    """

    side: int
    spectral: Spectral = field(default_factory=Spectral)
    push_is_linear: ClassVar = True
    needs_whole_image: ClassVar = True
    is_invertible: ClassVar = True
    params: ClassVar[PyTree] = {}

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.side < 1:
            raise ArgumentError(
                f"A band needs at least 1 wave along each side, not {self.side}.", argument="side"
            )

    def __str__(self) -> str:
        return f"band:{self.side}" + str(self.spectral).removeprefix("spectral")

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference of the text band:SIDE..., which goes on as after spectral."""
        found = _TEXT.fullmatch(rest)
        if found is None:
            raise ValueError(f"{rest!r} gives no number of waves")
        side = int(found[1])
        cls(side)  # refuses an unusable side before photographs are measured
        return cls(side, Spectral.parse(found[2], context))

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        """The distribution q of fields of a (row, col, channel) shape; its base is smaller.

        Raises:
            MismatchError: the images have fewer pixels along a side than the band has waves, or
                neither 1 nor 3 channels.
        """
        if self.side > min(shape[:2]):
            raise MismatchError(
                f"{self} has more waves than images of {shape[0]}x{shape[1]} can hold: give "
                f"band:{min(shape[:2])} or fewer."
            )
        colours = self.spectral.colours(shape[-1], preprocessing)
        waves = BandFilter(self.side, shape, self.spectral.exponent, colours)
        return push_forward((self.side, self.side, shape[-1]), [waves])
