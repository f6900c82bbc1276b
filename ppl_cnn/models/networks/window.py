"""Which positions of its input a position of a layer's response reads, along one axis."""

from dataclasses import dataclass, field

type Shape = tuple[int, ...]
"""The shape of a response without the batch: (row, col, channel) or (channel,)."""
type Region = tuple[range, range]
"""The rows and columns of a rectangle in a response; what is no map has one position."""
type Pair = int | tuple[int, int]
"""A number for rows and columns alike, or one for each."""


@dataclass(frozen=True)
class Window:
    """The input positions that an output position reads, along the rows or along the columns.

    Output o reads inputs o*stride - padding ... o*stride - padding + reach - 1, in steps of the
    dilation. With `ceil`, as in Caffe's pooling, a last window may hang over the end of the map.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    """The positions that are read before the map."""
    ceil: bool = False
    dilation: int = field(default=1, kw_only=True)
    after: int | None = field(default=None, kw_only=True)
    """The positions that are read after the map; by default as many as before it."""

    @property
    def reach(self) -> int:
        """The positions from the first that it reads to the last, both included."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def end(self) -> int:
        """The positions of padding after the map."""
        return self.padding if self.after is None else self.after

    def outputs(self, size: int) -> int:
        """The number of output positions along an axis of `size` input positions."""
        room = size + self.padding + self.end - self.reach
        if not self.ceil:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        # Caffe drops a last window that would start outside the map and its padding.
        return count - ((count - 1) * self.stride >= size + self.padding)

    def inputs(self, outputs: range, size: int) -> tuple[range, tuple[int, int]]:
        """The inputs that a range of outputs reads.

        Returns:
            The positions inside the map, and how many lie before and after it.
        """
        start = outputs.start * self.stride - self.padding
        stop = (outputs.stop - 1) * self.stride - self.padding + self.reach
        inside = range(min(max(start, 0), size), max(min(stop, size), 0))
        return inside, (max(min(stop, 0) - start, 0), max(stop - max(start, size), 0))


def pair(value: Pair) -> tuple[int, int]:
    """The numbers for rows and columns."""
    return (value, value) if isinstance(value, int) else value


def positions(shape: Shape) -> Region:
    """The rows and columns of a whole response; what is no map has one position."""
    return (range(shape[0]), range(shape[1])) if len(shape) == 3 else (range(1), range(1))


def windows_of(
    kernel: Pair,
    stride: Pair,
    padding: int | tuple[tuple[int, int], tuple[int, int]],
    *,
    ceil: bool = False,
    dilation: Pair = 1,
) -> tuple[Window, Window]:
    """The windows along rows and columns."""
    pads = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    rows, cols = (
        Window(size, step, before, ceil, dilation=gap, after=None if after == before else after)
        for size, step, (before, after), gap in zip(
            pair(kernel), pair(stride), pads, pair(dilation), strict=True
        )
    )
    return rows, cols


def map_size(windows: tuple[Window, Window], shape: Shape) -> tuple[int, int]:
    """The rows and columns of the response to a (row, col, channel) input."""
    return windows[0].outputs(shape[0]), windows[1].outputs(shape[1])
