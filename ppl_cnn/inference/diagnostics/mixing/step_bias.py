"""What parts chains at a step from those at half of it, under a kernel that corrects no errors.

The error of such a kernel falls with the step, so that the difference between the two means is a
part of it that can be seen.
"""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from ppl_cnn.inference.diagnostics.scan import variable
from ppl_cnn.inference.diagnostics.summary import by_label, quiet
from ppl_cnn.inference.diagnostics.thresholds import DIFFERENT, ESS_DRAWS


class Halved(NamedTuple):
    """A quantity's mean at the step and at half of it."""

    of: str
    whole: float
    whole_error: float
    """Monte Carlo standard error; NaN where there are too few draws to tell."""
    half: float
    half_error: float
    sd: float
    """Standard deviation of the draws at half the step."""

    @classmethod
    def between(
        cls, of: str, whole: Float[np.ndarray, "chain draw"], half: Float[np.ndarray, "chain draw"]
    ) -> "Halved":
        """The means of draws at the step and of draws at half of it.

        Args:
            of: the quantity.
            whole: its values at the step.
            half: its values at half of it.
        """
        return cls(of, *_mean(whole), *_mean(half), float(half.std()))

    @property
    def difference(self) -> float:
        """The mean at the step minus that at half of it."""
        return self.whole - self.half

    @property
    def errors(self) -> float:
        """The difference in joint standard errors; NaN where they are unknown or 0."""
        joint = math.hypot(self.whole_error, self.half_error)
        return self.difference / joint if joint > 0 else math.nan


class StepBias(NamedTuple):
    """The error of the step, as far as chains at two steps show it."""

    steps: tuple[float, float]
    """The mean of the step and of its half, in radians."""
    quantities: tuple[Halved, ...]

    @property
    def worst(self) -> Halved:
        """The quantity whose means differ most, in joint standard errors."""
        return max(self.quantities, key=lambda each: np.nan_to_num(abs(each.errors), nan=-1.0))

    @property
    def seen(self) -> bool:
        """Whether any quantity differs by more than three joint standard errors."""
        return abs(self.worst.errors) > DIFFERENT

    @classmethod
    def of(cls, quantities: xr.DataTree) -> "StepBias | None":
        """Compares the chains at half the step with the others; None without two such sides.

        Args:
            quantities: the result of `scalars`, of a run whose draws have a `step_share`.
        """
        if "step_share" not in quantities["sample_stats"]:
            return None
        half = variable(quantities, "sample_stats/step_share").values[:, -1] < 1
        if half.all() or not half.any():
            return None
        step = variable(quantities, "sample_stats/step_size").values
        found = [
            Halved.between(label, values.values[~half], values.values[half])
            for label, values in by_label(quantities).items()
            if not label.startswith("pixels")
        ]
        return cls((float(step[~half].mean()), float(step[half].mean())), tuple(found))


def _mean(values: Float[np.ndarray, "chain draw"]) -> tuple[float, float]:
    """The mean of some chains' draws, and its Monte Carlo standard error."""
    import arviz

    if values.shape[1] < ESS_DRAWS:
        return float(values.mean()), math.nan
    with quiet():
        return float(values.mean()), float(arviz.mcse(values))
