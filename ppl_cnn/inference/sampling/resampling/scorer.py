"""The compiled forward passes over proposals: scores of several units, and images."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, Int32, Integer, PyTree

from ppl_cnn.inference.sampling.resampling.proposals import ALONE, Proposals, Share
from ppl_cnn.machines.spreading import EVERYWHERE, even_devices, spread, whole
from ppl_cnn.models.density import DensityParams, TiltedDensity
from ppl_cnn.models.empirical_density import EmpiricalDensity
from ppl_cnn.models.units.score_function import Scored as Unit
from ppl_cnn.progress import Bar

type Density = TiltedDensity | EmpiricalDensity
"""What proposals can be weighted for."""

MOST_AT_ONCE = 256
"""Proposals that pass the network at once on a device, at most."""
VALUES_AT_ONCE = 2**22
"""Values of their images; a network's responses take some twenty times as much memory."""

_SPREAD = PartitionSpec("proposal")


class Scored(NamedTuple):
    """Some proposals with their tilts."""

    tilts: Float32[np.ndarray, "unit n"]
    """g = f/T for each of the densities."""
    labels: Int32[np.ndarray, " n"] | None
    """Their classes, if they have any."""


@runtime_checkable
class Tilting(Protocol):
    """What is scored: a density, or a unit alone."""

    @property
    def unit(self) -> Unit:
        """What scores images."""

    @property
    def temperature(self) -> float:
        """What scores are divided by."""

    @property
    def params(self) -> DensityParams:
        """The weights."""


def at_once(density: Tilting) -> int:
    """How many proposals pass the network at once on a device."""
    return int(np.clip(VALUES_AT_ONCE // math.prod(density.unit.shape), 1, MOST_AT_ONCE))


class Scorer:
    """Weighs proposals for densities side by side, on all of this process's devices.

    All densities share the proposals and, up to the units, the forward pass.

    Args:
        densities: of units whose programs are equal, with one reference and temperature.
        proposals: draws of the reference.
        together: whether the devices of all processes share the proposals. Then all processes must
            weigh, each of them gets all weights, and none makes images.
    """

    def __init__(
        self, densities: Sequence[Tilting], proposals: Proposals, *, together: bool = False
    ) -> None:
        self._density, self._proposals = densities[0], proposals
        together = together and jax.process_count() > 1
        self._share = Share(jax.process_index(), jax.process_count()) if together else ALONE
        devices = even_devices() if together else jax.local_devices()
        mesh = Mesh(np.asarray(devices), ("proposal",))
        self.size = at_once(self._density) * mesh.size
        """Proposals that all devices take at once."""
        self.classes = proposals.classes
        """The names of the proposals' classes, if they have labels."""
        self._rows = NamedSharding(mesh, _SPREAD)
        params, self._axes = _together(densities)
        self._params = spread(params, NamedSharding(mesh, EVERYWHERE))
        # A generator of the user's is a traced program, whose constants lack the device axis.
        mapped = partial(jax.shard_map, mesh=mesh, in_specs=(EVERYWHERE, _SPREAD), check_vma=False)
        self._tilts = jax.jit(mapped(self._tilts_of, out_specs=PartitionSpec(None, "proposal")))
        self._images = jax.jit(mapped(proposals.images, out_specs=_SPREAD))

    def weighed(self, *, progress: bool) -> Scored:
        """The tilts of all proposals.

        Args:
            progress: whether to show a bar.

        Raises:
            FileError: files of a data set are damaged.
        """
        tilts, labels = list[np.ndarray](), list[np.ndarray]()
        bar = {"desc": "weighing", "delay": 2, "leave": False, "disable": not progress}
        with Bar(total=self._proposals.count, **bar) as shown:
            for part in self.parts():
                tilts.append(part.tilts)
                labels += [] if part.labels is None else [part.labels]
                shown.update(part.tilts.shape[1])
        return Scored(np.concatenate(tilts, axis=1), np.concatenate(labels) if labels else None)

    def parts(self) -> Iterator[Scored]:
        """All proposals in order, part by part: while a device works, the host reads the next.

        Raises:
            FileError: files of a data set are damaged.
        """
        before: tuple[Array, Array | None, int] | None = None
        left = self._proposals.count
        for read in self._proposals.in_order(self.size, self._share):
            given, labels = self._placed((read.given, read.labels))
            tilts = self._tilts(self._params, given)
            if before is not None:
                yield _fetched(*before)
            before = tilts, labels, min(left, self.size)
            left -= self.size
        if before is not None:
            yield _fetched(*before)

    def images(
        self, numbers: Integer[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n row col channel"]:
        """The images of the proposals of these numbers, in pixel units minus the mean.

        Raises:
            FileError: files of a data set are damaged.
        """
        made = []
        for first in range(0, len(numbers), self.size):
            some = numbers[first : first + self.size]
            given = self._placed(self._proposals.read(some).given)
            made.append(np.asarray(self._images(self._params, given))[: len(some)])
        return np.concatenate(made)

    def _placed(self, given: PyTree) -> PyTree:
        """This process's rows of arrays of `size` proposals, filled up and on the devices."""
        own = self.size // self._share.processes

        def placed(rows: np.ndarray) -> Array:
            filled = np.pad(rows, ((0, own - len(rows)), *[(0, 0)] * (rows.ndim - 1)))
            there: Array = jax.make_array_from_process_local_data(self._rows, filled)
            return there

        return jax.tree.map(placed, given)

    def _tilts_of(self, params: DensityParams, given: Any) -> Float[Array, "unit n"]:
        images = self._proposals.images(params, given)
        score = jax.vmap(self._density.unit.score, (None, 0))
        if self._axes is None:
            scores = score(params.unit, images)[None]
        else:
            scores = jax.vmap(score, (self._axes, None))(params.unit, images)
        return scores / self._density.temperature


def _fetched(tilts: Array, labels: Array | None, count: int) -> Scored:
    return Scored(whole(tilts)[:, :count], None if labels is None else whole(labels)[:count])


def _together(densities: Sequence[Tilting]) -> tuple[DensityParams, Any]:
    """The weights of all densities, and each one's axis of units; None for a single density.

    Arrays that all units share have no such axis, so that images pass those layers once.
    """
    first = densities[0].params
    if len(densities) == 1:
        return first, None
    weights = [density.unit.params for density in densities]
    axes = jax.tree.map(
        lambda *leaves: 0 if any(leaf is not leaves[0] for leaf in leaves) else None, *weights
    )

    def joined(*leaves: Array) -> Array:
        shared = all(leaf is leaves[0] for leaf in leaves)
        return leaves[0] if shared else jnp.stack(leaves)

    return DensityParams(jax.tree.map(joined, *weights), first.reference), axes
