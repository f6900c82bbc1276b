"""What is known of resampled draws: the weights of the proposals that they were drawn from.

Resampled draws are independent of each other given the proposals, which all of them share. So R-hat
says nothing of them: rows of draws from one set of proposals always agree, also where the proposals
have missed most of the density. What limits them is the weights.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Float32, Int

from ppl_cnn.inference.diagnostics.scan import loaded, variable
from ppl_cnn.inference.diagnostics.summary import Extreme, by_label
from ppl_cnn.inference.importance import Weights


class Labelled(NamedTuple):
    """A class of a data set's images, and how much of the weight its images have."""

    label: str
    """The class's name, or its number."""
    images: float
    """Its share of the images."""
    weight: float
    """Its share of the weight."""


class Weighing(NamedTuple):
    """The weights of a run by resampling, and images of its proposals.

    Images are in pixel units, 0..255, minus the mean.
    """

    weights: Weights
    """The weights of all proposals."""
    distinct: int
    """The number of different proposals among the draws."""
    draws: int
    """The number of draws, over all rows."""
    heaviest: Float32[np.ndarray, "rank row col channel"]
    """Images of the proposals that carry most of the weight: the unit's natural exemplars, where
    the proposals are a data set's images."""
    numbers: Int[np.ndarray, " rank"]
    """The numbers of these proposals."""
    names: tuple[str, ...]
    """The classes of these proposals; empty without labels."""
    labels: tuple[Labelled, ...]
    """The classes of the proposals, those with most of the weight first; empty without labels."""

    @classmethod
    def of(cls, tree: xr.DataTree, record: Mapping[str, Any]) -> "Weighing | None":
        """Reads them from a run's draws.

        Args:
            tree: the draws, as `read` or `ppl_cnn.draw` returns them.
            record: the run's; `labels` names the classes.

        Returns:
            None if the draws are of chains.

        Raises:
            FileError: a chunk of the store is damaged.
        """
        if "weights" not in tree.children:
            return None
        weights = Weights(loaded(variable(tree, "weights/tilt")))
        drawn = loaded(variable(tree, "sample_stats/proposal"))
        numbers = loaded(variable(tree, "heaviest/proposal"))
        names, labels = list[str](), list[Labelled]()
        if "label" in tree["weights"].data_vars:
            own = loaded(variable(tree, "weights/label"))
            known = record.get("labels", [])
            names = [str(known[at]) if at < len(known) else str(at) for at in range(own.max() + 1)]
            labels = _labelled(own, names, weights)
            names = [names[at] for at in own[numbers]]
        return cls(
            weights=weights,
            distinct=len(np.unique(drawn)),
            draws=drawn.size,
            heaviest=loaded(variable(tree, "heaviest/image")),
            numbers=numbers,
            names=tuple(names),
            labels=tuple(labels),
        )

    @property
    def effective(self) -> float:
        """How many independent draws of the density the draws are worth."""
        return self.weights.worth(self.draws)

    @property
    def worth(self) -> Extreme:
        """`effective`, as the verdict's smallest ESS."""
        return Extreme(self.effective, "all quantities")


def _labelled(
    labels: Int[np.ndarray, " proposal"], names: list[str], weights: Weights
) -> list[Labelled]:
    counts = np.bincount(labels, minlength=len(names)) / len(labels)
    shares = np.bincount(labels, weights.shares, minlength=len(names))
    order = np.argsort(-shares, kind="stable")
    return [Labelled(names[at], float(counts[at]), float(shares[at])) for at in order]


def weighed_summary(
    table: pd.DataFrame, quantities: xr.DataTree, weighing: Weighing
) -> pd.DataFrame:
    """ArviZ's summary with the ESS and the errors that the weights leave, and without R-hat.

    Args:
        table: the result of `summary`.
        quantities: the result of `scalars`.
        weighing: of the same draws.
    """
    effective = weighing.effective
    every = {label: each.values.ravel() for label, each in by_label(quantities).items()}
    errors = {label: _error_of_sd(values, effective) for label, values in every.items()}
    return table.assign(
        ess_bulk=effective,
        ess_tail=effective,
        r_hat=math.nan,
        mcse_mean=table["sd"] / math.sqrt(effective),
        mcse_sd=pd.Series(errors),
    )


def _error_of_sd(values: Float[np.ndarray, " draw"], effective: float) -> float:
    """The standard error of a standard deviation: sqrt((m4 - s^4) / (4 s^2 n))."""
    squares = (values - values.mean()) ** 2
    variance = squares.mean()
    return math.sqrt(squares.var() / (4 * variance * effective)) if variance else 0.0
