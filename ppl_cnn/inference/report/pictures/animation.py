"""Animations of draws: frames side by side as a GIF, or as an MP4 by the program ffmpeg."""

import io
import itertools
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ppl_cnn.errors import ArgumentError, FileError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.report.pictures.encoding import enlarged, joined, reduced

type Animation = Literal["gif", "mp4"]
type Frame = UInt8[np.ndarray, "height width channel"]

_SIDE = 160
"""Pixels along a chain's longer side."""
_GAP = 4
"""Pixels between two chains."""
_PER_SECOND = 10
"""Frames a second, which GIF and all players can show."""


def check_animation(kind: Animation) -> None:
    """Refuses a kind of animation that can't be written here.

    Raises:
        ArgumentError: it is mp4, and there is no program ffmpeg.
    """
    if kind == "mp4" and shutil.which("ffmpeg") is None:
        raise ArgumentError(
            "`save=mp4` needs the program ffmpeg, which is not on PATH. Install it, or give "
            "`save=gif`.",
            argument="save",
        )


def frame(chains: UInt8[np.ndarray, "chain row col channel"]) -> Frame:
    """One frame: an image of each chain, in about a square.

    Args:
        chains: grey or RGB levels.
    """
    small = reduced(chains, _SIDE)
    images = np.stack([enlarged(image, _SIDE) for image in small])
    columns = math.ceil(math.sqrt(len(images)))
    rows = -(-len(images) // columns)
    rest = ((0, rows * columns - len(images)), *[(0, 0)] * 3)
    filled = np.pad(images, rest, constant_values=255)
    return joined(filled.reshape(rows, columns, *images.shape[1:]), gap=_GAP)


def write_animation(path: Path, frames: Iterator[Frame]) -> None:
    """Writes an animation, aside and then renamed.

    Args:
        path: where it goes; the suffix, gif or mp4, says what it becomes.
        frames: grey or RGB levels, of one shape. They are read one after the other.

    Raises:
        ArgumentError: it is to be an mp4, and there is no program ffmpeg.
        FileError: ffmpeg fails.
    """
    if path.suffix == ".gif":
        write_aside(path, _gif(frames))
    else:
        check_animation("mp4")
        _write_mp4(path, frames)


def _gif(frames: Iterator[Frame]) -> bytes:
    """Grey levels are kept; colours become 256 in each frame."""
    first, stream = _paletted(next(frames)), io.BytesIO()
    rest, pause = map(_paletted, frames), 1000 // _PER_SECOND
    first.save(stream, "GIF", save_all=True, append_images=rest, duration=pause, loop=0)
    return stream.getvalue()


def _paletted(pixels: Frame) -> Image.Image:
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels.squeeze(axis=2))
    return Image.fromarray(pixels).quantize(256)


def _write_mp4(path: Path, frames: Iterator[Frame]) -> None:
    first = _even(next(frames))
    height, width, _ = first.shape
    aside = path.with_name(f".{path.name}.partial")
    size, rate = f"{width}x{height}", str(_PER_SECOND)
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate, "-i", "-")
    made = ("-pix_fmt", "yuv420p", "-b:v", "8M", "-movflags", "+faststart", "-f", "mp4")
    command = ["ffmpeg", "-y", "-loglevel", "error", *raw, *made, str(aside.absolute())]
    try:
        with tempfile.TemporaryFile() as said:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as ffmpeg:
                try:
                    assert ffmpeg.stdin is not None
                    for pixels in itertools.chain([first], map(_even, frames)):
                        ffmpeg.stdin.write(pixels.tobytes())
                    ffmpeg.stdin.close()
                except BrokenPipeError:  # ffmpeg has ended, and said why
                    pass
            if ffmpeg.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").split("\n")
                why = next((line for line in reversed(lines) if line.strip()), "no reason given")
                raise FileError(f"ffmpeg can't write {path} ({why.strip()}).", path=path)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _even(pixels: Frame) -> UInt8[np.ndarray, "height width 3"]:
    """The frame in RGB with even sides, as MP4's halved colours need."""
    height, width, channels = pixels.shape
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
    return padded.repeat(3, axis=2) if channels == 1 else padded
