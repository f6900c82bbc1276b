"""From a pickle's object to tensors by name: state dicts, and what they are wrapped in."""

from collections.abc import Callable, Iterator

import numpy as np

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.pickle_machine import Pairs

ENTRIES = 100_000
"""Largest number of entries that are read: a dict is filled once, but may be an entry of others
many times."""
LETTERS = 1000
"""Bound on the length of a tensor's name."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")


def named(value: object, array_of: Callable[[object], np.ndarray | None]) -> dict[str, np.ndarray]:
    """The tensors of a pickle's object by name.

    A dict that wraps another ({"state_dict": ...}) is opened. In a dict of lists or of dicts, such
    as {"conv1": [kernel, bias]}, the names are conv1.kernel and conv1.bias. Plain data beside the
    tensors, such as an epoch, is left out.

    Args:
        value: the object that `Machine.load` gave.
        array_of: a function that gives the array of a tensor record, and None for anything else.

    Raises:
        ContentError: the object is not a dict of tensors, two tensors have one name, or there are
            too many entries.
    """
    inner = _unwrapped(value)
    if inner is None:
        raise ContentError("contains no dict of tensors by names.")
    found: dict[str, np.ndarray] = {}
    for count, (name, entry) in enumerate(_flat(inner)):
        if count == ENTRIES or len(name) >= LETTERS:
            raise ContentError(
                f"has more than {ENTRIES:,} entries, or names of {LETTERS:,} letters or more."
            )
        array = array_of(entry) if name else None
        if array is not None and name in found:
            raise ContentError(f"contains two tensors named {shown(name)}.")
        if array is not None:
            found[name] = array
    return found


def _unwrapped(value: object) -> Pairs | None:
    """The innermost dict of the wrappers around a state dict; None if there is no dict."""
    for _ in range(len(_WRAPPERS)):
        if not isinstance(value, Pairs):
            return None
        wrapped = [
            entry
            for key, entry in value.entries
            if isinstance(key, str) and key in _WRAPPERS and isinstance(entry, Pairs)
        ]
        if not wrapped:
            return value
        value = wrapped[0]
    return None


def _flat(pairs: Pairs) -> Iterator[tuple[str, object]]:
    """The entries of a dict, and of the lists and dicts in it, one level deep."""
    for key, entry in pairs.entries:
        if isinstance(entry, Pairs):
            inner = entry.entries
        elif isinstance(entry, list | tuple) and len(entry) <= 2:
            inner = list(zip(("kernel", "bias"), entry, strict=False))
        else:
            yield _name(key), entry
            continue
        for name, item in inner:
            yield _name(key, name), item


def _name(*keys: object) -> str:
    """The name that keys make, cut if it is too long already; "" if a key is not text."""
    words = [key[:LETTERS] for key in keys if isinstance(key, str)]
    return ".".join(words) if len(words) == len(keys) else ""
