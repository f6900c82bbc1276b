"""The units of a network as a table of text."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ppl_cnn.models.units.listing import LayerUnits

type Shares = Mapping[str, Float[np.ndarray, " _"]]
"""Layer name -> each channel's share of non-zero responses."""


def layers_table(layers: Sequence[LayerUnits], shares: Shares | None = None) -> str:
    """A line for each layer with units: map, receptive field, cost and an example.

    Args:
        layers: what `unit_layers` lists.
        shares: what `activity` counts, for two more columns.
    """
    head = ("layer", "channels", "map", "stride", "receptive field", "image", "whole", "slab")
    more = ("example",) if shares is None else ("example", "median non-zero", "dead")
    rows = [_layer(each) + (() if shares is None else _active(each, shares)) for each in layers]
    return _aligned([head + more, *rows])


def _layer(layer: LayerUnits) -> tuple[str, ...]:
    return (
        layer.name,
        str(layer.channels),
        "-" if layer.places is None else _size(layer.places),
        "-" if layer.stride is None else str(layer.stride),
        _size(layer.receptive_field),
        _size(layer.image),
        _count(layer.whole_multiplications),
        _count(layer.slab_multiplications),
        f"{layer.name}:{min(12, layer.channels - 1)}",
    )


def _active(layer: LayerUnits, shares: Shares) -> tuple[str, str]:
    """The median of the channels' shares, and the number of channels that never responded."""
    if layer.name not in shares:
        return "no ReLU", "-"
    ordered = sorted(shares[layer.name])
    return f"{ordered[len(ordered) // 2]:.2%}", str(ordered.count(0))


def channels_table(layer: str, shares: Shares) -> str:
    """A line for each channel of a layer: its share of non-zero responses.

    Args:
        layer: the layer's name.
        shares: what `activity` counts.
    """
    if layer not in shares:
        return f"No nonlinearity follows {layer}, so none of its units is dead."
    rows = [
        (f"{layer}:{channel}", f"{share:.2%}", "dead" if share == 0 else "")
        for channel, share in enumerate(shares[layer])
    ]
    return _aligned([("unit", "non-zero", ""), *rows])


def _aligned(table: list[tuple[str, ...]]) -> str:
    """The table with its first column aligned to the left and the others to the right."""
    first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
    return "\n".join(
        "  ".join([f"{row[0]:<{first}}", *map(str.rjust, row[1:], others)]).rstrip()
        for row in table
    )


def _size(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]}"


def _count(number: int | None) -> str:
    """A count such as 351.4 M, or - for None."""
    if number is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
