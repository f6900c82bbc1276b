"""What a text such as "conv5:0-15,conv5:3@0,4,class:goldfish" names."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.layers import Shape

type Place = tuple[int, int] | Literal["mean"] | None
"""(row, col) on a layer's map, the mean over the map, or None for a layer without one."""

_LAYER = r"(?P<layer>[\w.-]+(?:/[\w.-]+)*)"
_CHANNELS = r"(?P<first>\d{1,9})(?:-(?P<last>\d{1,9}))?"
_PLACE = r"(?:@(?:(?P<mean>mean)|(?P<row>\d{1,9}),(?P<col>\d{1,9})))?"
_ITEM = re.compile(rf"{_LAYER}:{_CHANNELS}{_PLACE}(?=,|\Z)", re.ASCII)


class UnitName(NamedTuple):
    """A unit of some network."""

    layer: str
    channel: int
    place: Place

    def __str__(self) -> str:
        if self.place is None:
            return f"{self.layer}:{self.channel}"
        at = "mean" if self.place == "mean" else f"{self.place[0]},{self.place[1]}"
        return f"{self.layer}:{self.channel}@{at}"


def parse_units(
    text: str, layers: Mapping[str, Shape], classes: Sequence[str] = ()
) -> list[UnitName]:
    """The units that a text names, each once.

    Args:
        text: one or more, between commas, of
            layer:channel (at the centre of the layer's map), layer:channel@row,col,
            layer:channel@mean (the channel's mean over the map), class:index, class:name;
            first-last in place of a channel or index names all of them.
        layers: layer name -> shape of its response, for the layers that have units; the last
            has the classes.
        classes: their names, if they have any.

    Raises:
        InputError: the text is none of that, or a layer, channel, place or class isn't there.
    """
    last = list(layers)[-1]
    found: dict[UnitName, None] = {}
    for layer, channels, place in _items(text, classes):
        for name in _checked(last if layer == "class" else layer, channels, place, layers):
            if name in found:
                raise InputError(f"{text!r} names {name} twice: name each unit once.")
            found[name] = None
    return list(found)


def _items(text: str, classes: Sequence[str]) -> Iterator[tuple[str, range, Place]]:
    """(layer or "class", channels, place as written) of each part of the text."""
    at = 0
    while True:
        if match := _ITEM.match(text, at):
            first = int(match["first"])
            last = first if match["last"] is None else int(match["last"])
            if last < first:
                raise InputError(f"{match[0]!r} counts down: write {last}-{first}.")
            place: Place = "mean" if match["mean"] else None
            if match["row"] is not None:
                place = int(match["row"]), int(match["col"])
            yield match["layer"], range(first, last + 1), place
            at = match.end()
        elif text.startswith("class:", at):
            name, index = _class_at(text, at + len("class:"), classes)
            yield "class", range(index, index + 1), None
            at += len("class:") + len(name)
        else:
            raise InputError(
                f"{text[at:]!r} is no unit: write layer:channel, layer:channel@row,col, "
                f"layer:channel@mean or class:name, and commas between several."
            )
        if at == len(text):
            return
        at += 1  # the comma


def _class_at(text: str, at: int, classes: Sequence[str]) -> tuple[str, int]:
    """The class whose name stands there, whole: "ox, big" rather than "ox"."""
    rest = text[at:]
    fitting = [
        index
        for index, name in enumerate(classes)
        if name
        and rest[: len(name)].casefold() == name.casefold()
        and rest[len(name) : len(name) + 1] in ("", ",")
    ]
    longest = max((len(classes[index]) for index in fitting), default=0)
    same = [index for index in fitting if len(classes[index]) == longest]
    if len(same) > 1:
        raise InputError(
            f"There are {len(same)} classes {rest[:longest]!r}: write "
            f"{' or '.join(f'class:{index}' for index in same)}."
        )
    if same:
        return rest[:longest], same[0]
    wanted = text[at:].partition(",")[0]
    if not classes:
        raise InputError(
            f"There is no class {wanted!r}: the network's classes have no names, write class:INDEX."
        )
    near = difflib.get_close_matches(wanted, classes, 3, 0.4) or list(classes[:3])
    raise InputError(
        f"There is no class {wanted!r}; names like it are {', '.join(near)} "
        f"(or write class:0 to class:{len(classes) - 1})."
    )


def _checked(
    layer: str, channels: range, place: Place, layers: Mapping[str, Shape]
) -> Iterator[UnitName]:
    """The units, if the layer has such channels and such a place."""
    if layer not in layers:
        raise InputError(
            f"There are no units in a layer {layer!r}; the layers with units are "
            f"{', '.join(layers)}."
        )
    shape = layers[layer]
    if channels[-1] >= shape[-1]:
        raise InputError(f"{layer} has the channels 0 to {shape[-1] - 1}, not {channels[-1]}.")
    if len(shape) == 1:
        if place is not None:
            raise InputError(f"{layer} has no map and no places: leave out what follows the @.")
    elif place is None:
        place = shape[0] // 2, shape[1] // 2
    elif place != "mean" and (place[0] >= shape[0] or place[1] >= shape[1]):
        raise InputError(
            f"{layer} has the places 0,0 to {shape[0] - 1},{shape[1] - 1}, "
            f"not {place[0]},{place[1]}."
        )
    for channel in channels:
        yield UnitName(layer, channel, place)
