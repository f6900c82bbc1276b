"""A unit of a Flax NNX module."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.networks.receptive_field import Images, Weights
from ppl_cnn.models.units.score_function import Image
from ppl_cnn.models.units.unit import HasImages, NetworkUnit


@runtime_checkable
class Responds(HasImages, Protocol):
    """A network that computes the responses of its layers."""

    def respond(self, weights: Weights, x: Images, layer: str) -> Array:
        """A layer's response, (n, row, col, channel) or (n, channel), to images minus the mean."""


@dataclass(frozen=True)
class ModuleUnit(NetworkUnit):
    """A unit of a module: a channel of a layer, at a place if the layer has a map.

    Its image is its receptive field. The module runs on the whole image, which has the mean (zeros)
    outside the field. Its response is always "pre".
    """

    network: Responds
    params: Params = field(repr=False, compare=False)
    """All weights of the network, which its units share, and under `unit.channel` its channel.

    Where the target compares classes that have offsets, these are under `classes.alpha`.
    """

    @property
    def program(self) -> Hashable:
        """All that defines the unit but its channel."""
        place = self.name.layer, self.name.place
        return self.network, *place, self.response, self.target, self.rows, self.cols

    def responses(self, params: Params, image: Image) -> Array:
        """The layer's responses, (row, col, channel) or (channel,)."""
        outside = [
            (inside.start, size - inside.stop)
            for inside, size in zip((self.rows, self.cols), self.image_shape[:2], strict=True)
        ]
        x = jnp.pad(image, (*outside, (0, 0)))[None]
        return self.network.respond(dict(params["weights"]), x, self.name.layer)[0]

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """The score f(image) of an image of its receptive field, before division by T."""
        place, response = self.name.place, self.responses(params, image)
        if place == "mean":
            response = jnp.mean(response, axis=(0, 1))
        elif place is not None:
            response = response[place]
        if "classes" in params:
            response = response + params["classes"]["alpha"]
        channel = params["unit"]["channel"]
        score: Float[Array, ""] = jax.lax.dynamic_index_in_dim(
            self.target(response), channel, keepdims=False
        )
        return score
