"""Reads the stored draws, and keeps of the images what a diagnosis and its page need."""

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Float32, Int

from ppl_cnn.errors import ArgumentError, FileError
from ppl_cnn.inference.diagnostics.thresholds import MIN_DRAWS
from ppl_cnn.inference.runs.store import DAMAGE, open_draws
from ppl_cnn.progress import Bar

_PROJECTIONS = 50
_GRID = 3
_BLOCK_BYTES = 2**28
_NEEDED = ("posterior/image", "posterior/response")
_OF_CHAINS = (
    "sample_stats/lp",
    "sample_stats/energy",
    "sample_stats/acceptance_rate",
    "sample_stats/diverging",
)
_OF_RESAMPLING = ("weights/tilt", "sample_stats/proposal", "heaviest/image")


def read(folder: Path) -> xr.DataTree:
    """Opens the draws of a run; images stay on disk until they are used.

    Args:
        folder: a run of `ppl_cnn.sample`, finished or not.

    Returns:
        `posterior` with `image` (chain, draw, row, col, channel) in pixel units minus the mean
        and `response` (chain, draw); `sample_stats` (chain, draw); and, where the reference has a
        Stein mean, `stein` with `image` (chain, block, row, col, channel) and `draws` (block).

    Raises:
        FileError: the store of draws is missing, damaged, or not one of this package.
    """
    path = folder / "draws.zarr"
    tree = open_draws(path)
    missing = missing_variable(tree)
    if missing is not None:
        raise FileError(f"{path} is not a store of ppl_cnn's draws: it lacks {missing}.", path=path)
    return tree


def missing_variable(tree: xr.DataTree) -> str | None:
    """The first variable that a diagnosis needs and `tree` lacks, as `group/name`, or None."""
    own: tuple[str, ...] = _OF_RESAMPLING if "weights" in tree.children else _OF_CHAINS
    for name in (*_NEEDED, *own):
        group, _, leaf = name.partition("/")
        if group not in tree.children or leaf not in tree.children[group].dataset:
            return name
    return None


def variable(tree: xr.DataTree, path: str) -> xr.DataArray:
    """The variable of a tree at the path `group/name`."""
    group, name = path.split("/")
    return tree.children[group].dataset[name]


def loaded(array: xr.DataArray) -> np.ndarray:
    """The values of a stored array.

    Raises:
        FileError: a chunk of the store is damaged.
    """
    try:
        return array.values
    except DAMAGE as error:
        draws = array.coords["draw"].values if "draw" in array.coords else []
        which = f" of the draws {draws[0]} to {draws[-1]}" if len(draws) else ""
        raise FileError(
            f"The stored {array.name}{which} can't be read: the store is damaged "
            f"({_first_line(error)}).",
            path=array.encoding.get("source", "draws.zarr"),
        ) from None


def _first_line(error: Exception) -> str:
    line = (str(error) or type(error).__name__).splitlines()[0]
    return textwrap.shorten(line, 100, placeholder=" ...").rstrip(".")


class Scan(NamedTuple):
    """What one pass over the stored images keeps, in pixel units minus the mean."""

    projections: Float[np.ndarray, "chain draw projection"]
    """Inner products of each image with 50 fixed random directions of about unit length."""
    pixels: Float32[np.ndarray, "chain draw pixel"]
    """Values of a regular grid of pixels."""
    places: Int[np.ndarray, "pixel 3"]
    """Row, column and channel of each of these pixels, counted in the stored image."""
    mean: Float[np.ndarray, "chain row col channel"]
    """The mean image of each chain's draws."""
    shown: Float32[np.ndarray, "chain shown row col channel"]
    """Whole images of a few draws, evenly spread over the run."""
    running: Float32[np.ndarray, "chain shown row col channel"]
    """The mean of each chain's draws up to and including each of the shown draws."""
    shown_draws: Int[np.ndarray, " shown"]
    """The number of each shown draw."""


def scan(tree: xr.DataTree, shown: int = 8) -> Scan:
    """Reads all images once, block by block, so that memory stays flat in the number of draws.

    Args:
        tree: the draws, as `read` or `ppl_cnn.draw` returns them.
        shown: how many draws of each chain to keep whole.

    Raises:
        ArgumentError: there are fewer than 4 draws per chain, or no chain.
        FileError: a chunk of the store is damaged.
    """
    image = variable(tree, "posterior/image")
    chains, draws, *shape = image.shape
    if draws < MIN_DRAWS or not chains:
        raise ArgumentError(
            f"The run holds {draws} draws per chain so far, but a diagnosis needs at least "
            f"{MIN_DRAWS}. Rerun with `draws={MIN_DRAWS}` or more.",
            argument="draws",
        )
    directions = _directions(math.prod(shape))
    places = _places(shape)
    spread = np.unique(np.linspace(0, draws - 1, min(shown, draws)).round().astype(int))
    projections = np.empty((chains, draws, directions.shape[1]))
    pixels = np.empty((chains, draws, len(places)), np.float32)
    total = np.zeros((chains, *shape))
    kept = np.empty((chains, len(spread), *shape), np.float32)
    running = np.empty_like(kept)
    for here, block in image_blocks(tree, "reading draws"):
        pixels[:, here] = block[:, :, *places.T]
        shown_here = np.flatnonzero((spread >= here.start) & (spread < here.stop))
        with np.errstate(invalid="ignore", over="ignore"):
            projections[:, here] = block.reshape(chains, block.shape[1], -1) @ directions
            done = 0
            for number in shown_here:
                kept[:, number] = block[:, spread[number] - here.start]
                end = spread[number] + 1 - here.start
                total += block[:, done:end].sum(axis=1, dtype=np.float64)
                running[:, number] = total / (spread[number] + 1)
                done = end
            total += block[:, done:].sum(axis=1, dtype=np.float64)
    return Scan(projections, pixels, places, total / draws, kept, running, spread)


def image_blocks(
    tree: xr.DataTree, doing: str
) -> Iterator[tuple[slice, Float32[np.ndarray, "chain draw row col channel"]]]:
    """Reads the stored images a block of draws at a time, with a bar from two seconds on.

    Args:
        tree: the draws, as `read` or `ppl_cnn.draw` returns them.
        doing: what the bar says.

    Yields:
        Which draws the block holds, and their images.

    Raises:
        FileError: a chunk of the store is damaged.
    """
    image = variable(tree, "posterior/image")
    draws, step = image.sizes["draw"], _block(image)
    for start in Bar(range(0, draws, step), doing, delay=2, unit="block", leave=False):
        here = slice(start, min(start + step, draws))
        yield here, loaded(image.isel(draw=here))


def _directions(size: int) -> Float32[np.ndarray, "size projection"]:
    # The same for every run of that image size, so that projections of two runs compare.
    normal = np.random.default_rng(0).standard_normal((size, _PROJECTIONS), np.float32)
    return normal / np.float32(math.sqrt(size))


def _places(shape: list[int]) -> Int[np.ndarray, "pixel 3"]:
    rows, cols = (
        np.unique(((np.arange(_GRID) + 0.5) / _GRID * size).astype(int)) for size in shape[:2]
    )
    # The middle channel: green in RGB as in BGR.
    grid = np.meshgrid(rows, cols, shape[2] // 2, indexing="ij")
    return np.stack([axis.ravel() for axis in grid], axis=1)


def _block(image: xr.DataArray) -> int:
    """Draws to read at once: the store's chunk, or fewer where that is too large."""
    chunks = image.encoding.get("chunks") or (0, 16)
    bytes_per_draw = max(1, image.nbytes // image.shape[1])
    return max(1, min(chunks[1], _BLOCK_BYTES // bytes_per_draw))
