"""What the metrics of a classifier's training say: of its steps and of its tests."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_cnn.inference.training.monitoring.metrics import DETAILS_EVERY
from ppl_cnn.inference.training.stages import Stage
from ppl_cnn.inference.training.step import StepInfo


class ClassifierWording(NamedTuple):
    """The `Wording` of a classifier's training.

    A step's line has loss, its lower bound, ESS, what separation leaves of it, norms of gradient,
    parameters and update; every `DETAILS_EVERY` steps also the ESS of each class and the norms of
    each layer. A test's line has the result of `evaluate`.
    """

    def line(self, step: int, stage: Stage, info: StepInfo) -> dict[str, Any]:
        """The numbers of a step.

        Args:
            step: the step's number, from 1.
            stage: its stage.
            info: its report.
        """
        line = {
            "stage": stage.objective,
            "loss": float(info.loss),
            "bound": float(info.bound),
            "ess": float(info.ess),
            "separated_ess": float(info.separated_ess),
            "gradient_norm": _norm(info.gradient),
            "parameter_norm": _norm(info.parameters),
            "update_norm": _norm(info.update),
        }
        if step % DETAILS_EVERY == 0:
            line["class_ess"] = [float(f"{ess:.4g}") for ess in info.class_ess]
            for name in ("gradient", "parameters", "update"):
                norms = getattr(info, name)
                line[f"{name}_norms"] = {layer: float(norm) for layer, norm in norms.items()}
        return line

    def step(self, line: Mapping[str, Any]) -> str:
        """Loss and ESS, with their values at separation."""
        bound = f" (at least {line['bound']:.2f})" if line["bound"] else ""
        ess = f"ESS {line['ess']:.1f} ({line['separated_ess']:.1f} at separation)"
        return f"loss {line['loss']:.3f}{bound}, {ess}"

    def test(self, result: Mapping[str, float]) -> str:
        """All of `describe_error`."""
        return describe_error(result)

    def brief(self, result: Mapping[str, float]) -> str:
        """The test error."""
        return f"test error {100 * result['test_error']:.2f} %"


def _norm(layers: Mapping[str, Any]) -> float:
    return float(np.linalg.norm(np.asarray([*layers.values()], np.float64)))


def describe_error(result: Mapping[str, float]) -> str:
    """A test's result in words: error rates and calibration error in per cent, ± standard error.

    Args:
        result: what `evaluate` gives, and the validation error if there is one.
    """

    def percent(key: str) -> str:
        return f"{100 * result[key]:.2f}"

    def top5(views: str = "") -> str:
        if f"{views}top5_error" not in result:
            return ""
        error, spread = percent(f"{views}top5_error"), percent(f"{views}top5_standard_error")
        return f", top-5 {error} ± {spread} %"

    validation = ""
    if "validation_error" in result:
        spread = percent("validation_standard_error")
        validation = f"; validation error {percent('validation_error')} ± {spread} %"
    views = ""
    if "ten_views_test_error" in result:
        views = (
            f"; by ten views {percent('ten_views_test_error')} ± "
            f"{percent('ten_views_standard_error')} %{top5('ten_views_')}"
        )
    return (
        f"test error {percent('test_error')} ± {percent('standard_error')} % "
        f"({percent('test_error_without_alpha')} % without alpha){top5()}, "
        f"calibration error {percent('calibration_error')} % "
        f"({percent('calibration_error_without_alpha')} % without alpha){views}{validation}"
    )
