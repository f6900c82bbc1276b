"""Where a run stands between two calls of its program, and the file that it is resumed from."""

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import RunFolderError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.kernels.adaptation import Tuning
from ppl_cnn.inference.kernels.kernel import Ladder, State, Transition

_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile)
"""What NumPy and zipfile raise on a damaged file."""


class Chains(NamedTuple):
    """Everything that a transition changes."""

    states: State
    """The kernel's state, with a leading axis of chains."""
    tuning: Tuning
    """State of the adaptation, with a leading axis of units."""


class Kept(NamedTuple):
    """The draws of a block and what their transitions report; room for more while it is filled."""

    image: Array
    """(chain, draw, row, col, channel), in pixel units minus the mean."""
    response: Array
    """(chain, draw)"""
    transition: Transition
    """(chain, draw) each, over all transitions since the draw before."""
    stein: Array
    """(chain, row, col, channel): mean of R(grad_z f / T) over the draws, if R is linear."""
    total: Array
    """(chain, ...): sum of the gradients of g over the draws."""
    tilts: Array | None
    """(chain, draw, rung): g of all replicas, the reference's first; None without replicas."""
    ladder: Ladder | None
    """(chain, rung) each: the rungs of the replicas; None without replicas."""

    def variables(
        self, count: int, names: Iterable[str], chains: slice = slice(None), *, stein: bool = True
    ) -> dict[str, np.ndarray]:
        """The first draws of some chains as the store's variables.

        Args:
            count: number of draws.
            names: the `sample_stats` that are wanted.
            chains: the chains of one unit.
            stein: whether the store has Stein means.
        """
        found = {f"sample_stats/{name}": self.transition[name] for name in names}
        found |= {"posterior/image": self.image, "posterior/response": self.response}
        kept = {name: np.asarray(values)[chains, :count] for name, values in found.items()}
        if stein:
            kept["stein/image"] = np.asarray(self.stein)[chains, None]
            kept["stein/draws"] = np.asarray([count])
        if self.tilts is not None and self.ladder is not None:
            kept["tempering/tilt"] = np.asarray(self.tilts)[chains, :count]
            for name, values in self.ladder._asdict().items():
                kept[f"tempering/{name}"] = np.asarray(values)[chains][:1]
        return kept


@dataclass(frozen=True)
class Position:
    """Where a run stands."""

    chains: Chains
    warmup: int
    """Transitions of the warmup that are done."""
    draws: int
    """Draws per chain that are kept so far."""
    blocks: int
    """Whole blocks of kept draws so far."""
    gradients: dict[str, list[int]]
    """Phase -> gradients of each unit's chains together. The phases are "warmup", "sampling" and,
    if it took any, "start"."""
    seconds: dict[str, float]
    """Phase -> seconds; the phases are "compile", "warmup" and "sampling"."""
    written: int
    """Draws per chain in whole blocks: those that the store holds."""
    block: Kept | None = None
    """The block that is being filled with the other draws; None where there are none."""

    @property
    def filled(self) -> int:
        """Draws per chain of the block that is being filled."""
        return self.draws - self.written

    def closed(self) -> Self:
        """The same with the block whole, which has to be written."""
        return replace(self, written=self.draws, blocks=self.blocks + 1, block=None)

    def copied(self, place: jax.sharding.Sharding | None = None) -> Self:
        """A copy on the devices, to be saved while the next call uses these chains up.

        Args:
            place: where the copy lies; by default where the arrays do.
        """
        copy = jax.jit(_copied, out_shardings=place)
        chains, block = copy((self.chains, self.block))
        return replace(self, chains=chains, block=block)


def _copied(arrays: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.copy(_raw(leaf)), arrays)


_COUNTS = ("warmup", "draws", "blocks", "written", "gradients", "seconds")


def save_state(position: Position, path: Path) -> None:
    """Writes a position to a file, aside and renamed: the arrays' leaves in order, and counts.

    Args:
        position: where the run stands.
        path: the file.

    Raises:
        OSError: the file can't be written.
    """
    arrays = jax.tree.map(_raw, (position.chains, position.block))
    text = json.dumps({name: getattr(position, name) for name in _COUNTS})
    stream = io.BytesIO()
    np.savez(stream, *jax.device_get(jax.tree.leaves(arrays)), position=np.asarray(text))
    write_aside(path, stream.getvalue())


def restore_state(
    path: Path, chains: Chains, block: Kept, place: Callable[[Position], Position] = lambda at: at
) -> Position | None:
    """The position in a file; None if there is no file.

    Args:
        path: the file.
        chains: shapes and types of the chains.
        block: shapes and types of a block.
        place: puts the arrays on the devices.

    Raises:
        RunFolderError: the file is damaged, of another version, or of another kernel's chains.
    """
    if not path.exists():
        return None
    try:
        counts = _counts(path)
        begun = counts["draws"] > counts["written"]
        wanted, tree = jax.tree.flatten((chains, block if begun else None))
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            leaves = [file[name] for name in file.files if name != "position"]
        if len(leaves) == len(wanted):
            leaves = [_like(leaf, like) for leaf, like in zip(leaves, wanted, strict=True)]
            found, filled = jax.tree.unflatten(tree, leaves)
            return place(Position(found, **counts, block=filled))
        fault = "is of another version of ppl_cnn"
    except _DAMAGE:
        fault = "is damaged"
    raise RunFolderError(
        f"{path} {fault}, so the run can't be resumed. Its draws are intact; give another `out` "
        f"to start a new run.",
        path=path,
    )


def draws_before(path: Path) -> int:
    """Draws per chain at a stored position; 0 if there is no file, or a damaged one.

    Args:
        path: the file.
    """
    try:
        return int(_counts(path)["draws"])
    except _DAMAGE:
        return 0


def _counts(path: Path) -> dict[str, Any]:
    """A stored position without its arrays."""
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        counts: dict[str, Any] = json.loads(str(file["position"]))
        # Earlier versions saved none but whole blocks.
        return {"written": counts["draws"], **counts}


def _raw(leaf: Array) -> Array:
    """A random key as its bits; any other array as it is."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _like(stored: np.ndarray, wanted: jax.ShapeDtypeStruct) -> Array:
    """The array or random key of that shape and type from its bits."""
    if jnp.issubdtype(wanted.dtype, jax.dtypes.prng_key):
        leaf = jax.random.wrap_key_data(jnp.asarray(stored))
    else:
        leaf = jnp.asarray(stored)
    if leaf.shape != wanted.shape or leaf.dtype != wanted.dtype:
        raise ValueError(f"{leaf.shape} {leaf.dtype} in place of {wanted}")
    return leaf
