"""Whether a quantity still drifts: its first half of draws against its second half."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from ppl_cnn.inference.diagnostics.summary import Extreme, quiet
from ppl_cnn.inference.diagnostics.thresholds import DRIFT_BY_CHANCE, ESS_DRAWS


class Trend(NamedTuple):
    """The change of a quantity's mean from the first half of the draws to the second."""

    of: str
    """The quantity."""
    halves: tuple[float, float]
    """The means of both halves, over all chains."""
    errors: float
    """The difference of these means in units of its Monte Carlo standard error."""
    drifts: bool
    """Whether that is more than chance."""
    worst: Extreme
    """The largest change in a single chain, in units of that chain's own error."""
    worst_drifts: bool
    """Whether a single chain's change is more than chance."""

    @property
    def state(self) -> Literal["good", "short", "bad"]:
        """`bad` if the mean over all chains drifts, `short` if that of a chain does."""
        return "bad" if self.drifts else "short" if self.worst_drifts else "good"


def trend(name: str, values: Float[np.ndarray, "chain draw"]) -> Trend:
    """Compares the halves of the draws, over all chains and in each.

    Errors come from the effective draws of a half, as the harmonic mean over all halves and chains.
    What counts as chance comes from Student's t with as many degrees of freedom. A half that is too
    short for an ESS counts as one effective draw.

    Args:
        name: the quantity's name.
        values: its values.
    """
    import arviz
    from scipy import stats

    chains, draws = values.shape
    half = draws // 2
    halves = np.stack([values[:, :half], values[:, -half:]])
    ess = 1.0
    with quiet():
        if half >= ESS_DRAWS:
            # The ESS of a single half of a single chain would be too noisy an estimate.
            every = [float(arviz.ess(one[None], method="mean")) for side in halves for one in side]
            ess = float(1 / np.mean(1 / np.asarray(every)))
        squared = halves.var(axis=2, ddof=1).sum(axis=0) / ess
        freedom = max(1.0, 2 * (ess - 1))
        change = halves[1].mean(axis=1) - halves[0].mean(axis=1)
        each = change / np.sqrt(squared)
        pooled = float(change.sum() / np.sqrt(squared.sum()))

    def critical(freedom: Any, tests: int) -> Any:
        return stats.t.ppf(1 - DRIFT_BY_CHANCE / 2 / tests, freedom)

    worst = Extreme(math.nan, "")
    if np.isfinite(each).any():
        chain = int(np.where(np.isfinite(each), np.abs(each), -1).argmax())
        worst = Extreme(float(each[chain]), f"chain {chain}")
    return Trend(
        name,
        (float(halves[0].mean()), float(halves[1].mean())),
        pooled,
        bool(abs(pooled) > critical(freedom, 1)),
        worst,
        bool((np.abs(each) > critical(freedom, chains)).any()),
    )
