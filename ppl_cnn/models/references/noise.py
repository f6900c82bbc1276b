"""References of independent pixels: white noise and uniform noise."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpyro.distributions as dist
from jaxtyping import PyTree
from numpyro.distributions.transforms import AffineTransform

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.reference import Context, after_colon
from ppl_cnn.models.references.transforms import NormalToUniform, push_forward
from ppl_cnn.numeric import plain_fields, real


@dataclass(frozen=True)
class WhiteNoise:
    """The reference of independent pixels N(0, sigma^2) about the mean image: R(z) = sigma z.

    Args:
        sigma: standard deviation of a pixel in grey levels (pixels are 0..255), > 0.

    Raises:
        ArgumentError: sigma isn't positive and finite.

    Source: Dai, Lu, Wu, Generative modeling of convolutional neural networks, ICLR 2015.

    Examples:
        >>> import ppl_cnn
        >>> white = ppl_cnn.WhiteNoise(10.0)
        >>> str(white)
        'white:10'
        >>> q = white.distribution((28, 28, 1), ppl_cnn.Preprocessing((0.0,), (1.0,), "grey"))
        >>> q.event_shape
        (28, 28, 1)
    """

    sigma: float
    push_is_linear: ClassVar = True
    needs_whole_image: ClassVar = False
    is_invertible: ClassVar = True
    params: ClassVar[PyTree] = {}

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 0 < real("sigma", self.sigma) < float("inf"):
            raise ArgumentError(
                f"The sigma of white noise must be positive and finite, not {self.sigma}.",
                argument="sigma",
            )

    def __str__(self) -> str:
        return f"white:{self.sigma}".removesuffix(".0")

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference of the text white:SIGMA (see `Parsed.parse`)."""
        return cls(float(after_colon(rest)))

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        """The distribution q of images of a (row, col, channel) shape."""
        return push_forward(shape, [AffineTransform(0.0, self.sigma)])


@dataclass(frozen=True)
class Uniform:
    """The reference of independent pixels, uniform in 0..255: R(z) = 255 Phi(z) - mean.

    Phi is the standard normal distribution function.

    Examples:
        >>> import jax, ppl_cnn
        >>> q = ppl_cnn.Uniform().distribution((4, 4, 1), ppl_cnn.Preprocessing((50.0,), (1.0,)))
        >>> x = q.sample(jax.random.key(0))
        >>> bool((x > -50).all() and (x < 205).all())
        True
    """

    push_is_linear: ClassVar = False
    needs_whole_image: ClassVar = False
    is_invertible: ClassVar = True
    params: ClassVar[PyTree] = {}

    def __str__(self) -> str:
        return "uniform"

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference of the text uniform (see `Parsed.parse`)."""
        if rest:
            raise ValueError(f"{rest!r} follows uniform")
        return cls()

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        """The distribution q of images of a (row, col, channel) shape."""
        return push_forward(shape, [NormalToUniform(preprocessing.mean)])
