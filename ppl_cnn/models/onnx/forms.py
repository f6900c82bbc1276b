"""How a value of an ONNX graph is kept as a layer's response."""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from ppl_cnn.models.networks.window import Shape

type Layout = Literal["NCHW", "NHWC", "NHW", ""]

_ORDER: dict[str, tuple[int, ...]] = {"NCHW": (2, 3, 1), "NHWC": (1, 2, 3)}
"""Layout -> ONNX's axes of rows, columns and channels."""


class Form(NamedTuple):
    """A value's shape with ONNX's axes, for a batch of one image, and where its map's axes are.

    A response has no batch axis; a map is (row, col, channel) whichever layout the file has, so
    that a transposition between the two moves nothing.
    """

    shape: Shape
    layout: Layout = ""
    """The order of a map's axes; NHW is a map of one channel without an axis for it."""

    @classmethod
    def of(cls, shape: Shape) -> "Form":
        """The form of a value that an operator makes; four axes are a map's in ONNX's order."""
        return cls(shape, "NCHW" if len(shape) == 4 and shape[0] == 1 else "")

    @property
    def stored(self) -> Shape:
        """The shape of the response."""
        if self.layout == "NHW":
            return (*self.shape[1:], 1)
        if self.layout:
            return tuple(self.shape[axis] for axis in _ORDER[self.layout])
        if self._has_batch:
            return self.shape[1:]
        return (1, *self.shape) if len(self.shape) == 3 else self.shape

    @property
    def _has_batch(self) -> bool:
        """Whether the first axis is left out: it is a batch of one, and what is left is no map."""
        return len(self.shape) not in (0, 1, 4) and self.shape[0] == 1

    @property
    def channel_axis(self) -> int | None:
        """ONNX's axis of the channels; None for what is no map or vector."""
        if self.layout in _ORDER:
            return _ORDER[self.layout][2]
        return 1 if len(self.shape) == 2 and self._has_batch else None

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """ONNX's axes of rows and columns; none for what is no map."""
        return _ORDER[self.layout][:2] if self.layout in _ORDER else ()

    def with_channels(self, count: int) -> "Form":
        """The form with another number of channels."""
        shape = list(self.shape)
        shape[self.channel_axis or 0] = count
        return self._replace(shape=tuple(shape))

    def unpacked(self, x: Any) -> Any:
        """The array with ONNX's axes, from one image's response."""
        if self.layout in _ORDER:
            order = _ORDER[self.layout]
            return jnp.transpose(x, [order.index(axis) for axis in (1, 2, 3)])[None]
        return x.reshape(self.shape)

    def packed(self, x: Any) -> Any:
        """One image's response, from the array with ONNX's axes."""
        if self.layout in _ORDER:
            return x[0].transpose([axis - 1 for axis in _ORDER[self.layout]])
        return x.reshape(self.stored)

    def arranged(self, constant: Any) -> Any:
        """A constant that is broadcast to such a value, with the axes of the response.

        None if it isn't one for each channel alone, where the value is a map.
        """
        rank = len(self.shape)
        if constant.ndim > rank:
            return None
        whole = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
        if self.layout:
            if self.layout == "NHW" or whole.shape[0] != 1:
                return whole.reshape(1, 1, 1) if whole.size == 1 else None
            found = self.packed(whole)
            return found if found.shape[:2] == (1, 1) else None
        lead = len(self.stored) - rank
        return whole[0] if lead < 0 and whole.shape[0] == 1 else whole[(None,) * max(lead, 0)]
