"""The two-sided test: whether chains from draws of the reference and from elsewhere agree.

Chains that start on one side only can agree with each other long before they have found the mass of
the density. Chains that come from below it and from above it, in the response, agree later.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from ppl_cnn.inference.diagnostics.mixing.mixing import rhat, rhat_by_chance
from ppl_cnn.inference.diagnostics.summary import Extreme, quiet
from ppl_cnn.inference.diagnostics.thresholds import RHAT_POOR


class Sides(NamedTuple):
    """The first half of the chains, from draws of the reference, and the second, from elsewhere."""

    rhat: Extreme
    """Largest rank-normalised R-hat of one side against the other, over response and
    projections."""
    apart: bool
    """Whether one of them is above 1.05 by more than chance, given how slowly the sides mix."""
    response: tuple[float, float]
    """The mean response of each side's draws."""
    error: tuple[float, float]
    """The Monte Carlo standard error of each of these means."""
    halves: tuple[float, float]
    """The change of each of these means from the first half of the draws to the second."""

    @property
    def state(self) -> Literal["agree", "apart", "unclear"]:
        """`agree` if R-hat is at most 1.05, `apart` if it is above by more than chance."""
        if self.rhat.value <= RHAT_POOR:
            return "agree"
        return "apart" if self.apart else "unclear"


def two_sides(
    response: Float[np.ndarray, "chain draw"],
    projections: Float[np.ndarray, "chain draw projection"],
) -> Sides:
    """Compares the first half of the chains with the second.

    Args:
        response: the response of each draw, of an even number of chains.
        projections: `Scan.projections` of the images.
    """
    every = {"response": response}
    for number, values in enumerate(np.moveaxis(projections, 2, 0)):
        every[f"projections[{number}]"] = values
    pairs = {name: _as_two(values) for name, values in every.items()}
    found = {name: rhat(pair) for name, pair in pairs.items()}
    suspects = [name for name in found if found[name] > RHAT_POOR]
    worst = max(found, key=lambda name: np.nan_to_num(found[name], nan=-1.0))
    one, other = _sides(response)
    return Sides(
        Extreme(found[worst], worst),
        any(found[name] > rhat_by_chance(pairs[name], len(pairs)) for name in suspects),
        (float(one.mean()), float(other.mean())),
        (_error(one), _error(other)),
        (_change(one), _change(other)),
    )


def _sides(
    values: Float[np.ndarray, "chain draw"],
) -> tuple[Float[np.ndarray, "side draw"], Float[np.ndarray, "side draw"]]:
    count = len(values) // 2
    return values[:count], values[count:]


def _as_two(values: Float[np.ndarray, "chain draw"]) -> Float[np.ndarray, "side every"]:
    """The chains of each side one after another, as if they were one chain."""
    return np.stack([side.ravel() for side in _sides(values)])


def _error(side: Float[np.ndarray, "chain draw"]) -> float:
    import arviz

    with quiet():
        return float(arviz.mcse(side))


def _change(side: Float[np.ndarray, "chain draw"]) -> float:
    half = side.shape[1] // 2
    return float(side[:, -half:].mean() - side[:, :half].mean())
