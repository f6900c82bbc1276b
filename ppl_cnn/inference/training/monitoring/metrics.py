"""What a training run reports while it lasts: `metrics.jsonl`, TensorBoard's events, progress."""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import ArgumentError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.training.monitoring.events import Events
from ppl_cnn.progress import Bar

FLUSH_EVERY = 20
"""Steps between two transfers of metrics from the device: the only ones in the loop."""
_EARLY = (1, 3)
"""Steps of a session after which metrics are transferred besides: the first has compiled, and two
more tell the pace."""
DETAILS_EVERY = 100
"""Steps between two lines with the ESS of every class and the norms of every layer."""
_PACE_STEPS = 10_000
"""Latest steps over which the pace is measured: two epochs of ImageNet with their tests."""
_SHORTEST = 1e-9
"""Least number of seconds between two transfers, for the division by it."""


@runtime_checkable
class Wording(Protocol):
    """How a kind of training puts its steps and tests into numbers and words."""

    def line(self, step: int, stage: Any, info: Any) -> dict[str, Any]:
        """The numbers of a step, for `metrics.jsonl`: `stage`, `loss`, `gradient_norm` and more.

        Args:
            step: the step's number, from 1.
            stage: its stage.
            info: its report, on the host.
        """

    def step(self, line: Mapping[str, Any]) -> str:
        """What the progress bar says of a step.

        Args:
            line: from `line`.
        """

    def test(self, result: Mapping[str, float]) -> str:
        """A test's result, in words."""

    def brief(self, result: Mapping[str, float]) -> str:
        """The number of a test that the progress bar keeps showing."""


class Packed(NamedTuple):
    """A step's report as one array: the host reads that once, and not each of its numbers."""

    row: Array
    """All numbers of the report, in float32; on its way to the host."""
    shapes: list[tuple[int, ...]]
    """The shapes of the report's arrays."""
    tree: Any
    """The report's structure."""

    @classmethod
    def of(cls, info: Any) -> Self:
        """Packs a report on the device, without waiting for it.

        Args:
            info: a tree of arrays.
        """
        row = _in_a_row(info)
        row.copy_to_host_async()
        leaves, tree = jax.tree.flatten(info)
        return cls(row, [np.shape(leaf) for leaf in leaves], tree)

    def read(self, row: np.ndarray) -> Any:
        """The report, with NumPy's arrays.

        Args:
            row: `row`, on the host.
        """
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        parts = zip(np.split(row, ends[:-1]), self.shapes, strict=True)
        return jax.tree.unflatten(self.tree, [part.reshape(shape) for part, shape in parts])


@jax.jit
def _in_a_row(info: Any) -> Array:
    return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(info)])


class Metrics:
    """`metrics.jsonl`, TensorBoard's events and the progress bar, in one session of a run.

    Each step has a line and so has each test, with the numbers that the wording gives. A run that
    is repeated or resumed differs only in `seconds` (over all sessions) and `images_per_second`.

    Args:
        folder: the run's folder.
        batch_size: images per step.
        step: the step after which this session continues; lines of later steps are dropped.
        total: steps of the whole run.
        wording: what lines and progress say.
    """

    def __init__(
        self, folder: Path, *, batch_size: int, step: int, total: int, wording: Wording
    ) -> None:
        self._path, self._batch_size, self._first = folder / "metrics.jsonl", batch_size, step
        self._wording = wording
        self._pending: list[tuple[int, Any, Packed]] = []
        kept = [text for text, line in _lines(self._path) if _belongs(line, step)]
        recent = [json.loads(text) for text in kept[-_PACE_STEPS:]]
        self._pace = Pace(total, recent)
        tests = [line for line in recent if is_test(line)]
        self._tested = f"{wording.brief(tests[-1])}, " if tests else ""
        self._events = None
        if jax.process_index() == 0:
            write_aside(self._path, "".join(kept).encode())
            self._events = Events(folder / "tensorboard", step)
        self._bar = Bar(
            total=total,
            initial=step,
            disable=self._events is None,
            dynamic_ncols=True,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{postfix}",
        )
        self._bar.set_postfix_str(self._standing())
        self._since = time.monotonic()

    def add(self, step: int, stage: Any, info: Any) -> None:
        """Takes the report of a step, without waiting for the device.

        Args:
            step: the step's number, from 1.
            stage: its stage, as the wording takes it.
            info: its report, as the wording takes it.

        Raises:
            ArgumentError: a loss or a gradient is not finite.
        """
        self._pending.append((step, stage, Packed.of(info)))
        if len(self._pending) >= FLUSH_EVERY or step - self._first in _EARLY:
            self.flush()

    def flush(self) -> None:
        """Waits for the steps taken so far and writes their lines.

        Raises:
            ArgumentError: a loss or a gradient is not finite.
        """
        if not self._pending:
            return
        rows = jax.device_get([packed.row for _, _, packed in self._pending])
        infos = [packed.read(row) for (_, _, packed), row in zip(self._pending, rows, strict=True)]
        now = time.monotonic()
        rate = len(infos) * self._batch_size / max(now - self._since, _SHORTEST)
        seconds = self._pace.mark(self._pending[-1][0])
        lines = []
        for (step, stage, _), info in zip(self._pending, infos, strict=True):
            line = {"step": step, **self._wording.line(step, stage, info)}
            lines.append(line | {"images_per_second": rate, "seconds": seconds})
        self._pending, self._since = [], now
        self._write(lines)
        self._bar.update(len(lines))
        last = lines[-1]
        self._bar.set_description(last["stage"], refresh=False)
        self._bar.set_postfix_str(
            f"{self._wording.step(last)}, {rate:.0f} images/s, {self._standing()}"
        )
        _check_finite(lines)

    def add_result(self, step: int, stage: str, result: dict[str, float]) -> None:
        """Writes and shows the result of a test.

        Args:
            step: number of steps taken before it.
            stage: the name of their stage.
            result: the test's numbers, as the wording takes them.
        """
        self.flush()
        line = {"step": step, "stage": stage, **result}
        self._write([{**line, "seconds": self._pace.mark(step)}])
        self._tested = f"{self._wording.brief(result)}, "
        self.say(f"step {step}, {stage}: {self._wording.test(result)}")
        self._bar.set_postfix_str(self._standing())
        self._since = time.monotonic()

    def say(self, text: str) -> None:
        """Shows a sentence above the progress bar; an empty one is not shown."""
        if text and not self._bar.disable:
            self._bar.write(text, file=sys.stderr)

    def add_switch(self, step: int, stage: str, ess: float) -> None:
        """Writes that a stage was ended early because its ESS had fallen.

        Args:
            step: its last step.
            stage: the stage's name.
            ess: the smoothed ESS of its weights, as a multiple of what separation leaves.
        """
        self.flush()
        self._write([{"step": step, "stage": stage, "switched_at_ess": ess}])

    def _standing(self) -> str:
        """The last test's result and the time left."""
        left = self._pace.seconds_left()
        return f"{self._tested}{'?' if left is None else Bar.format_interval(left)} left"

    def _write(self, lines: list[dict[str, Any]]) -> None:
        if self._events:
            with open(self._path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
            self._events.add(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._events:
            self._events.close()


class Pace:
    """How many seconds a run has taken, over all its sessions, and how many are left.

    The pace is measured over the last `_PACE_STEPS` steps, tests included. After a resume it is
    taken from earlier sessions' lines, until this session has taken `DETAILS_EVERY` steps.

    Args:
        total: steps of the whole run.
        lines: lines of `metrics.jsonl` from earlier sessions.
    """

    def __init__(self, total: int, lines: list[dict[str, Any]]) -> None:
        self._total = total
        marks = [(line["step"], line["seconds"]) for line in lines if "seconds" in line]
        self._marks = deque[tuple[int, float]](marks)
        self._before = self._marks[-1] if self._marks else (0, 0.0)
        self._started = time.monotonic()

    def mark(self, step: int) -> float:
        """Notes that a step is done; returns the run's seconds so far."""
        seconds = self._before[1] + time.monotonic() - self._started
        self._marks.append((step, seconds))
        own = step - self._before[0] > DETAILS_EVERY
        least = max(step - _PACE_STEPS, self._before[0] + 1 if own else 0)
        while self._marks[0][0] < least:
            self._marks.popleft()
        return seconds

    def seconds_left(self) -> float | None:
        """Seconds until the last step; None until two marks tell the pace."""
        if not self._marks:
            return None
        (first, since), (last, now) = self._marks[0], self._marks[-1]
        return (self._total - last) * (now - since) / (last - first) if last > first else None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a `metrics.jsonl`; a line that a kill cut off is left out."""
    for _, line in _lines(path):
        yield line


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for text in file:
            try:
                yield text, json.loads(text)
            except ValueError:
                return  # a kill cut it off


def is_test(line: Mapping[str, Any]) -> bool:
    """Whether a line of `metrics.jsonl` is a test's result."""
    return "loss" not in line and "switched_at_ess" not in line


def _belongs(line: dict[str, Any], step: int) -> bool:
    """Whether a line belongs to the run up to the checkpoint at `step`; its test is made again."""
    return line["step"] < step or (line["step"] == step and "loss" in line)


def _check_finite(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        for key, name in (("loss", "loss"), ("gradient_norm", "gradient's norm")):
            if not math.isfinite(line[key]):
                raise ArgumentError(
                    f"The {name} is {line[key]} at step {line['step']} ({line['stage']}). Give a "
                    f"lower `rate`, and another `out`.",
                    argument="rate",
                )
