"""The units of a network, layer by layer: maps, receptive fields and cost."""

from functools import cache
from typing import NamedTuple, Protocol, runtime_checkable

from ppl_cnn.models.networks.declaration import IMAGE, Network
from ppl_cnn.models.networks.graph import Slab, positions, shapes, sources
from ppl_cnn.models.networks.layers import Conv, Dense, Layer, ReLU


def _channels_step(slab: Slab) -> int | None:
    """The step whose channels the slab's response has; None if they come from several."""
    index = {step.layer.name: number for number, step in enumerate(slab.steps)}
    at: int | None = len(slab.steps) - 1
    while at is not None and slab.steps[at].layer.channelwise:
        reads = [reading.name for reading in slab.steps[at].readings]
        at = index.get(reads[0]) if len(reads) == 1 else None
    return at


class LayerUnits(NamedTuple):
    """The units of one layer."""

    name: str
    channels: int
    places: tuple[int, int] | None
    """(row, col) of its map; None for a dense layer."""
    stride: int | None
    """Image pixels from one place to the next; None for a dense layer."""
    receptive_field: tuple[int, int]
    """(row, col) pixels that a unit reads, were the image large enough."""
    image: tuple[int, int]
    """(row, col) pixels of the image of the unit at the map's centre."""
    whole_multiplications: int | None
    """For a channel's whole map; None where a network doesn't tell."""
    slab_multiplications: int | None
    """For the unit at the map's centre; likewise."""


@runtime_checkable
class ListsUnits(Protocol):
    """A network that isn't declared layer by layer, and says itself what units it has."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, channel)."""

    def unit_layers(self) -> tuple[LayerUnits, ...]:
        """Its layers; the last has the classes."""


@cache
def unit_layers(network: Network | ListsUnits) -> tuple[LayerUnits, ...]:
    """The layers whose channels are units, in the network's order; the last has the classes."""
    if not isinstance(network, Network):
        return network.unit_layers()
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
    """Layer with units -> the ReLU that reads it, and it alone, if there is one."""
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
    """The multiplications of a slab of which a single channel is wanted."""
    at = _channels_step(slab)
    spared = 0 if at is None else slab.steps[at].multiplications * (channels - 1) // channels
    return slab.multiplications - spared
