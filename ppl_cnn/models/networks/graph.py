"""What follows from a network's declaration: who reads whom, and the shapes of all arrays."""

import math
from collections.abc import Mapping
from functools import cache

from ppl_cnn.errors import MismatchError
from ppl_cnn.models.networks.declaration import IMAGE, Network
from ppl_cnn.models.networks.layers import Layer, Weights
from ppl_cnn.models.networks.window import Shape

type Params = Mapping[str, Weights]
"""Layer name -> weight name -> array, for a network."""


@cache
def sources(network: Network) -> dict[str, tuple[str, ...]]:
    """Layer name -> names of the layers that it reads, or `IMAGE`."""
    before = (IMAGE, *(layer.name for layer in network.layers))
    return {
        layer.name: layer.after or (previous,)
        for layer, previous in zip(network.layers, before, strict=False)
    }


@cache
def shapes(network: Network) -> dict[str, Shape]:
    """Layer name -> shape of its response to one image: (row, col, channel) or (channel,).

    The image's own shape is under `IMAGE`.

    Raises:
        MismatchError: a layer reads maps of different sizes.
    """
    result: dict[str, Shape] = {IMAGE: network.image_shape}
    for layer in network.layers:
        result[layer.name] = layer.response_shape(_read_shape(result, network, layer))
    return result


def input_shape(network: Network, layer: Layer) -> Shape:
    """The shape of a layer's input: the image, or responses concatenated along the channels."""
    return _read_shape(shapes(network), network, layer)


def _read_shape(known: Mapping[str, Shape], network: Network, layer: Layer) -> Shape:
    read = [known[name] for name in sources(network)[layer.name]]
    joined = layer.joined_shape(read)
    if joined is None:
        raise MismatchError(
            f"{layer.name} of {network.name} reads maps of different sizes: "
            f"{', '.join(map(str, read))}."
        )
    return joined


@cache
def weight_shapes(network: Network) -> dict[str, dict[str, Shape]]:
    """Layer name -> weight name -> shape, for the layers that have weights."""
    wanted = {
        layer.name: layer.weight_shapes(input_shape(network, layer)) for layer in network.layers
    }
    return {name: weights for name, weights in wanted.items() if weights}


def kernel_size(network: Network, layer: Layer) -> int:
    """The number of a layer's weights without its biases; each is used once at every position."""
    return math.prod(layer.weight_shapes(input_shape(network, layer)).get("kernel", (0,)))
