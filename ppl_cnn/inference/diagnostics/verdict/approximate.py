"""The finding about a kernel that corrects no errors of its steps, and its sentence."""

import math
from dataclasses import dataclass

from ppl_cnn.inference.diagnostics.mixing.step_bias import StepBias
from ppl_cnn.inference.diagnostics.verdict.sentences import Finding

_EXACT = "use `kernel=split` for exact draws"


@dataclass(frozen=True)
class Approximate(Finding):
    """The kernel is approximate, whatever the draws look like."""

    severity = "short"
    bias: StepBias | None
    """How chains at the step and at half of it differ; None if all take the same step."""

    def _said(self) -> str:
        near = (
            "These draws are approximate: no step is corrected, so that their density is not quite"
        )
        return f"{near} the one asked for. {self._seen()}"

    def _seen(self) -> str:
        if self.bias is None:
            return f"One chain can't show how near it is: run at least two, or {_EXACT}."
        worst = self.bias.worst
        if math.isnan(worst.errors):
            return (
                f"There are too few draws to see a difference of the step: draw more, or {_EXACT}."
            )
        said = f"{abs(worst.errors):.1f} standard errors ({worst.of})"
        if not self.bias.seen:
            return (
                f"Means at the step and at half of it agree, up to {said}: a bias below these "
                f"errors can't be seen."
            )
        share = abs(worst.difference) / worst.sd if worst.sd > 0 else math.inf
        return (
            f"Means at the step and at half of it differ by up to {said}, there {share:.2g} of the "
            f"sd: {_EXACT}, or smaller steps with a larger `target_accept`."
        )
