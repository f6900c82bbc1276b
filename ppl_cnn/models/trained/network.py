"""The protocol of networks with weights, declared or not."""

from collections.abc import Iterable, Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, UInt8

from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.units.listing import LayerUnits
from ppl_cnn.models.units.names import UnitName
from ppl_cnn.models.units.targets import TargetChoice
from ppl_cnn.models.units.unit import NetworkUnit, Side


@runtime_checkable
class TrainedNetwork(Protocol):
    """What all networks with weights offer: scores, units and their images.

    `CNN` is a declared network, `ModuleNetwork` a Flax NNX module. Images x are in pixel units
    (0..255) minus the mean.
    """

    @property
    def name(self) -> str:
        """The network's name."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of its images."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The mean, scale and channel order between pixels and the first layer."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the scores, or () if they have none."""

    @property
    def objective(self) -> str | None:
        """What the last stage of its training minimised, such as "generative"; None if unknown."""

    @property
    def reference(self) -> str | None:
        """The text of its own reference, such as "generator:fashion"; None if it has none."""

    def __call__(self, x: Float[Array, "n row col channel"]) -> Float[Array, "n c"]:
        """The score matrix F of images."""

    def logits(self, pixels: UInt8[np.ndarray, "n row col channel"]) -> Float[Array, "n c"]:
        """The classifier's logits of uint8 photographs, RGB or grey, of any size."""

    def unit(
        self, text: str, response: Side = "pre", target: TargetChoice = "logit"
    ) -> NetworkUnit:
        """The one unit that a text such as "conv5:12" or "class:Trouser" names."""

    def units(
        self, text: str, response: Side = "pre", target: TargetChoice = "logit"
    ) -> Sequence[NetworkUnit]:
        """The units that a text such as "conv5:0-15,conv5:40" names."""

    def unit_layers(self) -> tuple[LayerUnits, ...]:
        """The layers whose channels are units, in the network's order; the last has the classes."""

    def activity(
        self, batches: Iterable[Float[Array, "_ row col channel"]]
    ) -> dict[str, Float[np.ndarray, " _"]]:
        """Layer name -> each channel's share of non-zero responses to images.

        Raises:
            MismatchError: it is unknown which nonlinearities follow the network's layers.
        """

    def is_class(self, unit: UnitName) -> bool:
        """Whether a unit is a class, a channel of the last layer."""

    def class_of(self, unit: UnitName) -> str | None:
        """The name of the class that a unit is; None for a filter or a class without a name."""

    def resized(self, size: int) -> Self:
        """The same network on square images of `size` pixels a side.

        Raises:
            ArgumentError: the network can't be computed on such images.
        """
