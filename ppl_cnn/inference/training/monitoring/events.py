"""TensorBoard's event files: `tensorboard --logdir RUN` shows a run, also while it lasts."""

from pathlib import Path
from typing import Any

import numpy as np


class Events:
    """Writes lines of `metrics.jsonl` as TensorBoard's events.

    Lines that are written together become one point, their mean; the ESS of all classes becomes a
    histogram.

    Args:
        folder: where the event files lie.
        step: the step after which this session continues; TensorBoard drops later events of
            earlier sessions.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        # Files are named by the second: two sessions in one must not share a file.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1, filename_suffix=f".{step}")

    def add(self, lines: list[dict[str, Any]]) -> None:
        """Writes lines as one point.

        Args:
            lines: the steps of one stage, or one test.
        """
        last = lines[-1]
        for key in sorted({key for line in lines for key in line} - {"step", "stage", "bound"}):
            values = [line[key] for line in lines if key in line]
            if key == "class_ess":
                self._writer.add_histogram(key, np.asarray(values[-1]), last["step"])
            elif isinstance(values[-1], dict):
                for layer, value in values[-1].items():
                    self._writer.add_scalar(f"{key}/{layer}", value, last["step"])
            else:
                self._writer.add_scalar(_tag(key, last), np.mean(values), last["step"])

    def close(self) -> None:
        """Waits until all events are written."""
        self._writer.close()


def _tag(key: str, line: dict[str, Any]) -> str:
    """The event's name: a section for tests, and a plot for each objective's loss."""
    if "loss" not in line and "switched_at_ess" not in line:
        return f"test/{key}"
    return f"loss/{line['stage'].replace(':', '-')}" if key == "loss" else f"step/{key}"
