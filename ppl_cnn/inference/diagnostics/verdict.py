"""The verdict on a run: good, short or bad, and what to do about it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from ppl_cnn.inference.diagnostics.scan import variable
from ppl_cnn.inference.diagnostics.summary import (
    ESS_DRAWS,
    Extreme,
    _extreme,
    disagree,
    largest_rhat,
    quiet,
)

RHAT_GOOD = 1.01
"""Vehtari, Gelman, Simpson, Carpenter, Bürkner, Rank-normalization, folding, and localization: an
improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16(2), 2021."""


ESS_GOOD = 400
"""Over all chains, bulk and tail: from there on the error estimates themselves are reliable.
Vehtari et al. 2021, who count 50 for each half of four chains; more chains don't need more."""


BFMI_GOOD = 0.3
"""Betancourt, Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo, 2016,
arXiv 1604.00695, as Stan applies it."""


DIVERGENT_SHARE = 0.01
"""From this share of divergent draws on, what the chains missed may be large; ours."""


_GOOD = (
    "The chains agree and the draws suffice: means, quantiles and their standard errors can be "
    "relied on."
)


class Verdict(NamedTuple):
    """What the diagnostics say about a run."""

    state: str
    """`good`, `short` (nothing is wrong, but something lacks) or `bad` (don't use the draws)."""
    sentence: str
    """The state and what to do about it."""
    rhat: Extreme
    """Largest rank-normalised split R-hat of all scalars; NaN with a single chain."""
    ess_bulk: Extreme
    """Smallest of all scalars, over all chains together; NaN of fewer than 10 draws a chain."""
    ess_tail: Extreme
    bfmi: Extreme
    """Smallest energy fraction of missing information (E-BFMI) of all chains."""
    divergences: int
    """Draws with a divergence on the way to them."""
    nonfinite: int
    """Draws whose image, response, lp or energy is NaN or infinite."""
    draws: int
    """Over all chains."""


class Findings(NamedTuple):
    """What else speaks against a run, in sentences."""

    faults: tuple[str, ...] = ()
    """Why the draws must not be used."""
    shortages: tuple[str, ...] = ()
    """What they lack."""
    explained: bool = False
    """Whether the faults say why the chains disagree."""

    def and_those(self, other: "Findings") -> "Findings":
        """Both."""
        return Findings(
            self.faults + other.faults,
            self.shortages + other.shortages,
            self.explained or other.explained,
        )


def verdict(
    quantities: xr.DataTree,
    table: pd.DataFrame,
    config: Mapping[str, Any] | None = None,
    findings: Findings | None = None,
) -> Verdict:
    """Judges a run and says what to do about it.

    Args:
        quantities: the result of `scalars`.
        table: the result of `summary`.
        config: the run's settings, of which `warmup`, `thin` and `target_accept` make the
            advice concrete.
        findings: of mixing across starts, and of replicas.
    """
    posterior = quantities.children["posterior"].to_dataset()
    table = table[table["sd"] > 0]
    chains, draws = posterior["response"].shape
    found = Verdict(
        state="",
        sentence="",
        rhat=largest_rhat(table),
        ess_bulk=_extreme(table["ess_bulk"]),
        ess_tail=_extreme(table["ess_tail"]),
        bfmi=_smallest_bfmi(posterior["energy"].values),
        divergences=int(variable(quantities, "sample_stats/diverging").sum()),
        nonfinite=int((~_finite(posterior)).sum()),
        draws=chains * draws,
    )
    findings = findings or Findings()
    bad = _faults(found, quantities, findings, config or {})
    if bad:
        return found._replace(state="bad", sentence=" ".join(bad))
    lacking = [*findings.shortages, *_shortages(found, chains, draws, config or {})]
    if lacking:
        return found._replace(state="short", sentence=" ".join(lacking))
    return found._replace(state="good", sentence=_GOOD)


def _smallest_bfmi(energy: Float[np.ndarray, "chain draw"]) -> Extreme:
    with quiet():
        ratio = np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1, ddof=1)
    chains = [f"chain {chain}" for chain in range(len(energy))]
    return _extreme(pd.Series(ratio, chains))


def _finite(posterior: xr.Dataset) -> Bool[np.ndarray, "chain draw"]:
    finite = [np.isfinite(values.values) for values in posterior.data_vars.values()]
    return np.logical_and.reduce([each.reshape(*each.shape[:2], -1).all(axis=2) for each in finite])


def _faults(
    found: Verdict, quantities: xr.DataTree, findings: Findings, config: Mapping[str, Any]
) -> list[str]:
    """Why the draws must not be used, and what to do; empty if nothing speaks against them."""
    warmup = config.get("warmup")
    longer = f"--warmup {2 * warmup}" if warmup else "a longer warmup"
    response = variable(quantities, "posterior/response").values
    acceptance = float(variable(quantities, "sample_stats/acceptance_rate").mean())
    still = int((np.ptp(response, axis=1) == 0).sum())
    if found.nonfinite:
        return [
            f"{found.nonfinite:,} of {found.draws:,} draws aren't finite, so the response "
            f"overflows: raise the temperature, or check the network's weights and preprocessing."
        ]
    if np.ptp(response) == 0 and acceptance > 0.1:
        return [
            "The response is the same in every draw: the unit is dead on these images, and its "
            "density is the reference itself. Choose another unit or a reference of more contrast."
        ]
    if still:
        return [
            f"{still} of {len(response)} chains stand still, as nearly every proposal was refused: "
            f"the step is too large, so give its adaptation {longer}."
        ]
    faults = list(findings.faults)
    if not findings.explained and disagree(quantities):
        faults.append(
            f"The chains disagree: they haven't forgotten their starts, or they sit in different "
            f"modes of the density. Run again with {longer} and more draws; if they still "
            f"disagree, look at each chain by itself, or raise the temperature."
        )
    if found.divergences > DIVERGENT_SHARE * found.draws:
        faults.append(
            f"{found.divergences:,} of {found.draws:,} draws saw a divergence, so parts of the "
            f"density are left out: use smaller steps{_steps_option(config)}, or {longer}."
        )
    return faults


def _shortages(found: Verdict, chains: int, draws: int, config: Mapping[str, Any]) -> list[str]:
    """What sound draws still lack, and what to do; empty if nothing."""
    shortages = []
    if 0 < found.divergences <= DIVERGENT_SHARE * found.draws:
        shortages.append(
            f"Of {found.draws:,} draws {found.divergences:,} saw a divergence: use smaller steps"
            f"{_steps_option(config)} and see whether the results stay."
        )
    if found.bfmi.value < BFMI_GOOD:
        shortages.append(
            "The energy changes slowly from draw to draw, so the tails of the density may be "
            "missed: draw more, with heavier thinning to keep the store small."
        )
    if chains == 1:
        shortages.append(
            "One chain alone can't show that it has reached its density: run at least four "
            "(--chains 4) and see whether they agree."
        )
    ess = min(found.ess_bulk.value, found.ess_tail.value)
    unknown = draws < ESS_DRAWS
    if unknown or ess < ESS_GOOD or found.rhat.value > RHAT_GOOD:
        # R-hat^2 - 1 falls as 1/draws once the chains mix, and the ESS grows with them.
        excess = (found.rhat.value**2 - 1) / (RHAT_GOOD**2 - 1)
        factor = np.nanmax([1.5, ESS_GOOD / (found.draws if unknown else ess), excess])
        if unknown:
            lack = "tell how many of them are effective"
        elif ess < ESS_GOOD:
            lack = "rely on their error estimates"
        else:
            lack = "see whether the chains agree"
        option = _draws_option(draws * factor, draws, config)
        shortages.append(f"There are too few draws to {lack}: {option}.")
    return shortages


def _steps_option(config: Mapping[str, Any]) -> str:
    accept = config.get("target_accept")
    return f" (--target-accept {1 - (1 - accept) / 2:g})" if accept else ""


def _round_up(number: float) -> int:
    unit = 10 ** max(1, math.floor(math.log10(number)) - 1) * 5
    return math.ceil(number / unit) * unit


def _draws_option(wanted: float, draws: int, config: Mapping[str, Any]) -> str:
    most = max(1000, 10 * draws)
    if wanted <= most:
        return f"the same command with --draws {_round_up(wanted)} goes on from here and should do"
    every = math.ceil(wanted / most)
    thin = every * config.get("thin", 1)
    return f"a new run with --draws {_round_up(wanted / every)} --thin {thin} should do"
