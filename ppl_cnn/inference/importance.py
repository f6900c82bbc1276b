"""Importance weights of draws of a reference: log Z, their effective number, and resampling.

    p(x) = w(x) q(x) / Z,   w = exp(f/T),   Z = E_q[w]

With N draws of q, W_i = w_i / sum w are weights of a sample of p, and mean w estimates Z.
"""

import importlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

_PLATEAU = math.log(2)
"""Weights are about equal if the largest is less than twice the smallest of them."""


class Estimate(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float
    """One standard error."""

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.error:.2g}"


def mean_weight(logs: Float[np.ndarray, " particle"]) -> tuple[Estimate, float]:
    """The log of the mean of independent weights, and the weights' effective number.

        effective = (sum w)^2 / sum w^2

    Args:
        logs: the weights' logarithms, two at least.
    """
    largest = logs.max()
    relative = np.exp(logs - largest)
    mean = relative.mean()
    error = relative.std(ddof=1) / np.sqrt(len(logs)) / mean
    effective = relative.sum() ** 2 / (relative**2).sum()
    return Estimate(float(largest + np.log(mean)), float(error)), float(effective)


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of N independent draws of a reference, the proposals.

    Args:
        tilts: g = f/T of each proposal, the logarithm of its weight; finite, two at least.

    Examples:
        >>> import numpy as np
        >>> weights = Weights(np.log(np.asarray([1.0, 1.0, 2.0])))
        >>> weights.shares.round(2).tolist(), round(weights.effective, 2)
        ([0.25, 0.25, 0.5], 2.67)
        >>> weights.resampled(np.asarray([0.1, 0.3, 0.9])).tolist()
        [0, 1, 2]
    """

    tilts: Float[np.ndarray, " proposal"]

    @cached_property
    def _mean(self) -> tuple[Estimate, float]:
        return mean_weight(self.tilts.astype(np.float64))

    @property
    def log_z(self) -> Estimate:
        """log Z = log mean w, with the standard error of the proposals as a sample of q."""
        return self._mean[0]

    @property
    def effective(self) -> float:
        """The weights' effective number (ESS), 1 / sum W^2: from 1 to the number of proposals.

        It is the number of independent draws of p that tell as much of the mean of a quantity, as
        far as the quantity is unrelated to the weights.
        """
        return self._mean[1]

    @cached_property
    def shares(self) -> Float[np.ndarray, " proposal"]:
        """W, each proposal's share of the weight; they sum to 1."""
        logs = self.tilts.astype(np.float64)
        weights = np.exp(logs - logs.max())
        shares: np.ndarray = weights / weights.sum()
        return shares

    @property
    def largest(self) -> float:
        """The largest share of the weight that a single proposal has."""
        return float(self.shares.max())

    def heaviest(self, count: int) -> Int[np.ndarray, " rank"]:
        """The numbers of the proposals that carry most of the weight, the heaviest first.

        Args:
            count: how many; all if there are fewer.
        """
        return np.argsort(-self.shares, kind="stable")[:count]

    @cached_property
    def concentration(self) -> Float[np.ndarray, " proposal"]:
        """The share of the weight that the k heaviest proposals carry together, k = 1, 2, ..."""
        return np.cumsum(np.sort(self.shares)[::-1])

    @cached_property
    def pareto_k(self) -> float:
        """The tail index k of the weights, from the generalised Pareto fit to the largest of them.

        Above 0.7, or 1 - 1/log10 N if that is less, the largest weights are yet to come, and
        neither log Z nor the effective number can be relied on. It is 0 where the largest of these
        weights are about equal, as probabilities near 1 are: a plateau has no tail.

        Source: Vehtari, Simpson, Gelman, Yao, Gabry, Pareto smoothed importance sampling, JMLR
        25, 2024.
        """
        arviz: Any = importlib.import_module("arviz_stats.base")
        tail = self.heaviest(math.ceil(min(len(self.tilts) / 5, 3 * math.sqrt(len(self.tilts)))))
        logs = self.tilts.astype(np.float64)
        if logs[tail[0]] - logs[tail[-1]] < _PLATEAU:
            return 0.0
        # It takes log-likelihoods that are left out, whose weights are 1/likelihood.
        return float(arviz.array_stats.psislw(-logs)[1])

    @property
    def largest_k(self) -> float:
        """The largest `pareto_k` with which the weights can be relied on."""
        return min(0.7, 1 - 1 / float(np.log10(max(10, len(self.tilts)))))

    def resampled(self, uniforms: Float[np.ndarray, "*draw"]) -> Int[np.ndarray, "*draw"]:
        """The numbers of proposals drawn with replacement, independently, each by its weight.

        Args:
            uniforms: a number in [0, 1) for each draw.
        """
        ends = np.cumsum(self.shares)
        found = np.searchsorted(ends, uniforms * ends[-1], side="right")
        return np.asarray(np.minimum(found, len(ends) - 1))

    def worth(self, draws: int) -> float:
        """How many independent draws of p so many resampled draws are worth.

            1 / (1/draws + 1/effective)

        The variance of a mean over resampled draws is that of the weighted proposals and, on top
        of it, that of drawing from them.

        Args:
            draws: how many are drawn from the proposals.
        """
        return 1 / (1 / draws + 1 / self.effective)
