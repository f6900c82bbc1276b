"""The maps R that push standard normal noise forward to images, as NumPyro transforms.

Images are in pixel units minus the network's mean, (..., row, col, channel). All three maps are
one to one and safe in float32: neither they nor their log determinants, nor the gradients of
both, are ever NaN or infinite for |z| up to 12 and fields up to 1,000 grey levels.
"""

import math
from abc import abstractmethod
from functools import cache
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
type Covariance = tuple[tuple[float, ...], ...]
"""Of the channels, symmetric."""

WHITE = 255.0
"""The largest pixel; the least is 0."""
SOFTNESS = 10.0
"""Grey levels over which `Squash` bends."""


def push_forward(
    shape: tuple[int, int, int], transforms: list[Transform]
) -> dist.TransformedDistribution:
    """The distribution of R(z), z ~ N(0, I), over images of a (row, col, channel) shape."""
    standard = dist.Normal(0.0, 1.0).expand(shape).to_event(3)
    return dist.TransformedDistribution(standard, transforms)


class SpectralFilter(Transform):
    """R(z) = F^-1 a F z C^(1/2): noise of amplitude a(f) = c/f^exponent and colour covariance C.

    F is the Fourier transform over the rows and columns of the torus that the image is, f the
    frequency's distance from zero in cycles per pixel, C^(1/2) symmetric. Frequency zero has the
    amplitude of the lowest other one, 1/max(row, col): an image's mean brightness varies as much
    as its slowest wave. The constant c makes C the covariance of every pixel's channels. So R is
    symmetric, positive definite and constant, and the field stationary: any crop of it has the
    crop's block of the covariance R^2.

    Args:
        exponent: of the amplitude; the power's is twice that.
        covariance: C, (channel, channel).
    """

    domain = codomain = constraints.independent(constraints.real, 3)

    def __init__(self, exponent: float, covariance: Covariance) -> None:
        self.exponent, self.covariance = exponent, covariance

    def __call__(self, z: Images) -> Images:
        """R(z)."""
        return self._filtered(z, 1)

    def _inverse(self, x: Images) -> Images:
        return self._filtered(x, -1)

    def _filtered(self, x: Images, power: int) -> Images:
        """R^power x."""
        rows, cols, _ = x.shape[-3:]
        waves = jnp.fft.rfft2(x, axes=(-3, -2))
        gain = amplitudes(rows, cols, self.exponent)[:, : cols // 2 + 1] ** power
        gain = gain.reshape((1,) * (x.ndim - 3) + (*gain.shape, 1))
        waves = waves * jnp.asarray(gain, waves.dtype)
        x = jnp.fft.irfft2(waves, (rows, cols), axes=(-3, -2))
        values, vectors = np.linalg.eigh(np.asarray(self.covariance))
        mixing = jnp.asarray((vectors * values ** (power / 2)) @ vectors.T, x.dtype)
        # GPUs would multiply with ten bits, and R^-1 would not be R's inverse.
        return jnp.matmul(x, mixing, precision=jax.lax.Precision.HIGHEST)

    def log_abs_det_jacobian(
        self, x: Images, y: Images, intermediates: Any = None
    ) -> Float[Array, "*batch"]:
        """Log determinant of R."""
        rows, cols, channels = x.shape[-3:]
        _, log_det = np.linalg.slogdet(np.asarray(self.covariance))
        waves = np.log(amplitudes(rows, cols, self.exponent)).sum()
        return jnp.full(x.shape[:-3], channels * waves + rows * cols * log_det / 2, x.dtype)

    def tree_flatten(self) -> Any:
        """No arrays."""
        return (), ((), {"exponent": self.exponent, "covariance": self.covariance})

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map."""
        return isinstance(other, SpectralFilter) and self.tree_flatten() == other.tree_flatten()


@cache
def amplitudes(rows: int, cols: int, exponent: float) -> np.ndarray:
    """a(f) over the torus's frequencies (row, col), in the order of `numpy.fft`; mean square 1."""
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(cols)[None])
    frequency[0, 0] = 1 / max(rows, cols)
    amplitude = frequency**-exponent
    return amplitude / np.sqrt(np.mean(amplitude**2))


class IntoPixels(Transform):
    """A strictly increasing map of every number into the pixels (0, 255), less the mean.

    The density of images with a pixel outside 0..255 is zero. In float32, pixels next to 0 and
    255 are rounded, so there the inverse is only as good as that.

    Args:
        mean: of each channel, in pixels.
    """

    domain = constraints.real

    def __init__(self, mean: tuple[float, ...]) -> None:
        self.mean = mean

    @abstractmethod
    def _pixel(self, x: Images) -> Images:
        """In (0, 255)."""

    @abstractmethod
    def _source(self, pixel: Images) -> Images:
        """What is mapped to that pixel in (0, 255)."""

    @abstractmethod
    def _log_slope(self, x: Images) -> Images:
        """Log derivative of the pixel."""

    def _means(self, x: Images) -> Float[Array, "..."]:
        return jnp.asarray(self.mean, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))

    @property
    def codomain(self) -> constraints.Constraint:
        """The pixels less the mean."""
        mean = np.asarray(self.mean, jnp.result_type(float))[None, None, :]
        return constraints.interval(-mean, WHITE - mean)

    def __call__(self, x: Images) -> Images:
        """R(x)."""
        return self._pixel(x) - self._means(x)

    def _inverse(self, y: Images) -> Images:
        margin = 2.0**-15  # two of float32's steps at 255: one might be rounded away
        return self._source(jnp.clip(y + self._means(y), margin, WHITE - margin))

    def log_abs_det_jacobian(self, x: Images, y: Images, intermediates: Any = None) -> Images:
        """Log derivative of each pixel; infinite, so that the density is zero, outside 0..255."""
        # Rounding is monotone: a pixel in 0..255, less the mean, never passes these.
        least, most = -self._means(y), WHITE - self._means(y)
        return jnp.where((y >= least) & (y <= most), self._log_slope(x), jnp.inf)

    def tree_flatten(self) -> Any:
        """No arrays."""
        return (), ((), {"mean": self.mean})

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map."""
        return type(self) is type(other) and self.tree_flatten() == other.tree_flatten()


class NormalToUniform(IntoPixels):
    """R(z) = 255 Phi(z) - mean."""

    def _pixel(self, x: Images) -> Images:
        return WHITE * ndtr(x)

    def _source(self, pixel: Images) -> Images:
        return ndtri(pixel / WHITE)

    def _log_slope(self, x: Images) -> Images:
        return math.log(WHITE / math.sqrt(2 * math.pi)) - x * x / 2


class Squash(IntoPixels):
    """R(x) = s(x + mean) - mean, where s maps all numbers smoothly into (0, 255).

        s(u) = w log[(1 + e^(u/w)) / (1 + e^((u - 255)/w))],    w = `SOFTNESS` = 10 grey levels

    is the identity to 0.2 in 40..215 and to 1.3 in 20..235, is symmetric about 127.5, and has
    the derivative sigmoid(u/w) sigmoid((255 - u)/w) (1 - e^(-255/w)).
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
