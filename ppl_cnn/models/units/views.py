"""A unit's response averaged over fixed views of the image: warped, and with noise added.

What a network sees in one view only, such as an adversarial pattern of pixels, averages out. The
views are a part of the density: they are drawn once, from a seed of their own, and so exactly
that all machines have the same ones.
"""

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.networks.multilinear import Form, derivative
from ppl_cnn.models.units.scored import Image, Scored

TURN = 25.0
"""The largest rotation, in degrees, either way."""
SCALES = (0.45, 2.0)
"""The least and the largest magnification."""
SHIFT = 0.3
"""The largest shift, as a part of the image's rows or columns, either way."""

type Traced = Float[Array, ""]

_FINENESS = 2.0**20
"""What is computed by a machine's own library is rounded to parts of this."""


class Warp(NamedTuple):
    """An image, mirrored or not, then turned, magnified and shifted about its centre; what lies
    beyond the border is the image reflected, and between pixels it is bilinear.

    The pixel at p of the warped image is the image at c + A (p - c - t), with c the centre, t the
    shift and A a rotation divided by the scale.
    """

    angle: float
    """In degrees, clockwise as images are shown."""
    scale: float
    shift: tuple[float, float]
    """(row, col), as parts of the image's rows and columns."""
    mirrored: bool = False
    """Left and right exchanged first."""

    @classmethod
    def drawn(cls, count: int, seed: int) -> list["Warp"]:
        """Random ones: angle and shift uniform, the scale in its logarithm; every second one is
        mirrored. A larger count begins with the same ones."""
        draw = random.Random(seed).uniform
        least, largest = map(math.log, SCALES)
        return [
            cls(
                draw(-TURN, TURN),
                math.exp(draw(least, largest)),
                (draw(-SHIFT, SHIFT), draw(-SHIFT, SHIFT)),
                number % 2 == 1,
            )
            for number in range(count)
        ]

    def taps(
        self, rows: int, cols: int
    ) -> tuple[Int[np.ndarray, "4 pixel"], Float[np.ndarray, "4 pixel"]]:
        """The four pixels, counted row by row, that each pixel of the warped image is made of, and
        their weights."""
        turn = math.radians(self.angle)
        along, across = _rounded(math.cos(turn) / self.scale), _rounded(math.sin(turn) / self.scale)
        centre = (rows - 1) / 2, (cols - 1) / 2
        shift = _rounded(self.shift[0] * rows), _rounded(self.shift[1] * cols)
        row, col = np.mgrid[:rows, :cols].astype(np.float64).reshape(2, -1)
        row, col = row - (centre[0] + shift[0]), col - (centre[1] + shift[1])
        at_row, at_col = (
            centre[0] + (along * row - across * col),
            centre[1] + (across * row + along * col),
        )
        if self.mirrored:
            at_col = cols - 1 - at_col
        first_row, first_col = np.floor(at_row), np.floor(at_col)
        beyond_row, beyond_col = at_row - first_row, at_col - first_col
        index, weight = [], []
        for down, row_weight in ((0, 1 - beyond_row), (1, beyond_row)):
            for right, col_weight in ((0, 1 - beyond_col), (1, beyond_col)):
                pixel_row = _reflected(first_row.astype(int) + down, rows)
                index.append(pixel_row * cols + _reflected(first_col.astype(int) + right, cols))
                weight.append(row_weight * col_weight)
        return np.array(index), np.array(weight)


def _rounded(value: float) -> float:
    return round(value * _FINENESS) / _FINENESS


def _reflected(index: Int[np.ndarray, " pixel"], size: int) -> Int[np.ndarray, " pixel"]:
    """Of the endless row d c b a | a b c d | d c b a, the place of each pixel in the middle."""
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def taps_of(warps: Sequence[Warp], rows: int, cols: int) -> dict[str, Array]:
    """What `warped` needs: the taps of all warps, and those of the transposed map.

    Both are lists of gathers, each of one pixel for every pixel: `from` and `weight` (warp, tap,
    pixel) make the warped images; `to` and `share` (tap, pixel) collect what a pixel has given to
    them, of all warps together, so that the gradient needs no scatter.
    """
    pairs = [warp.taps(rows, cols) for warp in warps]
    index, weight = (np.stack(parts) for parts in zip(*pairs, strict=True))
    back = [_transposed(*pair) for pair in pairs]
    pixels = rows * cols
    to = np.concatenate([each + number * pixels for number, (each, _) in enumerate(back)])
    share = np.concatenate([each for _, each in back])
    return {
        "from": jnp.asarray(index, jnp.int32),
        "weight": jnp.asarray(weight, jnp.float32),
        "to": jnp.asarray(to, jnp.int32),
        "share": jnp.asarray(share, jnp.float32),
    }


def _transposed(
    index: Int[np.ndarray, "4 pixel"], weight: Float[np.ndarray, "4 pixel"]
) -> tuple[Int[np.ndarray, "tap pixel"], Float[np.ndarray, "tap pixel"]]:
    """Which warped pixels each pixel is in and with which weights, filled up with weights of 0."""
    taps, pixels = index.shape
    order = np.argsort(index, axis=None, kind="stable")
    source = index.ravel()[order]
    number = np.arange(len(order)) - np.searchsorted(source, source)
    to = np.zeros((number.max() + 1, pixels), int)
    share = np.zeros(to.shape)
    to[number, source] = np.tile(np.arange(pixels), taps)[order]
    share[number, source] = weight.ravel()[order]
    return to, share


def warped(image: Image, taps: Mapping[str, Array]) -> Float[Array, "warp row col channel"]:
    """The warped images.

    Its gradient is made of gathers as well, one after another: with 192x192 pixels and 4 warps, it
    takes 3 ms on a CPU core, and the scatter that autodiff would emit 5. It also adds in one
    order, as a GPU's scatter does not. It is linear in the image; the taps have no gradient.

    Args:
        image: (row, col, channel), in any unit.
        taps: what `taps_of` returns for images of that size.
    """
    return derivative(
        _Warping(), 1, image, taps["from"], taps["weight"], taps["to"], taps["share"]
    )


@dataclass(frozen=True)
class _Warping(Form):
    """The bilinear form <g, warped(image)> of an image and of an image for each warp."""

    slots: ClassVar[int] = 2

    @override
    def derivative(self, slot: int, *operands: Array) -> Array:
        """Collects an image from given views (0), or warps an image (1)."""
        return (self._collected, self._warped)[slot](*operands)

    def _warped(self, image: Array, index: Array, weight: Array, to: Array, share: Array) -> Array:
        pixels = image.reshape(-1, image.shape[-1])
        parts = [pixels[index[:, tap]] * weight[:, tap, :, None] for tap in range(4)]
        return sum(parts[1:], parts[0]).reshape(-1, *image.shape)

    def _collected(self, g: Array, index: Array, weight: Array, to: Array, share: Array) -> Array:
        rows, cols, channels = g.shape[1:]
        given = g.reshape(-1, channels)

        def collect(total: Array, tap: tuple[Array, Array]) -> tuple[Array, None]:
            to, share = tap
            return total + given[to] * share[:, None], None

        nothing = jnp.zeros((rows * cols, channels), g.dtype)
        total, _ = jax.lax.scan(collect, nothing, (to, share))
        return total.reshape(rows, cols, channels)


def traced_warp(key: Array) -> tuple[Traced, Traced, tuple[Traced, Traced], Bool[Array, ""]]:
    """The numbers of a random warp, distributed as those of `Warp.drawn`."""
    turn, size, down, right, side = jax.random.uniform(key, (5,), minval=-1.0)
    least, largest = map(math.log, SCALES)
    scale = jnp.exp((least + largest + size * (largest - least)) / 2)
    return TURN * turn, scale, (SHIFT * down, SHIFT * right), side > 0


def warped_by(
    image: Image,
    angle: Traced,
    scale: Traced,
    shift: tuple[Traced, Traced],
    mirrored: Bool[Array, ""],
) -> Image:
    """The image under one warp (see `Warp`), whose numbers may be traced: `warped` without taps."""
    rows, cols = image.shape[:2]
    centre = (rows - 1) / 2, (cols - 1) / 2
    turn = jnp.deg2rad(angle)
    along, across = jnp.cos(turn) / scale, jnp.sin(turn) / scale
    row, col = jnp.arange(rows, dtype=image.dtype), jnp.arange(cols, dtype=image.dtype)
    row = row[:, None] - (centre[0] + shift[0] * rows)
    col = col[None, :] - (centre[1] + shift[1] * cols)
    at_col = centre[1] + across * row + along * col
    at_col = jnp.where(mirrored, cols - 1 - at_col, at_col)
    places = [centre[0] + along * row - across * col, at_col]
    channels = [
        jax.scipy.ndimage.map_coordinates(channel, places, order=1, mode="reflect")
        for channel in jnp.unstack(image, axis=2)
    ]
    return jnp.stack(channels, axis=2)


@dataclass(frozen=True)
class Averaged:
    """A unit whose response is averaged over fixed random warps of its image.

        f(x) = 1/K sum_k f_unit(W_k x + sigma n_k)

    W_k are `Warp.drawn`: up to 25 degrees, 0.45 to 2 times, 30 % of the image, every second
    one mirrored; n_k is standard normal noise. A target of a class is taken of each view before
    the mean. Of a filter, its own receptive field is warped. Source of the noise: Cohen, Rosenfeld,
    Kolter, Certified adversarial robustness via randomized smoothing, ICML 2019.

    Args:
        unit: of a network, or a `Response`.
        warps: K, at least 2.
        smooth: sigma, in pixel units; 0 for none.
        seed: of warps and noise.

    Raises:
        InputError: there are too few warps, or sigma can't be used.
    """

    unit: Scored
    warps: int
    smooth: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.warps < 2:
            raise InputError(f"A mean is over at least 2 warps, not {self.warps}.")
        if not 0 <= self.smooth < float("inf"):
            raise InputError(
                f"The noise that smooths must have a finite sigma of at least 0, not {self.smooth}."
            )

    def __str__(self) -> str:
        return str(self.unit)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The unit's."""
        return self.unit.shape

    @property
    def rows(self) -> range:
        """The unit's."""
        return self.unit.rows

    @property
    def cols(self) -> range:
        """The unit's."""
        return self.unit.cols

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The unit's."""
        return self.unit.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The unit's."""
        return self.unit.preprocessing

    @property
    def params(self) -> Params:
        """The unit's and, as `views`, what makes the views."""
        views = _views(self.shape, self.warps, self.smooth, self.seed)
        return {**self.unit.params, "views": views}

    @property
    def program(self) -> Hashable:
        """The unit's, and the views."""
        return self.unit.program, self.warps, self.smooth, self.seed

    @property
    def settings(self) -> dict[str, Any]:
        """The unit's, and the views."""
        views = {"warps": self.warps, "smooth": self.smooth, "views_seed": self.seed}
        return {**self.unit.settings, **views}

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image)."""
        views = warped(image, params["views"])
        if self.smooth:
            views = views + params["views"]["noise"]
        return jnp.mean(jax.vmap(partial(self.unit.score, params))(views))

    def glimpse(self, params: Params, image: Image, key: Array) -> Float[Array, ""]:
        """The unit's response to one random view, at the cost of one.

        Its mean over keys is what f comes to as the number of warps grows: an ascent by a new
        key each step doesn't learn the few fixed warps by heart.
        """
        key_warp, key_noise = jax.random.split(key)
        view = warped_by(image, *traced_warp(key_warp))
        if self.smooth:
            view = view + self.smooth * jax.random.normal(key_noise, view.shape)
        return self.unit.score(params, view)


@lru_cache(32)
def _views(
    shape: tuple[int, int, int], warps: int, smooth: float, seed: int
) -> Mapping[str, Array]:
    """Taps and noise; the same arrays for all units with images of that shape."""
    # It may be asked for first in a function that is being traced.
    with jax.ensure_compile_time_eval():
        views = taps_of(Warp.drawn(warps, seed), *shape[:2])
        if smooth:
            noise = np.random.default_rng(seed).standard_normal((warps, *shape))
            noise = np.round(noise * 2.0**10) / 2.0**10
            views["noise"] = jnp.asarray(smooth * noise, jnp.float32)
        return views


def averaged(unit: Scored, warps: int, smooth: float = 0.0) -> Scored:
    """The unit over that many warps; itself for 0 or 1, the image as it is.

    Raises:
        InputError: noise is asked for without warps, or a number can't be used.
    """
    if warps < 0:
        raise InputError(f"The number of warps must be at least 0, not {warps}.")
    if warps > 1:
        return Averaged(unit, warps, smooth)
    if smooth:
        raise InputError(
            f"Noise smooths over the views of warps, and there are none: give --warps 2 or more "
            f"with --smooth {smooth:g}."
        )
    return unit
