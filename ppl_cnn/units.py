"""Lists the units of a network: layer, channels, map and receptive field.

A unit is layer:channel, for a convolution at the centre of its map, or layer:channel@row,col.
Its image, the one that is sampled, is its receptive field cut off at the image's border.
"""

from dataclasses import dataclass

from ppl_cnn.command import run_command


@dataclass(frozen=True)
class Units:
    """Options."""

    model: str = "alexnet-fashion"
    """An embedded network, the folder of a run of `python -m ppl_cnn.pretrain`, or the name of a
    declared network without weights."""


def main(options: Units) -> None:
    """Prints a line for each layer that has units."""
    from ppl_cnn.models.networks import NETWORKS
    from ppl_cnn.models.units import unit_layers
    from ppl_cnn.models.weights import embedded_names, load

    declared = options.model in NETWORKS and options.model not in embedded_names()
    network = NETWORKS[options.model] if declared else load(options.model).network
    rows, cols, channels = network.image_shape
    print(f"{network.name}, images of {rows} x {cols} x {channels}")
    line = "{:<10} {:>8}  {:>9}  {:>6}  {:>15}  {:>9}  {}"
    print(line.format("layer", "channels", "map", "stride", "receptive field", "image", "example"))
    for layer in unit_layers(network):
        print(
            line.format(
                layer.name,
                layer.channels,
                "-" if layer.places is None else _size(layer.places),
                "-" if layer.stride is None else layer.stride,
                _size(layer.receptive_field),
                _size(layer.image),
                f"{layer.name}:{min(12, layer.channels - 1)}",
            )
        )


def _size(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]}"


if __name__ == "__main__":
    run_command(Units, main, "python -m ppl_cnn.units", __doc__)
