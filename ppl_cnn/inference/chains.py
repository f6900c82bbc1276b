"""The chain driver: draws block by block to a store, to the same bits after a kill."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
from tqdm import tqdm

from ppl_cnn import InputError
from ppl_cnn.inference.blocks import Kept, Position, Program, Sampling
from ppl_cnn.inference.kernels import statistics
from ppl_cnn.inference.records import RunFolder
from ppl_cnn.inference.store import DrawStore, open_draws
from ppl_cnn.models.density import TiltedDensity


def draw(
    density: TiltedDensity,
    kernel: str = "hmc",
    chains: int = 8,
    draws: int = 200,
    warmup: int = 200,
    thin: int = 1,
    target_accept: float = 0.8,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> xr.DataTree:
    """Samples a tilted density.

    Args:
        density: the target.
        kernel: "hmc" or "nuts".
        chains: number of chains, each from its own draw of the reference.
        draws: kept per chain.
        warmup: transitions before them, in which the step size is adapted.
        thin: transitions per kept draw.
        target_accept: mean acceptance probability aimed at.
        seed: the same seed gives the same draws.
        out: a folder for them. The same call continues a run that was stopped, and one with more
            draws adds to it. Without it, the draws are held in memory.
        progress: whether to show a bar.

    Returns:
        ArviZ's tree: `posterior` with `image` (chain, draw, row, col, channel), in pixel units
        minus the mean, and `response` (chain, draw); `sample_stats`; and `stein` with the mean of
        R(grad f / T) over each block of draws, for white noise (sigma^2/T) grad f.

    Raises:
        InputError: the settings can't be used, or `out` holds another run.
    """
    sampling = Sampling(kernel, chains, warmup, thin, target_accept, seed)
    if out is not None:
        sample_to(Path(out), density, sampling, draws, progress=progress)
        return open_draws(Path(out) / "draws.zarr")
    with tempfile.TemporaryDirectory() as folder:
        sample_to(Path(folder), density, sampling, draws, progress=progress)
        tree = open_draws(Path(folder) / "draws.zarr").load()
        tree.close()
        return tree


def sample_to(
    out: Path,
    density: TiltedDensity,
    sampling: Sampling,
    draws: int,
    model: str = "",
    description: Mapping[str, Any] | None = None,
    command: str = "ppl_cnn.draw",
    progress: bool = True,
) -> None:
    """Samples into a folder: `draws.zarr`, `run.json` and, to continue from, `state.npz`.

    Args:
        out: the folder.
        density: the target.
        sampling: how it is sampled.
        draws: kept per chain, in all.
        model: whose unit it is, for the record.
        description: what else the record should say.
        command: how the run was started, for the record.
        progress: whether to show a bar.
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, not {draws}.")
    program = Program(density, sampling)
    with RunFolder.claim(out, program.config(model), command) as folder:
        folder.update(**(description or {}), draws=draws)
        store = DrawStore(out / "draws.zarr", program.block)
        position = program.restore(out / "state.npz")
        if position is None:
            sizes = {"chain": range(sampling.chains), "channel": range(density.unit.shape[2])}
            sizes |= {"row": density.unit.rows, "col": density.unit.cols}
            store.create(sizes, statistics(sampling.kernel), folder.record)
            position = program.begin()
        with Progress(sampling, draws, position, progress) as bar:
            while position.draws < draws:
                before = position
                position, kept = program.advance(before, draws)
                if count := position.draws - before.draws:
                    variables = kept.variables(count, statistics(sampling.kernel))
                    store.write(before.draws, before.blocks, variables)
                program.save(position, out / "state.npz")
                folder.update(gradients=position.gradients, seconds=position.seconds)
                bar.show(position, kept)


class Progress:
    """A bar over warmup and draws, with draws per second, acceptance and ETA."""

    def __init__(self, sampling: Sampling, draws: int, position: Position, shown: bool) -> None:
        self._sampling, self._last = sampling, position
        self._bar = tqdm(
            total=sampling.warmup + draws * sampling.thin,
            initial=position.warmup + position.draws * sampling.thin,
            unit="transition",
            desc="compiling",
            disable=not shown,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._bar.close()

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
            text += f", {drawn * self._sampling.chains / seconds:.1f} draws/s"
        self._bar.set_description("sampling" if drawn else "warmup", refresh=False)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(warmed + drawn * self._sampling.thin)
