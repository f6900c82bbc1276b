"""Checkpoints of a training run, and how a signal stops it between two steps."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import FileError, shown
from ppl_cnn.inference.training.placement import BatchesAhead


@runtime_checkable
class State(Protocol):
    """A run's state: a named tuple of arrays and trees of them."""

    def __init__(self, **fields: Any) -> None: ...

    @property
    def step(self) -> Array:
        """Number of steps taken."""

    def _asdict(self) -> dict[str, Any]: ...


def check_folder(out: Path) -> None:
    """Refuses a run's folder that Orbax can't write to.

    Raises:
        FileError: its path is not UTF-8.
    """
    try:
        os.fsencode(out.absolute()).decode()
    except UnicodeDecodeError:
        raise FileError(
            f"`out={shown(out)}` can't hold checkpoints: its whole path must be UTF-8. Give "
            f"another folder.",
            path=out,
        ) from None


class Checkpoints:
    """Orbax checkpoints of state and data position, written in the background.

    The latest ones are kept, and the one with the least test error so far.

    Args:
        folder: the folder to write them to.
        keep: number of latest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        import orbax.checkpoint as ocp

        self.best: tuple[int, float] | None = None
        """Step and test error of the checkpoint with the least test error."""
        self._args, self._keep, self._begun = ocp.args, keep, time.monotonic()
        options = ocp.CheckpointManagerOptions(preservation_policy=self)
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_names=("state", "place")
        )

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of these checkpoints to keep; Orbax calls it.

        Args:
            checkpoints: all that there are, in the order of their steps.
            context: what Orbax says besides; unused.
        """
        latest = len(checkpoints) - self._keep
        best = self.best and self.best[0]
        return [index >= latest or point.step == best for index, point in enumerate(checkpoints)]

    def is_due(self, seconds: float) -> bool:
        """Whether the last checkpoint was begun so long ago; all processes get one answer.

        Args:
            seconds: how long; 0 is always over.
        """
        over = time.monotonic() - self._begun >= seconds
        if seconds and jax.process_count() > 1:
            from jax.experimental.multihost_utils import broadcast_one_to_all

            over = bool(broadcast_one_to_all(np.bool_(over)))
        return over

    def save(self, step: int, state: State, loader: BatchesAhead) -> None:
        """Starts to write a checkpoint, unless the latest is that step's.

        The state's buffers may be reused as soon as this returns.

        Args:
            step: number of steps taken.
            state: the state after them.
            loader: gives the data position after them.
        """
        if self._manager.latest_step() == step:
            return
        self._begun = time.monotonic()
        args = self._args.Composite(
            state=self._args.StandardSave(state._asdict()),
            place=self._args.JsonSave({"loader": loader.state, "best": self.best}),
        )
        self._manager.save(step, args=args, force=True)

    def tested(self, step: int, error: float) -> None:
        """Notes the error, a share, by which the checkpoint of that step is compared."""
        if self.best is None or error < self.best[1]:
            self.best = step, error

    def restore[S: State](self, state: S, loader: BatchesAhead) -> S:
        """The latest complete checkpoint's state; the given one if there is no checkpoint.

        Args:
            state: an initial state. The restored arrays are placed as its arrays are, whatever
                devices wrote them.
            loader: is set to the checkpoint's data position.
        """
        step = self._manager.latest_step()
        if step is None:
            return state
        args = self._args.Composite(
            state=self._args.StandardRestore(state._asdict()), place=self._args.JsonRestore()
        )
        restored = self._manager.restore(step, args=args)
        loader.set_state(restored.place["loader"])
        self.best = restored.place["best"] and tuple(restored.place["best"])
        return type(state)(**restored.state)

    def wait(self) -> None:
        """Waits until all checkpoints are written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until all checkpoints are written, and ends the background writer."""
        self._manager.close()


@contextlib.contextmanager
def whole_steps(number: int) -> Iterator[Callable[[], bool]]:
    """Delays SIGTERM and Ctrl-C to the end of the block, which takes one step.

    In the midst of a step the old state is gone and the new one not yet there. A second signal acts
    at once. Where several processes train, schedulers may signal one alone; JAX then chooses the
    step after which all of them stop.

    Args:
        number: the number of the step that the block takes.

    Yields:
        A function that tells whether a signal is waiting.
    """
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import reached_preemption_sync_point

        stopping = reached_preemption_sync_point(number)
        yield lambda: stopping
        if stopping:
            # JAX has caught the signal; it goes to Python's own handler, put back in its place.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
            signal.raise_signal(signal.SIGTERM)
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals are the main thread's business
        return
    waiting: list[int] = []
    before = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}

    def note(which: int, frame: FrameType | None) -> None:
        waiting.append(which)
        signal.signal(which, before[signal.Signals(which)])

    try:
        for which in before:
            signal.signal(which, note)
        yield lambda: bool(waiting)
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
    if waiting:
        signal.raise_signal(waiting[0])
