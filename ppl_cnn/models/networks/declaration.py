"""A network as data: its preprocessing and a small graph of named layers."""

from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Self

from ppl_cnn.errors import MismatchError, UnknownNameError, unknown
from ppl_cnn.models.networks.layers import Conv, Dense, Layer
from ppl_cnn.numeric import plain_fields

IMAGE = "image"
"""The name of the image among the responses that layers read."""

_RESERVED = ("unit", "class", "views")
"""Names that unit texts and weights use for other things than layers."""


@dataclass(frozen=True)
class Preprocessing:
    """The way from pixels (0..255) to what the first layer sees: (pixels - mean) * scale.

    The images of densities and samples are in pixel units minus the mean; the scale belongs
    to the network.

    Examples:
        >>> Preprocessing(mean=(104.0, 117.0, 123.0), scale=(1.0, 1.0, 1.0), order="BGR").mean
        (104.0, 117.0, 123.0)
    """

    mean: tuple[float, ...]
    """The mean pixel (0..255) of each channel, in the order of `order`."""
    scale: tuple[float, ...]
    """The factor of each channel after the mean is subtracted, in the order of `order`."""
    order: str = "RGB"
    """The channel order: "RGB", "BGR" or "grey"."""
    _: KW_ONLY
    short_side: int | None = None
    """The short side, in pixels, that photographs are scaled to before the centre is cropped.

    By default it is the least that fills the network's image.
    """

    def __post_init__(self) -> None:
        plain_fields(self)

    def resized(self, before: int, after: int) -> Self:
        """The preprocessing for images of another side, which shows as much of a photograph.

        Args:
            before: the present side of the network's image, in pixels.
            after: the new side.
        """
        if self.short_side is None:
            return self
        return replace(self, short_side=round(self.short_side * after / before))


@dataclass(frozen=True)
class Network:
    """A network's declaration: a graph of named layers, hashable and free of arrays.

    Raises:
        UnknownNameError: a layer reads a layer that is not declared before it.
        MismatchError: a layer's name is reserved or already used.
    """

    name: str
    image_shape: tuple[int, int, int]
    """The shape (row, col, channel) of the image that it sees."""
    preprocessing: Preprocessing
    _: KW_ONLY
    layers: tuple[Layer, ...] = field(repr=False)
    """The layers, each after those that it reads; the last gives the scores."""
    aliases: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Pairs (other name, layer): of its weights in published files, or of a module it ends."""
    is_resized: bool = False
    """Whether its images have another size than those it was declared for."""
    classes: str | None = None
    """The data set of its classes, or None; "imagenet" is ILSVRC 2012 in its order."""
    with_units: tuple[str, ...] = field(default=(), repr=False)
    """The layers whose channels are units; by default the convolutions and dense layers."""
    auxiliary: tuple[str, ...] = field(default=(), repr=False)
    """Modules in published weights that act in training alone, such as auxiliary classifiers."""
    end: str | None = None
    """Why the scores can't be computed and the last layer isn't that of the classes, as a sentence;
    None for a network with scores."""

    def __post_init__(self) -> None:
        plain_fields(self)
        known = {IMAGE}
        for layer in self.layers:
            if layer.name in known or layer.name in _RESERVED:
                raise MismatchError(
                    f"Layer name {layer.name!r} of {self.name} is reserved or already used."
                )
            if missing := sorted(set(layer.after) - known):
                raise UnknownNameError(
                    f"{layer.name} of {self.name} reads {', '.join(missing)}. Declare layers "
                    f"before those that read them.",
                    name=missing[0],
                    known=known,
                )
            known.add(layer.name)

    @property
    def score_layer(self) -> Conv | Dense:
        """The layer whose channels are the classes: the last one that mixes channels."""
        return next(layer for layer in reversed(self.layers) if isinstance(layer, Conv | Dense))

    def with_classes(self, count: int) -> Self:
        """The same network with another number of classes; itself if it has that many.

        Args:
            count: channels of the layer that gives the scores.

        Examples:
            >>> from ppl_cnn.models.networks.catalogue import network_named
            >>> network_named("lenet").with_classes(37).layers[-1]
            Dense(name='fc4', after=(), channels=37)
        """
        last = self.score_layer
        if last.channels == count:
            return self
        layers = tuple(
            replace(layer, channels=count) if layer is last else layer for layer in self.layers
        )
        return replace(self, layers=layers, classes=None)

    @property
    def scores(self) -> str | None:
        """The name of the layer that gives the scores; None if they can't be computed."""
        return self.layers[-1].name if self.end is None else None

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Hundreds of layers are hashed once, not wherever something is looked up by the network.
        return hash((self.name, self.image_shape, self.preprocessing, self.layers))

    def layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            UnknownNameError: the network has no such layer.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise unknown(f"layer of {self.name}", name, [layer.name for layer in self.layers])
