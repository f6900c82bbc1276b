"""A session of a training run, of a classifier or a generator: from a checkpoint, step by step."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import jax
from jax.sharding import Mesh

from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.provenance import session
from ppl_cnn.inference.training.checkpoints import Checkpoints, State, whole_steps
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.monitoring.metrics import Metrics, Wording
from ppl_cnn.inference.training.placement import BatchesAhead

type Step = Callable[..., tuple[Any, Any]]
"""(state, images, labels, key) -> the new state, and the step's report."""


@dataclass
class Session[S: State]:
    """A run's state, and what its steps read and write."""

    state: S
    number: int
    """Steps taken, over all sessions."""
    loader: BatchesAhead
    checkpoints: Checkpoints
    metrics: Metrics
    execution: Execution
    _before: Any = field(default=None, init=False)
    """The report of the last step."""

    @classmethod
    @contextmanager
    def begun(
        cls,
        initial: S,
        batches: Any,
        out: Path,
        *,
        execution: Execution,
        mesh: Mesh,
        batch_size: int,
        total: int,
        wording: Wording,
    ) -> Iterator[Self]:
        """The run at its last checkpoint, or at its start if it has none.

        What is being written when the block ends or fails is written to its end, and what reads
        ahead ends.

        Args:
            initial: the state at its start, placed on the devices.
            batches: this process's endless batches from the start.
            out: the run's folder.
            execution: how often to save, and how many checkpoints to keep.
            mesh: the devices.
            batch_size: images per step.
            total: steps of the whole run.
            wording: what lines and progress say.
        """
        loader = BatchesAhead(batches, mesh)
        with ExitStack() as closing:
            checkpoints = Checkpoints(out / "checkpoints", execution.keep)
            closing.callback(checkpoints.wait)
            closing.callback(loader.close)
            state = checkpoints.restore(initial, loader)
            number = int(state.step)
            metrics = Metrics(out, batch_size=batch_size, step=number, total=total, wording=wording)
            closing.enter_context(metrics)
            yield cls(state, number, loader, checkpoints, metrics, execution)

    def record(self, folder: RunFolder, command: str, data: dict[str, Any]) -> None:
        """Notes in the run's record that this session has begun.

        Args:
            folder: the run's.
            command: how the session was started.
            data: what the run says of its data.
        """
        if jax.process_index() == 0:
            earlier = folder.record.get("sessions", [])
            folder.update(data=data, sessions=[*earlier, session(self.number, command)])

    def take(self, step: Step, key: Any, stage: Any) -> None:
        """Takes a step, to its end even if a signal comes; then saves if that is due.

        Args:
            step: the compiled step. It takes over the state's buffers.
            key: the run's random key.
            stage: the stage, as the wording takes it.
        """
        self.number += 1
        with whole_steps(self.number) as stopping:
            self.state, report = step(self.state, *next(self.loader), key)
            # One step works and one waits: batches must not pile up on the devices.
            jax.block_until_ready(self._before)
            self._before = report
            self.metrics.add(self.number, stage, report)
            due = self.number % self.execution.checkpoint_every == 0
            due = due and self.checkpoints.is_due(self.execution.checkpoint_seconds)
            if due or stopping():
                self.save()
            if stopping():
                self.checkpoints.wait()

    def save(self) -> None:
        """Starts to write a checkpoint."""
        # Lines up to the checkpoint must be there when a resumed run needs them.
        self.metrics.flush()
        self.checkpoints.save(self.number, self.state, self.loader)

    def test_is_due(self, epoch: int, began: int) -> bool:
        """Whether a test within a stage is due before the next step.

        Args:
            epoch: steps in an epoch.
            began: steps taken when the stage began.
        """
        every = self.execution.evaluate_every * epoch
        return every > 0 and self.number > began and self.number % every == 0
