"""What benchmarks share: the command line, inputs, JSON lines that a rerun resumes, timing."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

import ppl_cnn
from ppl_cnn.models.networks.catalogue import SQUEEZENET
from ppl_cnn.models.trained.cnn import CNN

REAL_WEIGHTS = "PPL_CNN_REAL_WEIGHTS"
"""The variable that names the folder which tests/fetch_real_inputs.py makes."""

JUDGE_CLASSES = np.random.default_rng(4).permutation(1000)
REPORTING, TUNING = JUDGE_CLASSES[:30], JUDGE_CLASSES[30:40]
"""ImageNet's classes for which results are reported, and those on which settings were chosen."""


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A parser that has the option --toy.

    Args:
        description: the benchmark's docstring.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--toy",
        action="store_true",
        help="run on tiny sizes and random weights: seconds, and no results worth reading",
    )
    return parser


def real(pattern: str) -> list[Path]:
    """The files that match a pattern in the folder of fetched packages; exits if there are none."""
    folder = os.environ.get(REAL_WEIGHTS)
    found = sorted(Path(folder).glob(pattern)) if folder else []
    if not found:
        sys.exit(
            f"No file matches {pattern}. Set {REAL_WEIGHTS} to the folder that "
            "`python tests/fetch_real_inputs.py` makes."
        )
    return found


def squeezenet(size: int | None = None, *, toy: bool = False) -> CNN:
    """SqueezeNet 1.1 with its published weights or, for a toy, its ends with random weights.

    Args:
        size: the side of its images in pixels, by default its own.
        toy: needs no file, and leaves out all layers between the first pooling and the last
            convolution, so that programs compile in no time.
    """
    if toy:
        layers = SQUEEZENET.layers
        cnn = CNN.random(replace(SQUEEZENET, layers=(*layers[:3], *layers[-2:])))
        cnn.classes = tuple(f"class {index}" for index in range(1000))
    else:
        (weights,) = real("ndf/**/squeezenet_weights.pkl")
        loaded = ppl_cnn.load("squeezenet1.1", weights=weights)
        assert isinstance(loaded, CNN)
        cnn = loaded
    return cnn if size is None else cnn.resized(size)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; none if there is no file."""
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    )


def missing[T](path: Path, wanted: Iterable[T], key: Callable[[dict[str, Any]], T]) -> list[T]:
    """The wanted cases that have no line in the file yet, for a rerun to run.

    Args:
        path: the file of JSON lines.
        wanted: names of cases.
        key: a line's case.
    """
    done = {key(line) for line in read_lines(path)}
    return [each for each in wanted if each not in done]


def add_line(path: Path, line: dict[str, Any]) -> None:
    """Adds a JSON object to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def say(**line: Any) -> None:
    """Prints a JSON object on a line of its own."""
    print(json.dumps(line), flush=True)


def seconds(function: Callable[..., Any], *arguments: Any, calls: int = 1) -> float:
    """Seconds of a call of a jitted function, the mean of several, until its result is there."""
    began = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function(*arguments))
    return (time.perf_counter() - began) / calls


def cpu_seconds(function: Callable[..., Any], *arguments: Any, calls: int = 1) -> float:
    """The same, summed over the CPU's cores that work on it: others' work doesn't count."""
    began = time.process_time()
    for _ in range(calls):
        jax.block_until_ready(function(*arguments))
    return (time.process_time() - began) / calls


class InTurn(NamedTuple):
    """Seconds of two things that were timed in turn, a value for each round."""

    one: np.ndarray
    other: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """One over the other, round by round, so that what slows a round cancels."""
        return self.one / self.other

    @property
    def medians(self) -> list[float]:
        """Seconds of each."""
        return [float(np.median(self.one)), float(np.median(self.other))]


def in_turn(one: Callable[[], float], other: Callable[[], float], rounds: int) -> InTurn:
    """Times two things in turn, the order changing from round to round.

    Args:
        one: a function that does the one thing and returns its seconds.
        other: a function that does the other.
        rounds: how often each is timed.
    """
    taken = np.asarray(
        [(one(), other()) if i % 2 else (other(), one())[::-1] for i in range(rounds)]
    )
    return InTurn(taken[:, 0], taken[:, 1])


def spread(name: str, values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Median and range of rounds, as the entries `name` and `name_range` of a line."""
    ordered = np.sort(values)
    ends = [round(float(value), 3) for value in ordered[[0, -1]]]
    return {name: round(float(np.median(ordered)), 3), f"{name}_range": ends}


def correlation(a: Any, b: Any) -> float:
    """The correlation of two arrays of one shape, over their elements."""
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> int:
    """Stores smooth fields with noise as JPEGs, about as large as photographs of their size.

    Args:
        folder: gets the class folders train/class0 and train/class1, and val/ with two images more.
        count: how many to train on.
        size: width and height in pixels.

    Returns:
        The files' mean size in bytes.
    """
    random, sizes = np.random.default_rng(0), []
    coarse_size = (max(size[1] // 16, 2), max(size[0] // 16, 2), 3)
    for index in range(count + 2):
        coarse = random.integers(0, 256, coarse_size, np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        noisy = smooth + random.normal(0, 6, smooth.shape)
        split, label = ("val", index) if index < 2 else ("train", index % 2)
        path = folder / split / f"class{label}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=90)
        sizes.append(path.stat().st_size)
    return round(float(np.mean(sizes)))
