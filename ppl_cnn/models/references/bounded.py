"""A reference whose pixels are squashed into 0..255."""

from dataclasses import dataclass
from typing import ClassVar

import numpyro.distributions as dist

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.reference import Reference
from ppl_cnn.models.references.transforms import Squash


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
