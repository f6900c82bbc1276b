"""Compares the network that a caffemodel describes with the one that it is opened as."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ppl_cnn.errors import MismatchError
from ppl_cnn.models.formats.caffe import CaffeLayer
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.networks.catalogue import NETWORKS
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.elementwise import Elementwise
from ppl_cnn.models.networks.layers import (
    LRN,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    GlobalMean,
    MaxPool,
    ReLU,
)

_TYPES = {
    Conv: "Convolution",
    Dense: "InnerProduct",
    MaxPool: "Pooling",
    GlobalMean: "Pooling of means",
    ReLU: "ReLU",
    LRN: "LRN",
    Concat: "Concat",
    BatchNorm: "BatchNorm",
    Elementwise: "Eltwise",
}
"""Layers -> their types in Caffe."""
_PASSING = {"Dropout", "Split", "Softmax", "Flatten", "Input", "Silence", "Accuracy", "Reshape", ""}
"""Types of Caffe that change no response, give none, or aren't known."""


def check_network(layers: Sequence[CaffeLayer], network: Network, source: Path) -> None:
    """Refuses a caffemodel whose layers have other types than the network's, or another order.

    Weights of the right shapes would run in another network without a word: CaffeNet's in AlexNet.
    Compared is what comes before the last weights, unless the file gives weights alone.

    Args:
        layers: those of the file; none if it isn't a caffemodel.
        network: the declared network.
        source: the file, for error messages.

    Raises:
        MismatchError: the two differ.
    """
    theirs = [*_computed(layers)]
    ours = _declared(network)
    if all(layer.blobs for layer, _ in theirs) or [kind for _, kind in theirs] == ours:
        return
    pairs = zip([*theirs, None], [*ours, "nothing"], strict=False)
    place, wanted = next(
        (place, kind) for place, kind in pairs if place is None or place[1] != kind
    )
    found = f"{shown(place[0].name)} of type {shown(place[1])}" if place else "nothing more"
    fitting = [
        other.name
        for other in NETWORKS.values()
        if _declared(other) == [kind for _, kind in theirs]
    ]
    advice = f" Its layers are those of {' or '.join(fitting)}." if fitting else ""
    raise MismatchError(
        f"{source} holds another network than {network.name}: it has {found} where {network.name} "
        f"has {wanted}.{advice}"
    )


def check_pixels(layers: Sequence[CaffeLayer], network: Network, source: Path) -> None:
    """Refuses a caffemodel for a network that sees other pixels than Caffe's: BGR, unscaled.

    Args:
        layers: those of the file; none if it isn't a caffemodel.
        network: the declared network.
        source: the file, for error messages.

    Raises:
        MismatchError: the network sees RGB, or pixels of another scale.
    """
    seen = network.preprocessing
    if not layers or seen.order == "grey" or (seen.order == "BGR" and set(seen.scale) == {1.0}):
        return
    others = [
        other.name
        for other in NETWORKS.values()
        if other.layers == network.layers and other.preprocessing.order == "BGR"
    ]
    raise MismatchError(
        f"{source} is of Caffe, whose networks see BGR pixels from 0 to 255, and {network.name} "
        f"sees others. {f'Open it as {others[0]}, or' if others else 'To'} import it with its "
        "own `pixels=caffe`."
    )


def _computed(layers: Sequence[CaffeLayer]) -> Iterator[tuple[CaffeLayer, str]]:
    """The layers that compute something, and their types, to the last that has weights."""
    last = max((index for index, layer in enumerate(layers) if layer.blobs), default=-1)
    for layer in layers[: last + 1]:
        if layer.blobs or not (layer.type in _PASSING or layer.type.endswith(("Data", "Loss"))):
            yield layer, f"{layer.type} of means" if layer.pools_means else layer.type


def _declared(network: Network) -> list[str]:
    """The types of the network's layers in Caffe, to the last that has weights."""
    kinds = [
        (layer, _TYPES.get(type(layer), type(layer).__name__))
        for layer in network.layers
        if _TYPES.get(type(layer), "") not in _PASSING
    ]
    last = max(index for index, (layer, _) in enumerate(kinds) if isinstance(layer, Conv | Dense))
    return [kind for _, kind in kinds[: last + 1]]
