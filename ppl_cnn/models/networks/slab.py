"""The part of a network that a rectangle of one layer's map depends on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from jaxtyping import Array, Float

from ppl_cnn.models.networks.convolution import Padding
from ppl_cnn.models.networks.declaration import IMAGE, Network
from ppl_cnn.models.networks.graph import Params, kernel_size, shapes, sources
from ppl_cnn.models.networks.layers import Layer
from ppl_cnn.models.networks.window import Region, positions

type Masks = Mapping[str, Array]
"""Name of a dropout layer -> which values it keeps of each image."""


class Reading(NamedTuple):
    """The part of a response, or of the slab's image, that a later layer reads."""

    name: str
    rows: slice
    cols: slice

    def of(self, response: Array) -> Array:
        """The part of a batch of responses (n, row, col, channel); vectors (n, channel) whole."""
        return response[:, self.rows, self.cols, :] if response.ndim == 4 else response


class Step(NamedTuple):
    """One layer of a slab, and what it reads there."""

    layer: Layer
    readings: tuple[Reading, ...]
    """The parts of responses that it reads."""
    padding: Padding
    """The positions that it would read off the map, where the whole network pads."""
    multiplications: int
    """The number of products of weights with values, for one image."""


@dataclass(frozen=True)
class Slab:
    """The part of a network that a rectangle of one layer's map depends on.

    Each layer is computed on just the positions that later ones read, with the padding that the
    whole network would put there, so that a slab's response equals the whole network's. Where
    branches read different rectangles of a layer, the least rectangle that holds them is computed.
    """

    rows: range
    """The rows of the network's image that it reads."""
    cols: range
    """The columns of the network's image that it reads."""
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, network: Network, name: str, rows: range, cols: range) -> Self:
        """The slab behind the positions `rows` x `cols` of the response of layer `name`."""
        target = network.layer(name)
        regions: dict[str, Region] = {name: (rows, cols)}
        reads: dict[str, tuple[Layer, tuple[Region, ...], Padding]] = {}
        for layer in reversed(network.layers[: network.layers.index(target) + 1]):
            if layer.name not in regions:
                continue
            behind, padding = _behind(network, layer, regions[layer.name])
            reads[layer.name] = layer, behind, padding
            for source, region in zip(sources(network)[layer.name], behind, strict=True):
                regions[source] = _hull(regions[source], region) if source in regions else region
        steps = []
        for layer, behind, padding in reversed(reads.values()):
            readings = [
                Reading(source, *map(_within, region, regions[source]))
                for source, region in zip(sources(network)[layer.name], behind, strict=True)
            ]
            count = math.prod(map(len, regions[layer.name])) * kernel_size(network, layer)
            steps.append(Step(layer, tuple(readings), padding, count))
        return cls(*regions[IMAGE], tuple(steps))

    @classmethod
    def whole(cls, network: Network) -> Self:
        """The slab behind all of the last layer."""
        last = network.layers[-1].name
        return cls.of(network, last, *positions(shapes(network)[last]))

    @property
    def multiplications(self) -> int:
        """The number of products of weights with values, for one image."""
        return sum(step.multiplications for step in self.steps)

    def crop(self, images: Array) -> Array:
        """The slab's part of whole images (..., row, col, channel)."""
        rows, cols = self.rows, self.cols
        return images[..., rows.start : rows.stop, cols.start : cols.stop, :]

    def respond(
        self, params: Params, x: Float[Array, "n row col channel"], keep: Masks | None = None
    ) -> Array:
        """The response of the slab's last layer; the arguments are those of `responses`."""
        return self.responses(params, x, keep)[self.steps[-1].layer.name]

    def responses(
        self, params: Params, x: Float[Array, "n row col channel"], keep: Masks | None = None
    ) -> dict[str, Array]:
        """Layer name -> its response, as far as the slab's last layer depends on it.

        Args:
            params: the weights of the slab's layers, among others.
            x: images of the slab's size, as the first layer sees them (see `scaled`).
            keep: the values that dropout keeps in training (see `dropout_masks`); None otherwise.
        """
        responses = {IMAGE: x}
        for layer, readings, padding, _ in self.steps:
            parts = [reading.of(responses[reading.name]) for reading in readings]
            kept = None if keep is None else keep.get(layer.name)
            weights = params.get(layer.name, {})
            responses[layer.name] = layer.respond(weights, parts, padding, kept)
        return responses


def _behind(network: Network, layer: Layer, region: Region) -> tuple[tuple[Region, ...], Padding]:
    """The rectangles that a rectangle of a layer's response reads, and how much is off the maps."""
    known = shapes(network)
    read = [known[name] for name in sources(network)[layer.name]]
    return layer.behind(region, known[layer.name], read)


def _hull(one: Region, other: Region) -> Region:
    rows, cols = (
        range(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return rows, cols


def _within(part: range, whole: range) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
