"""A node of a graph on its way to a layer: what rules are given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from ppl_cnn.models.formats.onnx_file import Node
from ppl_cnn.models.networks.layers import Layer
from ppl_cnn.models.onnx.call import Call
from ppl_cnn.models.onnx.forms import Form


@dataclass(frozen=True)
class Signal:
    """A value that depends on the image: the layer that makes it, and its form."""

    layer: str
    form: Form


type Value = Signal | np.ndarray | None
"""What a node reads: a signal, a constant, or None for an input that is left out."""


@runtime_checkable
class Made(Protocol):
    """What has been made of the nodes before a site."""

    def add(self, layer: Layer, form: Form, weights: Mapping[str, np.ndarray]) -> Signal:
        """Adds a layer."""

    def maker(self, name: str) -> Node | None:
        """The node that makes a value."""

    def value(self, name: str) -> Value:
        """A value that has been made; None if there is none."""


@dataclass(frozen=True)
class Site:
    """A node as rules see it: its operator, what it reads, and the name of its layer."""

    node: Node
    call: Call
    read: tuple[Value, ...]
    name: str
    made: Made

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals among what it reads."""
        return tuple(value for value in self.read if isinstance(value, Signal))

    @property
    def first(self) -> Form:
        """The form of its first input, which is a signal."""
        assert isinstance(self.read[0], Signal)
        return self.read[0].form

    @property
    def after(self) -> tuple[str, ...]:
        """The layers that make the signals among what it reads."""
        return tuple(signal.layer for signal in self.signals)

    def constant(self, place: int) -> np.ndarray | None:
        """The constant that is its input there; None if that is no constant."""
        value = self.read[place] if place < len(self.read) else None
        return value if isinstance(value, np.ndarray) else None

    def is_constant_but(self, *places: int) -> bool:
        """Whether all inputs but those are constants or left out."""
        return not any(
            isinstance(value, Signal)
            for place, value in enumerate(self.read)
            if place not in places
        )

    def make(
        self, layer: Layer, form: Form, weights: Mapping[str, np.ndarray] | None = None
    ) -> Signal:
        """Adds a layer that makes a value of that form."""
        return self.made.add(layer, form, weights or {})
