"""Starts at given images: photographs, arrays, another run's draws, or the mean image."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.data.image_files import read_pixels
from ppl_cnn.errors import ArgumentError, MismatchError, RunFolderError
from ppl_cnn.inference.runs.record import unit_folder
from ppl_cnn.inference.runs.store import DAMAGE, open_draws
from ppl_cnn.inference.sampling.starts.inversion import POINTS, STEPS, nearest_latent
from ppl_cnn.inference.sampling.starts.start import Placed, Start, UnitChains
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.trained.cnn import preprocess

type Fields = Float[Array, "image field_row field_col channel"]
"""Images of a density's `field_shape`, in pixel units minus the mean."""


@dataclass(frozen=True)
class Zero(Start):
    """All chains start at z = 0, for most references the mean image. Recorded as "zero"."""

    def __str__(self) -> str:
        return "zero"

    def place(self, chains: UnitChains) -> Placed:
        """The origin."""
        chains.bar.update(len(chains.keys))
        return jnp.zeros_like(chains.drawn), 0, {}


class _AtImages(Start):
    """A start at the latents of given images, which the chains take in turn.

    If the reference can't be inverted, they are found by `nearest_latent`.
    """

    @abstractmethod
    def fields(self, density: TiltedDensity) -> Fields:
        """The images, each in a field of the density's `field_shape`."""

    def place(self, chains: UnitChains) -> Placed:
        """The images' latents in turn."""
        density, count = chains.density, len(chains.keys)
        fields, spent = self.fields(density), 0
        if density.reference.is_invertible:
            points = density.pull(fields)
        else:
            images = density.crop(fields[:count])
            find = partial(nearest_latent, chains.compiled, density.params)
            points = jnp.stack([find(image).block_until_ready() for image in images])
            spent = STEPS * POINTS * len(images)
        chains.bar.update(count)
        return points[jnp.arange(count) % len(points)], spent, {}


@dataclass(frozen=True)
class FromRun(_AtImages):
    """Each chain starts at the last draw of a chain of another run. Recorded as "run:FOLDER".

    Chains take the draws in turn. In a run of several units, each starts at its own draws.

    Args:
        folder: the other run's folder. Its images must have the same shape.
    """

    folder: str | Path

    def __str__(self) -> str:
        return f"run:{self.folder}"

    def fields(self, density: TiltedDensity) -> Fields:
        """The other run's last draws. Pixels outside the unit's image are the mean.

        Raises:
            RunFolderError: the folder holds no draws, or they can't be read.
            MismatchError: its images have another shape.
        """
        return _in_field(density, self._images(density))

    def _images(self, density: TiltedDensity) -> Float[Array, "start row col channel"]:
        folder = Path(self.folder)
        own = folder / unit_folder(str(density.unit))
        path = (own if own.is_dir() else folder) / "draws.zarr"
        image = open_draws(path)["posterior/image"]
        if not image.sizes["draw"]:
            raise RunFolderError(
                f"{path} holds no draws yet to start at. Give another `start`.", path=path
            )
        _check_shape(str(path), image.shape[2:], density)
        try:
            return jnp.asarray(image.isel(draw=-1).values)
        except DAMAGE:
            raise RunFolderError(
                f"{path} is damaged: its last draws can't be read. Give another `start`.",
                path=path,
            ) from None


class _Pictures(_AtImages):
    """A start at pictures in memory, which are recorded by a digest."""

    @abstractmethod
    def content(self) -> bytes:
        """The bytes that the digest is of."""

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the pictures."""
        return hashlib.sha256(self.content()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


@dataclass(frozen=True, eq=False)
class Images(_Pictures):
    """Chains start at images of the unit, in turn. Recorded as "images:DIGEST".

    Args:
        images: (image, row, col, channel), in pixel units minus the mean, as a store's
            `posterior/image` and `start/image` have them.

    Raises:
        ArgumentError: that is no float array of images, or has values that are not finite.
    """

    images: Float[Array | np.ndarray, "image row col channel"]

    def __post_init__(self) -> None:
        array = np.asarray(self.images)
        if array.ndim != 4 or not array.size or array.dtype.kind != "f":
            raise ArgumentError(
                f"`start` must be a float array (image, row, col, channel) in pixel units minus "
                f"the mean, not {array.dtype} of shape {array.shape}.",
                argument="start",
            )
        if not np.isfinite(array).all():
            raise ArgumentError("`start` has pixels that are not finite numbers.", argument="start")

    def __str__(self) -> str:
        return f"images:{self.digest}"

    def content(self) -> bytes:
        """The shape and the pixels, as float32."""
        array = np.asarray(self.images, np.float32)
        return str(array.shape).encode() + array.tobytes()

    def fields(self, density: TiltedDensity) -> Fields:
        """The images. Pixels outside the unit's image are the mean.

        Raises:
            MismatchError: the unit's images have another shape.
        """
        _check_shape("`start`", self.images.shape[1:], density)
        return _in_field(density, jnp.asarray(self.images, jnp.float32))


@dataclass(frozen=True, eq=False)
class Photographs(_Pictures):
    """Chains start at photographs, in turn. Recorded as "image:DIGEST", of their pixels.

    Each is brought to the network's image (`preprocess`), and cropped to the unit's.

    Args:
        photographs: uint8 pixels, 0..255, (row, col, 3) each.
    """

    photographs: tuple[np.ndarray, ...]

    @classmethod
    def read(cls, paths: Iterable[str | Path]) -> Self:
        """Photographs from image files.

        Raises:
            FileError: a file is missing, or no image that can be read.
        """
        return cls(tuple(read_pixels(Path(path)) for path in paths))

    def __str__(self) -> str:
        return f"image:{self.digest}"

    def content(self) -> bytes:
        """The pixels of all photographs."""
        return b"".join(pixels.tobytes() for pixels in self.photographs)

    def fields(self, density: TiltedDensity) -> Fields:
        """The photographs."""
        unit = density.unit
        images = [
            preprocess(pixels[None], unit.preprocessing, unit.image_shape)
            for pixels in self.photographs
        ]
        field = jnp.concatenate(images)
        if density.reference.needs_whole_image:
            return field
        rows, cols = unit.rows, unit.cols
        return field[:, rows.start : rows.stop, cols.start : cols.stop]


def _check_shape(holder: str, shape: tuple[int, ...], density: TiltedDensity) -> None:
    if shape != density.unit.shape:
        raise MismatchError(
            f"{holder} has images of shape {shape}, and those of {density.unit} have "
            f"{density.unit.shape}. Start at images of that shape."
        )


def _in_field(density: TiltedDensity, images: Float[Array, "image row col channel"]) -> Fields:
    """Fields with these images of the unit in their places, and the mean around them."""
    if not density.reference.needs_whole_image:
        return images
    rows, cols = density.unit.rows, density.unit.cols
    field = jnp.zeros((len(images), *density.field_shape))
    return field.at[:, rows.start : rows.stop, cols.start : cols.stop].set(images)
