"""Maps R of standard normal noise into images, as NumPyro transforms: pixels in 0..255.

Images are in pixel units minus the network's mean, (..., row, col, channel). The maps here and in
`filters` are one to one (`BandFilter` onto a subspace of images) and safe in float32: for |z| up to
12 and fields up to 1,000 grey levels, the maps, their log determinants and the gradients of both
are finite.
"""

import math
from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

type Images = Float[Array, "*batch row col channel"]
"""Images in pixel units minus the mean."""
type Covariance = tuple[tuple[float, ...], ...]
"""The symmetric covariance of a pixel's channels, in squared grey levels."""

WHITE = 255.0
"""The largest pixel; the least is 0."""
SOFTNESS = 10.0
"""The grey levels over which `Squash` bends."""


def push_forward(
    shape: tuple[int, ...], transforms: list[Transform]
) -> dist.TransformedDistribution:
    """The distribution of R(z), z ~ N(0, I).

    Args:
        shape: of z, (row, col, channel) for maps of images.
        transforms: R, as a chain whose first map is applied first.
    """
    standard = dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape))
    return dist.TransformedDistribution(standard, transforms)


class IntoPixels(Transform):
    """A strictly increasing map of each number to a pixel in (0, 255), minus the mean.

    Images with a pixel outside 0..255 have density zero. Next to 0 and 255, the inverse is as
    exact as float32 rounds the pixels there.

    Args:
        mean: the network's mean of each channel, 0..255.
    """

    domain = constraints.real

    def __init__(self, mean: tuple[float, ...]) -> None:
        self.mean = mean

    @abstractmethod
    def _pixel(self, x: Images) -> Images:
        """The pixel in (0, 255) that a number is mapped to."""

    @abstractmethod
    def _source(self, pixel: Images) -> Images:
        """The number that is mapped to a pixel in (0, 255)."""

    @abstractmethod
    def _log_slope(self, x: Images) -> Images:
        """Log derivative of the pixel with respect to the number."""

    def _means(self, x: Images) -> Float[Array, "..."]:
        return jnp.asarray(self.mean, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))

    @property
    def codomain(self) -> constraints.Constraint:
        """Pixels in 0..255, minus the mean."""
        mean = np.asarray(self.mean, jnp.result_type(float))[None, None, :]
        return constraints.interval(-mean, WHITE - mean)

    def __call__(self, x: Images) -> Images:
        """Maps x to R(x)."""
        return self._pixel(x) - self._means(x)

    def _inverse(self, y: Images) -> Images:
        margin = 2.0**-15  # two float32 steps at 255, as one might be rounded away
        return self._source(jnp.clip(y + self._means(y), margin, WHITE - margin))

    def log_abs_det_jacobian(self, x: Images, y: Images, intermediates: Any = None) -> Images:
        """Log derivative of each pixel.

        It is infinite where y is outside 0..255, which makes the density there zero.
        """
        # Rounding is monotone: a pixel in 0..255, less the mean, never passes these.
        least, most = -self._means(y), WHITE - self._means(y)
        return jnp.where((y >= least) & (y <= most), self._log_slope(x), jnp.inf)

    def tree_flatten(self) -> Any:
        """An empty pytree: the mean is static."""
        return (), ((), {"mean": self.mean})

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map with the same mean."""
        return type(self) is type(other) and self.tree_flatten() == other.tree_flatten()


class NormalToUniform(IntoPixels):
    """R(z) = 255 Phi(z) - mean, with Phi the standard normal distribution function."""

    def _pixel(self, x: Images) -> Images:
        return WHITE * ndtr(x)

    def _source(self, pixel: Images) -> Images:
        return ndtri(pixel / WHITE)

    def _log_slope(self, x: Images) -> Images:
        return math.log(WHITE / math.sqrt(2 * math.pi)) - x * x / 2


class Squash(IntoPixels):
    """R(x) = s(x + mean) - mean, with s a smooth map of all numbers into (0, 255).

        s(u) = w log[(1 + e^(u/w)) / (1 + e^((u - 255)/w))],    w = `SOFTNESS` = 10 grey levels

    s differs from the identity by at most 0.2 in 40..215 and by 1.3 in 20..235. It is symmetric
    about 127.5. Its derivative is sigmoid(u/w) sigmoid((255 - u)/w) (1 - e^(-255/w)).
    """

    def _pixel(self, x: Images) -> Images:
        u = x + self._means(x)
        dark = u < WHITE / 2
        u = jnp.where(dark, u, WHITE - u)  # near 255, the logarithms' difference would be rounded
        soft = jax.nn.softplus(u / SOFTNESS) - jax.nn.softplus((u - WHITE) / SOFTNESS)
        return jnp.where(dark, SOFTNESS * soft, WHITE - SOFTNESS * soft)

    def _source(self, pixel: Images) -> Images:
        below, above = pixel / SOFTNESS, (WHITE - pixel) / SOFTNESS
        bend = jnp.log(-jnp.expm1(-below)) - jnp.log(-jnp.expm1(-above))
        return pixel + SOFTNESS * bend - self._means(pixel)

    def _log_slope(self, x: Images) -> Images:
        u = x + self._means(x)
        ends = jax.nn.log_sigmoid(u / SOFTNESS) + jax.nn.log_sigmoid((WHITE - u) / SOFTNESS)
        return ends + math.log1p(-math.exp(-WHITE / SOFTNESS))
