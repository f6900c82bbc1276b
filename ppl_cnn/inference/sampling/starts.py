"""Where chains start: at draws of the reference or annealed from there, optima, images or draws."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ppl_cnn.errors import InputError
from ppl_cnn.inference.runs.record import is_two_sided, unit_folder
from ppl_cnn.inference.runs.store import DAMAGE, open_draws
from ppl_cnn.inference.sampling.annealing import PARTICLES, anneal, mean_weight, scouted
from ppl_cnn.inference.sampling.program import chain_keys
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.trained.cnn import preprocess
from ppl_cnn.models.units.views import Averaged

ASCENT = 600
"""Gradients of an optimised start."""
_RATE = 0.4
"""Adam's first one, in z; it falls to 0 as a cosine."""


class Started(NamedTuple):
    """Where the chains of some densities start, and what that took."""

    latents: Float[Array, "chain row col channel"] | None
    """None for draws of the reference, each chain's own."""
    gradients: list[int]
    """Of each unit's chains together."""
    notes: list[dict[str, Any]]
    """For each unit's record."""


class Starts:
    """The latents at which chains start.

    Args:
        text: "prior" (each chain at its own draw of the reference), "rto" (at the optimum next to
            such a draw, see `randomize_then_optimize`), "anneal" or "anneal:M" (at an approximate
            draw of the density, by 16 or M particles of each chain, see `annealing.anneal`),
            "zero" (at R(0), for most references the mean image), "image:FILE" or
            "image:FILE,FILE,..." (at photographs, brought to the network's image and cropped to
            the unit's), or "run:FOLDER" (at the last draw of each chain of another run of images
            of the same size). Fewer images than chains are used in turn. Pixels outside a unit's
            image start at the mean. "two-sided:TEXT" starts the first half of a unit's chains at
            draws of the reference and the others as TEXT says; "two-sided" is "two-sided:rto".

    Raises:
        InputError: the text is none of that, or a file can't be read.
    """

    def __init__(self, text: str) -> None:
        text = "two-sided:rto" if text == "two-sided" else text
        self._two_sided = is_two_sided(text)
        one = text.removeprefix("two-sided:")
        if self._two_sided and one == "prior":
            raise InputError(
                "Both sides would start at draws of the reference: give another --start to "
                "--two-sided, for example rto."
            )
        self._kind, colon, value = one.partition(":")
        self._folder, self._particles = Path(value), PARTICLES
        self._photographs: list[np.ndarray] = []
        valued = {"image": bool(value), "run": bool(value), "anneal": not colon or bool(value)}
        if not valued.get(self._kind, one in ("prior", "rto", "zero")):
            raise InputError(
                f"{one!r} is no start: write prior, rto, anneal (or anneal:M, of M particles), "
                f"zero, image:FILE (or several, between commas) or run:FOLDER."
            )
        if self._kind == "anneal" and value:
            self._particles = _count(value)
        if self._kind == "image":
            self._photographs = [_photograph(Path(name)) for name in value.split(",")]
            digest = hashlib.sha256(b"".join(pixels.tobytes() for pixels in self._photographs))
            one = f"image:{digest.hexdigest()[:16]}"
        self.text = f"two-sided:{one}" if self._two_sided else one
        """What determines the starts: photographs are named by a digest of their pixels."""

    def __call__(self, densities: Sequence[TiltedDensity], sampling: Sampling) -> Started:
        """The latents of all chains of these densities.

        Raises:
            InputError: the other run's images are of another size, or it has no draws; or the
                chains can't be divided into two sides.
        """
        if self._kind == "prior":
            return Started(None, [0] * len(densities), [{} for _ in densities])
        if self._two_sided and sampling.chains % 2:
            raise InputError(
                f"{sampling.chains} chains can't be half at draws of the reference and half "
                f"elsewhere: give an even number of --chains."
            )
        first = sampling.chains // 2 if self._two_sided else 0
        keys = chain_keys(densities, sampling.seed, sampling.chains)
        units, gradients, notes = [], [], []
        total = len(densities) * (sampling.chains - first)
        # Without miniters, what is told between two chains would not be shown.
        with tqdm(
            total=total, desc="starts", unit="chain", delay=2, miniters=0, leave=False
        ) as bar:
            for density, own in zip(densities, keys.reshape(len(densities), -1), strict=True):
                drawn = _reference_draws(density, own)
                side, spent, note = self._side(
                    density, densities[0], own[first:], drawn[first:], bar
                )
                units.append(jnp.concatenate([drawn[:first], side]))
                gradients.append(spent)
                notes.append(note)
        return Started(jnp.concatenate(units), gradients, notes)

    def _side(
        self,
        density: TiltedDensity,
        compiled: TiltedDensity,
        keys: Array,
        drawn: Float[Array, "chain row col channel"],
        bar: Any,
    ) -> tuple[Float[Array, "chain row col channel"], int, dict[str, Any]]:
        """The latents of a unit's chains, gradients and a note, all but draws of the reference.

        Args:
            density: the unit's.
            compiled: that of the first unit, whose program is the same.
            keys: of the chains.
            drawn: each chain's draw of the reference.
            bar: moves on by each chain.
        """
        if self._kind == "rto":
            ascend = partial(_ascended, compiled, density.unit.params)
            moved = [_told(ascend(noise), bar) for noise in drawn]
            return jnp.stack(moved), ASCENT * len(drawn), {}
        if self._kind == "anneal":
            return self._annealed(density, compiled, keys, bar)
        latents = self._latents(density)
        return latents[jnp.arange(len(drawn)) % len(latents)], 0, {}

    def _annealed(
        self, density: TiltedDensity, compiled: TiltedDensity, keys: Array, bar: Any
    ) -> tuple[Float[Array, "chain row col channel"], int, dict[str, Any]]:
        def told(strength: float) -> None:
            bar.set_postfix_str(f"strength {strength:.2g}", refresh=False)
            bar.update(0)

        keys = jax.vmap(partial(jax.random.fold_in, data=2))(keys)
        scouts = jax.random.split(jax.random.fold_in(keys[0], 1), max(PARTICLES, self._particles))
        ladder, gradients = scouted(compiled, density.unit.params, scouts, told)
        found = [
            _told(anneal(compiled, density.unit.params, key, ladder, self._particles, told), bar)
            for key in keys
        ]
        log_z = np.asarray([each.log_z for each in found])
        note: dict[str, Any] = {
            "particles": self._particles,
            "strengths": ladder.strengths.tolist(),
            "log_z": log_z.tolist(),
        }
        if len(found) > 1:
            estimate, effective = mean_weight(log_z)
            note |= {**estimate._asdict(), "effective": effective}
        gradients += sum(each.gradients for each in found)
        return jnp.stack([each.z for each in found]), gradients, {"annealing": note}

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
        if not density.reference.needs_whole_image:
            rows, cols = unit.rows, unit.cols
            field = field[:, rows.start : rows.stop, cols.start : cols.stop]
        return density.pull(field)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 1):
        raise InputError(
            f"'anneal:{text}' is no start: write anneal:M with M particles, at least 2."
        )
    return int(text)


def _told[T](found: T, bar: Any) -> T:
    """What was found, with the bar moved on once it has been."""
    jax.block_until_ready(found)
    bar.update(1)
    return found


def _reference_draws(density: TiltedDensity, keys: Array) -> Float[Array, "chain row col channel"]:
    keys = jax.vmap(partial(jax.random.fold_in, data=1))(keys)
    return jax.vmap(partial(jax.random.normal, shape=density.latent_shape))(keys)


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


_ascended = jax.jit(randomize_then_optimize, static_argnums=0)


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
    if not density.reference.needs_whole_image:
        return images
    rows, cols = density.unit.rows, density.unit.cols
    field = jnp.zeros((len(images), *density.field_shape))
    return field.at[:, rows.start : rows.stop, cols.start : cols.stop].set(images)
