"""The Gaussian reference: the mean and the covariance of a set of images."""

import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from ppl_cnn.errors import ArgumentError, FileError, MismatchError
from ppl_cnn.files import read_arrays, write_aside
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.reference import Context, after_colon
from ppl_cnn.models.references.transforms import Images, push_forward
from ppl_cnn.numeric import positive

LARGEST = 4096
"""The most values (row x col x channel) of an image; the factor has the square of that."""
FLOOR = 4.0
"""The least standard deviation in any direction, in grey levels. Without it, pixels that are the
same in all images would leave the Gaussian without a density."""
_NAMED = re.compile(r"(.+?)(?:@([0-9a-f]{16}))?", re.DOTALL)


@dataclass(kw_only=True, frozen=True)
class Gaussian:
    """The reference N(m, C) with the mean image m and the covariance C of images.

    R(z) = m + C^(1/2) z, minus the network's mean. Make one with `fit`, or open one with `load`.

    Args:
        path: the file that holds m and C^(1/2); it stands in the reference's text.
        digest: 16 hexadecimal digits that identify the content of the file.
        mean: m, (row, col, channel), pixels 0..255; three channels are RGB.
        factor: C^(1/2) between images as flat vectors, symmetric and positive definite, in grey
            levels.

    Examples:
        >>> import tempfile, numpy as np, ppl_cnn
        >>> images = np.random.default_rng(0).normal(128.0, 20.0, (500, 2, 2, 1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fitted = ppl_cnn.Gaussian.fit(images, f"{folder}/images.npz")
        >>> fitted.mean.shape
        (2, 2, 1)
        >>> bool(abs(fitted.factor - 20 * np.eye(4)).max() < 3)
        True
    """

    path: str
    digest: str
    mean: Float[np.ndarray, "row col channel"] = field(compare=False, repr=False)
    factor: Float[np.ndarray, "value value"] = field(compare=False, repr=False)
    push_is_linear: ClassVar = True
    needs_whole_image: ClassVar = True
    is_invertible: ClassVar = True
    params: ClassVar[PyTree] = {}

    def __str__(self) -> str:
        return f"gaussian:{self.path}@{self.digest}"

    @classmethod
    def fit(
        cls, images: np.ndarray, path: str | Path, *, contrast: float = 1.0, floor: float = FLOOR
    ) -> Self:
        """Fits mean and covariance to images, and writes the file that holds them.

        Args:
            images: (n, row, col, channel), n >= 2, pixels 0..255; three channels are RGB.
            path: the .npz file to write.
            contrast: factor on the standard deviations, > 0.
            floor: least standard deviation in any direction after that, in grey levels, > 0.

        Raises:
            ArgumentError: there are fewer than two images, they have more than 4,096 values each,
                or contrast or floor isn't positive and finite.
        """
        images = np.asarray(images)
        if images.ndim != 4 or len(images) < 2:
            raise ArgumentError(
                f"`images` must hold two or more images (n, row, col, channel), not an array of "
                f"shape {images.shape}.",
                argument="images",
            )
        if not _fits(images.shape[1:]):
            raise ArgumentError(
                f"A Gaussian reference takes images of 1 to {LARGEST:,} values, not of "
                f"{int(np.prod(images.shape[1:])):,}: use smaller images or a spectral reference.",
                argument="images",
            )
        for name, value in (("contrast", contrast), ("floor", floor)):
            positive(name, value)
        flat = images.reshape(len(images), -1).astype(np.float64)
        values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False).reshape(flat.shape[1], -1))
        spread = np.maximum(contrast * np.sqrt(np.maximum(values, 0.0)), floor)
        mean = flat.mean(axis=0).reshape(images.shape[1:])
        factor = (vectors * spread) @ vectors.T
        stream = io.BytesIO()
        np.savez(stream, mean=mean.astype(np.float32), factor=factor.astype(np.float32))
        write_aside(Path(path), stream.getvalue())
        return cls.load(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a file of `fit`.

        Raises:
            FileError: the file is missing, or isn't one of `fit`.
        """
        strange = FileError(
            f"{str(path)!r} isn't a Gaussian reference: write one with `Gaussian.fit`.", path=path
        )
        try:
            found = read_arrays(Path(path))
            mean, factor = found["mean"], found["factor"]
        except FileNotFoundError:
            raise FileError(f"Gaussian reference {str(path)!r} is missing.", path=path) from None
        except (OSError, ValueError, KeyError):
            raise strange from None
        if mean.dtype != np.float32 or factor.dtype != np.float32 or not _usable(mean, factor):
            raise strange
        digest = hashlib.sha256(mean.tobytes() + factor.tobytes()).hexdigest()[:16]
        return cls(path=str(path), digest=digest, mean=mean, factor=factor)

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference of the text gaussian:FILE.npz or, as in a record, FILE.npz@DIGEST.

        Raises:
            FileError: the file can't be used, or its content has another digest.
        """
        found = _NAMED.fullmatch(after_colon(rest))
        assert found is not None
        reference = cls.load(found[1])
        if found[2] not in (None, reference.digest):
            raise FileError(
                f"{found[1]!r} holds the Gaussian {reference.digest}, not {found[2]}: it was "
                f"fitted again since. Restore the file, or leave out @{found[2]}.",
                path=found[1],
            )
        return reference

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        """The distribution q of images of a (row, col, channel) shape.

        Raises:
            MismatchError: the Gaussian was fitted to images of another shape.
        """
        if shape != self.mean.shape:
            raise MismatchError(
                f"{self.path} was fitted to images of shape {self.mean.shape}, but the network's "
                f"have the shape {shape}."
            )
        return push_forward(shape, [Correlated(self, preprocessing)])


class Correlated(Transform):
    """R(z) = m + C^(1/2) z, minus the network's mean, in the network's channel order.

    Args:
        gaussian: the reference that holds m and C^(1/2).
        preprocessing: the network's mean and channel order.
    """

    domain = codomain = constraints.independent(constraints.real, 3)

    def __init__(self, gaussian: Gaussian, preprocessing: Preprocessing) -> None:
        self.gaussian, self.preprocessing = gaussian, preprocessing

    def __call__(self, z: Images) -> Images:
        """Maps z to R(z)."""
        image = self._matmul(z, self.gaussian.factor)
        return self._ordered(image + _ranked(self.gaussian.mean, z)) - self._means(z)

    def _inverse(self, x: Images) -> Images:
        image = self._ordered(x + self._means(x)) - _ranked(self.gaussian.mean, x)
        inverse = np.linalg.inv(self.gaussian.factor.astype(np.float64))
        return self._matmul(image, inverse)

    def _matmul(self, images: Images, matrix: np.ndarray) -> Images:
        flat = images.reshape(*images.shape[:-3], -1)
        # By default, GPUs multiply with ten bits, and R^-1 would not invert R.
        flat = jnp.matmul(
            flat, jnp.asarray(matrix, flat.dtype), precision=jax.lax.Precision.HIGHEST
        )
        return flat.reshape(images.shape)

    def _ordered(self, images: Images) -> Images:
        """Reorders channels from RGB to the network's order, or back."""
        return images[..., ::-1] if self.preprocessing.order == "BGR" else images

    def _means(self, x: Images) -> Array:
        return _ranked(np.asarray(self.preprocessing.mean)[None, None], x)

    def log_abs_det_jacobian(
        self, x: Images, y: Images, intermediates: Any = None
    ) -> Float[Array, "*batch"]:
        """The log determinant of C^(1/2), the same for all x."""
        _, log_det = np.linalg.slogdet(self.gaussian.factor.astype(np.float64))
        return jnp.full(x.shape[:-3], log_det, x.dtype)

    def tree_flatten(self) -> Any:
        """An empty pytree: the Gaussian is static and identified by its digest."""
        return (), ((), {"gaussian": self.gaussian, "preprocessing": self.preprocessing})

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map for the same network."""
        return isinstance(other, Correlated) and self.tree_flatten() == other.tree_flatten()


def _ranked(image: np.ndarray, like: Images) -> Array:
    """The image with leading axes for a batch of others."""
    return jnp.asarray(image, like.dtype).reshape((1,) * (like.ndim - 3) + image.shape)


def _fits(shape: tuple[int, ...]) -> bool:
    """Whether an image of a shape has few enough values."""
    return 0 < int(np.prod(shape)) <= LARGEST


def _usable(mean: np.ndarray, factor: np.ndarray) -> bool:
    """Whether they are a mean image and a symmetric, positive definite factor."""
    if mean.ndim != 3 or not _fits(mean.shape) or factor.shape != (mean.size, mean.size):
        return False
    if not (np.isfinite(mean).all() and np.isfinite(factor).all()):
        return False
    largest = np.abs(factor).max()
    if np.abs(factor - factor.T).max() > 1e-5 * largest:
        return False
    return bool(np.linalg.eigvalsh(factor.astype(np.float64))[0] > 1e-6 * largest)
