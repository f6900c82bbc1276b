"""A filter scored wherever its receptive field lies in the image, and where it responds most."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork
from ppl_cnn.models.trained.modules.module_unit import ModuleUnit
from ppl_cnn.models.units.score_function import Image, OfUnit
from ppl_cnn.models.units.unit import Side, Unit


class Inside(NamedTuple):
    """The places of a layer's map whose receptive field is as large as the centre's.

    That of others is cut off at the image's border, where they see padding. At these places a
    filter is one function of what it sees, that of its density.
    """

    rows: tuple[range, ...]
    """The image's rows that a place sees, for each of the map's rows from `first` on."""
    cols: tuple[range, ...]
    """The image's columns that a place sees, for each of the map's columns from `first` on."""
    first: tuple[int, int]
    """The map's first row and column that are inside."""

    @classmethod
    def of(
        cls, network: CNN | ModuleNetwork, layer: str, places: tuple[int, int], response: Side
    ) -> Self:
        """Those of a layer.

        Args:
            network: the network.
            layer: a layer with a map.
            places: the map's rows and columns.
            response: before or after the nonlinearity that follows.
        """
        row, col = places[0] // 2, places[1] // 2
        down = [f"{layer}:0@{r},{col}" for r in range(places[0])]
        across = [f"{layer}:0@{row},{c}" for c in range(places[1]) if c != col]
        found = network.units(",".join(down + across), response)
        by_row = [unit.rows for unit in found[: places[0]]]
        by_col = [unit.cols for unit in found[places[0] :]]
        by_col.insert(col, found[row].cols)
        inner = [
            [at for at, seen in enumerate(by) if len(seen) == len(by[centre])]
            for by, centre in ((by_row, row), (by_col, col))
        ]
        rows, cols = (range(at[0], at[-1] + 1) for at in inner)
        seen_rows = tuple(by_row[rows.start : rows.stop])
        seen_cols = tuple(by_col[cols.start : cols.stop])
        return cls(seen_rows, seen_cols, (rows.start, cols.start))


@dataclass(frozen=True)
class Anywhere(OfUnit):
    """A filter whose score is its largest response, over the places inside its map.

    Args:
        unit: the filter's mean over its map, layer:channel@mean.
        inside: the places.
    """

    unit: Unit | ModuleUnit
    inside: Inside

    @property
    def params(self) -> Params:
        """The unit's weights."""
        return self.unit.params

    @property
    def program(self) -> Hashable:
        """The unit's program."""
        return self.inside, self.unit.program

    @property
    def settings(self) -> dict[str, Any]:
        """The unit's settings."""
        return self.unit.settings

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """The largest response over these places."""
        return jnp.max(self._map(params, image))

    def best(self, params: Params, image: Image) -> Int[Array, "2"]:
        """The (row, col), counted from the first inside, of the place with the largest response."""
        over = self._map(params, image)
        return jnp.stack(jnp.unravel_index(jnp.argmax(over), over.shape))

    def _map(self, params: Params, image: Image) -> Float[Array, "map_row map_col"]:
        (row, col), rows, cols = self.inside.first, self.inside.rows, self.inside.cols
        responses = self.unit.responses(params, image)
        own = responses[row : row + len(rows), col : col + len(cols)]
        channel = params["unit"]["channel"]
        found: Float[Array, "map_row map_col"] = lax.dynamic_index_in_dim(
            own, channel, 2, keepdims=False
        )
        return found
