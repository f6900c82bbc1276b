"""What follows from a network's declaration: shapes, slabs of it, and its forward pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.convolution import Padding
from ppl_cnn.models.networks.declaration import IMAGE, Network, Preprocessing
from ppl_cnn.models.networks.layers import Dropout, Layer, Shape, Weights

type Params = Mapping[str, Weights]
"""Layer name -> weight name -> array."""
type Masks = Mapping[str, Array]
"""Dropout layer's name -> which values it keeps of each image."""
type Region = tuple[range, range]
"""Rows and columns of a response; a vector has one position."""


@cache
def sources(network: Network) -> dict[str, tuple[str, ...]]:
    """Layer name -> names of the layers it reads, or `IMAGE`."""
    before = (IMAGE, *(layer.name for layer in network.layers))
    return {
        layer.name: layer.after or (previous,)
        for layer, previous in zip(network.layers, before, strict=False)
    }


@cache
def shapes(network: Network) -> dict[str, Shape]:
    """Layer name -> shape of its response to one image: (row, col, channel) or (channel,).

    The image's own shape is under `IMAGE`.
    """
    result: dict[str, Shape] = {IMAGE: network.image_shape}
    for layer in network.layers:
        result[layer.name] = layer.response_shape(_read_shape(result, network, layer))
    return result


def input_shape(network: Network, layer: Layer) -> Shape:
    """The shape of what the layer reads: responses side by side, or the image."""
    return _read_shape(shapes(network), network, layer)


def _read_shape(known: Mapping[str, Shape], network: Network, layer: Layer) -> Shape:
    read = [known[name] for name in sources(network)[layer.name]]
    places = {shape[:-1] for shape in read}
    if len(places) > 1:
        raise InputError(
            f"{layer.name} of {network.name} reads maps of different sizes: "
            f"{', '.join(map(str, read))}."
        )
    return (*places.pop(), sum(shape[-1] for shape in read))


def weight_shapes(network: Network) -> dict[str, dict[str, Shape]]:
    """Layer name -> weight name -> shape, for the layers that have weights."""
    wanted = {
        layer.name: layer.weight_shapes(input_shape(network, layer)) for layer in network.layers
    }
    return {name: weights for name, weights in wanted.items() if weights}


def kernel_size(network: Network, layer: Layer) -> int:
    """The number of a layer's weights without its biases; each is used once a position."""
    return math.prod(layer.weight_shapes(input_shape(network, layer)).get("kernel", (0,)))


def positions(shape: Shape) -> Region:
    """The rows and columns of a response; a vector has one position."""
    return (range(shape[0]), range(shape[1])) if len(shape) == 3 else (range(1), range(1))


class Reading(NamedTuple):
    """A part of what the slab computes of a layer, or of its image."""

    name: str
    rows: slice
    cols: slice

    def of(self, response: Array) -> Array:
        """That part of a batch's responses (n, row, col, channel); a vector's is all of it."""
        return response[:, self.rows, self.cols, :] if response.ndim == 4 else response


class Step(NamedTuple):
    """One layer of a slab."""

    layer: Layer
    readings: tuple[Reading, ...]
    """What it reads, side by side along the channels."""
    padding: Padding
    multiplications: int
    """Of weights with values, for one image."""


@dataclass(frozen=True)
class Slab:
    """The part of a network that a rectangle of one layer's map depends on.

    Each layer is computed on just the positions that later ones read, with the padding that the
    whole network would put there; so a slab's response is the whole network's. Where branches
    read different rectangles of a layer, it is computed on the least one that holds them.
    """

    rows: range
    """Of the image."""
    cols: range
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, network: Network, name: str, rows: range, cols: range) -> Self:
        """The slab behind the positions `rows` x `cols` of the response of layer `name`."""
        target = network.layer(name)
        regions: dict[str, Region] = {name: (rows, cols)}
        reads: dict[Layer, tuple[Region, Padding]] = {}
        for layer in reversed(network.layers[: network.layers.index(target) + 1]):
            if layer.name not in regions:
                continue
            region, padding = _behind(network, layer, *regions[layer.name])
            reads[layer] = region, padding
            for source in sources(network)[layer.name]:
                regions[source] = _hull(regions[source], region) if source in regions else region
        steps = []
        for layer, (region, padding) in reversed(reads.items()):
            readings = [
                Reading(source, *map(_within, region, regions[source]))
                for source in sources(network)[layer.name]
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
        """Of weights with values, for one image."""
        return sum(step.multiplications for step in self.steps)

    def crop(self, images: Array) -> Array:
        """The slab's part of whole images (..., row, col, channel)."""
        rows, cols = self.rows, self.cols
        return images[..., rows.start : rows.stop, cols.start : cols.stop, :]

    def respond(
        self, params: Params, x: Float[Array, "n row col channel"], keep: Masks | None = None
    ) -> Array:
        """The response of the slab's last layer; see `responses`."""
        return self.responses(params, x, keep)[self.steps[-1].layer.name]

    def responses(
        self, params: Params, x: Float[Array, "n row col channel"], keep: Masks | None = None
    ) -> dict[str, Array]:
        """Layer name -> its response, as far as the slab's last layer depends on it.

        Args:
            params: weights of at least the slab's layers.
            x: images of the slab's size, as the first layer sees them (scaled).
            keep: what dropout keeps, in training: see `dropout_masks`.
        """
        responses = {IMAGE: x}
        for layer, readings, padding, _ in self.steps:
            parts = [reading.of(responses[reading.name]) for reading in readings]
            read = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
            kept = None if keep is None else keep.get(layer.name)
            responses[layer.name] = layer.apply(params.get(layer.name, {}), read, padding, kept)
        return responses


def _behind(network: Network, layer: Layer, rows: range, cols: range) -> tuple[Region, Padding]:
    """What a rectangle of a layer's response reads, and how much of that lies off the map."""
    before = input_shape(network, layer)
    if len(shapes(network)[layer.name]) < 3:
        return positions(before), ((0, 0), (0, 0))
    rows, above_below = layer.window.inputs(rows, before[0])
    cols, left_right = layer.window.inputs(cols, before[1])
    return (rows, cols), (above_below, left_right)


def _hull(one: Region, other: Region) -> Region:
    rows, cols = (
        range(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return rows, cols


def _within(part: range, whole: range) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def scores(
    network: Network,
    params: Params,
    x: Float[Array, "n row col channel"],
    keep: Masks | None = None,
) -> Float[Array, "n c"]:
    """The score matrix F (image, class) of images in pixel units minus the mean.

    Args:
        network: the declaration.
        params: its weights.
        x: the images.
        keep: what dropout keeps, in training: see `dropout_masks`.
    """
    whole = Slab.whole(network)
    return whole.respond(params, scaled(network.preprocessing, whole.crop(x)), keep)


def dropout_masks(network: Network, key: PRNGKeyArray, n: int) -> dict[str, Bool[Array, "..."]]:
    """Which values each dropout layer keeps of a batch of n images; {} without such layers.

    They are drawn for the whole batch, so that whoever computes a part of it takes that part of
    them: training in parts, or on several devices, drops out what training in one does.

    Args:
        network: the declaration.
        key: of the step.
        n: images in the batch.
    """
    return {
        step.layer.name: jax.random.bernoulli(
            jax.random.fold_in(key, index),
            1 - step.layer.rate,
            (n, *input_shape(network, step.layer)),
        )
        for index, step in enumerate(Slab.whole(network).steps)
        if isinstance(step.layer, Dropout)
    }


def scaled(
    preprocessing: Preprocessing, x: Float[Array, "n row col channel"]
) -> Float[Array, "n row col channel"]:
    """Images as the first layer sees them, from pixel units minus the mean."""
    if set(preprocessing.scale) == {1.0}:
        return x
    return x * jnp.asarray(preprocessing.scale, x.dtype)[None, None, None, :]


def he_normal(network: Network, key: PRNGKeyArray) -> dict[str, dict[str, Array]]:
    """Random weights: kernels N(0, 2/fan_in), biases 0 (He et al., ICCV 2015).

    The last layer's kernel is N(0, 0.01^2), as in Caffe's AlexNet: scores then start near zero,
    where both objectives have their gentlest gradients.
    """
    params: dict[str, dict[str, Array]] = {}
    for index, (name, wanted) in enumerate(weight_shapes(network).items()):
        shape = wanted["kernel"]
        last = name == [*weight_shapes(network)][-1]
        deviation = 0.01 if last else math.sqrt(2 / math.prod(shape[:-1]))
        kernel = deviation * jax.random.normal(jax.random.fold_in(key, index), shape)
        params[name] = {"kernel": kernel, "bias": jnp.zeros(wanted["bias"])}
    return params
