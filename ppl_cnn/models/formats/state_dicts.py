"""From a pickle's object to tensors by name: the mapping that holds them, wherever it lies."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.pickle_machine import Pairs, Placeholder

ENTRIES = 100_000
"""Largest number of entries that are looked at: a dict is filled once, but may be an entry of
others many times."""
DEPTH = 24
"""Bound on dicts within dicts; a module's object has two for each part within a part."""
LETTERS = 1000
"""Bound on the length of a tensor's name."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params", "state", "module")
_PARTS = {"kernel", "weight", "weights", "bias", "biases"}
"""Names within a layer: what holds only these is a layer, unless its own name is a wrapper's."""
_MODULE = ("_parameters", "_buffers", "_modules")
"""The attributes in which PyTorch's modules hold tensors and parts."""

type Path = tuple[str, ...]
"""The keys that lead to an entry."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A tensor whose numbers are stored in a way that is not read."""

    kind: str
    """What the tensor is: "sparse"."""
    call: str
    """What makes a plain tensor of it in PyTorch: ".to_dense()"."""


def named(value: object, array_of: Callable[[object], np.ndarray | None]) -> dict[str, np.ndarray]:
    """The tensors of a pickle's object by name.

    Dicts are searched at any depth, and so are the attributes of modules and other objects, which
    are never made. If all weights lie in one dict ({"epoch": 3, "state_dict": {...}}), names begin
    there; otherwise they begin at the object, as in model.conv1.weight and model_ema.conv1.weight.
    In a dict of pairs or of dicts, such as {"conv1": [kernel, bias]}, names are conv1.kernel and
    conv1.bias. Plain data beside the tensors is left out.

    Args:
        value: the object that `Machine.load` gave.
        array_of: a function that gives the array of a tensor record, and None for anything else.

    Raises:
        ContentError: the object holds no tensors by names, two tensors of one name, one that is
            not read, or too many entries.
    """
    found: dict[Path, np.ndarray | Unread] = {}
    objects: list[str] = []
    for count, (path, entry) in enumerate(_entries(value, (), 0)):
        if count == ENTRIES or sum(map(len, path)) >= LETTERS:
            raise ContentError(
                f"has more than {ENTRIES:,} entries, or names of {LETTERS:,} letters or more."
            )
        if isinstance(entry, Placeholder):
            objects.append(entry.name)
        tensor = entry if isinstance(entry, Unread) else array_of(entry)
        if tensor is None or not path:
            continue
        if path in found and not _same(found[path], tensor):
            raise ContentError(f"contains two tensors named {shown('.'.join(path))}.")
        found[path] = tensor
    if not found:
        raise ContentError(_without_tensors(value, objects, array_of))
    return _plain(found, _head(found))


def _entries(value: object, path: Path, depth: int) -> Iterator[tuple[Path, object]]:
    """What an object holds, with the keys that lead there; and the object, under its own keys."""
    yield path, value
    if depth == DEPTH:
        return
    for key, entry in _held(value):
        if key is None or isinstance(key, str):
            own = path if key is None else (*path, key[:LETTERS])
            yield from _entries(entry, own, depth + 1)
        else:
            yield (), None  # so that whoever counts sees all that is looked at


def _held(value: object) -> Iterator[tuple[object, object]]:
    """The parts of an object by key; None is the key of what has no name of its own."""
    match value:
        case Pairs():
            for key, entry in value.pairs():
                pair = entry if isinstance(entry, list | tuple) and 0 < len(entry) <= 2 else ()
                if pair and not any(isinstance(part, Pairs) for part in pair):
                    yield key, Pairs([*zip(("kernel", "bias"), pair, strict=False)])
                else:
                    yield key, entry
        case Placeholder(state=Pairs() as state) if _is_module(state):
            yield from _held_by_module(state)
        case Placeholder():
            states = value.state if isinstance(value.state, tuple) else (value.state,)
            arguments = value.arguments if isinstance(value.arguments, tuple) else ()
            for part in (*arguments[:9], value.mapping, *states[:2]):
                if isinstance(part, Pairs | Placeholder):
                    yield None, part


def _is_module(state: Pairs) -> bool:
    keys = [key for key, _ in _attributes(state) if isinstance(key, str) and key in _MODULE]
    return len(keys) == len(_MODULE)


def _attributes(state: Pairs) -> Iterator[tuple[object, object]]:
    """The first 40 attributes; those of PyTorch's own are the first that a module gets."""
    return Pairs(state.entries[:40]).pairs()


def _held_by_module(state: Pairs) -> Iterator[tuple[object, object]]:
    """Parameters, buffers and parts of a module, as its state dict has them."""
    passing: list[object] = []
    for key, entry in _attributes(state):
        if (
            isinstance(key, str)
            and key == "_non_persistent_buffers_set"
            and isinstance(entry, list)
        ):
            passing = [name for name in entry[:100] if isinstance(name, str)]
    for key, entry in _attributes(state):
        if isinstance(key, str) and key in _MODULE and isinstance(entry, Pairs):
            for name, part in entry.pairs():
                kept = key != "_buffers" or not isinstance(name, str) or name not in passing
                yield (name if kept else 0), part


def _same(one: np.ndarray | Unread, other: np.ndarray | Unread) -> bool:
    """Whether two are one record of the file; numbers are not compared, as that takes long."""
    if isinstance(one, Unread) or isinstance(other, Unread):
        return one == other
    places = [array.__array_interface__["data"] for array in (one, other)]
    return places[0] == places[1] and (one.dtype, one.shape, one.strides) == (
        *(other.dtype, other.shape, other.strides),
    )


def _head(found: Mapping[Path, np.ndarray | Unread]) -> Path:
    """The keys that lead to the one dict that holds all weights; () if there are several."""
    weights = [
        path
        for path, tensor in found.items()
        if isinstance(tensor, Unread) or (tensor.ndim and tensor.dtype.kind not in "iub")
    ]
    if not weights:
        return ()
    # What the first and the last in order share, all share.
    head = _shared(min(weights)[:-1], max(weights)[:-1])
    if all(len(path) == len(head) + 1 and path[-1] in _PARTS for path in weights):
        while head and head[-1] not in _WRAPPERS:
            head = head[:-1]
    return head


def _shared(one: Path, other: Path) -> Path:
    """The keys that two paths begin with."""
    pairs = itertools.takewhile(lambda keys: keys[0] == keys[1], zip(one, other, strict=False))
    return tuple(key for key, _ in pairs)


def _plain(found: Mapping[Path, np.ndarray | Unread], head: Path) -> dict[str, np.ndarray]:
    """The tensors under these keys, by the keys that follow."""
    tensors: dict[str, np.ndarray] = {}
    for path, tensor in found.items():
        if path[: len(head)] != head:
            continue
        name = ".".join(path[len(head) :])
        if isinstance(tensor, Unread):
            raise ContentError(
                f"holds the {tensor.kind} tensor {shown(name)}. Load it with PyTorch, and save "
                f"what tensor{tensor.call} gives."
            )
        if name in tensors and not _same(tensors[name], tensor):
            raise ContentError(f"contains two tensors named {shown(name)}.")
        tensors[name] = tensor
    return tensors


def _without_tensors(
    value: object, objects: list[str], array_of: Callable[[object], np.ndarray | None]
) -> str:
    """What an object without tensors by names is, as the fault of its file."""
    if isinstance(value, list | tuple):
        count = sum(array_of(item) is not None for item in value[:ENTRIES])
        return f"contains no dict of tensors by names, but a list with {count} tensors."
    if objects:
        first = shown(objects[0].replace(" ", "."))
        return f"contains no tensors by names, but the Python object {first}."
    return "contains no tensors by names."
