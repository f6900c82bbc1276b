"""Checkpoints of a training run, and how it stops between two steps."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import jax

from ppl_cnn.inference.training.batches_ahead import Ahead
from ppl_cnn.inference.training.step import TrainState


class Checkpoints:
    """Orbax checkpoints of state and data iterator, written in the background.

    Kept are the last ones and the one with the least test error so far.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """`keep` is the number of last checkpoints that are kept."""
        import orbax.checkpoint as ocp

        self.best: tuple[int, float] | None = None
        """Step and test error of the best one."""
        self._args, self._keep = ocp.args, keep
        options = ocp.CheckpointManagerOptions(preservation_policy=self)
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_names=("state", "place")
        )

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax asks which of its checkpoints, in order of their steps, to keep."""
        latest = len(checkpoints) - self._keep
        best = self.best and self.best[0]
        return [index >= latest or point.step == best for index, point in enumerate(checkpoints)]

    def save(self, step: int, state: TrainState, loader: Ahead) -> None:
        """Starts to write, unless that step has been; the state may be donated afterwards."""
        if self._manager.latest_step() == step:
            return
        args = self._args.Composite(
            state=self._args.StandardSave(state._asdict()),
            place=self._args.JsonSave({"loader": loader.state, "best": self.best}),
        )
        self._manager.save(step, args=args, force=True)

    def tested(self, step: int, error: float) -> None:
        """Says what the test error of the checkpoint of that step is."""
        if self.best is None or error < self.best[1]:
            self.best = step, error

    def restore(self, state: TrainState, loader: Ahead) -> TrainState:
        """The last complete checkpoint's state, or the given one; sets the loader's place.

        Its arrays are placed as those of `state` are, whatever devices wrote them.
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
        return TrainState(**restored.state)

    def wait(self) -> None:
        """Until all is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until all is written, and ends."""
        self._manager.close()


@contextlib.contextmanager
def whole_steps(number: int) -> Iterator[Callable[[], bool]]:
    """Lets SIGTERM and Ctrl-C act after the block, and tells the block whether one is waiting.

    Without it they would act in the midst of a step, where the old state is gone and the new one
    not yet there. A second one acts at once. Of several processes, of which schedulers may tell
    one alone, JAX chooses the step after which all of them stop.

    Args:
        number: of the step that the block takes.
    """
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import reached_preemption_sync_point

        stopping = reached_preemption_sync_point(number)
        yield lambda: stopping
        if stopping:
            # JAX has taken the signal's place; Python's handler gets it back, and its signal.
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
