"""Lists the units of a network: layer, channels, map, receptive field and cost.

A unit is written layer:channel (for a convolution, at the centre of its map),
layer:channel@row,col, layer:channel@mean or class:name; a layer's name alone is all of its units.
The image that is sampled is the unit's receptive field, cut off at the image's border; its response
is computed on that part of the network alone. With --data, images show which units respond at all
after their nonlinearity, so that no hours are spent on dead ones.

Examples:
    python -m ppl_cnn.units --model alexnet
    python -m ppl_cnn.units --model resnet50 --layer layer4.2
    python -m ppl_cnn.units --model mine:factory
    python -m ppl_cnn.units --model resnet50.onnx
    python -m ppl_cnn.units --model net.keras
    python -m ppl_cnn.units --layer conv5 --data fashion-embedded
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ppl_cnn.errors import ArgumentError, unknown
from ppl_cnn.options.command import run_command

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from ppl_cnn.models.trained.network import TrainedNetwork

_BATCH_VALUES = 2_000_000
"""Pixels times channels of a batch of images: 13 of AlexNet's, whose maps then take 0.2 GB."""


@dataclass(frozen=True)
class UnitsOptions:
    """The options of `python -m ppl_cnn.units`."""

    model: str = "alexnet-fashion"
    """An embedded network; the folder of a run of `python -m ppl_cnn.pretrain` or of an import; the
    name of a declared network, with or without weights; an ONNX file or one of Keras; or
    package.module:factory for a network of your own."""
    weights: str | None = None
    """A file of weights for a network's name, or "auto" to fetch its published ones."""
    pixels: str | None = None
    """What the network sees of pixels, such as torchvision or caffe. A network's file needs it
    with --data; --weights do if it isn't what the declared network sees."""
    entry: str | None = None
    """The key of the weights, such as model_ema, in a file of --weights that has several."""
    flatten: Literal["channels-first", "channels-last"] | None = None
    """The order in which the dense layers of --weights read maps; by default the file's names
    tell."""
    layer: str | None = None
    """The only layer to list; with --data, each of its channels gets a line."""
    data: str | None = None
    """The data set on whose training images non-zero responses are counted, e.g.
    fashion-embedded."""
    images: int = 1_000
    """How many training images are used."""
    data_dir: str | None = None
    """The folder of prepared data sets (default: TFDS's own)."""


def main(options: UnitsOptions) -> None:
    """Prints a line for each layer that has units, or for each channel of one."""
    from ppl_cnn.models.networks.catalogue import network_named
    from ppl_cnn.models.units.listing import unit_layers
    from ppl_cnn.models.units.table import channels_table, layers_table

    trained = _trained(options)
    network = network_named(options.model) if trained is None else trained
    every = unit_layers(network_named(options.model)) if trained is None else trained.unit_layers()
    layers = [each for each in every if options.layer in (None, each.name)]
    if not layers:
        raise unknown("layer", options.layer, [each.name for each in every])
    shares = None
    if trained is not None and options.data is not None:
        shares = trained.activity(_images(options, options.data, trained))
    rows, cols, channels = network.image_shape
    print(f"{network.name}, images of {rows} x {cols} x {channels}")
    print(layers_table(layers, shares))
    for note in _notes(trained):
        print(f"\n{note}")
    print("\nmultiplications: of one channel's whole map, and of the unit at its centre")
    if shares is not None:
        print(f"non-zero: a channel's share over images and places of {options.data}")
        if options.layer is not None:
            print("\n" + channels_table(options.layer, shares))


def _trained(options: UnitsOptions) -> "TrainedNetwork | None":
    """The network with its weights; None for a declared network without weights."""
    from ppl_cnn.models.networks.catalogue import NETWORKS
    from ppl_cnn.models.trained.loading import load
    from ppl_cnn.models.trained.model_folder import embedded_names
    from ppl_cnn.models.trained.onnx_network import SUFFIXES

    about_weights = (options.weights, options.pixels, options.entry, options.flatten)
    has_weights = any(about_weights) or options.model in embedded_names()
    if has_weights or options.model not in NETWORKS:
        # The units don't depend on what is done to pixels, but responses to images do.
        is_listing = options.data is None and Path(options.model).suffix.lower() in SUFFIXES
        pixels = options.pixels or ("raw" if is_listing else None)
        return load(
            options.model,
            options.weights,
            entry=options.entry,
            pixels=pixels,
            flatten=options.flatten,
        )
    if options.data is not None:
        raise ArgumentError(
            f"{options.model} comes without weights, which `data` needs. Give a file of them as "
            f"`weights`.",
            argument="weights",
        )
    return None


def _notes(trained: "TrainedNetwork | None") -> list[str]:
    """What there is to know of the scores of a network's file."""
    from ppl_cnn.models.trained.onnx_network import OnnxNetwork

    if not isinstance(trained, OnnxNetwork):
        return []
    notes = []
    if trained.head is not None:
        notes.append(f"scores: before the {trained.head} at the file's end, so they are logits")
    if trained.declaration.end is not None:
        notes.append(trained.declaration.end)
    return notes


def _images(
    options: UnitsOptions, data: str, network: "TrainedNetwork"
) -> "Iterator[Float[Array, '_ row col channel']]":
    """Batches of the first training images of a data set, as the network sees them."""
    from ppl_cnn.data import batches, open_split
    from ppl_cnn.models.trained.cnn import preprocess
    from ppl_cnn.progress import Bar

    if options.images < 1:
        raise ArgumentError(f"`images` must be positive, not {options.images}.", argument="images")
    split = open_split(data, "train", options.data_dir)
    count = min(options.images, len(split))
    size = max(1, _BATCH_VALUES // math.prod(network.image_shape))
    bar = Bar(range(0, count, size), "responses", unit="batch", delay=2, leave=False)
    seen = batches(
        split,
        size,
        image_shape=network.image_shape,
        short_side=network.preprocessing.short_side,
    )
    for start, batch in zip(bar, seen, strict=False):
        pixels = batch["image"][: count - start]
        yield preprocess(pixels, network.preprocessing, network.image_shape)


if __name__ == "__main__":
    run_command(UnitsOptions, main, prog="python -m ppl_cnn.units", description=__doc__)
