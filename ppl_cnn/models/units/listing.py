"""The units of a network, layer by layer: maps, receptive fields and cost."""

from functools import cache
from typing import NamedTuple

from ppl_cnn.models.networks.declaration import IMAGE, Network
from ppl_cnn.models.networks.graph import positions, shapes, sources
from ppl_cnn.models.networks.layers import Conv, Dense, Layer, ReLU
from ppl_cnn.models.networks.slab import Slab


def channels_step(slab: Slab) -> int | None:
    """The index of the step whose channels the slab's response has; None if several make them."""
    index = {step.layer.name: number for number, step in enumerate(slab.steps)}
    at: int | None = len(slab.steps) - 1
    while at is not None and slab.steps[at].layer.channelwise:
        reads = [reading.name for reading in slab.steps[at].readings]
        at = index.get(reads[0]) if len(reads) == 1 else None
    return at


class LayerUnits(NamedTuple):
    """The units of one layer: how many there are, what they see and what they cost."""

    name: str
    channels: int
    places: tuple[int, int] | None
    """The rows and columns of its map; None for a dense layer."""
    stride: int | None
    """The image pixels from one place to the next; None for a dense layer."""
    receptive_field: tuple[int, int]
    """The rows and columns of pixels that a unit would read in a large enough image."""
    image: tuple[int, int]
    """The rows and columns of the image of the unit at the map's centre."""
    whole_multiplications: int | None
    """The multiplications for one channel's whole map; None if they are unknown."""
    slab_multiplications: int | None
    """The multiplications for the unit at the map's centre; None if they are unknown."""


@cache
def unit_layers(network: Network) -> tuple[LayerUnits, ...]:
    """The layers whose channels are units, in the network's order; the last has the classes."""
    fields, strides = {IMAGE: 1}, {IMAGE: 1}
    found = []
    for layer in network.layers:
        read, window = sources(network)[layer.name], layer.window
        stride = max(strides[name] for name in read)
        fields[layer.name] = max(fields[name] for name in read) + (window.kernel - 1) * stride
        strides[layer.name] = stride * window.stride
        if isinstance(layer, Conv | Dense) or layer is network.layers[-1]:
            found.append(_layer_units(network, layer, fields[layer.name], strides[layer.name]))
    return tuple(found)


@cache
def nonlinearities(network: Network) -> dict[str, str]:
    """Layer with units -> the ReLU that reads that layer alone; layers without one are left out."""
    relus = [layer.name for layer in network.layers if isinstance(layer, ReLU)]
    after = {sources(network)[relu]: relu for relu in reversed(relus)}
    return {
        layer.name: after[(layer.name,)] for layer in unit_layers(network) if (layer.name,) in after
    }


def _layer_units(network: Network, layer: Layer, field_size: int, stride: int) -> LayerUnits:
    shape = shapes(network)[layer.name]
    every = Slab.of(network, layer.name, *positions(shape))
    if len(shape) == 1:
        image = network.image_shape[:2]
        return LayerUnits(
            layer.name, shape[-1], None, None, image, image, *[_one_channel(every, shape[-1])] * 2
        )
    row, col = shape[0] // 2, shape[1] // 2
    slab = Slab.of(network, layer.name, range(row, row + 1), range(col, col + 1))
    return LayerUnits(
        layer.name,
        shape[-1],
        (shape[0], shape[1]),
        stride,
        (field_size, field_size),
        (len(slab.rows), len(slab.cols)),
        _one_channel(every, shape[-1]),
        _one_channel(slab, shape[-1]),
    )


def _one_channel(slab: Slab, channels: int) -> int:
    """The multiplications of a slab whose response is wanted in one channel only."""
    at = channels_step(slab)
    spared = 0 if at is None else slab.steps[at].multiplications * (channels - 1) // channels
    return slab.multiplications - spared
