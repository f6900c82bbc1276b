"""A network as data: its preprocessing and a small graph of named layers."""

from dataclasses import dataclass, field, replace
from typing import Self

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.layers import (
    Layer,
)

IMAGE = "image"
"""What a layer that reads the image itself reads."""


_RESERVED = ("unit", "class", "views")


@dataclass(frozen=True)
class Preprocessing:
    """From pixels (0..255) to what the first layer sees: (pixels - mean) * scale.

    The images of densities and samples are in pixel units minus the mean; the scale belongs
    to the network.
    """

    mean: tuple[float, ...]
    """Per channel, in the network's channel order."""
    scale: tuple[float, ...]
    """Likewise."""
    order: str = "RGB"
    """Of the channels: "RGB", "BGR" or "grey"."""
    short_side: int | None = None
    """What photographs' short side is scaled to before the centre is cropped; by default the
    least that fills the network's image."""

    def resized(self, before: int, after: int) -> Self:
        """The same for images of another side: of photographs, as much is seen."""
        if self.short_side is None:
            return self
        return replace(self, short_side=round(self.short_side * after / before))


@dataclass(frozen=True)
class Network:
    """A network's declaration; hashable, and free of arrays.

    Raises:
        InputError: two layers share a name, or one reads a layer that doesn't come before it.
    """

    name: str
    image_shape: tuple[int, int, int]
    """(row, col, channel) of the image it sees."""
    preprocessing: Preprocessing
    layers: tuple[Layer, ...] = field(repr=False)
    """In an order in which each comes after those it reads; the last gives the scores."""
    aliases: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(name in published weights, layer) where they differ."""
    is_resized: bool = False
    """Whether its images are of another size than those it was declared for."""
    classes: str | None = None
    """What has names for the scores: "imagenet", for the classes of ILSVRC 2012 in its order."""

    def __post_init__(self) -> None:
        known = {IMAGE}
        for layer in self.layers:
            if layer.name in known or layer.name in _RESERVED:
                raise InputError(f"{self.name} has no free name {layer.name!r} for a layer.")
            if missing := set(layer.after) - known:
                raise InputError(
                    f"{layer.name} of {self.name} reads {', '.join(sorted(missing))}, which must "
                    f"be declared before it."
                )
            known.add(layer.name)

    def layer(self, name: str) -> Layer:
        """The layer of that name; `InputError` if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise InputError(f"{self.name} has no layer {name!r}; its layers are {names}.")
