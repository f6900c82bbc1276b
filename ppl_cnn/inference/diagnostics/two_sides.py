"""The two-sided test: whether chains from draws of the reference and from elsewhere agree.

Chains that start on one side only can agree with each other long before they have found the
density's mass. Chains from below it and from above it, in the response, agree later.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from ppl_cnn.inference.diagnostics.scan import Scan, variable
from ppl_cnn.inference.diagnostics.summary import RHAT_POOR, Extreme, quiet, rhat_by_chance

_FROM = {
    "rto": "optima",
    "anneal": "annealed particles",
    "zero": "the mean image",
    "image": "photographs",
    "run": "draws of another run",
}
AGREED = RHAT_POOR
"""The largest R-hat over the sides with which they count as agreeing; ours."""


class Sides(NamedTuple):
    """What the chains of each side say; of a pair, the first started at draws of the reference."""

    rhat: Extreme
    """Rank-normalised, of a side against the other; the largest of response and projections."""
    apart: bool
    """Whether one of them is above that by more than chance, given how slowly the sides mix."""
    response: tuple[float, float]
    """The mean of each side's draws."""
    error: tuple[float, float]
    """Its Monte Carlo standard error."""
    halves: tuple[float, float]
    """The change of that mean from the first half of the draws to the second."""

    @property
    def agree(self) -> bool:
        """Whether the sides can't be told apart; never if nothing could be computed."""
        return self.rhat.value <= AGREED


def two_sides(quantities: xr.DataTree, images: Scan) -> Sides:
    """Compares the first half of the chains with the second.

    Args:
        quantities: the result of `scalars`, of an even number of chains.
        images: that of `scan`, whose 50 projections are compared.
    """
    response = variable(quantities, "posterior/response").values
    every = {"response": response}
    for number, values in enumerate(np.moveaxis(images.projections, 2, 0)):
        every[f"projections[{number}]"] = values
    pairs = {name: _as_two(values) for name, values in every.items()}
    found = {name: _rhat(pair) for name, pair in pairs.items()}
    suspects = [name for name in found if found[name] > AGREED]
    worst = max(found, key=lambda name: np.nan_to_num(found[name], nan=-1.0))
    one, other = _halves(response)
    return Sides(
        Extreme(found[worst], worst),
        any(found[name] > rhat_by_chance(pairs[name]) for name in suspects),
        (float(one.mean()), float(other.mean())),
        (_error(one), _error(other)),
        (_change(one), _change(other)),
    )


def _halves(
    values: Float[np.ndarray, "chain draw"],
) -> tuple[Float[np.ndarray, "side draw"], Float[np.ndarray, "side draw"]]:
    count = len(values) // 2
    return values[:count], values[count:]


def _as_two(values: Float[np.ndarray, "chain draw"]) -> Float[np.ndarray, "side every"]:
    """The chains of a side one after another, as if they were one."""
    return np.stack([side.ravel() for side in _halves(values)])


def _rhat(pair: Float[np.ndarray, "side every"]) -> float:
    import arviz

    with quiet():
        return float(arviz.rhat(pair))


def _error(side: Float[np.ndarray, "chain draw"]) -> float:
    import arviz

    with quiet():
        return float(arviz.mcse(side))


def _change(side: Float[np.ndarray, "chain draw"]) -> float:
    half = side.shape[1] // 2
    return float(side[:, -half:].mean() - side[:, :half].mean())


def sides_html(sides: Sides, heading: str, start: str = "two-sided:rto") -> str:
    """The page's section on them.

    Args:
        sides: of a run that started two-sided.
        heading: the tag of its heading.
        start: the run's, as it is recorded.
    """
    # Earlier versions recorded two-sided:rto as two-sided.
    kind = "rto" if start == "two-sided" else start.split(":")[1]
    names = ("from draws of the reference", f"from {_FROM[kind]}")
    rows = "\n".join(
        f'<tr><th scope="row">{name}</th><td>{mean:,.4g} ± {error:.2g}</td>'
        f"<td>{change:+,.3g}</td></tr>"
        for name, mean, error, change in zip(
            names, sides.response, sides.error, sides.halves, strict=True
        )
    )
    said = f"The chains {names[0]} and those {names[1]} "
    if sides.agree:
        said += "can't be told apart: what they show is the density, not their starts."
    elif sides.apart:
        said += (
            "haven't come to the same: what they show is still their starts' doing. Draw on, or "
            "raise the temperature."
        )
    else:
        said += "differ by no more than chance, but there are too few draws to tell: draw on."
    return f"""<section>
<{heading}>Two sides</{heading}>
<p>{said} Largest R-hat of a side against the other, over response and 50 projections:
{sides.rhat.value:.3f} ({sides.rhat.of}); at most {AGREED} is good.</p>
<table class="data"><thead><tr><th scope="col">chains</th><th scope="col">mean response</th>\
<th scope="col">second half − first half</th></tr></thead><tbody>
{rows}
</tbody></table>
</section>
"""
