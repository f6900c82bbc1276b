"""Names of layers: the module paths of the framework that a file was exported from."""

import ast
import re
from collections.abc import Sequence
from typing import NamedTuple

from ppl_cnn.models.formats.onnx_file import Node

_SCOPES = "pkg.torch.onnx.name_scopes"
"""The metadata in which PyTorch's exporter writes a node's modules, outermost first."""

_OUTPUT = "output"


class Names(NamedTuple):
    """The names of the nodes, and the other names that they answer to."""

    of: tuple[str, ...]
    """The name of each node, all different."""
    aliases: dict[str, int]
    """Another name -> the node, which is no node's name: a module whose response the node makes."""


class _Place(NamedTuple):
    """Where a node stands in its framework's modules."""

    path: tuple[str, ...]
    """The names of its modules, from the outermost to its own; empty where none is known."""
    leaf: str
    """The node's own name in its module."""


def node_names(nodes: Sequence[Node]) -> Names:
    """Names for the nodes of a graph.

    A module's name, such as layer1.0.conv1, is that of the node which makes the module's response.
    The other nodes of a module are its name and the operator's, layer1.0.Add. A module that is
    called again is counted, relu and relu_1. A convolution or dense layer is named by its weights,
    conv1.weight, even where the exporter has folded a normalization into it. Where a file doesn't
    tell modules, names are those of nodes or, without those, of what they make.

    Args:
        nodes: in the order of the graph.

    Examples:
        >>> def node(name):
        ...     return Node(name.split("/")[-1], name, (), (), {}, "", {})
        >>> inside = "/layer1/layer1.0"
        >>> found = node_names([node(f"{inside}/{x}") for x in ("conv1/Conv", "Add", "relu/Relu")])
        >>> found.of
        ('layer1.0.conv1', 'layer1.0.Add', 'layer1.0.relu')
        >>> found.aliases
        {'layer1.0': 2, 'layer1': 2}
    """
    places = [_place(node) for node in nodes]
    ends = _ends(places)
    names: list[str] = []
    used: set[str] = set()
    for index, place in enumerate(places):
        own = [name for name, depth in ends.get(index, []) if depth == len(place.path)]
        of_weights = _module_of_weights(nodes[index])
        wanted = own[0] if own else ".".join([*place.path[-1:], place.leaf])
        names.append(_unused(of_weights or wanted, used))
        used.add(names[-1])
    aliases = {
        name: index
        for index in sorted(ends)
        for name, _ in ends[index]
        if name not in used and name
    }
    return Names(tuple(names), aliases)


def _module_of_weights(node: Node) -> str:
    """The module whose weights a convolution or dense layer has; empty where they don't tell."""
    if node.operator not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.inputs) < 2:
        return ""
    module, dot, kind = node.inputs[1].rpartition(".")
    return _plain(module) if dot and kind == "weight" and ":" not in module else ""


def _ends(places: Sequence[_Place]) -> dict[int, list[tuple[str, int]]]:
    """Node -> the modules whose calls end with it, (name, depth), the innermost first.

    A call is a run of nodes that are all inside a module.
    """
    calls: dict[str, int] = {}
    ends: dict[int, list[tuple[str, int]]] = {}
    for index, place in enumerate(places):
        after = places[index + 1].path if index + 1 < len(places) else ()
        for depth in range(len(place.path), 0, -1):
            module = place.path[depth - 1]
            if len(after) >= depth and after[depth - 1] == module:
                continue
            count = calls.get(module, 0)
            calls[module] = count + 1
            name = f"{module}_{count}" if count else module
            ends.setdefault(index, []).append((name, depth))
    return ends


def _place(node: Node) -> _Place:
    if _SCOPES in node.metadata:
        return _scoped(node)
    if node.name.startswith("/"):
        *modules, leaf = map(_plain, node.name.strip("/").split("/"))
        path: list[str] = []
        for before, module in zip(["", *modules], modules, strict=False):
            # Each part is a module's name in its parent, or begins with its parent's part again.
            own = module.removeprefix(f"{before}.")
            path.append(f"{path[-1]}.{own}" if path else module)
        return _Place(tuple(path), leaf)
    return _Place((), _plain(node.name or "".join(node.outputs[:1])))


def _scoped(node: Node) -> _Place:
    try:
        scopes = ast.literal_eval(node.metadata[_SCOPES])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        scopes = ()
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        return _Place((), _plain(node.name))
    *modules, _ = scopes or [""]
    return _Place(tuple(_plain(module) for module in modules if module), node.operator)


def _plain(name: str) -> str:
    """The name in the characters that units' names may have."""
    return re.sub(r"/+", "/", re.sub(r"[^\w./-]", "_", name, flags=re.ASCII)).strip("/")[:200]


def _unused(wanted: str, used: set[str]) -> str:
    """The name itself, or with the first number that makes it new."""
    base = wanted or _OUTPUT
    name, count = base, 0
    while name in used or name in ("unit", "class", "views", "image"):
        count += 1
        name = f"{base}_{count}"
    return name
