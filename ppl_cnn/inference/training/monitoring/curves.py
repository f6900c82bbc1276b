"""A training run in one picture, from its `metrics.jsonl`."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ppl_cnn.files import write_aside
from ppl_cnn.inference.training.monitoring.metrics import read_lines

_POINTS = 400
"""Most points of a curve; each is a mean over equally many steps."""
_COLOURS = {"generative": "#0072b2", "discriminative": "#d97706"}
_OTHER = "#009e73"


def draw_curves(folder: Path) -> None:
    """Draws loss, effective sample size, test errors and norms of a run to its `curves.png`.

    Args:
        folder: the run's folder, with its `metrics.jsonl`.
    """
    from matplotlib.figure import Figure

    steps: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    for line in read_lines(folder / "metrics.jsonl"):
        if "loss" in line:
            steps.append(line)
        elif "test_error" in line:
            tests.append(line)
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    (loss, ess), (error, norms) = figure.subplots(2, 2, sharex=True)
    _draw_objectives(loss, ess, steps)
    for key, label, colour in (
        ("test_error", "top-1", "black"),
        ("test_error_without_alpha", "top-1, without alpha", "0.6"),
        ("top5_error", "top-5", "#c0478f"),
    ):
        values = 100 * np.asarray([line[key] for line in tests])
        name = {"test_error": "standard_error", "top5_error": "top5_standard_error"}.get(key)
        bars = 100 * np.asarray([line[name] for line in tests]) if name else None
        at = [line["step"] for line in tests]
        error.errorbar(at, values, bars, fmt="o-", ms=3, lw=1, color=colour, label=label)
    for key, label in (
        ("gradient_norm", "gradient"),
        ("parameter_norm", "parameters"),
        ("update_norm", "update"),
    ):
        norms.plot(*_curve(steps, key), label=label)
    loss.set_ylabel("loss")
    ess.set(ylabel="effective sample size", yscale="log")
    error.set(ylabel="test error, % (bars: standard error)", xlabel="step", ylim=(0, None))
    norms.set(ylabel="norm", yscale="log", xlabel="step")
    for axes in figure.axes:
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        for before, after in pairwise(_stages(steps)):
            axes.axvline((before[-1]["step"] + after[0]["step"]) / 2, color="0.8", lw=0.8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_aside(folder / "curves.png", picture.getvalue())


def _draw_objectives(loss: Any, ess: Any, steps: list[dict[str, Any]]) -> None:
    """Loss and effective sample size of each stage, dashed where the classes are separated."""
    for part in _stages(steps):
        colour = _COLOURS.get(part[0]["stage"], _OTHER)
        loss.plot(*_curve(part, "loss"), color=colour, label=part[0]["stage"])
        bounds = [line["bound"] for line in part]
        if any(bounds):
            label = f"bound, {np.mean(bounds):.2f} on average"
            loss.plot(*_curve(part, "bound"), "--", color=colour, lw=1, label=label)
        ess.plot(*_curve(part, "ess"), color=colour)
        ess.plot(*_curve(part, "separated_ess"), "--", color=colour, lw=1)
    detailed = [line for line in steps if "class_ess" in line]
    ess.fill_between(
        [line["step"] for line in detailed],
        [min(line["class_ess"]) for line in detailed],
        [max(line["class_ess"]) for line in detailed],
        color="0.85",
        label="least to largest class",
    )
    ess.plot([], "--", color="0.3", lw=1, label="at separation")


def _stages(steps: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The lines of steps, cut where the objective changes."""
    cuts = [i for i, (a, b) in enumerate(pairwise(steps), 1) if a["stage"] != b["stage"]]
    return [steps[start:end] for start, end in pairwise([0, *cuts, len(steps)])]


def _curve(steps: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of a key, averaged over stretches of equal length."""
    values = np.asarray([(line["step"], line[key]) for line in steps], float)
    parts = np.array_split(values, min(_POINTS, len(values)))
    x, y = np.stack([part.mean(axis=0) for part in parts], axis=1).tolist()
    return x, y
