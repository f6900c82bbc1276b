"""Whether chains sample the density, or each stays in the neighbourhood of its start.

Chains that stay where they started may each look well-behaved, and still be no draws of the density
together. So mixing within each chain is told apart from mixing across chains: R-hat of each, how
near the images still are to their starts, and whether the draws drift.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from ppl_cnn.inference.diagnostics.mixing.closeness import (
    Closeness,
    closeness,
    likeness,
    unmoved,
    windows,
)
from ppl_cnn.inference.diagnostics.mixing.trend import Trend, trend
from ppl_cnn.inference.diagnostics.scan import variable
from ppl_cnn.inference.diagnostics.summary import Extreme, by_label, extreme, quiet
from ppl_cnn.inference.diagnostics.thresholds import (
    NEAR,
    NEAR_FOR_SURE,
    RHAT_BY_CHANCE,
    RHAT_POOR,
)


class Mixing(NamedTuple):
    """How a run's chains mix."""

    chains: int
    """Number of chains."""
    within: Extreme
    """Largest R-hat of a chain's first half of draws against its second half."""
    mixes_within: bool
    """Whether that is chance, given how slowly each chain mixes."""
    across: Extreme
    """Largest R-hat over all chains; NaN for a single chain."""
    disagree: bool
    """Whether that is more than chance, given how slowly each chain mixes."""
    begin: Closeness | None
    """How near the first draws are to the starts; None if these are unknown or all the same."""
    end: Closeness | None
    """How near the last draws are to the starts; None if these are unknown or all the same."""
    trends: tuple[Trend, ...]
    """The drifts of response and lp."""
    unmoved: tuple[int, ...] = ()
    """The chains that have hardly moved from their starts."""
    own: float = math.nan
    """Correlation of the last draws with each chain's own start; NaN if the starts are unknown."""

    @classmethod
    def of(
        cls, tree: xr.DataTree, quantities: xr.DataTree, table: pd.DataFrame, *, two_sided: bool
    ) -> "Mixing":
        """Examines a run's draws.

        Args:
            tree: the draws, as `read` or `ppl_cnn.draw` returns them.
            quantities: the result of `scalars`.
            table: the result of `summary`.
            two_sided: whether the first half of the chains started elsewhere than the second.

        Raises:
            FileError: a chunk of the store is damaged.
        """
        within, mixes = _within(quantities)
        first, last = windows(variable(tree, "posterior/image").sizes["draw"])
        begin, end = (closeness(tree, each, two_sided=two_sided) for each in (first, last))
        trends = (
            trend(name, variable(quantities, f"posterior/{name}").values)
            for name in ("response", "lp")
        )
        return cls(
            quantities["posterior"].sizes["chain"],
            within,
            mixes,
            largest_rhat(table),
            chains_disagree(quantities),
            begin,
            end,
            tuple(trends),
            unmoved(tree),
            likeness(tree, last),
        )

    @property
    def near(self) -> bool:
        """Whether the chains are still near their starts."""
        if self.end is None or not self.end.excess > NEAR:
            return False
        return self.end.beyond_chance or (self.disagree and self.end.excess > NEAR_FOR_SURE)

    @property
    def state(self) -> Literal["good", "short", "bad"]:
        """`bad` if chains that disagree are near their starts, `short` if chains that agree are."""
        if not self.near:
            return "good"
        return "bad" if self.disagree else "short"


def largest_rhat(table: pd.DataFrame) -> Extreme:
    """The largest R-hat over the scalars that aren't constant.

    Args:
        table: the result of `summary`.
    """
    return extreme(table["r_hat"][table["sd"] > 0], largest=True)


def chains_disagree(quantities: xr.DataTree) -> bool:
    """Whether the chains differ by more than chance, given how slowly each of them mixes.

    Args:
        quantities: the result of `scalars`.
    """
    every = [each.values for each in by_label(quantities).values()]
    return any(_more_than_chance(rhat(each), each, len(every)) for each in every)


def rhat(values: Float[np.ndarray, "chain draw"]) -> float:
    """ArviZ's rank-normalised split R-hat."""
    import arviz

    with quiet():
        return float(arviz.rhat(values))


def rhat_by_chance(values: Float[np.ndarray, "chain draw"], of: int) -> float:
    """The split R-hat that the largest of several exceeds once in 1,000 times in chains that mix.

    It depends on how slowly each chain mixes: R-hat^2 = 1 + F/n up to terms of 1/draws, with n
    effective draws in each of m half chains and F distributed as F(m - 1, m(n - 1)).

    Args:
        values: draws of a quantity.
        of: the number of R-hats of which none should exceed theirs by chance (Bonferroni's rule).
    """
    import arviz
    from scipy import stats

    with quiet():
        ess = np.sum([arviz.ess(chain[None], method="bulk") for chain in values])
        halves = 2 * len(values)
        n = max(1.5, ess / halves)
        return math.sqrt(1 + stats.f.isf(RHAT_BY_CHANCE / of, halves - 1, halves * (n - 1)) / n)


def _more_than_chance(found: float, values: Float[np.ndarray, "chain draw"], of: int) -> bool:
    return found > RHAT_POOR and found > rhat_by_chance(values, of)


def _within(quantities: xr.DataTree) -> tuple[Extreme, bool]:
    """The largest R-hat of a chain's halves, and whether every one of them is chance."""
    worst, mixes = Extreme(math.nan, ""), True
    every = by_label(quantities)
    count = sum(len(values) for values in every.values())
    for label, values in every.items():
        for chain, one in enumerate(values.values):
            half = len(one) // 2
            halves = np.stack([one[:half], one[-half:]])
            found = rhat(halves)
            if math.isnan(worst.value) or found > worst.value:
                worst = Extreme(found, f"{label} of chain {chain}")
            if _more_than_chance(found, halves, count):
                mixes = False
    return worst, mixes
