"""The learned reference: a Gaussian with the mean and the covariance of a set of images."""

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.transforms import Images, push_forward

LARGEST = 4096
"""Values of an image, row x col x channel: the factor has the square of that."""
FLOOR = 4.0
"""The least standard deviation in any direction, in grey levels: pixels that are the same in all
images would leave the Gaussian without a density."""
_NAMED = re.compile(r"(.+?)(?:@([0-9a-f]{16}))?", re.DOTALL)


@dataclass(frozen=True)
class Gaussian:
    """N(m, C) with the mean image m and the covariance C of images: R(z) = m + C^(1/2) z.

    Args:
        path: of the file that holds it, for its text.
        digest: of what the file holds.
        mean: m, (row, col, channel), in pixels 0..255; channels as RGB.
        factor: C^(1/2), symmetric and positive definite, between images as flat vectors.
    """

    path: str
    digest: str
    mean: Float[np.ndarray, "row col channel"] = field(compare=False, repr=False)
    factor: Float[np.ndarray, "value value"] = field(compare=False, repr=False)
    linear: ClassVar = True
    whole: ClassVar = True

    def __str__(self) -> str:
        return f"gaussian:{self.path}@{self.digest}"

    @classmethod
    def fit(
        cls, images: np.ndarray, path: Path, contrast: float = 1.0, floor: float = FLOOR
    ) -> Self:
        """Takes mean and covariance from images, and writes the file that holds them.

        Args:
            images: (n, row, col, channel), pixels 0..255; channels as RGB.
            path: of the file, an npz.
            contrast: what the standard deviations are multiplied by.
            floor: the least standard deviation afterwards, in grey levels.

        Raises:
            InputError: there are fewer than two images, or they are too large; or contrast or
                floor isn't positive.
        """
        images = np.asarray(images)
        if images.ndim != 4 or len(images) < 2:
            raise InputError(
                f"A Gaussian is fitted to two or more images (n, row, col, channel), not to an "
                f"array of {images.shape}."
            )
        _check_size(images.shape[1:])
        for name, value in (("contrast", contrast), ("floor", floor)):
            if not 0 < value < float("inf"):
                raise InputError(f"The {name} must be positive and finite, not {value}.")
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
    def load(cls, path: Path) -> Self:
        """Reads what `fit` wrote.

        Raises:
            InputError: the file is missing or holds no Gaussian.
        """
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                mean, factor = file["mean"], file["factor"]
        except FileNotFoundError:
            raise InputError(f"There is no file {str(path)!r} of a Gaussian reference.") from None
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
            raise InputError(f"{str(path)!r} is no file of a Gaussian reference.") from None
        if mean.ndim == 3:
            _check_size(mean.shape)
        if mean.dtype != np.float32 or factor.dtype != np.float32 or not _usable(mean, factor):
            raise InputError(f"{str(path)!r} is no file of a Gaussian reference.")
        digest = hashlib.sha256(mean.tobytes() + factor.tobytes()).hexdigest()[:16]
        return cls(str(path), digest, mean, factor)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference of a text after "gaussian:".

        Args:
            text: FILE.npz or, as in a record, FILE.npz@DIGEST.

        Raises:
            InputError: the file can't be used, or holds another Gaussian than the digest's.
        """
        found = _NAMED.fullmatch(text)
        if found is None:
            raise InputError("Write gaussian:FILE.npz, with a file of ppl_cnn.Gaussian.fit.")
        reference = cls.load(Path(found[1]))
        if found[2] not in (None, reference.digest):
            raise InputError(
                f"{found[1]!r} holds the Gaussian {reference.digest}, not {found[2]}: it has been "
                f"fitted anew."
            )
        return reference

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over images of a (row, col, channel) shape.

        Raises:
            InputError: the Gaussian is of images of another shape.
        """
        if shape != self.mean.shape:
            raise InputError(
                f"{self.path} was fitted to images of {self.mean.shape}, and the network's are "
                f"{shape}."
            )
        return push_forward(shape, [Correlated(self, preprocessing)])


class Correlated(Transform):
    """R(z) = m + C^(1/2) z, less the network's mean, in the order of its channels.

    Args:
        gaussian: m and C.
        preprocessing: the network's.
    """

    domain = codomain = constraints.independent(constraints.real, 3)

    def __init__(self, gaussian: Gaussian, preprocessing: Preprocessing) -> None:
        self.gaussian, self.preprocessing = gaussian, preprocessing

    def __call__(self, z: Images) -> Images:
        """R(z)."""
        image = self._matmul(z, self.gaussian.factor)
        return self._ordered(image + _ranked(self.gaussian.mean, z)) - self._means(z)

    def _inverse(self, x: Images) -> Images:
        image = self._ordered(x + self._means(x)) - _ranked(self.gaussian.mean, x)
        inverse = np.linalg.inv(self.gaussian.factor.astype(np.float64))
        return self._matmul(image, inverse)

    def _matmul(self, images: Images, matrix: np.ndarray) -> Images:
        flat = images.reshape(*images.shape[:-3], -1)
        # GPUs would multiply with ten bits, and R^-1 would not be R's inverse.
        flat = jnp.matmul(
            flat, jnp.asarray(matrix, flat.dtype), precision=jax.lax.Precision.HIGHEST
        )
        return flat.reshape(images.shape)

    def _ordered(self, images: Images) -> Images:
        """From RGB to the network's order, or back."""
        return images[..., ::-1] if self.preprocessing.order == "BGR" else images

    def _means(self, x: Images) -> Array:
        return _ranked(np.asarray(self.preprocessing.mean)[None, None], x)

    def log_abs_det_jacobian(
        self, x: Images, y: Images, intermediates: Any = None
    ) -> Float[Array, "*batch"]:
        """Log determinant of C^(1/2)."""
        _, log_det = np.linalg.slogdet(self.gaussian.factor.astype(np.float64))
        return jnp.full(x.shape[:-3], log_det, x.dtype)

    def tree_flatten(self) -> Any:
        """No arrays: the Gaussian is named by its digest."""
        return (), ((), {"gaussian": self.gaussian, "preprocessing": self.preprocessing})

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map."""
        return isinstance(other, Correlated) and self.tree_flatten() == other.tree_flatten()


def _ranked(image: np.ndarray, like: Images) -> Array:
    """The image with leading axes for a batch of others."""
    return jnp.asarray(image, like.dtype).reshape((1,) * (like.ndim - 3) + image.shape)


def _check_size(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    if not 0 < size <= LARGEST:
        raise InputError(
            f"A Gaussian reference is of images of 1 to {LARGEST:,} values, and these have "
            f"{size:,}: take a spectral one."
        )


def _usable(mean: np.ndarray, factor: np.ndarray) -> bool:
    """Whether they are an image and a symmetric, positive definite matrix."""
    if mean.ndim != 3 or factor.shape != (mean.size, mean.size):
        return False
    if not (np.isfinite(mean).all() and np.isfinite(factor).all()):
        return False
    largest = np.abs(factor).max()
    if np.abs(factor - factor.T).max() > 1e-5 * largest:
        return False
    return bool(np.linalg.eigvalsh(factor.astype(np.float64))[0] > 1e-6 * largest)
