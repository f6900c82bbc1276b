"""The Zarr store of a run's draws: grows block by block, and is whole at every moment.

The layout is ArviZ's: groups `posterior` and `sample_stats` with dimensions (chain, draw, ...),
and `stein` with (chain, block, ...); `tempering`, of replicas on a ladder, has both; `start` has
the images at which the chains start. A block's chunks are written first; rewriting the root's
consolidated metadata, a single file, then makes them part of the data. Whoever opens the store,
while it grows or after a kill, sees whole blocks only.
"""

import shutil
import warnings
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.metadata import ArrayV3Metadata

from ppl_cnn.errors import InputError

IMAGE = ("row", "col", "channel")
_GROWING = ("draw", "block")
_WRITING = {
    # Each of Zarr's threads would keep the buffers of the largest chunk that it has written.
    "threading.max_workers": 1,
    "async.concurrency": 1,
    # A chunk of zeros is written too, so that one that isn't there has been lost.
    "array.write_empty_chunks": True,
}
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
"""What zarr and its codecs raise on damaged files."""


class DrawStore:
    """Where a run's draws go.

    Args:
        path: the store's folder.
        block: draws per block; one chunk of every array.
    """

    def __init__(self, path: Path, block: int) -> None:
        self._path, self._block = path, block

    def resume(self) -> xr.DataTree | None:
        """What it holds; None if it isn't there. Files that a kill left half written go.

        Raises:
            InputError: what is there is no store, or a damaged one.
        """
        if not self._path.exists():
            return None
        tree = open_draws(self._path)
        for partial in self._path.rglob("*.partial"):
            partial.unlink()
        return tree

    def create(
        self,
        sizes: Mapping[str, range],
        statistics: Mapping[str, Any],
        config: Mapping[str, Any],
        stein: bool = True,
        start: np.ndarray | None = None,
    ) -> None:
        """Makes the store without draws, aside and renamed.

        Args:
            sizes: coordinates of the dimensions chain, row, col and channel; and, if the draws
                are of replicas on a ladder, rung.
            statistics: name and type of each of the `sample_stats`.
            config: the root's attributes, JSON.
            stein: whether the blocks have Stein means.
            start: the images at which the chains start, (chain, row, col, channel), if known.

        Raises:
            OSError: there is one already, or no room for it.
        """
        variables: dict[str, tuple[tuple[str, ...], Any]] = {
            "posterior/image": (("chain", "draw", *IMAGE), np.float32),
            "posterior/response": (("chain", "draw"), np.float32),
        }
        if stein:
            variables["stein/image"] = (("chain", "block", *IMAGE), np.float32)
            variables["stein/draws"] = (("block",), np.int64)
        if "rung" in sizes:
            variables["tempering/tilt"] = (("chain", "draw", "rung"), np.float32)
            for name in ("strength", "step_size", "angle"):
                variables[f"tempering/{name}"] = (("block", "rung"), np.float32)
        for name, kind in statistics.items():
            variables[f"sample_stats/{name}"] = (("chain", "draw"), kind)
        values: dict[str, np.ndarray] = {}
        if start is not None:
            variables["start/image"] = (("chain", *IMAGE), np.float32)
            values["start/image"] = start
        aside = self._path.with_name(f".{self._path.name}.partial")
        try:
            with zarr.config.set(_WRITING):
                self._create(aside, sizes, variables, values, config)
            aside.rename(self._path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _create(
        self,
        path: Path,
        sizes: Mapping[str, range],
        variables: Mapping[str, Any],
        values: Mapping[str, np.ndarray],
        config: Mapping[str, Any],
    ) -> None:
        root = zarr.open_group(path, mode="w", zarr_format=3, attributes=dict(config))
        for name, (dims, kind) in variables.items():
            group = root.require_group(name.partition("/")[0])
            for dim in dims:
                if dim not in group:
                    self._array(group, dim, (dim,), np.int64, sizes)
            self._array(root, name, dims, kind, sizes)
        for name, known in values.items():
            cast(zarr.Array, root[name])[:] = known
        _publish(path)

    def _array(
        self,
        group: zarr.Group,
        name: str,
        dims: tuple[str, ...],
        kind: Any,
        sizes: Mapping[str, range],
    ) -> None:
        chunks = {"draw": self._block, "block": 1}
        array = group.create_array(
            name,
            shape=tuple(len(sizes.get(dim, ())) for dim in dims),
            chunks=tuple(chunks.get(dim) or len(sizes[dim]) for dim in dims),
            dtype=np.dtype(kind),
            dimension_names=dims,
            fill_value=np.dtype(kind).type(kind is np.bool_),
            compressors=ZstdCodec(checksum=True),
        )
        if name in sizes:
            array[:] = np.asarray(sizes[name])

    def write(self, draws: int, blocks: int, variables: Mapping[str, np.ndarray]) -> None:
        """Adds a block, or writes it again if the run was killed right after it did.

        Args:
            draws: per chain, before it.
            blocks: before it.
            variables: "group/name" -> the block's values.

        Raises:
            InputError: what it holds is damaged.
            OSError: the disk is full; what was published before stays.
        """
        try:
            with zarr.config.set(_WRITING):
                self._write(draws, blocks, variables)
        except OSError:
            raise
        except DAMAGE:
            raise InputError(
                f"{self._path} is damaged, so the run can't be continued; another --out starts "
                f"a new one."
            ) from None

    def _write(self, draws: int, blocks: int, variables: Mapping[str, np.ndarray]) -> None:
        root = zarr.open_group(self._path, mode="r+", use_consolidated=False)
        begin = {"draw": draws, "block": blocks}
        added = {"draw": variables["posterior/response"].shape[1], "block": 1}
        coordinates = {
            f"{group}/{dim}": np.arange(begin[dim], begin[dim] + added[dim])
            for group, dim in product(("posterior", "sample_stats", "stein", "tempering"), _GROWING)
            if f"{group}/{dim}" in root
        }
        for path, values in {**variables, **coordinates}.items():
            array = cast(zarr.Array, root[path])
            dims = cast(ArrayV3Metadata, array.metadata).dimension_names or ()
            axis, dim = next((i, str(dim)) for i, dim in enumerate(dims) if dim in _GROWING)
            end = begin[dim] + added[dim]
            if array.shape[axis] < end:
                array.resize((*array.shape[:axis], end, *array.shape[axis + 1 :]))
            array[(slice(None),) * axis + (slice(begin[dim], end),)] = values
        _publish(self._path)


def _publish(path: Path) -> None:
    """Makes all that was written to a store part of it, by one rename."""
    with warnings.catch_warnings():
        # That version 3 of the format doesn't specify it yet: every reader here knows it.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        zarr.consolidate_metadata(path)


def open_draws(path: Path) -> xr.DataTree:
    """The draws of a store, read when used.

    Raises:
        InputError: there is none, it is not of this package, or a part of it is lost.
    """
    if not path.exists():
        raise InputError(f"{path} holds no draws yet.")
    try:
        tree = xr.open_datatree(path, engine="zarr", consolidated=True)
        lost = _lost(path)
    except DAMAGE:
        tree = xr.DataTree()
    if not {"posterior", "sample_stats"} <= set(tree.children):
        raise InputError(f"{path} is no intact store of ppl_cnn's draws.")
    if "image" not in tree["posterior"].data_vars:
        raise InputError(f"{path} is no store of ppl_cnn's draws: it lacks posterior/image.")
    dims = tree["posterior/image"].dims
    if dims != ("chain", "draw", *IMAGE):
        raise InputError(
            f"{path} is no store of ppl_cnn's draws: posterior/image must have the dimensions "
            f"chain, draw, row, col and channel, not {', '.join(map(str, dims))}."
        )
    if lost is not None:
        raise InputError(f"{path} is damaged: {lost.relative_to(path)} is lost; put it back.")
    return tree


def _lost(path: Path) -> Path | None:
    """A chunk of the published data that isn't there, which Zarr reads as zeros, or is empty."""
    root = zarr.open_group(path, mode="r", use_consolidated=True)
    for name, array in root.members(max_depth=None):
        if not isinstance(array, zarr.Array):
            continue
        metadata = cast(ArrayV3Metadata, array.metadata)
        # Other programs that copy a store leave out chunks of zeros, which are common in
        # coordinates and flags; a lost coordinate does no harm, and a lost flag reads as set.
        if name.rpartition("/")[2] in (metadata.dimension_names or ()) or array.dtype.kind == "b":
            continue
        for index in np.ndindex(array.cdata_shape):
            chunk = path / name / metadata.encode_chunk_key(index)
            if not chunk.is_file() or not chunk.stat().st_size:
                return chunk
    return None
