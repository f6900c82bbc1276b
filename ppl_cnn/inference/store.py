"""The Zarr store of a run's draws: grows block by block, and is whole at every moment.

The layout is ArviZ's: groups `posterior` and `sample_stats` with dimensions (chain, draw, ...),
and `stein` with (chain, block, ...). A block's chunks are written first; rewriting the root's
consolidated metadata, a single file, then makes them part of the data. Whoever opens the store,
while it grows or after a kill, sees whole blocks only.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr
from zarr.core.metadata import ArrayV3Metadata

from ppl_cnn import InputError

_GROWING = ("draw", "block")
_ONE_THREAD = {"threading.max_workers": 1, "async.concurrency": 1}
"""Each of Zarr's threads would keep the buffers of the largest chunk that it has written."""


class DrawStore:
    """Where a run's draws go.

    Args:
        path: the store's folder.
        block: draws per block; one chunk of every array.
    """

    def __init__(self, path: Path, block: int) -> None:
        self._path, self._block = path, block

    def create(
        self,
        sizes: Mapping[str, range],
        statistics: Mapping[str, Any],
        config: Mapping[str, Any],
        stein: bool = True,
    ) -> None:
        """Makes the store empty.

        Args:
            sizes: coordinates of the dimensions chain, row, col and channel.
            statistics: name and type of each of the `sample_stats`.
            config: the root's attributes, JSON.
            stein: whether the blocks have Stein means.
        """
        image = ("row", "col", "channel")
        variables: dict[str, tuple[tuple[str, ...], Any]] = {
            "posterior/image": (("chain", "draw", *image), np.float32),
            "posterior/response": (("chain", "draw"), np.float32),
        }
        if stein:
            variables["stein/image"] = (("chain", "block", *image), np.float32)
            variables["stein/draws"] = (("block",), np.int64)
        for name, kind in statistics.items():
            variables[f"sample_stats/{name}"] = (("chain", "draw"), kind)
        with zarr.config.set(_ONE_THREAD):
            self._create(sizes, variables, config)

    def _create(
        self, sizes: Mapping[str, range], variables: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        root = zarr.open_group(self._path, mode="w", zarr_format=3, attributes=dict(config))
        for path, (dims, kind) in variables.items():
            group = root.require_group(path.partition("/")[0])
            for dim in dims:
                if dim not in group:
                    self._array(group, dim, (dim,), np.int64, sizes)
            self._array(root, path, dims, kind, sizes)
        self._publish()

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
        )
        if name in sizes:
            array[:] = np.asarray(sizes[name])

    def write(self, draws: int, blocks: int, variables: Mapping[str, np.ndarray]) -> None:
        """Adds a block, or writes it again if the run was killed right after it did.

        Args:
            draws: per chain, before it.
            blocks: before it.
            variables: "group/name" -> the block's values.
        """
        with zarr.config.set(_ONE_THREAD):
            self._write(draws, blocks, variables)

    def _write(self, draws: int, blocks: int, variables: Mapping[str, np.ndarray]) -> None:
        root = zarr.open_group(self._path, mode="r+", use_consolidated=False)
        begin = {"draw": draws, "block": blocks}
        added = {"draw": variables["posterior/response"].shape[1], "block": 1}
        coordinates = {
            f"{group}/{dim}": np.arange(begin[dim], begin[dim] + added[dim])
            for group, dim in (("posterior", "draw"), ("sample_stats", "draw"), ("stein", "block"))
            if group in root
        }
        for path, values in {**variables, **coordinates}.items():
            array = cast(zarr.Array, root[path])
            dims = cast(ArrayV3Metadata, array.metadata).dimension_names or ()
            axis, dim = next((i, str(dim)) for i, dim in enumerate(dims) if dim in _GROWING)
            end = begin[dim] + added[dim]
            if array.shape[axis] < end:
                array.resize((*array.shape[:axis], end, *array.shape[axis + 1 :]))
            array[(slice(None),) * axis + (slice(begin[dim], end),)] = values
        self._publish()

    def _publish(self) -> None:
        with warnings.catch_warnings():
            # That version 3 of the format doesn't specify it yet: every reader here knows it.
            warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
            zarr.consolidate_metadata(self._path)


def open_draws(path: Path) -> xr.DataTree:
    """The draws of a store, read when used.

    Raises:
        InputError: there is none, or it is not of this package.
    """
    if not (path / "zarr.json").is_file():
        raise InputError(f"{path} holds no draws yet.")
    try:
        tree = xr.open_datatree(path, engine="zarr", consolidated=True)
    except (ValueError, TypeError, KeyError, OSError):
        tree = xr.DataTree()
    if not {"posterior", "sample_stats"} <= set(tree.children):
        raise InputError(f"{path} is no intact store of ppl_cnn's draws.")
    return tree
