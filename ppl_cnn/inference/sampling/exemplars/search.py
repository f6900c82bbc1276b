"""Searches a set of images for those to which each unit of a run responds most."""

import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.inference.runs.exemplars import Exemplars
from ppl_cnn.inference.runs.record import read_record, unit_folder
from ppl_cnn.inference.sampling.exemplars.anywhere import Anywhere, Inside
from ppl_cnn.inference.sampling.exemplars.sources import Source, lines
from ppl_cnn.inference.sampling.resampling.proposals import Proposals, Read
from ppl_cnn.inference.sampling.resampling.scorer import Scorer
from ppl_cnn.models.density import DensityParams
from ppl_cnn.models.networks.window import Region
from ppl_cnn.models.trained.cnn import CNN, preprocess
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork
from ppl_cnn.models.trained.modules.module_unit import ModuleUnit
from ppl_cnn.models.units.score_function import Scored
from ppl_cnn.models.units.unit import Side, Unit
from ppl_cnn.numeric import in_float32
from ppl_cnn.progress import Bar

KEPT = 9
"""Exemplars of each unit."""


@in_float32
def find_exemplars(
    folder: Path,
    network: CNN | ModuleNetwork,
    units: Sequence[Unit | ModuleUnit],
    source: Source,
    *,
    progress: bool = True,
) -> None:
    """Finds the nine images to which each unit responds most, and saves them beside its draws.

    A filter at the centre of its map, where filters are if nothing else is asked for, is scored at
    all places that see as much of the image as the centre does (`Inside`), and its exemplars are
    cropped to the receptive field of the place where it responds most. Any other unit is scored
    at its own place alone. Scores are those of the image itself, also if the run averages over
    warps.

    Source: natural exemplars are what readers understand best; Borowski et al., Exemplary natural
    images explain CNN activations better than state-of-the-art feature visualization, ICLR 2021.

    Args:
        folder: a run's; its record says whether it has one unit or several.
        network: the network of the units.
        units: all of the run, without warps.
        source: the images.
        progress: whether to show a bar, and at the end what was left out and why.

    Raises:
        FileError: none of the images can be read, or files of a data set are damaged.
        MismatchError: a unit's response to all of them is not finite.
    """
    several = "units" in read_record(folder)["config"]
    told = False
    for group in _groups(network, units):
        proposals = source.proposals(group.seen[0])
        best = _best(group, proposals, source, progress=progress)
        if progress and not told:
            told = True
            for line in lines(source, proposals):
                Bar.write(line, file=sys.stderr)
        for number, unit in enumerate(group.units):
            exemplars = _exemplars(group, number, best, proposals, source)
            exemplars.save(folder / unit_folder(str(unit)) if several else folder)


@dataclass(frozen=True)
class _Searched:
    """What the scorer needs of a unit."""

    unit: Scored
    temperature: float = 1.0

    @property
    def params(self) -> DensityParams:
        """The unit's weights."""
        return DensityParams(self.unit.params, {})


class _Group(NamedTuple):
    """Units that one compiled program scores."""

    units: list[Unit | ModuleUnit]
    seen: list[Scored]
    """Each as it is scored: itself, or `Anywhere`."""


class _Best(NamedTuple):
    """The strongest responses of each unit of a group, in descending order."""

    numbers: Int[np.ndarray, "unit exemplar"]
    responses: Float32[np.ndarray, "unit exemplar"]
    searched: int
    """How many images were scored."""


def _groups(network: CNN | ModuleNetwork, units: Sequence[Unit | ModuleUnit]) -> list[_Group]:
    maps = {layer.name: layer.places for layer in network.unit_layers() if layer.places}
    central = [unit for unit in units if _is_central(unit, maps)]
    response = units[0].response
    found = _means(network, central, response)
    means = {unit.name: mean for unit, mean in zip(central, found, strict=True)}
    layers = dict.fromkeys(unit.name.layer for unit in central)
    inside = {layer: Inside.of(network, layer, maps[layer], response) for layer in layers}
    groups: dict[Hashable, _Group] = {}
    for unit in units:
        seen: Scored = unit
        if unit.name in means:
            seen = Anywhere(means[unit.name], inside[unit.name.layer])
        group = groups.setdefault(seen.program, _Group([], []))
        group.units.append(unit)
        group.seen.append(seen)
    return list(groups.values())


def _is_central(unit: Unit | ModuleUnit, maps: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a unit is a filter at the centre of its map."""
    rows, cols = maps.get(unit.name.layer, (0, 0))
    return bool(rows) and unit.name.place == (rows // 2, cols // 2)


def _means(
    network: CNN | ModuleNetwork, units: Sequence[Unit | ModuleUnit], response: Side
) -> Sequence[Unit | ModuleUnit]:
    """The means over the maps of these filters."""
    if not units:
        return []
    text = ",".join(f"{unit.name.layer}:{unit.name.channel}@mean" for unit in units)
    return network.units(text, response)


def _best(group: _Group, proposals: Proposals, source: Source, *, progress: bool) -> _Best:
    """Scores all images, and keeps the strongest responses of each unit."""
    scorer = Scorer([_Searched(seen) for seen in group.seen], proposals)
    count = len(group.units)
    responses = np.empty((count, 0), np.float32)
    numbers = np.empty((count, 0), np.int64)
    first = searched = 0
    what = f"exemplars of {group.units[0].name.layer}"
    with Bar(total=proposals.count, desc=what, delay=2, leave=False, disable=not progress) as bar:
        for part in scorer.parts():
            here = np.arange(first, first + part.tilts.shape[1])
            usable = ~np.isin(here, source.damaged(proposals))
            scores = np.concatenate([responses, part.tilts[:, usable]], axis=1)
            every = np.concatenate(
                [numbers, np.broadcast_to(here[usable], (count, int(usable.sum())))], axis=1
            )
            order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")[:, :KEPT]
            responses = np.take_along_axis(scores, order, axis=1)
            numbers = np.take_along_axis(every, order, axis=1)
            first, searched = first + len(here), searched + int(usable.sum())
            bar.update(len(here))
    if not searched:
        raise FileError(
            f"None of the images of {source} can be read. Give others as `exemplars`.",
            path=str(source),
        )
    if not np.isfinite(responses).all():
        unit = group.units[int(np.flatnonzero(~np.isfinite(responses).all(axis=1))[0])]
        raise MismatchError(
            f"The response of {unit} to images of {source} is not finite. Check the network's "
            f"weights and preprocessing."
        )
    return _Best(numbers, responses, searched)


def _exemplars(
    group: _Group, number: int, best: _Best, proposals: Proposals, source: Source
) -> Exemplars:
    """Those of one unit of a group, read again and cropped."""
    unit, seen, numbers = group.units[number], group.seen[number], best.numbers[number]
    read = proposals.read(numbers)
    images = preprocess(read.given, unit.preprocessing, unit.image_shape)
    regions = [(unit.rows, unit.cols)] * len(images)
    if isinstance(seen, Anywhere):
        regions = _regions(group, seen, images)
    return Exemplars(
        _cut(_levels(images, unit), regions),
        best.responses[number],
        tuple(map(source.name, numbers.tolist())),
        _labels(read, proposals.classes),
        str(source),
        best.searched,
        "anywhere" if isinstance(seen, Anywhere) else "there",
    )


@partial(jax.jit, static_argnums=0)
def _best_places(seen: Anywhere, params: Any, images: Array) -> Int[Array, "n 2"]:
    """The places of the largest responses of a unit with the program of `seen`."""
    return jax.vmap(seen.best, (None, 0))(params, images)


def _regions(
    group: _Group, seen: Anywhere, images: Float[Array, "n row col channel"]
) -> list[Region]:
    """What a filter sees of each of these images of the network, where it responds most."""
    own = images[:, seen.rows.start : seen.rows.stop, seen.cols.start : seen.cols.stop]
    filled = jnp.pad(own, ((0, KEPT - len(own)), (0, 0), (0, 0), (0, 0)))  # compiled once
    compiled = group.seen[0]
    assert isinstance(compiled, Anywhere)
    places = np.asarray(_best_places(compiled, seen.params, filled))[: len(own)]
    return [(seen.inside.rows[row], seen.inside.cols[col]) for row, col in places.tolist()]


def _levels(
    images: Float[Array, "n row col channel"], unit: Unit | ModuleUnit
) -> UInt8[np.ndarray, "n row col channel"]:
    """Images as a screen shows them: grey or RGB levels."""
    mean = np.asarray(unit.preprocessing.mean, np.float32)
    levels = np.clip(np.asarray(images) + mean, 0, 255).round().astype(np.uint8)
    return levels[..., ::-1] if unit.preprocessing.order == "BGR" else levels


def _cut(
    images: UInt8[np.ndarray, "n row col channel"], regions: Sequence[Region]
) -> UInt8[np.ndarray, "n height width channel"]:
    """A part of each image; all parts have one size."""
    parts = zip(images, regions, strict=True)
    return np.stack([image[r.start : r.stop, c.start : c.stop] for image, (r, c) in parts])


def _labels(read: Read, classes: Sequence[str]) -> tuple[str, ...]:
    if read.labels is None:
        return ("",) * len(read.given)
    return tuple(classes[label] for label in read.labels.tolist())
