"""A filter scored at all places of its map, and the part of the image that it sees at the best."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.trained.modules.module_unit import ModuleUnit
from ppl_cnn.models.units.score_function import Image
from ppl_cnn.models.units.unit import Unit


@dataclass(frozen=True)
class Anywhere:
    """A filter whose score is its largest response, over all places of its map.

    Args:
        unit: the filter's mean over its map, layer:channel@mean.
    """

    unit: Unit | ModuleUnit

    def __str__(self) -> str:
        return str(self.unit)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of what all places see together."""
        return self.unit.shape

    @property
    def rows(self) -> range:
        """The rows of the network's image that some place sees."""
        return self.unit.rows

    @property
    def cols(self) -> range:
        """The columns of the network's image that some place sees."""
        return self.unit.cols

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of the network's image."""
        return self.unit.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the network's images."""
        return self.unit.preprocessing

    @property
    def params(self) -> Params:
        """The unit's weights."""
        return self.unit.params

    @property
    def program(self) -> Hashable:
        """The unit's program."""
        return "anywhere", self.unit.program

    @property
    def settings(self) -> dict[str, Any]:
        """The unit's settings."""
        return self.unit.settings

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """The largest response over all places."""
        return jnp.max(self._map(params, image))

    def best(self, params: Params, image: Image) -> Int[Array, "2"]:
        """The (row, col) of the place with the largest response."""
        over = self._map(params, image)
        return jnp.stack(jnp.unravel_index(jnp.argmax(over), over.shape))

    def _map(self, params: Params, image: Image) -> Float[Array, "row col"]:
        responses = self.unit.responses(params, image)
        channel = params["unit"]["channel"]
        return lax.dynamic_index_in_dim(responses, channel, axis=2, keepdims=False)
