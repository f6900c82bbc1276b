"""The units that a text such as "conv5:0-15,conv5:3@0,4,class:goldfish" names."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from ppl_cnn.errors import ArgumentError, MismatchError, UnknownNameError, unknown
from ppl_cnn.models.networks.window import Shape

type Place = tuple[int, int] | Literal["mean"] | None
"""(row, col) on a layer's map, the mean over the map, or None for a layer without one."""

_LAYER = r"(?P<layer>[\w.-]+(?:/[\w.-]+)*)"
_CHANNELS = r"(?::(?:(?P<all>\*)|(?P<first>\d{1,9})(?:-(?P<last>\d{1,9}))?))?"
_PLACE = r"(?:@(?:(?P<mean>mean)|(?P<row>\d{1,9}),(?P<col>\d{1,9})))?"
_MANY = 30
"""The layers from which on an error names only those that are spelt similarly."""
_ITEM = re.compile(rf"{_LAYER}{_CHANNELS}{_PLACE}(?=,|\Z)", re.ASCII)
_NUMBERS = re.compile(r"\d+(-\d+)?", re.ASCII)


class UnitName(NamedTuple):
    """The name of a unit; `str()` gives the text, such as conv5:12@6,6."""

    layer: str
    channel: int
    place: Place

    def __str__(self) -> str:
        if self.place is None:
            return f"{self.layer}:{self.channel}"
        at = "mean" if self.place == "mean" else f"{self.place[0]},{self.place[1]}"
        return f"{self.layer}:{self.channel}@{at}"


def parse_units(
    text: str,
    layers: Mapping[str, Shape],
    classes: Sequence[str] = (),
    *,
    aliases: Mapping[str, str] = MappingProxyType({}),
    end: str | None = None,
) -> list[UnitName]:
    """The units that a text names, each once.

    Args:
        text: one or more of these, separated by commas: layer:channel (at the centre of the
            layer's map), layer:channel@row,col, layer:channel@mean (the channel's mean over the
            map), class:index, class:name. A range first-last in place of a channel or index
            names all of them; * names all that there are, and so does a layer's name alone. A
            number that is one class's name and another's index is refused.
        layers: layer name -> shape of its response, for the layers that have units; the last
            has the classes.
        classes: the names of the classes, or ().
        aliases: other name of a layer -> its name. Dots and slashes of a name may be written as
            underscores.
        end: why the network has no classes, as a sentence; None if the last layer has them.

    Returns:
        The names in the order of the text, with the centre filled in as a place.

    Raises:
        ArgumentError: the text has none of these forms, or names a unit twice.
        UnknownNameError: there is no such layer or class.
        MismatchError: the layer has no such channel or place, or a number stands for two classes.

    Examples:
        >>> layers = {"conv5": (13, 13, 256), "fc8": (1000,)}
        >>> [str(name) for name in parse_units("conv5:12,conv5:0-1@mean,class:7", layers)]
        ['conv5:12@6,6', 'conv5:0@mean', 'conv5:1@mean', 'fc8:7']
        >>> len(parse_units("conv5", layers)), len(parse_units("conv5:*@0,0", layers))
        (256, 256)
    """
    last = list(layers)[-1]
    found: dict[UnitName, None] = {}
    for written, channels, place in _items(text, classes, last):
        if written == "class" and end is not None:
            raise MismatchError(end)
        if channels is None and written not in layers and _beginning(written, classes):
            raise UnknownNameError(
                f"{written!r} is a class, not a layer. Write class:{written}.",
                name=written,
                known=layers,
            )
        layer = last if written == "class" else _layer_named(written, layers, aliases)
        for name in _checked(layer, channels, place, layers):
            if name in found:
                raise ArgumentError(
                    f"{text!r} names {name} twice. Name each unit once.", argument="unit"
                )
            found[name] = None
    return list(found)


def _items(
    text: str, classes: Sequence[str], last: str
) -> Iterator[tuple[str, range | None, Place]]:
    """(layer or "class", channels, place as written) of each part; None stands for all channels.

    Args:
        text: one or more units, separated by commas.
        classes: the names of the classes, or ().
        last: the layer that has the classes.
    """
    at = 0
    while True:
        match = _ITEM.match(text, at)
        if match and match["layer"] == "class" and _is_name(match, classes, last):
            match = None
        if match and not _NUMBERS.fullmatch(match["layer"]):  # the rest of a list of channels
            place: Place = "mean" if match["mean"] else None
            if match["row"] is not None:
                place = int(match["row"]), int(match["col"])
            yield match["layer"], _channels(match), place
            at = match.end()
        elif text.startswith("class:", at):
            name, index = _class_at(text, at + len("class:"), classes)
            yield "class", range(index, index + 1), None
            at += len("class:") + len(name)
        else:
            raise ArgumentError(
                f"{text[at:]!r} is not a unit. Write layer:channel, layer:channel@row,col, "
                f"layer:channel@mean, class:name or a layer's name alone, separated by commas.",
                argument="unit",
            )
        if at == len(text):
            return
        at += 1  # the comma


def _channels(match: re.Match[str]) -> range | None:
    """The channels that a part of the text names; None for all of the layer.

    Raises:
        ArgumentError: it is a range that ends before it begins.
    """
    if match["first"] is None:
        return None
    first = int(match["first"])
    end = first if match["last"] is None else int(match["last"])
    if end < first:
        raise ArgumentError(
            f"The range {match[0]!r} is empty. Write {end}-{first}.", argument="unit"
        )
    return range(first, end + 1)


def _is_name(match: re.Match[str], classes: Sequence[str], last: str) -> bool:
    """Whether class:NUMBER or class:* gives the name of a class rather than its index, or all.

    Raises:
        MismatchError: it is the name of one class and the index of another, or stands for all.
    """
    if match[0] == "class":
        return False
    written = match[0].removeprefix("class:")
    named = _beginning(match.string[match.end("layer") + 1 :], classes)
    if named and len(classes[named[0]]) > len(written):
        return True  # such as "7, large"
    if match["all"]:
        if named:
            raise MismatchError(
                f"{match[0]!r} may mean the name {written!r}, which is {last}:{named[0]}, or all "
                f"classes. Write {last}:{named[0]} or {last}."
            )
        return False
    first, end = int(match["first"]), int(match["last"] or match["first"])
    if end >= len(classes):
        return bool(named)
    texts = {written: first} | {str(index): index for index in range(first, end + 1)}
    for index, name in enumerate(classes):
        if texts.get(name, index) != index:
            meant = texts[name]
            raise MismatchError(
                f"{match[0]!r} may mean the name {name!r}, which is {last}:{index}, or the index "
                f"{meant}, whose class is named {classes[meant]!r}. Write {last}:{index} or "
                f"{last}:{meant}."
            )
    return False


def _beginning(text: str, classes: Sequence[str]) -> list[int]:
    """The classes with the longest name that the text begins with: "ox, big", not "ox"."""
    fitting = [
        index
        for index, name in enumerate(classes)
        if name
        and text[: len(name)].casefold() == name.casefold()
        and text[len(name) : len(name) + 1] in ("", ",")
    ]
    longest = max((len(classes[index]) for index in fitting), default=0)
    return [index for index in fitting if len(classes[index]) == longest]


def _class_at(text: str, at: int, classes: Sequence[str]) -> tuple[str, int]:
    """The longest class name that the text has there, and its index."""
    same = _beginning(text[at:], classes)
    name = text[at : at + len(classes[same[0]])] if same else ""
    if len(same) > 1:
        indices = [f"class:{index}" for index in same]
        raise UnknownNameError(
            f"{len(same)} classes are named {name!r}. Write {' or '.join(indices)}.",
            name=name,
            known=indices,
        )
    if same:
        return name, same[0]
    wanted = text[at:].partition(",")[0]
    if not classes:
        raise UnknownNameError(
            f"Unknown class {wanted!r}: the network's classes have no names. Write class:INDEX.",
            name=wanted,
        )
    near = difflib.get_close_matches(wanted, classes, 3, 0.4) or list(classes[:3])
    raise UnknownNameError(
        f"Unknown class {wanted!r}. Similar names: {', '.join(near)}; or write class:0 to "
        f"class:{len(classes) - 1}.",
        name=wanted,
        known=classes,
    )


def _layer_named(written: str, layers: Mapping[str, Shape], aliases: Mapping[str, str]) -> str:
    """The name of the layer that is written so, or with underscores for dots and slashes."""
    if written in layers:
        return written
    known = {alias: name for alias, name in aliases.items() if name in layers}
    known |= {name: name for name in layers}
    if written in known:
        return known[written]
    meant = {layer for name, layer in known.items() if re.sub(r"[./-]", "_", name) == written}
    if len(meant) == 1:
        return meant.pop()
    near = difflib.get_close_matches(written, known, 8, 0.5)
    raise unknown("layer", written, layers if len(layers) < _MANY else near or [*layers][:8])


def _checked(
    layer: str, channels: range | None, place: Place, layers: Mapping[str, Shape]
) -> Iterator[UnitName]:
    """The names of the units, if the layer has such channels and such a place."""
    shape = layers[layer]
    if channels is None:
        channels = range(shape[-1])
    if channels[-1] >= shape[-1]:
        raise MismatchError(f"{layer} has the channels 0 to {shape[-1] - 1}, not {channels[-1]}.")
    if len(shape) == 1:
        if place is not None:
            raise MismatchError(f"{layer} has no map and no places. Leave out the @ part.")
    elif place is None:
        place = shape[0] // 2, shape[1] // 2
    elif place != "mean" and (place[0] >= shape[0] or place[1] >= shape[1]):
        raise MismatchError(
            f"{layer} has the places 0,0 to {shape[0] - 1},{shape[1] - 1}, "
            f"not {place[0]},{place[1]}."
        )
    for channel in channels:
        yield UnitName(layer, channel, place)
