"""Linear maps R of normal noise into fields with a power-law spectrum, as NumPyro transforms.

`transforms` says what they have in common with the maps there.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from ppl_cnn.models.references.transforms import Covariance, Images

type Waves = Float[Array, "*batch wave_row wave_col channel"]
"""Amplitudes of a band's cosines."""


class SpectralFilter(Transform):
    """R(z) = F^-1 a F z C^(1/2): noise of amplitude a(f) = c/f^exponent and colour covariance C.

    F is the Fourier transform over rows and columns, which treats the image as a torus; f is the
    absolute frequency in cycles per pixel; C^(1/2) is symmetric. Frequency zero takes the amplitude
    of the lowest other frequency, 1/max(row, col), so that the image's mean brightness varies as
    much as its slowest wave. The constant c makes C the covariance of every pixel's channels.

    R is a symmetric, positive definite matrix and the field is stationary: a crop of the field has
    the crop's block of the covariance R^2.

    Args:
        exponent: exponent of the amplitude; the power's is twice as large.
        covariance: C, (channel, channel), in squared grey levels.
    """

    domain = codomain = constraints.independent(constraints.real, 3)

    def __init__(self, exponent: float, covariance: Covariance) -> None:
        self.exponent, self.covariance = exponent, covariance

    def __call__(self, z: Images) -> Images:
        """Maps z to R(z)."""
        return self._filtered(z, 1)

    def _inverse(self, x: Images) -> Images:
        return self._filtered(x, -1)

    def _filtered(self, x: Images, power: int) -> Images:
        """Applies R^power to x."""
        rows, cols, _ = x.shape[-3:]
        waves = jnp.fft.rfft2(x, axes=(-3, -2))
        gain = amplitudes(rows, cols, self.exponent)[:, : cols // 2 + 1] ** power
        gain = gain.reshape((1,) * (x.ndim - 3) + (*gain.shape, 1))
        waves = waves * jnp.asarray(gain, waves.dtype)
        return _coloured(jnp.fft.irfft2(waves, (rows, cols), axes=(-3, -2)), self.covariance, power)

    def log_abs_det_jacobian(
        self, x: Images, y: Images, intermediates: Any = None
    ) -> Float[Array, "*batch"]:
        """The log determinant of R, the same for all x."""
        rows, cols, channels = x.shape[-3:]
        _, log_det = np.linalg.slogdet(np.asarray(self.covariance))
        waves = np.log(amplitudes(rows, cols, self.exponent)).sum()
        return jnp.full(x.shape[:-3], channels * waves + rows * cols * log_det / 2, x.dtype)

    def tree_flatten(self) -> Any:
        """An empty pytree: the settings are static."""
        return (), ((), {"exponent": self.exponent, "covariance": self.covariance})

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map with the same settings."""
        return isinstance(other, SpectralFilter) and self.tree_flatten() == other.tree_flatten()


@cache
def amplitudes(rows: int, cols: int, exponent: float) -> np.ndarray:
    """The amplitudes a(f) over the torus's frequencies (row, col).

    They are in the order of `numpy.fft`; their mean square is 1.
    """
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(cols)[None])
    frequency[0, 0] = 1 / max(rows, cols)
    amplitude = frequency**-exponent
    scaled: np.ndarray = amplitude / np.sqrt(np.mean(amplitude**2))
    return scaled


class BandFilter(Transform):
    """R(z) = D^T a z C^(1/2): a field of its lowest waves alone, of amplitude a(f) = c/f^exponent.

    D holds the first `side` waves of the orthonormal cosine transform (DCT-II) over rows and over
    columns. The wave (i, j) has the frequency f = |(i/2 rows, j/2 cols)| in cycles per pixel. The
    wave (0, 0) takes the amplitude of the lowest other frequency. The constant c makes C the
    covariance of a pixel's channels, averaged over all pixels; it is larger towards the borders,
    where every wave has a crest or a trough.

    R is one to one onto the band, a subspace of fields without volume. Hence the inverse first
    projects a field onto the band orthogonally, the log determinant is that of R as a map onto the
    band, and the density outside the band is zero.

    Args:
        side: rows and columns of z.
        shape: (row, col, channel) of the field.
        exponent: exponent of the amplitude.
        covariance: C, (channel, channel), in squared grey levels.
    """

    domain = codomain = constraints.independent(constraints.real, 3)

    def __init__(
        self, side: int, shape: tuple[int, int, int], exponent: float, covariance: Covariance
    ) -> None:
        self.side, self.shape = side, shape
        self.exponent, self.covariance = exponent, covariance

    def __call__(self, z: Waves) -> Images:
        """Maps z to R(z)."""
        return self._waves(self._scaled(z, 1), "iu,...ijc,jv->...uvc")

    def _inverse(self, x: Images) -> Waves:
        return self._scaled(self._waves(x, "iu,...uvc,jv->...ijc"), -1)

    def _waves(self, x: Array, sums: str) -> Array:
        """The field of the waves' amplitudes x, or the amplitudes of a field x."""
        down, across = (jnp.asarray(cosines(self.side, size), x.dtype) for size in self.shape[:2])
        return jnp.einsum(sums, down, x, across, precision=jax.lax.Precision.HIGHEST)

    def _scaled(self, z: Waves, power: int) -> Waves:
        """Multiplies z by the amplitudes and by C^(1/2), both to a power."""
        gain = band_amplitudes(self.side, *self.shape[:2], self.exponent) ** power
        gain = gain.reshape((1,) * (z.ndim - 3) + (*gain.shape, 1))
        return _coloured(z * jnp.asarray(gain, z.dtype), self.covariance, power)

    def log_abs_det_jacobian(
        self, x: Waves, y: Images, intermediates: Any = None
    ) -> Float[Array, "*batch"]:
        """The log determinant of R as a map onto the band.

        It is infinite where y is not in the band, which makes the density there zero.
        """
        _, log_det = np.linalg.slogdet(np.asarray(self.covariance))
        waves = np.log(band_amplitudes(self.side, *self.shape[:2], self.exponent)).sum()
        total = self.shape[2] * waves + self.side**2 * log_det / 2
        beside = jnp.sum((y - self(x)) ** 2, axis=(-3, -2, -1))
        inside = beside <= _BESIDE**2 * jnp.sum(y**2, axis=(-3, -2, -1))
        return jnp.where(inside, jnp.asarray(total, x.dtype), jnp.inf)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of R(z), given that of z."""
        return (*shape[:-3], *self.shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of z, given that of R(z)."""
        return (*shape[:-3], self.side, self.side, self.shape[2])

    def _settings(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "shape": self.shape,
            "exponent": self.exponent,
            "covariance": self.covariance,
        }

    def tree_flatten(self) -> Any:
        """An empty pytree: the settings are static."""
        return (), ((), self._settings())

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map with the same settings."""
        return isinstance(other, BandFilter) and self.tree_flatten() == other.tree_flatten()


_BESIDE = 1e-3
"""Largest distance from the band of a field in it, relative to its norm: many float32 steps."""


@cache
def cosines(count: int, size: int) -> np.ndarray:
    """The first waves of the orthonormal cosine transform (DCT-II).

    Args:
        count: number of waves.
        size: number of pixels.

    Returns:
        (count, size).
    """
    waves = np.cos(np.pi / size * np.arange(count)[:, None] * (np.arange(size) + 0.5))
    waves *= np.sqrt(2 / size)
    waves[0] /= np.sqrt(2)
    return waves


@cache
def band_amplitudes(side: int, rows: int, cols: int, exponent: float) -> np.ndarray:
    """The amplitudes over a band's waves (side, side).

    The sum of their squares is the number of pixels, rows times cols.
    """
    wave = np.arange(side) / 2
    frequency = np.hypot(wave[:, None] / rows, wave[None] / cols)
    frequency[0, 0] = 1 / (2 * max(rows, cols))
    amplitude = frequency**-exponent
    scaled: np.ndarray = amplitude * np.sqrt(rows * cols / np.sum(amplitude**2))
    return scaled


def _coloured(x: Images, covariance: Covariance, power: int) -> Images:
    """Multiplies the channels of x by C^(power/2)."""
    values, vectors = np.linalg.eigh(np.asarray(covariance))
    mixing = jnp.asarray((vectors * values ** (power / 2)) @ vectors.T, x.dtype)
    # By default, GPUs multiply with ten bits, and R^-1 would not invert R.
    return jnp.matmul(x, mixing, precision=jax.lax.Precision.HIGHEST)
