"""A group of units that one program samples side by side, with their folders."""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from ppl_cnn.errors import InputError, RunFolderError
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.record import read_record, unit_folder
from ppl_cnn.inference.runs.store import IMAGE, DrawStore
from ppl_cnn.inference.runs.writer import Writer
from ppl_cnn.inference.sampling.call import Call
from ppl_cnn.inference.sampling.keys import reference_key
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.progress import Progress
from ppl_cnn.inference.sampling.resampling.proposals import prior_draws, prior_shape
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.state import (
    Kept,
    Position,
    draws_before,
    restore_state,
    save_state,
)
from ppl_cnn.machines.messages import Conversation
from ppl_cnn.machines.spreading import own_part
from ppl_cnn.models.density import TiltedDensity

SAVE_SECONDS = 10.0
"""Seconds between two saved states: about as much is lost when a run is killed."""
_OF_STARTS = ("annealing", "resampling", "forward_passes")
"""Fields of a unit's record that its start writes."""


class Group:
    """The densities that one program samples, their folders and where their chains stand.

    All processes call a group's methods together. Each writes the draws of its own chains; the rest
    is written by process 0, and lengths of calls and moments of saving are as it says.

    Args:
        folder: the run's.
        program: the densities' program.
        settings: how each is sampled.
        index: number of this group in a run of several units; None for a run of one unit.
    """

    def __init__(
        self, folder: RunFolder, program: Program, settings: Sampling, index: int | None
    ) -> None:
        self._folder, self._program, self._settings = folder, program, settings
        self._state = folder.path / ("state.npz" if index is None else f"state-{index}.npz")
        self._folders = [folder]
        if index is not None:
            self._folders = [self._unit_folder(density) for density in program.densities]
        own = program.placement.own
        self._chunk = math.gcd(settings.chains, own.stop - own.start)
        self._stores = [
            DrawStore(each.path / "draws.zarr", program.block, self._chunk)
            for each in self._folders
        ]
        self._talk, self._writers = Conversation(), Conversation()

    def _unit_folder(self, density: TiltedDensity) -> RunFolder:
        """A unit's own folder, with a record as of a run of its own; only this run resumes it."""
        path = self._folder.path / unit_folder(str(density.unit))
        config = {**self._folder.record["config"], **density.unit.settings}
        del config["units"], config["side_by_side"]
        config |= {"block": self._program.block, "part_of": self._folder.path.name}
        record = {**self._folder.record, "config": config}
        # What a unit's start took is known afterwards from its own record alone.
        with contextlib.suppress(InputError):
            record |= {k: v for k, v in read_record(path).items() if k in _OF_STARTS}
        return RunFolder(path, record, writer=self._folder.writer)

    @property
    def found(self) -> int:
        """Draws per chain that the units' folders hold, summed over the units."""
        return draws_before(self._state) * len(self._program.densities)

    def sample(self, draws: int, bar: Progress) -> None:
        """Samples up to that many draws per chain, call by call of the program.

        The next call is on the devices' queue before the last one is looked at, and a thread
        writes, so that the devices don't wait.

        Args:
            draws: draws wanted in all.
            bar: the progress bar.

        Raises:
            RunFolderError: the folder's files don't belong together, or are damaged.
        """
        program = self._program
        position = restore_state(self._state, program.chains, program.room, program.place)
        made = self._open(position)
        self._talk.meet()  # All have read; from here on process 0 writes.
        if position is None:
            position = self._begin(made, bar.shown)
        else:
            self._create(made, None)
        self._talk.meet()
        bar.begin(program, position)
        with Writer() as writer:
            if position.draws >= draws and position.block is not None:
                whole = position.closed()
                writer.ask(partial(self._write, position, whole, position.block))
                writer.ask(partial(self._save, program.to_save(whole)))
            self._draw(position, draws, writer, bar)

    def _draw(self, position: Position, draws: int, writer: Writer, bar: Progress) -> None:
        """Moves on from a position, with a call on the devices while the last is looked at."""
        saved = time.monotonic()
        following = self._call(position, draws)
        while following is not None:
            call = following
            due = call.position.draws >= draws or time.monotonic() - saved >= SAVE_SECONDS
            due, most = self._talk.agreed((due, self._program.most))
            saved = time.monotonic() if due else saved
            # The next call uses these chains up.
            copy = self._program.to_save(call.position) if due else None
            following = self._call(call.position, draws, most)
            before, position = position, self._program.ended(call, position)
            if call.closes:
                writer.ask(partial(self._write, before, position, call.kept))
            if copy is not None:
                at = replace(position, chains=copy.chains, block=copy.block)
                writer.ask(partial(self._save, at))
            bar.show(position, np.asarray(call.told.acceptance))

    def _call(self, position: Position, draws: int, most: int | None = None) -> Call | None:
        """The next call of the program; None where all draws are made."""
        return self._program.call(position, draws, most) if position.draws < draws else None

    def _save(self, position: Position) -> None:
        """Saves where the run stands, whose whole blocks are in the stores."""
        if self._folder.writer:
            save_state(position, self._state)
        self._report(position)

    def _begin(self, made: Sequence[bool], progress: bool) -> Position:
        """The start; the stores that are missing are made with its images."""
        program = self._program
        start = self._settings.start
        started = start.latents(program.densities, self._settings, progress=progress)
        position = program.begin(started.latents, started.gradients)
        self._create(made, program.images(position))
        for folder, note in zip(self._folders, started.notes, strict=True):
            folder.update(**note)
        saved = program.to_save(position)
        if self._folder.writer:
            save_state(saved, self._state)
        return position

    def _open(self, position: Position | None) -> list[bool]:
        """Compares the stores with the state.

        Returns:
            For each unit, whether its store exists; to all processes but 0, they do.
        """
        if not self._folder.writer:
            return [True] * len(self._stores)
        begun, made = position.written if position else 0, []
        for folder, store in zip(self._folders, self._stores, strict=True):
            path, tree = folder.path / "draws.zarr", store.resume()
            found = tree["posterior"].sizes["draw"] if tree is not None else 0
            if tree is not None and not folder.made(tree.attrs):
                raise RunFolderError(
                    f"{path} holds draws of another run. Give another `out`.", path=path
                )
            if position is None and found:
                raise RunFolderError(
                    f"{path} holds {found} draws per chain, but {self._state} to resume from is "
                    f"lost. Restore that file, or give another `out`.",
                    path=path,
                )
            if found < begun:
                raise RunFolderError(
                    f"{path} holds {found} draws per chain, but {self._state} says {begun}. "
                    f"Restore the whole store, or give another `out`.",
                    path=path,
                )
            if tree is not None:
                self._check_chunks(path, tree)
            made.append(tree is not None)
        return made

    def _check_chunks(self, path: Path, tree: xr.DataTree) -> None:
        """Refuses a store in which two processes would write to one file."""
        processes = jax.process_count()
        chunk = tree["posterior/image"].encoding["chunks"][0]
        if processes > 1 and self._chunk % chunk:
            raise RunFolderError(
                f"A file of {path} has the draws of {chunk} chains, which {processes} processes "
                f"can't write. Resume with as many processes as began the run, or one.",
                path=path,
            )

    def _create(self, made: Sequence[bool], starts: np.ndarray | None) -> None:
        """Makes the stores that are missing, with the images at the start if they are known."""
        program = self._program
        types = {name: kind.dtype for name, kind in program.kernel.statistics.items()}
        for index, density in enumerate(program.densities):
            folder, store = self._folders[index], self._stores[index]
            if made[index]:
                continue
            sizes = {"chain": range(self._settings.chains), "channel": range(density.unit.shape[2])}
            sizes |= {"row": density.unit.rows, "col": density.unit.cols}
            if program.rungs:
                sizes["rung"] = range(program.rungs)
            start = None if starts is None else starts[program.chains_of(index)]
            folder.path.mkdir(exist_ok=True)
            store.create(
                sizes,
                types,
                folder.record,
                stein=density.has_stein_mean,
                start=start,
                known=self._prior(density),
            )
            folder.update()

    def _prior(self, density: TiltedDensity) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Draws of the reference, to be seen beside those of the density."""
        shape = prior_shape(density, self._settings.chains)
        images, responses = prior_draws(
            self._program.densities[0],
            density.params,
            reference_key(self._settings.seed),
            np.arange(shape[0] * shape[1]).reshape(shape),
        )
        return {
            "prior/image": (("chain", "draw", *IMAGE), np.asarray(images)),
            "prior/response": (("chain", "draw"), np.asarray(responses)),
        }

    def _write(self, before: Position, position: Position, kept: Kept) -> None:
        """Adds a block to the stores, once all processes have written their chains."""
        program, count = self._program, position.written - before.written
        kept, own = own_part(kept), program.placement.own
        at = before.written, before.blocks
        for index, density in enumerate(program.densities):
            chains = program.chains_of(index)
            first, end = max(chains.start, own.start), min(chains.stop, own.stop)
            if first < end:
                here = slice(first - own.start, end - own.start)
                names, stein = program.kernel.statistics, density.has_stein_mean
                variables = kept.variables(count, names, here, stein=stein)
                self._stores[index].write_chunks(*at, variables, chain=first - chains.start)
        self._writers.meet()
        for store in self._stores if self._folder.writer else ():
            store.publish(*at, count)

    def _report(self, position: Position) -> None:
        """Adds gradients and its share of the time to each unit's record."""
        for index, folder in enumerate(self._folders):
            gradients = {phase: each[index] for phase, each in position.gradients.items()}
            seconds = {phase: t / len(self._folders) for phase, t in position.seconds.items()}
            folder.update(gradients=gradients, seconds=seconds)
