"""A run by importance resampling: proposals are weighted once, then drawn from block by block."""

import contextlib
import math
import sys
import time
from collections.abc import Hashable, Sequence
from typing import Any
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Float, Int, Int32

from ppl_cnn.errors import InputError, MismatchError, RunFolderError
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.record import read_record, unit_folder
from ppl_cnn.inference.runs.store import IMAGE, DrawStore
from ppl_cnn.inference.sampling.program import BLOCK_BYTES, LONGEST_BLOCK
from ppl_cnn.inference.sampling.resampling.proposals import SHOWN, Drawn, Pictures, Proposals
from ppl_cnn.inference.sampling.resampling.scorer import Density, Scorer
from ppl_cnn.inference.sampling.resampling.settings import MOST_PROPOSALS, Resampling
from ppl_cnn.machines.messages import Conversation, leads
from ppl_cnn.models.empirical_density import EmpiricalDensity
from ppl_cnn.progress import Bar

FEWEST_EFFECTIVE = 50.0
"""The effective number of weights of a push-forward's draws below which nothing is drawn. With 50,
the standard error of log Z is about 1/7; with fewer, a handful of proposals are most of the draws,
and the effective number is itself no more than a guess. The verdict on chains asks for as many
from each half of four chains (Vehtari et al. 2021)."""
_KEPT = ("forward_passes", "seconds", "importance", "labels")
"""Fields of a unit's record that nothing else knows."""
_STATISTICS = {"proposal": np.int64, "log_weight": np.float32}


class UnitRun:
    """One unit's folder in a run by resampling: its weights and its draws.

    Args:
        folder: the unit's.
        density: what is drawn.
        settings: of the run.

    Raises:
        RunFolderError: the folder holds draws of another run, or damaged ones.
    """

    def __init__(self, folder: RunFolder, density: Density, settings: Resampling) -> None:
        self.density = density
        self._folder, self._settings = folder, settings
        self._path = folder.path / "draws.zarr"
        per_draw = settings.chains * 4 * math.prod(density.unit.shape)
        self.block = int(np.clip(BLOCK_BYTES // per_draw, 1, LONGEST_BLOCK))
        """Draws per row in a block."""
        self._store = DrawStore(self._path, self.block)
        self.found = 0
        """Draws per row that the store holds."""
        self.weights: Weights | None = None
        """The weights of the proposals; None until they are known."""
        tree = self._store.resume() if folder.writer else None
        if tree is not None:
            if not folder.made(tree.attrs):
                raise RunFolderError(
                    f"{self._path} holds draws of another run. Give another `out`.",
                    path=self._path,
                )
            self.found = tree["posterior"].sizes["draw"]
            self.weights = Weights(np.asarray(tree["weights"]["tilt"]))

    def weighed(
        self,
        tilts: Float[np.ndarray, " proposal"],
        labels: Int32[np.ndarray, " proposal"] | None,
        scorer: Scorer,
        seconds: float,
    ) -> None:
        """Makes the store, with the weights and with images of proposals; once.

        Args:
            tilts: f/T of each proposal.
            labels: its class, if it has one.
            scorer: makes the images.
            seconds: what weighing took.

        Raises:
            MismatchError: the unit's response to a proposal is not finite.
        """
        if self.weights is not None:
            return
        unit = self.density.unit
        if not np.isfinite(tilts).all():
            raise MismatchError(
                f"The response of {unit} is not finite for a draw of {self.density.reference}. "
                f"Check the network's weights and preprocessing, and the `reference`."
            )
        weights = Weights(tilts)
        heaviest = weights.heaviest(SHOWN)
        rows = self._settings.chains
        some = np.linspace(0, len(tilts) - 1, rows * math.ceil(SHOWN / rows)).astype(np.int64)
        of_prior, prior = scorer.images(some), (rows, len(some) // rows)
        responses = (tilts[some] * self.density.temperature).astype(np.float32)
        known: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
            "weights/tilt": (("proposal",), tilts),
            "heaviest/proposal": (("rank",), heaviest),
            "heaviest/image": (("rank", *IMAGE), scorer.images(heaviest)),
            "prior/image": (("chain", "draw", *IMAGE), of_prior.reshape(*prior, *unit.shape)),
            "prior/response": (("chain", "draw"), responses.reshape(prior)),
        }
        record = self._folder.record
        if labels is not None:
            known["weights/label"] = (("proposal",), labels)
            record["labels"] = list(scorer.classes)
        sizes = {"chain": range(rows), "channel": range(unit.shape[2])}
        sizes |= {"row": unit.rows, "col": unit.cols}
        record |= {"forward_passes": {"sampling": len(tilts)}, "seconds": {"weighing": seconds}}
        self._folder.path.mkdir(exist_ok=True)
        self._store.create(sizes, _STATISTICS, record, stein=False, known=known)
        self.weights = weights
        self._folder.update(importance=self.told(weights))

    def told(self, weights: Weights) -> dict[str, Any]:
        """What the record says of the weights."""
        return {
            "proposals": len(weights.tilts),
            "log_z": weights.log_z._asdict(),
            "effective": weights.effective,
            "largest": weights.largest,
        }

    def __str__(self) -> str:
        weights = self.weights
        if weights is None:
            return f"{self.density.unit}: not weighed yet"
        return (
            f"{self.density.unit}: log Z = {weights.log_z}, ESS {weights.effective:,.0f} of "
            f"{len(weights.tilts):,} draws of the reference, the heaviest {weights.largest:.2%}"
        )

    def numbers(self, draws: int) -> Int[np.ndarray, "chain draw"]:
        """The proposals that the first draws are; the k-th draw is the same whatever their number.

        Args:
            draws: per row.
        """
        assert self.weights is not None
        unit, seed = crc32(str(self.density.unit).encode()), self._settings.seed
        rows = [
            np.random.default_rng([seed, unit, row]).random(draws)
            for row in range(self._settings.chains)
        ]
        return self.weights.resampled(np.stack(rows))

    def sample(self, draws: int, scorer: Scorer, bar: Any) -> None:
        """Draws up to that many per row, block by block.

        Args:
            draws: wanted in all.
            scorer: makes the images.
            bar: a progress bar over draws.

        Raises:
            RunFolderError: the store is damaged.
        """
        assert self.weights is not None
        numbers, clock = self.numbers(draws), time.monotonic()
        before = self._folder.record.get("seconds", {})
        response = (self.weights.tilts * self.density.temperature).astype(np.float32)
        logs = np.log(np.maximum(self.weights.shares, np.finfo(np.float32).tiny))
        while self.found < draws:
            # A run that was extended first completes the block that it ended in.
            end = min(draws, (self.found // self.block + 1) * self.block)
            some = numbers[:, self.found : end]
            distinct, places = np.unique(some, return_inverse=True)
            variables = {
                "posterior/image": scorer.images(distinct)[places.reshape(some.shape)],
                "posterior/response": response[some],
                "sample_stats/proposal": some,
                "sample_stats/log_weight": logs[some].astype(np.float32),
            }
            self._store.write(self.found, self.found // self.block, variables)
            bar.update(end - self.found)
            self.found = end
            spent = before.get("sampling", 0.0) + time.monotonic() - clock
            self._folder.update(seconds={**before, "sampling": spent})
        different = len(np.unique(self.numbers(self.found)))
        self._folder.update(importance={**self.told(self.weights), "distinct": different})


class ResamplingRun:
    """A run by importance resampling of one unit or several.

    Units with one program share the proposals and, up to the units, the forward passes. Where
    several processes work together, the devices of all weigh the proposals, and process 0 draws.

    Args:
        folder: the run's.
        densities: with one reference and temperature.
        settings: of the run.

    Raises:
        RunFolderError: the folder holds draws of another run, or damaged ones.
    """

    def __init__(
        self, folder: RunFolder, densities: Sequence[Density], settings: Resampling
    ) -> None:
        self._settings, self._talk = settings, Conversation()
        several = len(densities) > 1
        self._units = [
            UnitRun(_unit_folder(folder, each) if several else folder, each, settings)
            for each in densities
        ]

    @property
    def found(self) -> int:
        """Draws per row that the units' folders hold, summed over the units."""
        return sum(unit.found for unit in self._units)

    def sample(self, draws: int, *, progress: bool) -> None:
        """Weighs the proposals, unless that is done, and draws up to that many per row.

        Args:
            draws: wanted in all.
            progress: whether to show bars and to tell of the weights.

        Raises:
            MismatchError: too few of the weights are effective, or a response is not finite.
            RunFolderError: the store is damaged.
            FileError: files of a data set are damaged.
        """
        alike: dict[Hashable, list[UnitRun]] = {}
        for unit in self._units:
            alike.setdefault(unit.density.unit.program, []).append(unit)
        for units in alike.values():
            if self._talk.agreed(any(unit.weights is None for unit in units)):
                self._weigh(units, progress)
        if not leads():
            return
        if progress:
            print(*self._units, sep="\n", file=sys.stderr)
        _refuse_few(self._units)
        total = draws * len(self._units)
        with Bar(total=total, desc="draws", delay=2, leave=False, disable=not progress) as bar:
            bar.update(self.found)
            for units in alike.values():
                scorer = self._scorer(units)
                for unit in units:
                    unit.sample(draws, scorer, bar)

    def _scorer(self, units: Sequence[UnitRun], *, together: bool = False) -> Scorer:
        densities = [unit.density for unit in units]
        return Scorer(densities, proposals_of(densities[0], self._settings), together=together)

    def _weigh(self, units: Sequence[UnitRun], progress: bool) -> None:
        clock = time.monotonic()
        scored = self._scorer(units, together=True).weighed(progress=progress)
        seconds = (time.monotonic() - clock) / len(units)
        if not leads():
            return
        scorer = self._scorer(units)
        for unit, tilts in zip(units, scored.tilts, strict=True):
            unit.weighed(tilts, scored.labels, scorer, seconds)


def proposals_of(density: Density, settings: Resampling) -> Proposals:
    """The proposals of a run: draws of the density's reference.

    Args:
        density: whose reference is drawn from.
        settings: their number and the seed; under a data set, they are its images.
    """
    if isinstance(density, EmpiricalDensity):
        return Pictures(density)
    key = jax.random.fold_in(jax.random.key(settings.seed), crc32(b"proposals"))
    return Drawn(density, key, settings.kernel.proposals)


def _unit_folder(folder: RunFolder, density: Density) -> RunFolder:
    """A unit's own folder, with a record as of a run of its own; only this run resumes it."""
    path = folder.path / unit_folder(str(density.unit))
    config = {**folder.record["config"], **density.unit.settings}
    del config["units"]
    config["part_of"] = folder.path.name
    record = {**folder.record, "config": config}
    with contextlib.suppress(InputError):
        record |= {k: v for k, v in read_record(path).items() if k in _KEPT}
    return RunFolder(path, record, writer=folder.writer)


def _refuse_few(units: Sequence[UnitRun]) -> None:
    """Refuses a run in which the weights of draws of a push-forward are effectively too few.

    Weights of a data set's images are the density itself, however few images carry them.
    """
    known = [
        (unit.weights.effective, unit, unit.weights)
        for unit in units
        if unit.weights is not None and not isinstance(unit.density, EmpiricalDensity)
    ]
    effective, unit, weights = min(known, key=lambda each: each[0], default=(math.inf, None, None))
    if unit is None or weights is None or effective >= FEWEST_EFFECTIVE:
        return
    count = len(weights.tilts)
    wanted = min(MOST_PROPOSALS, 10 ** math.ceil(math.log10(count * FEWEST_EFFECTIVE / effective)))
    raise MismatchError(
        f"Of the weights of {count:,} draws of {unit.density.reference} only {effective:.1f} are "
        f"effective for {unit.density.unit}, and resampling needs {FEWEST_EFFECTIVE:g}. Give "
        f"`kernel=resample:{wanted}`, raise the `temperature`, or use `kernel=split`."
    )
