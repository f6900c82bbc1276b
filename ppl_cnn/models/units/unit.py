"""A unit of a declared network, computed on its receptive field alone."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal, Protocol, cast, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.forward import scaled
from ppl_cnn.models.networks.graph import Params, shapes
from ppl_cnn.models.networks.layers import Conv, Dense, Weights
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.networks.window import positions
from ppl_cnn.models.units.listing import channels_step, names_with_units, nonlinearities
from ppl_cnn.models.units.names import UnitName, parse_units
from ppl_cnn.models.units.score_function import Image
from ppl_cnn.models.units.targets import Logit, Target, TargetChoice, parse_target, settled

type Side = Literal["pre", "post"]
"""Before or after the nonlinearity that follows a unit's layer."""


@runtime_checkable
class HasImages(Protocol):
    """The images of a network, declared layer by layer or not."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of the image that it sees."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The way from pixels (0..255) to what its first layer sees."""

    @property
    def is_resized(self) -> bool:
        """Whether its images have another size than those it was declared for."""


@dataclass(frozen=True)
class NetworkUnit:
    """What units of all kinds of networks share; units are equal whatever their weights."""

    network: HasImages
    name: UnitName
    response: Side
    target: Target
    rows: range
    """The rows of the network's image that the unit sees."""
    cols: range
    """The columns of the network's image that the unit sees."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of its image."""
        return (len(self.rows), len(self.cols), self.image_shape[2])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of the network's image."""
        return self.network.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the network's images."""
        return self.network.preprocessing

    @property
    def settings(self) -> dict[str, Any]:
        """The unit's name, `response` and `target`, and `size` if the network was resized."""
        size = {"size": self.image_shape[0]} if self.network.is_resized else {}
        return {"unit": str(self), "response": self.response, "target": str(self.target), **size}

    def __str__(self) -> str:
        return str(self.name)


@dataclass(frozen=True)
class Unit(NetworkUnit):
    """A unit of a declared network: a channel of a layer, at a place if the layer has a map.

    Its image is its receptive field, cut off at the border of the network's image. Its score is
    computed on that slab alone and equals that of the whole network. `CNN.unit` makes units.

    Examples:
        >>> import ppl_cnn
        >>> unit = ppl_cnn.load("alexnet-fashion").unit("conv2:3")
        >>> str(unit), unit.shape
        ('conv2:3@7,7', (15, 15, 1))
    """

    network: Network
    slab: Slab = field(repr=False)
    params: Params = field(repr=False, compare=False)
    """The weights of the layers that it depends on, and under `unit.channel` its own channel.

    Units that were named together share these weights; the last layer has their channels alone.
    """

    @property
    def program(self) -> Hashable:
        """All that defines the unit but its channel."""
        return self.network, self.slab, self.response, self.target

    def responses(self, params: Params, image: Image) -> Array:
        """The responses (row, col, channel) or (channel,) of its place or map, by channel."""
        x = scaled(self.network.preprocessing, image[None])
        response: Array = self.slab.respond(params, x)[0]
        return response

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """The score f(image) of an image of its receptive field, before division by T."""
        response = self.responses(params, image)
        if response.ndim == 3:
            # The slab of a unit at a place ends in a map of that place alone.
            response = jnp.mean(response, axis=(0, 1))
        response = self.target(response)
        channel = params["unit"]["channel"]
        return cast(Array, lax.dynamic_index_in_dim(response, channel, keepdims=False))


def only[U: NetworkUnit](units: Sequence[U], text: str) -> U:
    """The one unit that a text names.

    Raises:
        ArgumentError: the text names several units.
    """
    if len(units) > 1:
        raise ArgumentError(
            f"{text!r} names {len(units)} units. Name one, or call `units`.", argument="unit"
        )
    return units[0]


def find_units(
    text: str,
    network: Network,
    params: Params,
    *,
    alpha: Float[Array, " class"] | None = None,
    classes: Sequence[str] = (),
    response: Side = "pre",
    target: TargetChoice = "logit",
    suited: Target | None = None,
) -> list[Unit]:
    """The units that a text names, in its order.

    Args:
        text: such as "conv5:0-15,class:goldfish"; see `parse_units`.
        network: the declaration.
        params: all weights of the network.
        alpha: the classifier's offsets, a part of log p(y|x) but not of a class's score; by
            default zeros.
        classes: the names of the last layer's channels, or ().
        response: "pre" for the response before the nonlinearity, "post" for that after it.
        target: what of a class tilts its density, such as `LogProb()`, "log-prob" or "auto".
        suited: what auto stands for with classes; by default their score.

    Raises:
        UnknownNameError: the network has no such layer or class, or there is no such target.
        ArgumentError: the text is no list of units, or the response is neither pre nor post.
        MismatchError: the layer has no such channel or place, no nonlinearity or no probabilities.
    """
    if response not in ("pre", "post"):
        raise ArgumentError(
            f"`response` must be pre or post, not {response!r}.", argument="response"
        )
    target, suited = parse_target(target), suited or Logit()
    layers = {name: shapes(network)[name] for name in names_with_units(network)}
    names = parse_units(text, layers, classes, aliases=dict(network.aliases), end=network.end)
    found: dict[UnitName, Unit] = {}
    together = sorted(names, key=lambda name: (name.layer, str(name.place)))
    for (layer, _), group in groupby(together, key=lambda name: (name.layer, name.place)):
        members = list(group)
        own_target = settled(target, suited=suited, is_class=layer == network.scores)
        slab, weights, channels = _computed(network, params, alpha, members, response, own_target)
        for name in members:
            own = {"unit": {"channel": jnp.asarray(channels.index(name.channel), jnp.int32)}}
            found[name] = Unit(
                network, name, response, own_target, slab.rows, slab.cols, slab, {**weights, **own}
            )
    return [found[name] for name in names]


def _computed(
    network: Network,
    params: Params,
    alpha: Float[Array, " class"] | None,
    names: Sequence[UnitName],
    response: Side,
    target: Target,
) -> tuple[Slab, Params, Sequence[int]]:
    """The slab and the weights that units at one place need, and the channels left in these."""
    layer, place = names[0].layer, names[0].place
    ends = layer
    if response == "post":
        if layer not in nonlinearities(network):
            raise MismatchError(
                f"No nonlinearity follows {layer} of {network.name}. Give `response=pre`."
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
    if not target.compares_classes:
        return _narrowed(slab, needed, [name.channel for name in names])
    if layer != network.scores or shape[-1] == 1:  # a softmax of one score is 1
        raise no_probabilities(layer, network.name, target, network.layers[-1].name)
    if alpha is not None and np.any(alpha):
        last = next(reversed(needed))
        needed[last] = {**needed[last], "bias": needed[last]["bias"] + alpha}
    return slab, needed, range(shape[-1])


def no_probabilities(layer: str, network: str, target: Target, last: str) -> MismatchError:
    """The error for a target that compares classes, asked of a layer without or with one alone."""
    return MismatchError(
        f"{layer} of {network} has no probabilities for `target={target}`. Name a class "
        f"({last}), or give `target={Logit()}`."
    )


def _narrowed(
    slab: Slab, params: Params, channels: Sequence[int]
) -> tuple[Slab, Params, Sequence[int]]:
    """The slab with those channels alone, in the layer that makes its response's channels."""
    at = channels_step(slab)
    if at is None:
        return slab, params, range(max(channels) + 1)
    step = slab.steps[at]
    if not isinstance(step.layer, Conv | Dense):
        return slab, params, range(max(channels) + 1)
    count = step.layer.channels
    layer, weights = _with_channels(step.layer, params[step.layer.name], channels)
    share = step.multiplications // count * len(channels)
    narrow = step._replace(layer=layer, multiplications=share)
    steps = (*slab.steps[:at], narrow, *slab.steps[at + 1 :])
    later = {
        after.layer.name: {
            name: array[..., jnp.asarray(channels)] if array.shape[-1] == count else array
            for name, array in params[after.layer.name].items()
        }
        for after in slab.steps[at + 1 :]
        if after.layer.name in params
    }
    return replace(slab, steps=steps), {**params, layer.name: weights, **later}, channels


def _with_channels(
    layer: Conv | Dense, weights: Weights, channels: Sequence[int]
) -> tuple[Conv | Dense, Weights]:
    """The layer with those channels alone.

    Channels of a grouped convolution then read all groups, with zeros for those of others.
    """
    own = {name: array[..., jnp.asarray(channels)] for name, array in weights.items()}
    if isinstance(layer, Conv):
        if layer.groups > 1:
            kernels = enumerate(channels)
            columns = [_ungrouped(layer, own["kernel"][..., i], c) for i, c in kernels]
            own["kernel"] = jnp.stack(columns, axis=-1)
        return replace(layer, channels=len(channels), groups=1), own
    return replace(layer, channels=len(channels)), own


def _ungrouped(layer: Conv, kernel: Array, channel: int) -> Array:
    """The kernel (row, col, in) of a group's channel, over the inputs of all groups."""
    width = kernel.shape[-1]
    group = channel // (layer.channels // layer.groups)
    after = (layer.groups - 1 - group) * width
    return jnp.pad(kernel, ((0, 0), (0, 0), (group * width, after)))
