"""The maps R that push standard normal noise forward to images, as NumPyro transforms.

Images are in pixel units minus the network's mean, (..., row, col, channel). All maps are one to
one (`BandFilter` onto a part of all images) and safe in float32: neither they nor their log
determinants, nor the gradients of both, are ever NaN or infinite for |z| up to 12 and fields up to
1,000 grey levels.
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
type Waves = Float[Array, "*batch wave_row wave_col channel"]
"""The amplitudes of a band's cosines."""
type Covariance = tuple[tuple[float, ...], ...]
"""Of the channels, symmetric."""

WHITE = 255.0
"""The largest pixel; the least is 0."""
SOFTNESS = 10.0
"""Grey levels over which `Squash` bends."""


def push_forward(
    shape: tuple[int, int, int], transforms: list[Transform]
) -> dist.TransformedDistribution:
    """The distribution of R(z), z ~ N(0, I) of a (row, col, channel) shape."""
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
        return _coloured(jnp.fft.irfft2(waves, (rows, cols), axes=(-3, -2)), self.covariance, power)

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


class BandFilter(Transform):
    """R(z) = D^T a z C^(1/2): a field of the lowest waves alone, with amplitudes and colours.

    D are the first `side` rows of the orthonormal cosine transform (DCT-II) over the field's rows
    and over its columns. The wave (i, j) has the frequency f = |(i/2 rows, j/2 cols)| in cycles
    per pixel and the amplitude c/f^exponent; the wave (0, 0), which has no frequency, that of the
    lowest other one. The constant c makes C the covariance of a pixel's channels in the mean over
    all pixels; towards the borders, where all waves have a crest or a trough, it is more.

    R is one to one onto the fields of the band, which have no volume among all fields. So the
    inverse of another field is that of its orthogonal projection, log determinants are of R as a
    map onto the band, and the density of fields beside the band is zero.

    Args:
        side: rows and columns of z.
        shape: (row, col, channel) of the field.
        exponent: of the amplitude.
        covariance: C, (channel, channel).
    """

    domain = codomain = constraints.independent(constraints.real, 3)

    def __init__(
        self, side: int, shape: tuple[int, int, int], exponent: float, covariance: Covariance
    ) -> None:
        self.side, self.shape = side, shape
        self.exponent, self.covariance = exponent, covariance

    def __call__(self, z: Waves) -> Images:
        """R(z)."""
        return self._waves(self._scaled(z, 1), "iu,...ijc,jv->...uvc")

    def _inverse(self, x: Images) -> Waves:
        return self._scaled(self._waves(x, "iu,...uvc,jv->...ijc"), -1)

    def _waves(self, x: Array, sums: str) -> Array:
        """To or from the band's waves."""
        down, across = (jnp.asarray(cosines(self.side, size), x.dtype) for size in self.shape[:2])
        return jnp.einsum(sums, down, x, across, precision=jax.lax.Precision.HIGHEST)

    def _scaled(self, z: Waves, power: int) -> Waves:
        """(a z C^(1/2))^power."""
        gain = band_amplitudes(self.side, *self.shape[:2], self.exponent) ** power
        gain = gain.reshape((1,) * (z.ndim - 3) + (*gain.shape, 1))
        return _coloured(z * jnp.asarray(gain, z.dtype), self.covariance, power)

    def log_abs_det_jacobian(
        self, x: Waves, y: Images, intermediates: Any = None
    ) -> Float[Array, "*batch"]:
        """Log determinant of R onto the band; infinite if y is no field of the band."""
        _, log_det = np.linalg.slogdet(np.asarray(self.covariance))
        waves = np.log(band_amplitudes(self.side, *self.shape[:2], self.exponent)).sum()
        total = self.shape[2] * waves + self.side**2 * log_det / 2
        beside = jnp.sum((y - self(x)) ** 2, axis=(-3, -2, -1))
        inside = beside <= _BESIDE**2 * jnp.sum(y**2, axis=(-3, -2, -1))
        return jnp.where(inside, jnp.asarray(total, x.dtype), jnp.inf)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of R(z), for z of a shape."""
        return (*shape[:-3], *self.shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of z, for R(z) of a shape."""
        return (*shape[:-3], self.side, self.side, self.shape[2])

    def _settings(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "shape": self.shape,
            "exponent": self.exponent,
            "covariance": self.covariance,
        }

    def tree_flatten(self) -> Any:
        """No arrays."""
        return (), ((), self._settings())

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map."""
        return isinstance(other, BandFilter) and self.tree_flatten() == other.tree_flatten()


_BESIDE = 1e-3
"""How far a field may be from the band's, in parts of its norm: float32's rounding, many times."""


@cache
def cosines(count: int, size: int) -> np.ndarray:
    """The first waves (wave, pixel) of the orthonormal DCT-II."""
    waves = np.cos(np.pi / size * np.arange(count)[:, None] * (np.arange(size) + 0.5))
    waves *= np.sqrt(2 / size)
    waves[0] /= np.sqrt(2)
    return waves


@cache
def band_amplitudes(side: int, rows: int, cols: int, exponent: float) -> np.ndarray:
    """a over the waves (i, j); their squares' sum is the number of pixels."""
    wave = np.arange(side) / 2
    frequency = np.hypot(wave[:, None] / rows, wave[None] / cols)
    frequency[0, 0] = 1 / (2 * max(rows, cols))
    amplitude = frequency**-exponent
    return amplitude * np.sqrt(rows * cols / np.sum(amplitude**2))


def _coloured(x: Images, covariance: Covariance, power: int) -> Images:
    """x C^(power/2)."""
    values, vectors = np.linalg.eigh(np.asarray(covariance))
    mixing = jnp.asarray((vectors * values ** (power / 2)) @ vectors.T, x.dtype)
    # GPUs would multiply with ten bits, and R^-1 would not be R's inverse.
    return jnp.matmul(x, mixing, precision=jax.lax.Precision.HIGHEST)


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
