"""Finds a network's tensors among those of a checkpoint, under whatever prefix they stand."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.models.formats.names import listed, shown

_AVERAGE = re.compile(r"(?i)(.*[_.-])?(ema|swa|polyak|shadow|averaged?|avg|teacher)([_.-].*)?")
"""Parts of names that say that the weights are an average over training."""
_TRAINING = re.compile(
    r"(?i)opt|optim.*|.*optimizers?.*|opt_state|mu|nu|trace|m|v|exp_avg.*|momentum.*|.*grads?|"
    r"gradients?|velocity"
)
"""Parts of names that say that the tensors are an optimizer's, or gradients."""
_WRAPPED = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that PyTorch's wrappers put in, at any place."""


def entry_of(
    tensors: Mapping[str, np.ndarray],
    wanted: Sequence[Collection[str]],
    *,
    source: Path,
    entry: str | None = None,
) -> dict[str, np.ndarray]:
    """The tensors of one network, by the names that follow their common prefix.

    A checkpoint may hold the network under a prefix (`model.module.`), a second network beside it,
    or an average of the weights as well (`model_ema.`). The prefix is found by the network's own
    names. Weights are preferred to their average; the log says so. Where the same weights stand
    under two prefixes, as in checkpoints of adversarial training, they are one network.

    Args:
        tensors: name -> array, of the whole file.
        wanted: for each of the network's weights, the names that it may have in a file.
        source: the file, for messages.
        entry: a part of the prefix, such as "model_ema", where there are several; None chooses.

    Returns:
        All tensors under the prefix, or the given ones if the network stands nowhere whole.

    Raises:
        ArgumentError: the file has no such entry.
        MismatchError: several prefixes fit, and none is to be preferred.
    """
    plain = _unwrapped(tensors, source)
    counts = _counts(plain, wanted)
    if entry is not None:
        return _under(plain, _prefix_of(entry, counts, source))
    whole = [prefix for prefix, slots in counts.items() if len(slots) == len(wanted)]
    whole = [prefix for prefix in whole if not _has(prefix, _TRAINING)] or whole
    if not whole:
        return _under(plain, _likeliest(counts, len(wanted)))
    whole = _different(plain, whole, wanted)
    chosen = [prefix for prefix in whole if not _has(prefix, _AVERAGE)] or whole
    if len(chosen) > 1:
        raise MismatchError(
            f"{source} holds the weights of several such networks: "
            f"{listed(_shown(prefix) for prefix in chosen)}. Say which by `entry`."
        )
    if others := [prefix for prefix in whole if prefix != chosen[0]]:
        logging.getLogger("ppl_cnn").warning(
            "%s: took the weights of %s; it also holds %s (entry).",
            *(source, _shown(chosen[0]), listed(map(_shown, others))),
        )
    return _under(plain, chosen[0])


def _different(
    tensors: Mapping[str, np.ndarray], prefixes: Sequence[str], wanted: Sequence[Collection[str]]
) -> list[str]:
    """The prefixes without those under which the same weights stand as under a shorter one."""
    names = [name for slot in wanted for name in slot]
    different: dict[str, dict[str, np.ndarray]] = {}
    for prefix in sorted(prefixes, key=len):
        own = {name: tensors[prefix + name] for name in names if prefix + name in tensors}
        if not any(_equal(own, other) for other in different.values()):
            different[prefix] = own
    return [*different]


def _equal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(array, other[name]) for name, array in one.items()
    )


def _prefix_of(entry: str, counts: Mapping[str, set[int]], source: Path) -> str:
    """The prefix of which the entry is a part, with most of the network's weights."""
    fitting = [prefix for prefix in counts if f".{entry}." in f".{prefix}"]
    if not fitting:
        known = listed(_shown(prefix) for prefix in counts if prefix)
        raise ArgumentError(
            f"{source} holds no `entry={entry}` with the network's weights. It holds "
            f"{known or 'one network, without entries'}.",
            argument="entry",
        )
    return max(fitting, key=lambda prefix: len(counts[prefix]))


def _unwrapped(tensors: Mapping[str, np.ndarray], source: Path) -> dict[str, np.ndarray]:
    """The tensors without the parts of their names that wrappers put in."""
    plain: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        own = _WRAPPED.sub("", name)
        if own in plain:
            raise MismatchError(f"{source} holds two tensors named {shown(own)}.")
        plain[own] = array
    return plain


def _counts(
    tensors: Mapping[str, np.ndarray], wanted: Sequence[Collection[str]]
) -> dict[str, set[int]]:
    """Prefix -> the indices of the wanted weights that stand under it."""
    slots = {name: index for index, names in enumerate(wanted) for name in names}
    longest = max(map(len, slots), default=0)
    counts: dict[str, set[int]] = {}
    for name in tensors:
        start = max(len(name) - longest, 0)
        for end in (0, *(found.end() for found in re.finditer(r"\.", name))):
            if end >= start and name[end:] in slots:
                counts.setdefault(name[:end], set()).add(slots[name[end:]])
    return counts


def _likeliest(counts: Mapping[str, set[int]], wanted: int) -> str:
    """The prefix with most of the wanted weights, if with half of them; otherwise none."""
    best = max(counts, key=lambda prefix: len(counts[prefix]), default="")
    return best if best and 2 * len(counts[best]) >= wanted else ""


def _under(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def _has(prefix: str, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(part) for part in prefix.split("."))


def _shown(prefix: str) -> str:
    return shown(prefix.rstrip(".")) if prefix else "the file itself"
