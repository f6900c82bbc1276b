"""What several families of networks have in common."""

import re
from collections.abc import Iterable, Sequence

from ppl_cnn.models.networks.layers import Dense, Dropout, Layer, ReLU


def classifier() -> tuple[Layer, ...]:
    """The fully connected layers of AlexNet and VGG: 4096, 4096 and 1000 channels."""
    return (
        Dense("fc6", 4096),
        ReLU("relu6"),
        Dropout("drop6"),
        Dense("fc7", 4096),
        ReLU("relu7"),
        Dropout("drop7"),
        Dense("fc8", 1000),
    )


def in_order(module: str, layers: Sequence[Layer]) -> tuple[tuple[str, str], ...]:
    """The names that PyTorch's Sequential gives the layers in it: module.0, module.1, ..."""
    return tuple((f"{module}.{index}", layer.name) for index, layer in enumerate(layers))


def modules_of(layers: Iterable[Layer]) -> tuple[tuple[str, str], ...]:
    """The modules that layers named by their paths lie in, each with the layer that it ends with.

    Examples:
        >>> modules_of([ReLU("layer1.0.relu"), ReLU("layer1.0"), ReLU("layer1.1.relu")])
        (('layer1', 'layer1.1.relu'), ('layer1.1', 'layer1.1.relu'))
    """
    names = [layer.name for layer in layers]
    ends = {name[: dot.start()]: name for name in names for dot in re.finditer(r"\.", name)}
    return tuple((module, name) for module, name in ends.items() if module not in names)


def with_units(layers: Iterable[Layer]) -> tuple[str, ...]:
    """The layers whose channels are units in networks of branches: all but dropout."""
    return tuple(layer.name for layer in layers if not isinstance(layer, Dropout))
