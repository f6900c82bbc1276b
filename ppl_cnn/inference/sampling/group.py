"""A group of units that one program samples side by side, with their folders."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from ppl_cnn.errors import InputError, RunFolderError
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.record import read_record, unit_folder
from ppl_cnn.inference.runs.store import IMAGE, DrawStore
from ppl_cnn.inference.runs.writer import Writer
from ppl_cnn.inference.sampling.keys import reference_key
from ppl_cnn.inference.sampling.program import Call, Program
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
from ppl_cnn.models.density import TiltedDensity

SAVE_SECONDS = 10.0
"""Seconds between two saved states: about as much is lost when a run is killed."""
_OF_STARTS = ("annealing", "resampling", "forward_passes")
"""Fields of a unit's record that its start writes."""


class Group:
    """The densities that one program samples, their folders and where their chains stand.

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
        self._stores = [
            DrawStore(each.path / "draws.zarr", program.block) for each in self._folders
        ]

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
        return RunFolder(path, record)

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
        if position is None:
            position = self._begin(made, bar.shown)
        else:
            self._create(made, None)
        bar.begin(program, position)
        with Writer() as writer:
            if position.draws >= draws and position.block is not None:
                whole = position.closed()
                writer.ask(partial(self._write, position, whole, position.block))
                writer.ask(partial(self._save, whole))
            saved = time.monotonic()
            next_ = self._call(position, draws)
            while next_ is not None:
                call = next_
                ends = call.position.draws >= draws
                due = ends or time.monotonic() - saved >= SAVE_SECONDS
                saved = time.monotonic() if due else saved
                # The next call uses these chains up.
                copy = call.position.copied() if due else None
                next_ = self._call(call.position, draws)
                before, position = position, program.ended(call, position)
                if call.closes:
                    writer.ask(partial(self._write, before, position, call.kept))
                if copy is not None:
                    at = replace(position, chains=copy.chains, block=copy.block)
                    writer.ask(partial(self._save, at))
                bar.show(position, np.asarray(call.told.acceptance))

    def _call(self, position: Position, draws: int) -> Call | None:
        """The next call of the program; None where all draws are made."""
        return self._program.call(position, draws) if position.draws < draws else None

    def _save(self, position: Position) -> None:
        """Saves where the run stands, whose whole blocks are in the stores."""
        save_state(position, self._state)
        self._report(position)

    def _begin(self, made: Sequence[bool], progress: bool) -> Position:
        """The start; the stores that are missing are made with its images."""
        program = self._program
        start = self._settings.start
        started = start.latents(program.densities, self._settings, progress=progress)
        position = program.begin(started.latents, started.gradients)
        self._create(made, np.asarray(program.images(position)))
        for folder, note in zip(self._folders, started.notes, strict=True):
            folder.update(**note)
        save_state(position, self._state)
        return position

    def _open(self, position: Position | None) -> list[bool]:
        """Compares the stores with the state.

        Returns:
            For each unit, whether its store exists.
        """
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
            made.append(tree is not None)
        return made

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
        """Adds a block to the stores."""
        names, count = self._program.kernel.statistics, position.written - before.written
        kept = jax.device_get(kept)  # in whole: a part would be cut on the devices, after the queue
        for index, (density, store) in enumerate(
            zip(self._program.densities, self._stores, strict=True)
        ):
            chains = self._program.chains_of(index)
            variables = kept.variables(count, names, chains, stein=density.has_stein_mean)
            store.write(before.written, before.blocks, variables)

    def _report(self, position: Position) -> None:
        """Adds gradients and its share of the time to each unit's record."""
        for index, folder in enumerate(self._folders):
            gradients = {phase: each[index] for phase, each in position.gradients.items()}
            seconds = {phase: t / len(self._folders) for phase, t in position.seconds.items()}
            folder.update(gradients=gradients, seconds=seconds)
