"""The Zarr store of a run's draws, `draws.zarr`: it grows block by block.

The layout is ArviZ's. The groups `posterior` and `sample_stats` have dimensions (chain, draw, ...),
`stein` has (chain, block, ...), and `tempering`, of a tempered run's replicas, has both; `start`
has the images at which the chains start. A run by resampling has `weights` (proposal) and images of
the `heaviest` proposals; it and a run under a generator have images of the `reference`.

A block's chunks are written first, in several processes by each those of its own chains. Then one
rename publishes them: that of the root's consolidated metadata, a single file. So a reader sees
whole blocks only, while the store grows and after a kill.
"""

import contextlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, override

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore

from ppl_cnn.errors import RunFolderError

IMAGE = ("row", "col", "channel")
"""An image's dimensions."""
_GROUPS = ("posterior", "sample_stats", "stein", "tempering")
"""The groups whose arrays grow along draw or block."""
_WRITING = {
    # Each of Zarr's threads would keep the buffers of the largest chunk that it has written.
    "threading.max_workers": 1,
    "async.concurrency": 1,
    # A chunk of zeros is written too, so that one that isn't there has been lost.
    "array.write_empty_chunks": True,
}
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
"""What Zarr and its codecs raise on damaged files."""


class DrawStore:
    """The store that a run writes its draws to.

    Args:
        path: the store's folder.
        block: draws per chain in a block, which is a chunk of every array.
        chains: chains in a chunk; by default all. Processes must not write to one chunk.
    """

    def __init__(self, path: Path, block: int, chains: int | None = None) -> None:
        self._path, self._block, self._chains = path, block, chains

    def resume(self) -> xr.DataTree | None:
        """The draws that the store holds, or None if there is no store.

        Deletes files that a kill has left half written.

        Raises:
            RunFolderError: the path holds no store, or a damaged one.
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
        *,
        stein: bool = True,
        start: np.ndarray | None = None,
        known: Mapping[str, tuple[tuple[str, ...], np.ndarray]] | None = None,
    ) -> None:
        """Makes the store, without draws. It is written aside and renamed.

        Args:
            sizes: coordinates of the dimensions chain, row, col and channel; and rung, for a
                tempered run.
            statistics: name and dtype of each of the `sample_stats`.
            config: the root's attributes, as JSON.
            stein: whether each block has a Stein mean.
            start: the images at which the chains start, (chain, row, col, channel), in pixel
                units minus the mean, if they are known.
            known: "group/name" -> dimensions and values of other arrays that don't grow.

        Raises:
            OSError: there is a store already, or the disk is full.
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
        known = dict(known or {})
        if start is not None:
            known["start/image"] = (("chain", *IMAGE), start)
        values = {name: array for name, (_, array) in known.items()}
        own = dict[str, Mapping[str, range]]()
        for name, (dims, array) in known.items():
            variables[name] = dims, array.dtype
            own[name] = {**dict(zip(dims, map(range, array.shape), strict=True)), **sizes}
        aside = self._path.with_name(f".{self._path.name}.partial")
        try:
            with zarr.config.set(_WRITING):
                self._create(
                    aside, {**dict.fromkeys(variables, sizes), **own}, variables, values, config
                )
            aside.rename(self._path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _create(
        self,
        path: Path,
        sizes: Mapping[str, Mapping[str, range]],
        variables: Mapping[str, Any],
        values: Mapping[str, np.ndarray],
        config: Mapping[str, Any],
    ) -> None:
        root = zarr.open_group(_on_disk(path), mode="w", zarr_format=3, attributes=dict(config))
        for name, (dims, kind) in variables.items():
            group = root.require_group(name.partition("/")[0])
            for dim in dims:
                if dim not in group:
                    self._array(group, dim, (dim,), np.int64, sizes[name])
            self._array(root, name, dims, kind, sizes[name])
        for name, known in values.items():
            cast("zarr.Array[Any]", root[name])[:] = known
        _publish(path)

    def _array(
        self,
        group: zarr.Group,
        name: str,
        dims: tuple[str, ...],
        kind: Any,
        sizes: Mapping[str, range],
    ) -> None:
        chunks = {"draw": self._block, "block": 1, **{dim: len(sizes[dim]) for dim in sizes}}
        if self._chains and name not in sizes:
            chunks["chain"] = self._chains
        array = group.create_array(
            name,
            shape=tuple(len(sizes.get(dim, ())) for dim in dims),
            chunks=tuple(chunks[dim] for dim in dims),
            dtype=np.dtype(kind),
            dimension_names=dims,
            fill_value=np.dtype(kind).type(kind is np.bool_),
            compressors=ZstdCodec(checksum=True),
        )
        if name in sizes:
            array[:] = np.asarray(sizes[name])

    def write(self, draws: int, blocks: int, variables: Mapping[str, np.ndarray]) -> None:
        """Adds a block of all chains. One that was written right before a kill is written again.

        Args:
            draws: draws per chain before the block.
            blocks: blocks before it.
            variables: "group/name" -> the block's values.

        Raises:
            RunFolderError: the store is damaged.
            OSError: the disk is full. The blocks before stay readable.
        """
        self.write_chunks(draws, blocks, variables)
        self.publish(draws, blocks, variables["posterior/response"].shape[1])

    def write_chunks(
        self, draws: int, blocks: int, variables: Mapping[str, np.ndarray], *, chain: int = 0
    ) -> None:
        """Writes a block of some chains, which `publish` then adds to the store.

        Args:
            draws: draws per chain before the block.
            blocks: blocks before it.
            variables: "group/name" -> the block's values.
            chain: the first of these chains; what has no chains is written with chain 0.

        Raises:
            RunFolderError: the store is damaged.
            OSError: the disk is full. The blocks before stay readable.
        """
        begin = {"draw": draws, "block": blocks, "chain": chain}
        with self._opened(_ChunksAlone(self._path)) as root:
            for path, values in variables.items():
                array = cast("zarr.Array[Any]", root[path])
                dims = _dimensions(array)
                if chain and "chain" not in dims:
                    continue
                first = [begin.get(dim, 0) for dim in dims]
                ends = [start + size for start, size in zip(first, values.shape, strict=True)]
                array.resize(tuple(map(max, array.shape, ends)))
                array[tuple(map(slice, first, ends))] = values

    def publish(self, draws: int, blocks: int, added: int) -> None:
        """Adds a block, all of whose chunks are written, to the store.

        Args:
            draws: draws per chain before the block.
            blocks: blocks before it.
            added: its draws per chain.

        Raises:
            RunFolderError: the store is damaged.
            OSError: the disk is full. The blocks before stay readable.
        """
        begin, end = {"draw": draws, "block": blocks}, {"draw": draws + added, "block": blocks + 1}
        with self._opened(_on_disk(self._path)) as root:
            growing = [root[name] for name in _GROUPS if name in root]
            for name, array in (one for group in growing for one in group.arrays()):
                dims = _dimensions(array)
                sizes = [end.get(dim, size) for dim, size in zip(dims, array.shape, strict=True)]
                array.resize(tuple(map(max, array.shape, sizes)))
                if name in begin:
                    array[begin[name] : end[name]] = np.arange(begin[name], end[name])
            _publish(self._path)

    @contextlib.contextmanager
    def _opened(self, store: LocalStore) -> Iterator[Any]:
        """The root group, to write to."""
        try:
            with zarr.config.set(_WRITING):
                yield zarr.open_group(store, mode="r+", use_consolidated=False)
        except OSError:
            raise
        except DAMAGE:
            raise RunFolderError(
                f"{self._path} is damaged, so the run can't be resumed. Give another `out` to "
                f"start a new one.",
                path=self._path,
            ) from None


class _ChunksAlone(LocalStore):
    """A store on disk whose chunks can be written, while its metadata stay as they are there.

    One process writes the metadata, and all processes their chunks.
    """

    @override
    async def set(self, key: str, value: Buffer) -> None:
        if not key.endswith("zarr.json"):
            await super().set(key, value)


def _dimensions(array: "zarr.Array[Any]") -> tuple[str, ...]:
    names = cast(ArrayV3Metadata, array.metadata).dimension_names or ()
    return tuple(map(str, names))


def _on_disk(path: Path) -> LocalStore:
    """The store at a path; of a bare path, xarray and Zarr read # and :: as a part of a URL."""
    return LocalStore(path)


def _publish(path: Path) -> None:
    """Makes all chunks that were written part of the store, by one rename."""
    with warnings.catch_warnings():
        # Zarr's version 3 doesn't specify consolidated metadata yet; all readers here know it.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        zarr.consolidate_metadata(_on_disk(path))


def open_draws(path: Path) -> xr.DataTree:
    """The draws of a store, as ArviZ's tree. Arrays are read when they are used.

    Args:
        path: the store, `draws.zarr` in a run's folder.

    Raises:
        RunFolderError: there is no store, it is not of this package, or a part of it is lost.
    """
    if not path.exists():
        raise RunFolderError(
            f"{path.parent} holds no draws yet. Give the folder of a run that has drawn.",
            path=path,
        )
    try:
        tree = xr.open_datatree(cast(Any, _on_disk(path)), engine="zarr", consolidated=True)
        tree.encoding["source"] = str(path)  # as xarray says it of a path
        lost = _lost(path)
    except DAMAGE:
        tree = xr.DataTree()
    if not {"posterior", "sample_stats"} <= set(tree.children):
        raise RunFolderError(
            f"{path} is no intact store of ppl_cnn's draws. Restore it, or make a new run.",
            path=path,
        )
    if "image" not in tree["posterior"].data_vars:
        raise RunFolderError(
            f"{path} is no store of ppl_cnn's draws: it lacks posterior/image. Give a run of "
            f"ppl_cnn.",
            path=path,
        )
    dims = tree["posterior/image"].dims
    if dims != ("chain", "draw", *IMAGE):
        raise RunFolderError(
            f"{path} is no store of ppl_cnn's draws: posterior/image has the dimensions "
            f"{', '.join(map(str, dims))}. It must have chain, draw, row, col and channel.",
            path=path,
        )
    if lost is not None:
        raise RunFolderError(
            f"{path} is damaged: {lost.relative_to(path)} is lost. Restore that file.", path=path
        )
    return tree


def _lost(path: Path) -> Path | None:
    """A published chunk whose file is missing, which Zarr would read as zeros, or empty."""
    root = zarr.open_group(_on_disk(path), mode="r", use_consolidated=True)
    for name, array in root.members(max_depth=None):
        if not isinstance(array, zarr.Array):
            continue
        metadata = cast(ArrayV3Metadata, array.metadata)
        # Programs that copy a store may leave out chunks of zeros. Those are common in coordinates,
        # whose loss does no harm, and in flags, which read as set when they are lost.
        if name.rpartition("/")[2] in (metadata.dimension_names or ()) or array.dtype.kind == "b":
            continue
        for index in np.ndindex(array.cdata_shape):
            chunk = path / name / metadata.encode_chunk_key(index)
            if not chunk.is_file() or not chunk.stat().st_size:
                return chunk
    return None
