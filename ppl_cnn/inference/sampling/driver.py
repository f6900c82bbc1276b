"""The chain driver: draws block by block to a store, to the same bits after a kill."""

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

from ppl_cnn.errors import InputError
from ppl_cnn.inference.kernels.kernel import replicas, statistics
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.record import read_record, unit_folder
from ppl_cnn.inference.runs.store import DrawStore, open_draws
from ppl_cnn.inference.sampling.grouping import together
from ppl_cnn.inference.sampling.program import Kept, Position, Program, draws_before
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts import Starts
from ppl_cnn.models.density import TiltedDensity


def draw(
    density: TiltedDensity,
    kernel: str = "split",
    chains: int = 8,
    draws: int = 200,
    warmup: int = 200,
    thin: int = 1,
    target_accept: float = 0.8,
    seed: int = 0,
    start: str = "prior",
    out: str | Path | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Samples a tilted density.

    Args:
        density: the target.
        kernel: "split", "tempered" (or "tempered:R", with R rungs), "hmc" or "nuts".
        chains: number of chains.
        draws: kept per chain.
        warmup: transitions before them, in which step size and trajectory are adapted.
        thin: transitions per kept draw.
        target_accept: mean acceptance probability aimed at.
        seed: the same seed gives the same draws.
        start: where the chains start: each at its own draw of the reference ("prior"), as `Starts`
            says ("rto", "anneal", "zero", "image:FILE", "run:FOLDER"), or half of them each way
            ("two-sided:rto").
        out: a folder for them. The same call continues a run that was stopped, and one with more
            draws adds to it. Without it, the draws are held in memory.
        progress: whether to show a bar.

    Returns:
        ArviZ's tree: `posterior` with `image` (chain, draw, row, col, channel), in pixel units
        minus the mean, and `response` (chain, draw); `sample_stats`; `start` with the images at
        which the chains start; and, if the reference is linear in z, `stein` with the mean of
        R(grad_z f / T) over each block of draws, for white noise (sigma^2/T) grad f. Of the
        tempered kernel also `tempering`, with `tilt` (chain, draw, rung), f/T of all replicas, and
        `strength` (block, rung), from 0 to 1, with step size and angle of each rung.

    Raises:
        InputError: the settings can't be used, or `out` holds another run.
    """
    starts = Starts(start)
    sampling = Sampling(kernel, chains, warmup, thin, target_accept, seed, starts.text)
    if out is not None:
        sample_to(Path(out), [density], sampling, draws, starts=starts, progress=progress)
        return open_draws(Path(out) / "draws.zarr")
    with tempfile.TemporaryDirectory() as folder:
        sample_to(Path(folder), [density], sampling, draws, starts=starts, progress=progress)
        tree = open_draws(Path(folder) / "draws.zarr").load()
        tree.close()
        return tree


def sample_to(
    out: Path,
    densities: Sequence[TiltedDensity],
    sampling: Sampling,
    draws: int,
    model: str = "",
    description: Mapping[str, Any] | None = None,
    command: str = "ppl_cnn.draw",
    side_by_side: int | None = None,
    starts: Starts | None = None,
    progress: bool = True,
) -> None:
    """Samples into a folder: `draws.zarr`, `run.json` and, to continue from, `state.npz`.

    Several units get a folder each (`unit_folder`), with `draws.zarr` and `run.json` of its own.

    Args:
        out: the folder.
        densities: the targets.
        sampling: how each is sampled.
        draws: kept per chain, in all.
        model: whose units they are, for the record.
        description: what else the record should say.
        command: how the run was started, for the record.
        side_by_side: units sampled in one batch at most; by default what `together` finds.
        starts: where chains start, for a `sampling.init` other than "prior".
        progress: whether to show a bar.

    Raises:
        InputError: the settings can't be used, or the folder holds another run.
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, not {draws}.")
    recorded = None if side_by_side is not None else _recorded(out, densities)
    batches = together(densities, sampling, side_by_side, recorded)
    programs = [Program(batch, sampling) for batch in batches]
    config = _config(densities, sampling, model)
    if len(densities) > 1:
        config["side_by_side"] = [len(batch) for batch in batches]
    else:
        config["block"] = programs[0].block
    with RunFolder.claim(out, config, command) as folder:
        folder.update(**(description or {}), draws=draws)
        several = len(densities) > 1
        runs = [
            Batch(folder, program, sampling, index if several else None)
            for index, program in enumerate(programs)
        ]
        if progress:
            _say_found(out, runs, draws, len(densities))
        with Progress(sampling, draws, len(densities), progress) as bar:
            for run in runs:
                run.sample(draws, starts or Starts("prior"), bar)


def _say_found(out: Path, runs: Sequence["Batch"], draws: int, units: int) -> None:
    """Says what an earlier run has left."""
    found, wanted = sum(run.found for run in runs), draws * units
    summed = f" (summed over its {units} units)" if units > 1 else ""
    if found >= wanted:
        said = f"holds all {found:,} draws per chain{summed}; there is nothing to sample."
    else:
        said = f"holds {found:,} of {wanted:,} draws per chain{summed}, and goes on from there."
    if found:
        print(f"{out} {said}", file=sys.stderr)


def _recorded(out: Path, densities: Sequence[TiltedDensity]) -> list[int] | None:
    """The sizes of the batches in which an earlier run has sampled the same units there."""
    if not (out / "run.json").exists():
        return None
    config = read_record(out)["config"]
    same = config.get("units") == [str(density.unit) for density in densities]
    return config.get("side_by_side") if same else None


def _config(densities: Sequence[TiltedDensity], sampling: Sampling, model: str) -> dict[str, Any]:
    """What determines the draws, for the record; weights as a digest."""
    digest, seen = hashlib.sha256(), set[int]()
    for leaf in jax.tree.leaves([density.unit.params for density in densities]):
        if id(leaf) not in seen:
            seen.add(id(leaf))
            digest.update(np.asarray(leaf).tobytes())
    settings: dict[str, Any] = dict(densities[0].unit.settings)
    if len(densities) > 1:
        del settings["unit"]
        settings["units"] = [str(density.unit) for density in densities]
    return {
        "kind": "sampling",
        "model": model,
        **settings,
        "weights": digest.hexdigest()[:16],
        "reference": str(densities[0].reference),
        "temperature": densities[0].temperature,
        **asdict(sampling),
    }


class Batch:
    """The densities that one program samples, their folders and where their chains stand.

    Args:
        folder: the run's.
        program: of the densities.
        sampling: how each is sampled.
        index: which batch of a run of several units this is; None for a run of one.
    """

    def __init__(
        self, folder: RunFolder, program: Program, sampling: Sampling, index: int | None
    ) -> None:
        self._folder, self._program, self._sampling = folder, program, sampling
        self._state = folder.path / ("state.npz" if index is None else f"state-{index}.npz")
        self._folders = [folder]
        if index is not None:
            self._folders = [self._unit_folder(density) for density in program.densities]
        self._stores = [
            DrawStore(each.path / "draws.zarr", program.block) for each in self._folders
        ]

    def _unit_folder(self, density: TiltedDensity) -> RunFolder:
        """A unit's own, with a record as of a run of its own; only this run may continue it."""
        path = self._folder.path / unit_folder(str(density.unit))
        config = {**self._folder.record["config"], **density.unit.settings}
        del config["units"], config["side_by_side"]
        config |= {"block": self._program.block, "part_of": self._folder.path.name}
        record = {**self._folder.record, "config": config}
        # What its start took is known from then on only by its own record.
        with contextlib.suppress(InputError):
            record |= {k: v for k, v in read_record(path).items() if k == "annealing"}
        return RunFolder(path, record)

    @property
    def found(self) -> int:
        """Draws per chain that its units' folders hold, all together."""
        return draws_before(self._state) * len(self._program.densities)

    def sample(self, draws: int, starts: Starts, bar: "Progress") -> None:
        """Goes on to that many draws per chain, block by block.

        Raises:
            InputError: the folder's files don't belong together, or are damaged.
        """
        program, position = self._program, self._program.restore(self._state)
        made = self._open(position)
        if position is None:
            position = self._begin(starts, made)
        else:
            self._create(made, None)
        bar.begin(self._program, position)
        while position.draws < draws:
            before = position
            position, kept = program.advance(before, draws)
            if position.draws > before.draws:
                self._write(before, position, kept)
            program.save(position, self._state)
            self._report(position)
            bar.show(position, kept)

    def _begin(self, starts: Starts, made: Sequence[bool]) -> Position:
        """The start, which the stores that aren't there are made with."""
        program = self._program
        started = starts(program.densities, self._sampling)
        position = program.begin(started.latents, started.gradients)
        self._create(made, np.asarray(program.images(position)))
        for folder, note in zip(self._folders, started.notes, strict=True):
            folder.update(**note)
        program.save(position, self._state)
        return position

    def _open(self, position: Position | None) -> list[bool]:
        """Compares the stores with the state; which of them are there."""
        begun, made = position.draws if position else 0, []
        for folder, store in zip(self._folders, self._stores, strict=True):
            path, tree = folder.path / "draws.zarr", store.resume()
            found = tree["posterior"].sizes["draw"] if tree is not None else 0
            if tree is not None and not folder.made(tree.attrs):
                raise InputError(f"{path} holds draws of another run; give another --out.")
            if position is None and found:
                raise InputError(
                    f"{path} holds {found} draws per chain, but {self._state} to continue from "
                    f"is lost: put it back, or give another --out."
                )
            if found < begun:
                raise InputError(
                    f"{path} holds {found} draws per chain, but {self._state} says {begun}: put "
                    f"the whole store back, or give another --out."
                )
            made.append(tree is not None)
        return made

    def _create(self, made: Sequence[bool], starts: np.ndarray | None) -> None:
        """Makes the stores that aren't there, with where the chains start if that is known."""
        types = statistics(self._sampling.kernel)
        for index, density in enumerate(self._program.densities):
            folder, store = self._folders[index], self._stores[index]
            if made[index]:
                continue
            sizes = {"chain": range(self._sampling.chains), "channel": range(density.unit.shape[2])}
            sizes |= {"row": density.unit.rows, "col": density.unit.cols}
            if "restarts" in types:
                sizes["rung"] = range(replicas(self._sampling.kernel) + 1)
            start = None if starts is None else starts[self._program.chains_of(index)]
            folder.path.mkdir(exist_ok=True)
            store.create(sizes, types, folder.record, density.has_stein_mean, start)
            folder.update()

    def _write(self, before: Position, position: Position, kept: Kept) -> None:
        """Adds a block to the stores."""
        names, count = statistics(self._sampling.kernel), position.draws - before.draws
        for index, (density, store) in enumerate(
            zip(self._program.densities, self._stores, strict=True)
        ):
            chains = self._program.chains_of(index)
            variables = kept.variables(count, names, chains, stein=density.has_stein_mean)
            store.write(before.draws, before.blocks, variables)

    def _report(self, position: Position) -> None:
        """Adds to each unit's record its gradients and its share of the time."""
        for index, folder in enumerate(self._folders):
            gradients = {phase: each[index] for phase, each in position.gradients.items()}
            seconds = {phase: t / len(self._folders) for phase, t in position.seconds.items()}
            folder.update(gradients=gradients, seconds=seconds)


class Progress:
    """A bar over warmup and draws, with draws per second, acceptance and ETA.

    Args:
        sampling: of each unit.
        draws: wanted per chain.
        units: in all batches.
        shown: whether there is a bar at all.
    """

    def __init__(self, sampling: Sampling, draws: int, units: int, shown: bool) -> None:
        self._sampling, self._units, self._begun = sampling, units, 0
        self._bar = tqdm(
            total=units * (sampling.warmup + draws * sampling.thin),
            unit="transition",
            desc="compiling",
            disable=not shown,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._bar.close()

    def begin(self, program: Program, position: Position) -> None:
        """Turns to a batch, that may stand beyond its start."""
        self._last, self._together = position, len(program.densities)
        self._begun += self._together
        done = (position.warmup + position.draws * self._sampling.thin) * self._together
        if not self._bar.disable:
            # What an earlier run has done is no part of this one's rate.
            self._bar.initial += done
        self._bar.update(done)

    def show(self, position: Position, kept: Kept) -> None:
        """Moves on to a new position.

        Args:
            position: after the block.
            kept: of the block.
        """
        last, self._last = self._last, position
        drawn, warmed = position.draws - last.draws, position.warmup - last.warmup
        rates = kept.transition.acceptance_rate[:, : drawn or warmed]
        text = f"acceptance {np.mean(rates):.2f}"
        if drawn:
            seconds = position.seconds["sampling"] - last.seconds["sampling"]
            text += f", {drawn * len(rates) / seconds:.1f} draws/s"
        doing = "sampling" if drawn else "warmup"
        if self._units > 1:
            first = self._begun - self._together + 1
            which = f"{first}-{self._begun}" if self._together > 1 else f"{first}"
            doing += f", units {which} of {self._units}"
        self._bar.set_description(doing, refresh=False)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update((warmed + drawn * self._sampling.thin) * self._together)
