"""Where chains start: at draws of the reference, at the mean image, at photographs or at draws."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image, UnidentifiedImageError

from ppl_cnn import InputError
from ppl_cnn.inference.blocks import Sampling
from ppl_cnn.inference.records import unit_folder
from ppl_cnn.inference.store import DAMAGE, open_draws
from ppl_cnn.models.cnn import preprocess
from ppl_cnn.models.density import TiltedDensity


class Starts:
    """The latents at which chains start.

    Args:
        text: "prior" (each chain at its own draw of the reference), "zero" (at R(0), for most
            references the mean image), "image:FILE" or "image:FILE,FILE,..." (at photographs,
            brought to the network's image and cropped to the unit's), or "run:FOLDER" (at the
            last draw of each chain of another run of images of the same size). Fewer images
            than chains are used in turn. Pixels outside a unit's image start at the mean.

    Raises:
        InputError: the text is none of that, or a file can't be read.
    """

    def __init__(self, text: str) -> None:
        kind, _, value = text.partition(":")
        self._kind, self._folder = kind, Path(value)
        self._photographs: list[np.ndarray] = []
        self.text = text
        """What determines the starts: photographs are named by a digest of their pixels."""
        if kind == "image" and value:
            self._photographs = [_photograph(Path(name)) for name in value.split(",")]
            digest = hashlib.sha256(b"".join(pixels.tobytes() for pixels in self._photographs))
            self.text = f"image:{digest.hexdigest()[:16]}"
        elif text not in ("prior", "zero") and not (kind == "run" and value):
            raise InputError(
                f"{text!r} is no start: write prior, zero, image:FILE (or several, between "
                f"commas) or run:FOLDER."
            )

    def __call__(
        self, densities: Sequence[TiltedDensity], sampling: Sampling
    ) -> Float[Array, "chain row col channel"] | None:
        """The latents of all chains of these densities; None for draws of the reference.

        Raises:
            InputError: the other run's images are of another size, or it has no draws.
        """
        if self._kind == "prior":
            return None
        latents = [self._latents(density) for density in densities]
        turns = [z[jnp.arange(sampling.chains) % len(z)] for z in latents]
        return jnp.concatenate(turns)

    def _latents(self, density: TiltedDensity) -> Float[Array, "start row col channel"]:
        if self._kind == "zero":
            return jnp.zeros((1, *density.latent_shape))
        if self._kind == "run":
            return density.pull(_in_field(density, _last_draws(self._folder, density)))
        unit = density.unit
        images = [
            preprocess(pixels[None], unit.preprocessing, unit.image_shape)
            for pixels in self._photographs
        ]
        field = jnp.concatenate(images)
        if not density.reference.whole:
            rows, cols = unit.rows, unit.cols
            field = field[:, rows.start : rows.stop, cols.start : cols.stop]
        return density.pull(field)


def _photograph(path: Path) -> np.ndarray:
    """Its pixels (row, col, 3)."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"There is no file {path} to start at.") from None
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{path} is no image that can be read.") from None


def _last_draws(folder: Path, density: TiltedDensity) -> Float[Array, "start row col channel"]:
    """The last draw of each chain of another run, of this unit if it is one of several."""
    own = folder / unit_folder(str(density.unit))
    path = (own if own.is_dir() else folder) / "draws.zarr"
    image = open_draws(path)["posterior/image"]
    if not image.sizes["draw"]:
        raise InputError(f"{path} holds no draws yet to start at.")
    if image.shape[2:] != density.unit.shape:
        raise InputError(
            f"{path} holds images of {image.shape[2:]}, and those of {density.unit} are "
            f"{density.unit.shape}: give a run of images of that size."
        )
    try:
        return jnp.asarray(image.isel(draw=-1).values)
    except DAMAGE:
        raise InputError(f"{path} is damaged: its last draws can't be read.") from None


def _in_field(density: TiltedDensity, images: Array) -> Array:
    """Fields with these images of the unit in their places."""
    if not density.reference.whole:
        return images
    rows, cols = density.unit.rows, density.unit.cols
    field = jnp.zeros((len(images), *density.latent_shape))
    return field.at[:, rows.start : rows.stop, cols.start : cols.stop].set(images)
