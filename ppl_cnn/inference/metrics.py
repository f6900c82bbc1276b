"""What a training run tells while it runs: `metrics.jsonl` and the progress bar."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ppl_cnn import InputError
from ppl_cnn.inference.recipes import Stage
from ppl_cnn.inference.training_step import StepInfo
from ppl_cnn.models.weights import write_aside

FLUSH_EVERY = 20
"""Steps between two looks at the device's metrics: the only host sync in the loop."""


class Metrics:
    """`metrics.jsonl` and the progress bar.

    A line a step, with loss, its lower bound, ESS and images per second, and a line with the
    test errors at a stage's end. A continued run drops the lines past its checkpoint.
    """

    def __init__(self, path: Path, batch_size: int, step: int, total: int) -> None:
        self._path, self._batch_size = path, batch_size
        self._pending: list[tuple[int, Stage, StepInfo]] = []
        self._since = time.monotonic()
        if path.exists():
            kept = [line for line in path.read_text().splitlines(True) if _belongs(line, step)]
            write_aside(path, "".join(kept).encode())
        quiet = jax.process_index() != 0
        self._bar = tqdm(total=total, initial=step, unit="step", disable=quiet, dynamic_ncols=True)

    def add(self, step: int, stage: Stage, info: StepInfo) -> None:
        """Takes a step's report, without waiting for it."""
        self._pending.append((step, stage, info))
        if len(self._pending) >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Waits for the steps taken so far and writes their lines.

        Raises:
            InputError: a loss is not finite.
        """
        if not self._pending:
            return
        infos = jax.device_get([info for _, _, info in self._pending])
        now = time.monotonic()
        rate = len(infos) * self._batch_size / max(now - self._since, 1e-9)
        lines = []
        for (step, stage, _), info in zip(self._pending, infos, strict=True):
            if not np.isfinite(info.loss):
                raise InputError(
                    f"The loss is {info.loss} at step {step}; its last checkpoint is whole, but "
                    f"a rate lower than {stage.rate:g} is needed, in another --out."
                )
            bound = (stage.share - 1) * np.log(self._batch_size)  # of the discriminative one, 0
            lines.append(
                {
                    "step": step,
                    "stage": stage.objective,
                    "loss": float(info.loss),
                    "bound": float(bound),
                    "ess": float(info.ess),
                    "images_per_second": rate,
                }
            )
        self._write(lines)
        self._bar.update(len(infos))
        last = lines[-1]
        self._bar.set_description(last["stage"], refresh=False)
        self._bar.set_postfix_str(
            f"loss {last['loss']:.3f}, ESS {last['ess']:.1f}, {rate:.0f} images/s"
        )
        self._pending, self._since = [], now

    def add_result(self, step: int, stage: Stage, result: dict[str, float]) -> None:
        """Writes the errors at a stage's end."""
        self._write([{"step": step, "stage": stage.objective, **result}])
        if not self._bar.disable:
            self._bar.write(f"after {stage.objective}: {describe_error(result)}")
        self._since = time.monotonic()

    def _write(self, lines: list[dict[str, Any]]) -> None:
        if jax.process_index() == 0:
            with open(self._path, "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def _belongs(line: str, step: int) -> bool:
    """Whether a line of `metrics.jsonl` is about what the checkpoint at `step` holds."""
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return record["step"] < step or (record["step"] == step and "loss" in record)


def describe_error(result: dict[str, float]) -> str:
    """The test error in words."""
    return (
        f"test error {100 * result['test_error']:.2f} ± {100 * result['standard_error']:.2f} % "
        f"({100 * result['test_error_without_alpha']:.2f} % without alpha)"
    )
