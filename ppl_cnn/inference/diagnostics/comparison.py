"""Two runs of one density, by different methods, compared: they must come to the same."""

import math
from typing import NamedTuple

from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.thresholds import DIFFERENT
from ppl_cnn.inference.importance import Estimate

_DENSITY = (
    *("model", "unit", "response", "target", "warps", "smooth", "size", "weights"),
    *("reference", "images", "temperature"),
)
"""Settings that two runs of one density share."""


class Compared(NamedTuple):
    """A quantity that both runs estimate."""

    name: str
    one: Estimate
    other: Estimate

    @property
    def errors(self) -> float:
        """The second estimate minus the first, in joint standard errors; NaN if these are 0."""
        joint = math.hypot(self.one.error, self.other.error)
        return (self.other.value - self.one.value) / joint if joint > 0 else math.nan


class Comparison(NamedTuple):
    """How the estimates of two runs compare."""

    one: Diagnosis
    other: Diagnosis
    quantities: tuple[Compared, ...]
    """Mean and standard deviation of the response, log Z where both know it, and the means of
    projections of the image."""

    @classmethod
    def of(cls, one: Diagnosis, other: Diagnosis) -> "Comparison":
        """Compares two runs.

        Args:
            one: a run.
            other: another one of the same density.

        Raises:
            MismatchError: the runs are of different densities.
        """
        for key in _DENSITY:
            ours, theirs = one.config.get(key), other.config.get(key)
            if ours != theirs:
                raise MismatchError(
                    f"The runs are not of one density: {key} is {ours} in {one.folder}, and "
                    f"{theirs} in {other.folder}."
                )
        found = [_moment("mean response", "response", "mean", one, other)]
        found.append(_moment("sd of the response", "response", "sd", one, other))
        if one.log_z is not None and other.log_z is not None:
            found.append(Compared("log Z", one.log_z.estimate, other.log_z.estimate))
        found += [
            _moment(f"mean of {label}", label, "mean", one, other)
            for label in map(str, one.summary.index)
            if label.startswith("projections") and label in other.summary.index
        ]
        return cls(one, other, tuple(found))

    @property
    def worst(self) -> Compared:
        """The quantity that differs most, in joint standard errors."""
        known = [each for each in self.quantities if not math.isnan(each.errors)]
        return max(known or self.quantities, key=lambda each: abs(each.errors))

    @property
    def agree(self) -> bool:
        """Whether no quantity differs by more than three joint standard errors."""
        return not abs(self.worst.errors) > DIFFERENT


def _moment(name: str, label: str, column: str, one: Diagnosis, other: Diagnosis) -> Compared:
    def estimate(diagnosis: Diagnosis) -> Estimate:
        row = diagnosis.summary.loc[label]
        return Estimate(float(row[column]), float(row[f"mcse_{column}"]))

    return Compared(name, estimate(one), estimate(other))
