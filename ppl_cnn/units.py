"""Lists the units of a network: layer, channels, map, receptive field and cost.

A unit is layer:channel, for a convolution at the centre of its map, layer:channel@row,col,
layer:channel@mean or class:name. Its image, the one that is sampled, is its receptive field cut
off at the image's border; its response is computed on that slab alone. With --data, images show
which units respond at all after their nonlinearity, before hours are spent on dead ones.

Examples:
    python -m ppl_cnn.units --model alexnet
    python -m ppl_cnn.units --model mine:factory
    python -m ppl_cnn.units --layer conv5 --data fashion-embedded
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ppl_cnn.errors import InputError
from ppl_cnn.options.command import run_command

if TYPE_CHECKING:
    from jaxtyping import Array

    from ppl_cnn.models.networks.declaration import Network
    from ppl_cnn.models.trained.cnn import CNN
    from ppl_cnn.models.trained.module_network import ModuleNetwork
    from ppl_cnn.models.units.listing import LayerUnits

type Shares = dict[str, Float[np.ndarray, " channel"]]
"""Layer name -> each channel's share of non-zero responses."""

_BATCH_VALUES = 2_000_000
"""Pixels times channels of a batch of images: 13 of AlexNet's, whose maps then take 0.2 GB."""


@dataclass(frozen=True)
class Units:
    """Options."""

    model: str = "alexnet-fashion"
    """An embedded network; the folder of a run of `python -m ppl_cnn.pretrain` or of an import; the
    name of a declared network, with or without weights; or package.module:factory for a network
    of your own."""
    weights: str | None = None
    """A file of weights for a network's name, or "auto" to fetch its published ones."""
    layer: str | None = None
    """This one only; with --data, each of its channels."""
    data: str | None = None
    """Data set on whose training images the shares of non-zero responses are counted, e.g.
    fashion-embedded."""
    images: int = 1_000
    """How many of them."""
    data_dir: str | None = None
    """Where prepared data sets lie (default: TFDS's own folder)."""


def main(options: Units) -> None:
    """Prints a line for each layer that has units, or for each channel of one."""
    network, cnn = _opened(options)
    from ppl_cnn.models.units.activity import activity
    from ppl_cnn.models.units.listing import unit_layers

    layers = [each for each in unit_layers(network) if options.layer in (None, each.name)]
    if not layers:
        names = ", ".join(each.name for each in unit_layers(network))
        raise InputError(
            f"There are no units in a layer {options.layer!r} of {network.name}; the layers with "
            f"units are {names}."
        )
    shares = None
    if cnn is not None and options.data is not None:
        images = _images(options, options.data, cnn.network)
        shares = activity(cnn.network, cnn.arrays(), images)
    rows, cols, channels = network.image_shape
    print(f"{network.name}, images of {rows} x {cols} x {channels}")
    print(_layers(layers, shares))
    print("\nmultiplications: of one channel's whole map, and of the unit at its centre")
    if shares is not None:
        print(f"non-zero: a channel's share over images and places of {options.data}")
        if options.layer is not None:
            print("\n" + _channels(options.layer, shares))


def _opened(options: Units) -> "tuple[Network | ModuleNetwork, CNN | None]":
    """The network and, if it is a declared one that has weights, it with these."""
    from ppl_cnn.models.networks.catalogue import NETWORKS
    from ppl_cnn.models.trained.cnn import CNN
    from ppl_cnn.models.trained.model_folder import embedded_names, load

    trained = options.weights is not None or options.model in embedded_names()
    if options.model in NETWORKS and not trained:
        if options.data is not None:
            raise InputError(
                f"{options.model} comes without weights, and of random ones --data would say "
                f"nothing: give a file of them with --weights."
            )
        return NETWORKS[options.model], None
    opened = load(options.model, options.weights)
    if isinstance(opened, CNN):
        return opened.network, opened
    if options.data is not None:
        raise InputError(
            f"{opened.name} doesn't tell which nonlinearity follows a layer, so that --data can't "
            f"count how often its units respond: leave it out."
        )
    return opened, None


def _images(
    options: Units, data: str, network: "Network"
) -> "Iterator[Float[Array, '_ row col channel']]":
    """The first training images of the data set, as the network sees them."""
    from tqdm import tqdm

    from ppl_cnn.data import batches, open_split
    from ppl_cnn.models.trained.cnn import preprocess

    if options.images < 1:
        raise InputError(f"The number of images must be positive, not {options.images}.")
    split = open_split(data, "train", options.data_dir)
    count = min(options.images, len(split))
    size = max(1, _BATCH_VALUES // math.prod(network.image_shape))
    bar = tqdm(range(0, count, size), "responses", unit="batch", delay=2, leave=False)
    seen = batches(
        split,
        size,
        image_shape=network.image_shape,
        short_side=network.preprocessing.short_side,
    )
    for start, batch in zip(bar, seen, strict=False):
        pixels = batch["image"][: count - start]
        yield preprocess(pixels, network.preprocessing, network.image_shape)


def _layers(layers: "list[LayerUnits]", shares: Shares | None) -> str:
    """A line for each layer."""
    head = ("layer", "channels", "map", "stride", "receptive field", "image", "whole", "slab")
    more = ("example",) if shares is None else ("example", "median non-zero", "dead")
    rows = [_layer(each) + (() if shares is None else _active(each, shares)) for each in layers]
    return _aligned([head + more, *rows])


def _layer(layer: "LayerUnits") -> tuple[str, ...]:
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


def _active(layer: "LayerUnits", shares: Shares) -> tuple[str, str]:
    """The median of the channels' shares, and how many channels never responded."""
    if layer.name not in shares:
        return "no ReLU", "-"
    ordered = sorted(shares[layer.name])
    return f"{ordered[len(ordered) // 2]:.2%}", str(ordered.count(0))


def _channels(layer: str, shares: Shares) -> str:
    """A line for each channel of a layer."""
    if layer not in shares:
        return f"No nonlinearity follows {layer}: none of its units is dead."
    rows = [
        (f"{layer}:{channel}", f"{share:.2%}", "dead" if share == 0 else "")
        for channel, share in enumerate(shares[layer])
    ]
    return _aligned([("unit", "non-zero", ""), *rows])


def _aligned(table: list[tuple[str, ...]]) -> str:
    """Columns to the right but for the first."""
    first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
    return "\n".join(
        "  ".join([f"{row[0]:<{first}}", *map(str.rjust, row[1:], others)]).rstrip()
        for row in table
    )


def _size(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]}"


def _count(number: int | None) -> str:
    """Such as 351.4 M, or - where it isn't known."""
    if number is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


if __name__ == "__main__":
    run_command(Units, main, prog="python -m ppl_cnn.units", description=__doc__)
