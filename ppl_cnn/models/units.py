"""Units of networks: receptive fields, responses, and the densities' scores they give."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ppl_cnn import InputError
from ppl_cnn.models.layers import Conv, Dense, Layer, ReLU, Weights
from ppl_cnn.models.network import Params, Slab, positions, scaled, shapes, sources
from ppl_cnn.models.networks import IMAGE, Network, Preprocessing
from ppl_cnn.models.targets import needs_classes, parse_target
from ppl_cnn.models.unit_names import UnitName, parse_units

type Image = Float[Array, "row col channel"]
"""In pixel units minus the mean."""
type Side = Literal["pre", "post"]
"""Before or after the nonlinearity that follows the unit's layer."""


@runtime_checkable
class Scored(Protocol):
    """What a density needs: a differentiable scalar score of one image, and its weights.

    The weights are an argument of `score` so that jitted programs take them as one: XLA would
    spend a long time on folding them as constants.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of the images it scores."""

    @property
    def rows(self) -> range:
        """Where these lie in the network's image."""

    @property
    def cols(self) -> range:
        """Likewise."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of the network's image."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The network's; its mean and channel order say what the images' numbers stand for."""

    @property
    def params(self) -> Params:
        """The weights it needs. Units that are sampled side by side share those arrays that are
        the same object in all of them."""

    @property
    def program(self) -> Hashable:
        """Units of equal programs differ in their weights alone, and can be sampled together."""

    @property
    def settings(self) -> dict[str, Any]:
        """What names it in a run's record."""

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image)."""


@dataclass(frozen=True)
class Response:
    """Any differentiable scalar function of one image, in place of a unit.

    Args:
        function: maps an image of that shape, in pixel units minus the mean, to a scalar.
        shape: (row, col, channel).
        mean: the pixel (0..255) of each channel that images are given minus; by default 0, so
            that images are pixels themselves.
        order: of three channels, "RGB" or "BGR".

    Raises:
        InputError: the shape is none of an image, the mean has another number of channels, there
            is no such order, or the function doesn't return a scalar.
    """

    function: Callable[[Image], Float[Array, ""]]
    shape: tuple[int, int, int]
    mean: tuple[float, ...] = ()
    order: str = "RGB"

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(f"An image's shape is (row, col, channel), not {self.shape}.")
        if len(self.mean) not in (0, self.shape[2]):
            raise InputError(f"The mean of {self.shape[2]} channels can't be {self.mean}.")
        if self.order not in ("RGB", "BGR"):
            raise InputError(f"The order of channels is RGB or BGR, not {self.order!r}.")
        result = jax.eval_shape(self.function, jax.ShapeDtypeStruct(self.shape, jnp.float32))
        if getattr(result, "shape", None) != ():
            raise InputError(f"A response must be a scalar array, and {self} returns {result}.")

    def __str__(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__qualname__)

    @property
    def rows(self) -> range:
        """All of them."""
        return range(self.shape[0])

    @property
    def cols(self) -> range:
        """All of them."""
        return range(self.shape[1])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """That of its own images."""
        return self.shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The mean and order that it was given."""
        channels = self.shape[2]
        return Preprocessing(self.mean or (0.0,) * channels, (1.0,) * channels, self.order)

    @property
    def params(self) -> Params:
        """No weights but those that the function holds itself."""
        return {}

    @property
    def program(self) -> Hashable:
        """Itself."""
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The function's name."""
        return {"unit": str(self)}

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image)."""
        return self.function(image)


@runtime_checkable
class HasImages(Protocol):
    """A network, declared or not."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, channel)."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Of photographs, before it sees them."""

    @property
    def is_resized(self) -> bool:
        """Whether its images are of another size than those it was declared for."""


@dataclass(frozen=True)
class NetworkUnit:
    """What units of all kinds of networks have. They are compared by what they are, not by
    weights."""

    network: HasImages
    name: UnitName
    response: Side
    target: str
    """See `parse_target`."""
    rows: range
    """Of the network's image."""
    cols: range

    @property
    def shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of its image."""
        return (len(self.rows), len(self.cols), self.image_shape[2])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of the network's image."""
        return self.network.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The network's."""
        return self.network.preprocessing

    @property
    def settings(self) -> dict[str, Any]:
        """Its name, which side of the nonlinearity, and the target; the size if it was changed."""
        size = {"size": self.image_shape[0]} if self.network.is_resized else {}
        return {"unit": str(self), "response": self.response, "target": self.target, **size}

    def __str__(self) -> str:
        return str(self.name)


@dataclass(frozen=True)
class Unit(NetworkUnit):
    """A unit of a network: a channel of a convolution at a place of its map, or of a dense layer.

    Its image is its receptive field, cut off at the image's border; its response is computed
    on that slab alone and equals the whole network's.
    """

    network: Network
    slab: Slab = field(repr=False)
    params: Params = field(repr=False, compare=False)
    """Of the layers it depends on; of its own layer, those of the channels that are sampled
    together, of which `unit.channel` counts this one."""

    @property
    def program(self) -> Hashable:
        """All but the channel."""
        return self.network, self.slab, self.response, self.target

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image), for an image of its receptive field."""
        x = scaled(self.network.preprocessing, image[None])
        response = self.slab.respond(params, x)[0]
        if response.ndim == 3:
            # At a place, the map is that place.
            response = jnp.mean(response, axis=(0, 1))
        response = parse_target(self.target)(response)
        return lax.dynamic_index_in_dim(response, params["unit"]["channel"], keepdims=False)


def only[U: NetworkUnit](units: Sequence[U], text: str) -> U:
    """The one unit that a text names.

    Raises:
        InputError: it names several.
    """
    if len(units) > 1:
        raise InputError(f"{text!r} names {len(units)} units: name one, or ask for `units`.")
    return units[0]


def find_units(
    text: str,
    network: Network,
    params: Params,
    alpha: Float[Array, " class"] | None = None,
    classes: Sequence[str] = (),
    response: Side = "pre",
    target: str = "logit",
) -> list[Unit]:
    """The units that a text names, in its order.

    Args:
        text: see `parse_units`.
        network: the declaration.
        params: all its weights.
        alpha: the classifier's offsets, a part of log p(y|x) but not of a class's score; by
            default zeros.
        classes: names of the last layer's channels, or ().
        response: "pre" for responses before the nonlinearity, "post" for those after it.
        target: of a class, see `parse_target`.

    Raises:
        InputError: there is no such unit, nonlinearity, target or probability.
    """
    layers = {layer.name: shapes(network)[layer.name] for layer in unit_layers(network)}
    names = parse_units(text, layers, classes)
    found: dict[UnitName, Unit] = {}
    together = sorted(names, key=lambda name: (name.layer, str(name.place)))
    for _, group in groupby(together, key=lambda name: (name.layer, name.place)):
        members = list(group)
        slab, weights, channels = _computed(network, params, alpha, members, response, target)
        for name in members:
            own = {"unit": {"channel": jnp.asarray(channels.index(name.channel))}}
            found[name] = Unit(
                network, name, response, target, slab.rows, slab.cols, slab, {**weights, **own}
            )
    return [found[name] for name in names]


def _computed(
    network: Network,
    params: Params,
    alpha: Float[Array, " class"] | None,
    names: Sequence[UnitName],
    response: Side,
    target: str,
) -> tuple[Slab, Params, Sequence[int]]:
    """How units at one place are computed: slab, weights, and the channels they leave in."""
    layer, place = names[0].layer, names[0].place
    ends = layer
    if response == "post":
        if layer not in nonlinearities(network):
            raise InputError(
                f"{layer} of {network.name} has no nonlinearity after it: --response post "
                f"doesn't apply."
            )
        ends = nonlinearities(network)[layer]
    shape = shapes(network)[ends]
    rows, cols = positions(shape)
    if place is not None and place != "mean":
        rows, cols = range(place[0], place[0] + 1), range(place[1], place[1] + 1)
    slab = Slab.of(network, ends, rows, cols)
    needed = {
        step.layer.name: params[step.layer.name] for step in slab.steps if step.layer.name in params
    }
    if not needs_classes(target):
        return _narrowed(slab, needed, [name.channel for name in names])
    if layer != network.layers[-1].name:
        raise InputError(
            f"{layer} of {network.name} has no probabilities: --target {target} is for its "
            f"classes, {network.layers[-1].name}."
        )
    last = next(reversed(needed))
    if alpha is not None:
        needed[last] = {**needed[last], "bias": needed[last]["bias"] + alpha}
    return slab, needed, range(shape[-1])


def _narrowed(
    slab: Slab, params: Params, channels: Sequence[int]
) -> tuple[Slab, Params, Sequence[int]]:
    """The slab with just those channels of the layer whose channels its response's are."""
    at = _channels_step(slab)
    if at is None:
        return slab, params, range(max(channels) + 1)
    step = slab.steps[at]
    before = params[step.layer.name]
    layer, weights = _with_channels(step.layer, before, channels)
    share = step.multiplications // before["bias"].size * len(channels)
    narrow = step._replace(layer=layer, multiplications=share)
    steps = (*slab.steps[:at], narrow, *slab.steps[at + 1 :])
    return replace(slab, steps=steps), {**params, layer.name: weights}, channels


def _channels_step(slab: Slab) -> int | None:
    """The step whose channels the slab's response has; None if they come from several."""
    index = {step.layer.name: number for number, step in enumerate(slab.steps)}
    at: int | None = len(slab.steps) - 1
    while at is not None and slab.steps[at].layer.channelwise:
        reads = [reading.name for reading in slab.steps[at].readings]
        at = index.get(reads[0]) if len(reads) == 1 else None
    return at


def _with_channels(
    layer: Layer, weights: Weights, channels: Sequence[int]
) -> tuple[Layer, Weights]:
    """The layer with those channels alone; a group's channel reads zeros of the other groups."""
    kernel = weights["kernel"][..., jnp.asarray(channels)]
    bias = weights["bias"][jnp.asarray(channels)]
    if isinstance(layer, Conv):
        if layer.groups > 1:
            columns = [_ungrouped(layer, kernel[..., i], c) for i, c in enumerate(channels)]
            kernel = jnp.stack(columns, axis=-1)
        return replace(layer, channels=len(channels), groups=1), {"kernel": kernel, "bias": bias}
    assert isinstance(layer, Dense)
    return replace(layer, channels=len(channels)), {"kernel": kernel, "bias": bias}


def _ungrouped(layer: Conv, kernel: Array, channel: int) -> Array:
    """A channel's kernel (row, col, in) over the inputs of all groups."""
    width = kernel.shape[-1]
    group = channel // (layer.channels // layer.groups)
    after = (layer.groups - 1 - group) * width
    return jnp.pad(kernel, ((0, 0), (0, 0), (group * width, after)))


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
