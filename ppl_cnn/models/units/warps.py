"""Warps of images: mirror, turn, magnify and shift, with gradients made of gathers.

Random warps are drawn from a seed of their own and rounded so that all machines have the same ones.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.models.networks.multilinear import Form, derivative
from ppl_cnn.models.units.score_function import Image

TURN = 25.0
"""The largest rotation, in degrees, either way."""
SCALES = (0.45, 2.0)
"""The least and the largest magnification."""
SHIFT = 0.3
"""The largest shift, as a part of the image's rows or columns, either way."""

type Traced = Float[Array, ""]

_FINENESS = 2.0**20
"""Results of a machine's own sine and cosine are rounded to multiples of 1 over this."""


class Warp(NamedTuple):
    """An affine map of images: mirror, then turn, magnify and shift about the centre.

    Beyond the border the image is reflected, and between pixels it is bilinear. The pixel at p of
    the warped image is the image at c + A (p - c - t), with c the centre, t the shift and A a
    rotation divided by the scale.
    """

    angle: float
    """The rotation in degrees, clockwise as images are shown."""
    scale: float
    shift: tuple[float, float]
    """The shift (row, col), as fractions of the image's rows and columns."""
    mirrored: bool = False
    """Whether left and right are exchanged first."""

    @classmethod
    def drawn(cls, count: int, seed: int) -> list["Warp"]:
        """Random warps: angle, shift and the logarithm of the scale are uniform.

        Every second warp is mirrored. A larger count begins with the same warps.
        """
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
        """The four pixels that each pixel of the warped image is made of, and their weights.

        Pixels are counted row by row.
        """
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
    """The pixels of a b c d at indices of the endless row d c b a | a b c d | d c b a."""
    index = index % (2 * size)
    reflected: Int[np.ndarray, " pixel"] = np.minimum(index, 2 * size - 1 - index)
    return reflected


def taps_of(warps: Sequence[Warp], rows: int, cols: int) -> dict[str, Array]:
    """The taps of all warps and of their transposed map, as `warped` needs them.

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
    """The warped pixels that each pixel goes into, and their weights, padded with weights of 0."""
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
    return derivative(_Warping(), 1, image, taps["from"], taps["weight"], taps["to"], taps["share"])


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
    """The five numbers of a random warp (see `Warp`), distributed as those of `Warp.drawn`."""
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
    """The image under one warp (see `Warp`), whose numbers may be traced."""
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
