"""A unit of a declared network, computed on its receptive field alone."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.graph import Params, Slab, positions, scaled, shapes
from ppl_cnn.models.networks.layers import Conv, Dense, Layer, Weights
from ppl_cnn.models.units.listing import _channels_step, nonlinearities, unit_layers
from ppl_cnn.models.units.names import UnitName, parse_units
from ppl_cnn.models.units.scored import Image
from ppl_cnn.models.units.targets import needs_classes, parse_target

type Side = Literal["pre", "post"]
"""Before or after the nonlinearity that follows the unit's layer."""


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
