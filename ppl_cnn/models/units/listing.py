"""The units of a network, layer by layer: maps, receptive fields and cost."""

from functools import cache
from typing import NamedTuple

from ppl_cnn.models.networks.declaration import IMAGE, Network
from ppl_cnn.models.networks.graph import shapes, sources
from ppl_cnn.models.networks.layers import BatchNorm, Conv, Dense, Layer
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.networks.window import Window, positions


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
    """The image pixels from one place to the next; None for a dense layer, and where rows and
    columns differ in it."""
    receptive_field: tuple[int, int]
    """The rows and columns of pixels that a unit would read in a large enough image; those of the
    image behind a layer that reads all of a map."""
    image: tuple[int, int]
    """The rows and columns of the image of the unit at the map's centre."""
    whole_multiplications: int | None
    """The multiplications for one channel's whole map; None if they are unknown."""
    slab_multiplications: int | None
    """The multiplications for the unit at the map's centre; None if they are unknown."""


class _View(NamedTuple):
    """How positions of a response lie in the image, along the rows or the columns."""

    field: int
    """The pixels that a position would read in a large enough image."""
    stride: int

    def through(self, window: Window) -> "_View":
        """The view of a response whose positions read that window of this one."""
        return _View(self.field + (window.reach - 1) * self.stride, self.stride * window.stride)


@cache
def unit_layers(network: Network) -> tuple[LayerUnits, ...]:
    """The layers whose channels are units, in the network's order; the last has the classes."""
    views = {IMAGE: (_View(1, 1), _View(1, 1))}
    found = []
    for layer in network.layers:
        read = [views[name] for name in sources(network)[layer.name]]
        if layer.reads_all:
            rows, cols = (_View(size, 1) for size in network.image_shape[:2])
        else:
            rows, cols = (
                _View(max(each.field for each in axis), max(each.stride for each in axis)).through(
                    window
                )
                for axis, window in zip(zip(*read, strict=True), layer.windows, strict=True)
            )
        views[layer.name] = rows, cols
        if layer.name in names_with_units(network):
            found.append(_layer_units(network, layer, views[layer.name]))
    return tuple(found)


@cache
def names_with_units(network: Network) -> tuple[str, ...]:
    """The names of the layers whose channels are units, in the network's order."""
    return tuple(
        layer.name
        for layer in network.layers
        if layer is network.layers[-1]
        or (
            layer.name in network.with_units
            if network.with_units
            else isinstance(layer, Conv | Dense)
        )
    )


@cache
def nonlinearities(network: Network) -> dict[str, str]:
    """Layer with units -> the nonlinearity that reads it, at once or after a normalization.

    Each reads nothing else. Layers without one are left out, as are nonlinearities.
    """
    alone = [
        (read[0], network.layer(name))
        for name, read in reversed(sources(network).items())
        if len(read) == 1
    ]
    after = {source: layer.name for source, layer in alone if layer.is_nonlinearity}
    normalized = {source: layer.name for source, layer in alone if isinstance(layer, BatchNorm)}
    found = {}
    for name in names_with_units(network):
        if by := after.get(name) or after.get(normalized.get(name, "")):
            found[name] = by
    return found


def _layer_units(network: Network, layer: Layer, view: tuple[_View, _View]) -> LayerUnits:
    shape = shapes(network)[layer.name]
    every = Slab.of(network, layer.name, *positions(shape))
    if len(shape) != 3:
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
        view[0].stride if view[0].stride == view[1].stride else None,
        (view[0].field, view[1].field),
        (len(slab.rows), len(slab.cols)),
        _one_channel(every, shape[-1]),
        _one_channel(slab, shape[-1]),
    )


def _one_channel(slab: Slab, channels: int) -> int:
    """The multiplications of a slab whose response is wanted in one channel only."""
    at = channels_step(slab)
    spared = 0 if at is None else slab.steps[at].multiplications * (channels - 1) // channels
    return slab.multiplications - spared
