"""Where a run stands between two blocks, and the file that it is resumed from."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import RunFolderError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.kernels.adaptation import Tuning
from ppl_cnn.inference.kernels.kernel import State

_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile)
"""What NumPy and zipfile raise on a damaged file."""


class Chains(NamedTuple):
    """Everything that a transition changes."""

    states: State
    """The kernel's state, with a leading axis of chains."""
    tuning: Tuning
    """State of the adaptation, with a leading axis of units."""


@dataclass(frozen=True)
class Position:
    """Where a run stands."""

    chains: Chains
    warmup: int
    """Transitions of the warmup that are done."""
    draws: int
    """Draws per chain that are kept so far."""
    blocks: int
    """Blocks of kept draws so far."""
    gradients: dict[str, list[int]]
    """Phase -> gradients of each unit's chains together. The phases are "warmup", "sampling" and,
    if it took any, "start"."""
    seconds: dict[str, float]
    """Phase -> seconds; the phases are "compile", "warmup" and "sampling"."""


def save_state(position: Position, path: Path) -> None:
    """Writes a position to a file, aside and renamed: the chains' leaves in order, and counts.

    Args:
        position: where the run stands.
        path: the file.

    Raises:
        OSError: the file can't be written.
    """
    leaves = jax.tree.leaves(jax.tree.map(_raw, position.chains))
    counts = {name: getattr(position, name) for name in ("warmup", "draws", "blocks")}
    text = json.dumps({**counts, "gradients": position.gradients, "seconds": position.seconds})
    stream = io.BytesIO()
    np.savez(stream, *(np.asarray(leaf) for leaf in leaves), position=np.asarray(text))
    write_aside(path, stream.getvalue())


def restore_state(
    path: Path, like: Chains, place: Callable[[Chains], Chains] = lambda chains: chains
) -> Position | None:
    """The position in a file; None if there is no file.

    Args:
        path: the file.
        like: shapes and types of the chains.
        place: puts the chains on the devices.

    Raises:
        RunFolderError: the file is damaged, or of another kernel's chains.
    """
    if not path.exists():
        return None
    wanted, tree = jax.tree.flatten(like)
    try:
        counts = _counts(path)
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            leaves = [file[f"arr_{index}"] for index in range(len(wanted))]
        leaves = [_like(leaf, like) for leaf, like in zip(leaves, wanted, strict=True)]
        chains: Chains = jax.tree.unflatten(tree, leaves)
        return Position(place(chains), **counts)
    except _DAMAGE:
        raise RunFolderError(
            f"{path} is damaged, so the run can't be resumed. Its draws are intact; give another "
            f"`out` to start a new run.",
            path=path,
        ) from None


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
    """A stored position without its chains."""
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        counts: dict[str, Any] = json.loads(str(file["position"]))
        return counts


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
