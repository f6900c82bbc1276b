"""TensorBoard's event files: `tensorboard --logdir RUN` shows a run, while it goes on too."""

from pathlib import Path
from typing import Any

import numpy as np


class Events:
    """Writes lines of `metrics.jsonl` as events.

    One point a look at the device, the mean of its steps; every class's ESS as a histogram.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Goes on after `step`; TensorBoard drops what an earlier session has written past it."""
        from tensorboardX import SummaryWriter

        # Files are named by the second: two sessions in one must not share a file.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1, filename_suffix=f".{step}")

    def add(self, lines: list[dict[str, Any]]) -> None:
        """Adds the lines of steps of one stage, or of a test."""
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
        """Waits until all is written."""
        self._writer.close()


def _tag(key: str, line: dict[str, Any]) -> str:
    """Tests in a section of their own, and losses by objective, as each has its own scale."""
    if "test_error" in line:
        return f"test/{key}"
    return f"loss/{line['stage'].replace(':', '-')}" if key == "loss" else f"step/{key}"
