"""The reference whose pixels are squashed into 0..255."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpyro.distributions as dist
from jaxtyping import PyTree

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.reference import Context, Reference, after_colon
from ppl_cnn.models.references.transforms import Squash


@dataclass(frozen=True)
class Bounded:
    """A reference whose pixels are squashed smoothly into 0..255 (see `transforms.Squash`).

    Squashing changes pixels in 40..215 by at most 0.2 grey levels and brings those beyond 0..255
    close to the ends.

    Args:
        reference: an unbounded reference, such as white or spectral noise.

    Raises:
        ArgumentError: the pixels of `reference` are in 0..255 already.

    Examples:
        >>> import jax, ppl_cnn
        >>> bounded = ppl_cnn.Bounded(ppl_cnn.WhiteNoise(500.0))
        >>> str(bounded)
        'bounded:white:500'
        >>> q = bounded.distribution((4, 4, 1), ppl_cnn.Preprocessing((50.0,), (1.0,)))
        >>> x = q.sample(jax.random.key(0))
        >>> bool((x >= -50).all() and (x <= 205).all())
        True
    """

    reference: Reference
    push_is_linear: ClassVar = False
    is_invertible: ClassVar = True

    def __post_init__(self) -> None:
        if not self.reference.push_is_linear:
            raise ArgumentError(
                f"The pixels of {self.reference} are in 0..255 already: leave out bounded.",
                argument="reference",
            )

    def __str__(self) -> str:
        return f"bounded:{self.reference}"

    @property
    def needs_whole_image(self) -> bool:
        """Whether the squashed reference needs the network's whole image."""
        return self.reference.needs_whole_image

    @property
    def params(self) -> PyTree:
        """The weights of the squashed reference."""
        return self.reference.params

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference of the text bounded:REFERENCE (see `Parsed.parse`)."""
        return cls(context.parse(after_colon(rest)))

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        """The distribution q of images of a (row, col, channel) shape."""
        unbounded = self.reference.distribution(shape, preprocessing, params)
        return dist.TransformedDistribution(unbounded, [Squash(preprocessing.mean)])
