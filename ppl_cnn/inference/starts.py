"""Where chains start: at draws of the reference, optima, the mean image, photographs or draws."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ppl_cnn import InputError
from ppl_cnn.inference.blocks import Sampling, chain_keys
from ppl_cnn.inference.records import unit_folder
from ppl_cnn.inference.store import DAMAGE, open_draws
from ppl_cnn.models.cnn import preprocess
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.network import Params
from ppl_cnn.models.views import Averaged

ASCENT = 400
"""Gradients of an optimised start."""
_RATE = 0.4
"""Adam's first one, in z; it falls to 0 as a cosine."""


class Starts:
    """The latents at which chains start.

    Args:
        text: "prior" (each chain at its own draw of the reference), "rto" (at the optimum next to
            such a draw, see `randomize_then_optimize`), "two-sided" (the first half of the chains
            as "prior", the others as "rto"), "zero" (at R(0), for most references the mean image),
            "image:FILE" or "image:FILE,FILE,..." (at photographs, brought to the network's image
            and cropped to the unit's), or "run:FOLDER" (at the last draw of each chain of another
            run of images of the same size). Fewer images than chains are used in turn. Pixels
            outside a unit's image start at the mean.

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
        elif text not in ("prior", "rto", "two-sided", "zero") and not (kind == "run" and value):
            raise InputError(
                f"{text!r} is no start: write prior, rto, two-sided, zero, image:FILE (or "
                f"several, between commas) or run:FOLDER."
            )

    def __call__(
        self, densities: Sequence[TiltedDensity], sampling: Sampling
    ) -> Float[Array, "chain row col channel"] | None:
        """The latents of all chains of these densities; None for draws of the reference.

        Raises:
            InputError: the other run's images are of another size, or it has no draws; or the
                chains can't be divided into two sides.
        """
        if self._kind == "prior":
            return None
        if self._kind in ("rto", "two-sided"):
            return self._optimised(densities, sampling)
        latents = [self._latents(density) for density in densities]
        turns = [z[jnp.arange(sampling.chains) % len(z)] for z in latents]
        return jnp.concatenate(turns)

    def gradients(self, sampling: Sampling) -> int:
        """What the starts of a unit's chains take."""
        if self._kind not in ("rto", "two-sided"):
            return 0
        return ASCENT * (sampling.chains - self._first_moved(sampling))

    def _first_moved(self, sampling: Sampling) -> int:
        """The first of a unit's chains that doesn't start at its draw of the reference."""
        return sampling.chains // 2 if self._kind == "two-sided" else 0

    def _optimised(
        self, densities: Sequence[TiltedDensity], sampling: Sampling
    ) -> Float[Array, "chain row col channel"]:
        """Draws of the reference, all or the second half of them moved to optima."""
        if self._kind == "two-sided" and sampling.chains % 2:
            raise InputError(
                f"{sampling.chains} chains can't be half at draws of the reference and half at "
                f"optima: give an even number of --chains."
            )
        keys = jax.vmap(partial(jax.random.fold_in, data=1))(
            chain_keys(densities, sampling.seed, sampling.chains)
        )
        shape = densities[0].latent_shape
        latents = jax.vmap(partial(jax.random.normal, shape=shape))(keys)
        first = self._first_moved(sampling)
        ascend = jax.jit(partial(randomize_then_optimize, densities[0]))
        moved = [chain for chain in range(len(latents)) if chain % sampling.chains >= first]
        for chain in tqdm(moved, "optimising starts", unit="chain", delay=2, leave=False):
            params = densities[chain // sampling.chains].unit.params
            latents = latents.at[chain].set(ascend(params, latents[chain]))
        return latents

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


def randomize_then_optimize(
    density: TiltedDensity, params: Params, noise: Float[Array, "row col channel"]
) -> Float[Array, "row col channel"]:
    """The latent z that minimises |z - z_0|^2/2 - g(z) next to a draw z_0 of N(0, I), by Adam.

    That is a draw of the density if g is linear, and else a start where it is high. If the unit is
    averaged over fixed views, g is that of another random view at each step, at the cost of one.

    Args:
        density: of whose program the unit is.
        params: the unit's weights.
        noise: z_0.

    Source: Bardsley, Solonen, Haario, Laine, Randomize-then-optimize: a method for sampling from
    posterior distributions in nonlinear inverse problems, SIAM J. Sci. Comput. 36, 2014.
    """
    rule = optax.adam(optax.cosine_decay_schedule(_RATE, ASCENT))
    views = jax.random.key(0)

    def tilt(z: Array, index: Array) -> Array:
        unit = density.unit
        if not isinstance(unit, Averaged):
            return density.tilt(z, params)
        key = jax.random.fold_in(views, index)
        return unit.glimpse(params, density.push(z), key) / density.temperature

    def step(index: Array, carry: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
        z, state = carry
        descent, state = rule.update(z - noise - jax.grad(tilt)(z, index), state)
        return optax.apply_updates(z, descent), state

    return jax.lax.fori_loop(0, ASCENT, step, (noise, rule.init(noise)))[0]


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
    field = jnp.zeros((len(images), *density.field_shape))
    return field.at[:, rows.start : rows.stop, cols.start : cols.stop].set(images)
