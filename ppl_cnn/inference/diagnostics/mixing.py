"""Whether chains show the density, or each the neighbourhood of its start.

Chains that stay where they started may each look well-behaved, and be no draws of the density
together. So mixing within each chain is told from mixing across them: R-hat over chains and over
the two sides, what is left of the starts in the images, and whether the draws still drift.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from ppl_cnn.inference.diagnostics.scan import loaded, variable
from ppl_cnn.inference.diagnostics.summary import (
    ESS_DRAWS,
    RHAT_POOR,
    Extreme,
    by_label,
    disagree,
    quiet,
    rhat_by_chance,
)
from ppl_cnn.inference.diagnostics.two_sides import Sides
from ppl_cnn.inference.diagnostics.verdict import Findings

NEAR = 0.1
"""From this correlation with its own start on, beyond others' with it, a chain is near it; ours."""
PLAIN = 0.3
"""From here on that needs no proof if the chains disagree anyway; ours."""
_WINDOW = 10
"""The first and the last tenth of the draws are compared with the starts."""
_READ = 20
"""Draws of a window, at most."""
_SIDE = 16
"""Rows and columns of the low-pass images that are compared."""
_BY_CHANCE = 0.01
"""How often a correlation with the own start would be called more than chance by chance."""
_DRIFT_BY_CHANCE = 0.001
"""Likewise a drift, of each quantity."""


class Closeness(NamedTuple):
    """How alike the images of some draws are to the starts: correlations of low-pass pixels."""

    own: float
    """With each chain's own start, the mean over chains."""
    others: float
    """With other chains' starts, of the same side if there are two."""
    beyond_chance: bool
    """Whether the difference is more than the spread over pairs of a chain and another's start."""

    @property
    def excess(self) -> float:
        """0, up to chance, for chains that have forgotten their starts."""
        return self.own - self.others


class Trend(NamedTuple):
    """The change of a quantity's mean from the first half of the draws to the second."""

    of: str
    halves: tuple[float, float]
    """The means, over all chains."""
    errors: float
    """Their difference in units of its Monte Carlo standard error."""
    drifts: bool
    """Whether it is more than chance."""
    worst: Extreme
    """The largest of single chains, in units of their own errors."""
    worst_drifts: bool


class Mixing(NamedTuple):
    """What a run's draws tell of it."""

    chains: int
    within: Extreme
    """Largest R-hat of a chain's first half against its second."""
    mixes_within: bool
    """Whether that is chance, given how slowly each of them mixes."""
    across: Extreme
    """Largest R-hat over all chains."""
    disagree: bool
    """Whether that is more than chance."""
    begin: Closeness | None
    """Of the first draws; None if the starts aren't known, or don't differ."""
    end: Closeness | None
    """Of the last."""
    trends: tuple[Trend, ...]
    """Of response and lp."""
    sides: Sides | None
    """If half of the chains started at draws of the reference."""

    @classmethod
    def of(
        cls, tree: xr.DataTree, quantities: xr.DataTree, rhat: Extreme, sides: Sides | None
    ) -> "Mixing":
        """From a run's draws.

        Args:
            tree: as `read` returns it.
            quantities: the result of `scalars`.
            rhat: the largest over all chains.
            sides: what the two sides say, if there are two.

        Raises:
            InputError: the store is damaged.
        """
        within, mixes = _within(quantities)
        windows = _windows(variable(tree, "posterior/image").sizes["draw"])
        begin, end = (closeness(tree, window, sides is not None) for window in windows)
        trends = (
            trend(name, variable(quantities, f"posterior/{name}").values)
            for name in ("response", "lp")
        )
        return cls(
            quantities["posterior"].sizes["chain"],
            within,
            mixes,
            rhat,
            disagree(quantities),
            begin,
            end,
            tuple(trends),
            sides,
        )

    @property
    def near(self) -> bool:
        """Whether the chains are still near their starts."""
        if self.end is None or not self.end.excess > NEAR:
            return False
        return self.end.beyond_chance or (self.disagree and self.end.excess > PLAIN)

    def findings(self) -> Findings:
        """What that means for the verdict."""
        faults, shortages = [], []
        if self.near and self.disagree:
            within = (
                "Within each chain the draws mix, but the chains are still near their starts"
                if self.mixes_within
                else "The draws don't mix within each chain, and the chains are still near their "
                "starts"
            )
            faults.append(
                f"{within} ({_correlation(self.end)}): these are {self.chains} separate samples, "
                f"not the density. For draws of it, raise the temperature, or let replicas climb "
                f"from the reference (--kernel tempered)."
            )
        elif self.near:
            shortages.append(
                f"The chains are still near their starts ({_correlation(self.end)}): draw on."
            )
        if self.sides is not None and self.sides.apart:
            faults.append(
                f"The two sides haven't come to the same: R-hat of {self.sides.rhat.of} is "
                f"{self.sides.rhat.value:.2f} over them."
            )
        elif self.sides is not None and not self.sides.agree:
            shortages.append("There are too few draws to see whether the two sides agree: draw on.")
        for each in self.trends:
            if each.drifts:
                faults.append(_drift(each))
                break
            if each.worst_drifts:
                shortages.append(
                    f"In {each.worst.of} {each.of} drifts by {abs(each.worst.value):.1f} Monte "
                    f"Carlo errors from the first half of the draws to the second: draw on, and "
                    f"see whether that goes."
                )
                break
        return Findings(tuple(faults), tuple(shortages), self.near and self.disagree)


def _correlation(end: Closeness | None) -> str:
    assert end is not None
    return f"correlation {end.own:z.2f} with their own, {end.others:z.2f} with others'"


def _drift(trend: Trend) -> str:
    one, other = trend.halves
    return (
        f"Burn-in goes on: the mean of {trend.of} {'rises' if other > one else 'falls'} from "
        f"{one:,.4g} in the first half of the draws to {other:,.4g} in the second, by "
        f"{abs(trend.errors):.1f} Monte Carlo errors. Start anew with a longer warmup, or from "
        f"these draws (--start run:FOLDER)."
    )


# Within each chain


def _within(quantities: xr.DataTree) -> tuple[Extreme, bool]:
    """The largest R-hat of a chain's halves, and whether none is more than chance."""
    import arviz

    worst, mixes = Extreme(math.nan, ""), True
    for label, values in by_label(quantities).items():
        for chain, one in enumerate(values.values):
            half = len(one) // 2
            halves = np.stack([one[:half], one[-half:]])
            with quiet():
                rhat = float(arviz.rhat(halves))
            if math.isnan(worst.value) or rhat > worst.value:
                worst = Extreme(rhat, f"{label} of chain {chain}")
            if rhat > RHAT_POOR and rhat > rhat_by_chance(halves):
                mixes = False
    return worst, mixes


# Starts


def _windows(draws: int) -> tuple[np.ndarray, np.ndarray]:
    """The draws at the beginning and at the end that are compared with the starts."""
    length = max(1, draws // _WINDOW)
    spread = np.unique(np.linspace(0, length - 1, min(length, _READ)).round().astype(int))
    return spread, draws - 1 - spread[::-1]


def closeness(tree: xr.DataTree, draws: np.ndarray, two_sided: bool) -> Closeness | None:
    """How alike some draws are to the starts.

    Args:
        tree: as `read` returns it.
        draws: their numbers.
        two_sided: whether the first half of the chains started elsewhere than the second.

    Returns:
        None if the starts aren't known, are blank, or if no two of a side differ.
    """
    if "start" not in tree.children:
        return None
    starts = loaded(variable(tree, "start/image"))
    images = loaded(variable(tree, "posterior/image").isel(draw=draws))
    with np.errstate(divide="ignore", invalid="ignore"):
        first = _standardised(low_pass(starts))
        found = np.einsum("cdi,si->cs", _standardised(low_pass(images)), first) / len(draws)
    if not np.isfinite(found).all():
        return None
    chains = len(found)
    side = np.arange(chains) >= (chains // 2 if two_sided else chains)
    alike = (starts[:, None] == starts[None]).all(axis=(2, 3, 4))
    return _compared(found, (side[:, None] == side[None]) & ~alike, side)


def _compared(
    found: Float[np.ndarray, "chain chain"],
    others: Bool[np.ndarray, "chain chain"],
    side: Bool[np.ndarray, " chain"],
) -> Closeness | None:
    """Correlations with own starts against those with others', whose spread is that of chance.

    Were a chain's images independent of its start, then what it has to do with it would be another
    one of the values that it has to do with the others' starts.
    """
    from scipy import stats

    if not others.any(axis=1).all():
        return None
    weights = others / others.sum(axis=1, keepdims=True)
    own, other = found.diagonal().mean(), (weights * found).sum(axis=1).mean()
    sides = np.unique(side)
    groups = [found[others & (side == which)[:, None]] for which in sides]
    freedom = sum(len(group) - 1 for group in groups)
    spread = math.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / freedom)
    error = spread / math.sqrt(len(found) - len(sides))
    critical = float(stats.t.ppf(1 - _BY_CHANCE, freedom))
    return Closeness(float(own), float(other), bool(own - other > critical * error))


def low_pass(images: Float[np.ndarray, "*batch row col channel"]) -> np.ndarray:
    """Means over blocks of pixels, of at most 16 rows and columns."""
    for axis in (-3, -2):
        size = images.shape[axis]
        edges = np.unique(np.linspace(0, size, min(size, _SIDE) + 1).astype(int))
        sums = np.add.reduceat(images.astype(np.float64), edges[:-1], axis=axis)
        shape = [1] * images.ndim
        shape[axis] = -1
        images = sums / np.diff(edges).reshape(shape)
    return images


def _standardised(images: np.ndarray) -> np.ndarray:
    """Without an image's mean and of length 1, so that products are correlations."""
    flat = images.reshape(*images.shape[:-3], -1)
    flat = flat - flat.mean(axis=-1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=-1, keepdims=True)


# Burn-in


def trend(name: str, values: Float[np.ndarray, "chain draw"]) -> Trend:
    """Compares the halves of the draws, in all chains and in each.

    Errors come from the effective draws of a half, the harmonic mean over all, and what is chance
    from Student's distribution of as many degrees of freedom. A half too short to tell them counts
    as one.

    Args:
        name: of the quantity.
        values: of it.
    """
    import arviz
    from scipy import stats

    chains, draws = values.shape
    half = draws // 2
    halves = np.stack([values[:, :half], values[:, -half:]])
    ess = 1.0
    with quiet():
        if half >= ESS_DRAWS:
            # Of one half of one chain it would be a noisy estimate.
            every = [float(arviz.ess(one[None], method="mean")) for side in halves for one in side]
            ess = float(1 / np.mean(1 / np.asarray(every)))
        squared = halves.var(axis=2, ddof=1).sum(axis=0) / ess
        freedom = max(1.0, 2 * (ess - 1))
        change = halves[1].mean(axis=1) - halves[0].mean(axis=1)
        each = change / np.sqrt(squared)
        pooled = float(change.sum() / np.sqrt(squared.sum()))

    def critical(freedom: Any, tests: int) -> Any:
        return stats.t.ppf(1 - _DRIFT_BY_CHANCE / 2 / tests, freedom)

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


# The page


def mixing_html(mixing: Mixing, heading: str) -> str:
    """The page's table of it.

    Args:
        mixing: of a run.
        heading: the tag of its heading.
    """
    most = f"above {RHAT_POOR} they differ, unless by chance"
    rows = [("R-hat of a chain's halves, largest", _rhat(mixing.within), most)]
    if mixing.chains > 1:
        rows.append(("R-hat over chains, largest", _rhat(mixing.across), most))
    if mixing.sides is not None:
        rows.append(("R-hat over the two sides, largest", _rhat(mixing.sides.rhat), most))
    for when, found in (("first", mixing.begin), ("last", mixing.end)):
        if found is not None:
            said = f"{found.own:z.2f} with the own, {found.others:z.2f} with others'"
            note = f"a difference up to {NEAR} is good"
            rows.append((f"Correlation of the {when} draws with starts", said, note))
    for each in mixing.trends:
        if math.isfinite(each.errors):
            said = f"{each.errors:+z.1f} in all, {each.worst.value:+z.1f} in {each.worst.of}"
            note = "in Monte Carlo errors; more than 3 or 4 is a drift"
            rows.append((f"Second half − first half, {each.of}", said, note))
    body = "\n".join(
        f'<tr><th scope="row">{name}</th><td>{said}</td><td>{note}</td></tr>'
        for name, said, note in rows
    )
    return f"""<section>
<{heading}>Within and across starts</{heading}>
<p>Draws may mix within each chain while the chains stay near their starts. Only chains that agree
with each other and have forgotten where they started show the density.</p>
<div class="scroll"><table class="data"><tbody>
{body}
</tbody></table></div>
</section>
"""


def _rhat(worst: Extreme) -> str:
    return "–" if math.isnan(worst.value) else f"{worst.value:.3f} ({worst.of})"
