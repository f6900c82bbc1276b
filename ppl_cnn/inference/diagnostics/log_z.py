"""The estimate of log Z that a run holds: its own, its starts', or that of `ppl_cnn.evidence`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ppl_cnn.inference.diagnostics.weighing import Weighing
from ppl_cnn.inference.importance import Estimate


class RunLogZ(NamedTuple):
    """log Z of a run's unit, and how it was estimated."""

    estimate: Estimate
    how: str
    """In words, such as "by annealing of the starts"."""


def log_z_of(
    folder: Path | None, record: Mapping[str, Any], weighing: Weighing | None
) -> RunLogZ | None:
    """The best estimate of log Z that a run holds; None without any.

    Args:
        folder: the run's; None for draws in memory.
        record: the run's.
        weighing: the weights of resampled draws; None for draws of chains.
    """
    if weighing is not None:
        return RunLogZ(weighing.weights.log_z, "by the mean weight")
    unit = str(record.get("config", {}).get("unit"))
    given = {
        "by reweighting of the replicas": _evidence(folder, unit),
        "by annealing of the starts": record.get("annealing"),
        "by the weights of the starts": record.get("resampling", {}).get("log_z"),
    }
    for how, each in given.items():
        if each is not None and {"value", "error"} <= set(each):
            return RunLogZ(Estimate(float(each["value"]), float(each["error"])), how)
    return None


def _evidence(folder: Path | None, unit: str) -> dict[str, float] | None:
    """The estimate by reweighting in an evidence.json beside the run or one folder above."""
    for place in () if folder is None else (folder, folder.absolute().parent):
        path = place / "evidence.json"
        if path.exists():
            found: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text("utf-8"))
            return found.get(unit, {}).get("reweighting")
    return None
