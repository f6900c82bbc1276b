"""Animations of a run's draws, a file for each unit."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ppl_cnn.inference.diagnostics.scan import image_blocks, read, variable
from ppl_cnn.inference.report.pictures.album import Tones
from ppl_cnn.inference.report.pictures.animation import (
    Animation,
    Frame,
    check_animation,
    frame,
    write_animation,
)
from ppl_cnn.inference.runs.record import read_record, unit_folder
from ppl_cnn.progress import Bar

_FRAMES = 120
"""Draws of each chain, at most: 12 seconds."""


def animate(folder: Path, kind: Animation) -> list[Path]:
    """Writes `images/draws.gif` or `.mp4` for each unit: the chains' draws, in the order of time.

    A frame has a draw of every chain side by side, 120 of them evenly spread over the run, or all
    if there are fewer. Noise has one scale of contrast, so that frames compare.

    Args:
        folder: a run of `python -m ppl_cnn.sample`, finished or not.
        kind: gif or mp4.

    Returns:
        The files. Units that have no draws yet are left out.

    Raises:
        ArgumentError: it is mp4, and there is no program ffmpeg.
        FileError: the folder holds no run, or a damaged one.
    """
    check_animation(kind)
    units = read_record(folder)["config"].get("units")
    parts = [folder] if units is None else [folder / unit_folder(str(unit)) for unit in units]
    parts = [part for part in parts if (part / "draws.zarr").exists()]
    written = []
    for part in Bar(parts, "animations", delay=2, leave=False):
        frames = _frames(part)
        first = next(frames, None)
        if first is not None:
            (part / "images").mkdir(exist_ok=True)
            written.append(part / "images" / f"draws.{kind}")
            write_animation(written[-1], itertools.chain([first], frames))
    return written


def _frames(folder: Path) -> Iterator[Frame]:
    """The frames of one unit; none if it has no draws yet."""
    tree, tones, scale = read(folder), Tones.recorded(read_record(folder)), None
    draws = variable(tree, "posterior/image").sizes["draw"]
    shown = set(np.linspace(0, draws - 1, min(_FRAMES, draws)).round().astype(int).tolist())
    for here, block in image_blocks(tree, "reading draws"):
        for number in range(here.start, here.stop):
            if number in shown:
                images = tones.render(block[:, number - here.start], scale)
                scale = images.scale
                yield frame(images.pixels)
