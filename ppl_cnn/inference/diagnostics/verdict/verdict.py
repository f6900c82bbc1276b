"""The verdict on a run: good, short or bad, why, and the numbers that it rests on.

The sentences are in `sentences`, the thresholds in `diagnostics.thresholds`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from ppl_cnn.inference.diagnostics.mixing.mixing import Mixing, chains_disagree, largest_rhat
from ppl_cnn.inference.diagnostics.mixing.two_sides import Sides
from ppl_cnn.inference.diagnostics.replicas import Climbs
from ppl_cnn.inference.diagnostics.scan import variable
from ppl_cnn.inference.diagnostics.summary import Extreme, extreme, quiet
from ppl_cnn.inference.diagnostics.thresholds import (
    BFMI_GOOD,
    DIVERGENT_SHARE,
    ENOUGH_WEIGHTS,
    ESS_DRAWS,
    ESS_GOOD,
    RHAT_GOOD,
)
from ppl_cnn.inference.diagnostics.verdict import sentences as say
from ppl_cnn.inference.diagnostics.weighing import Weighing
from ppl_cnn.inference.importance import Weights

State = Literal["good", "short", "bad"]

HEADLINES: dict[State, str] = {
    "good": "Good",
    "short": "Not enough yet",
    "bad": "Don't rely on these draws",
}
"""State -> what it means in a few words."""


class Verdict(NamedTuple):
    """What the diagnostics say about a run, with the numbers that they rest on.

    `print(verdict)` shows it; programs compare `state` and look for kinds of findings, such as
    `any(isinstance(each, TooFewDraws) for each in verdict.findings)`.
    """

    state: State
    """`good`; `short` if nothing is wrong but something is missing; `bad` if the draws must not
    be used."""
    findings: tuple[say.Finding, ...]
    """Why; empty for a good run. All have the severity that `state` names."""
    rhat: Extreme
    """Largest rank-normalised split R-hat over the scalars; NaN for a single chain."""
    ess_bulk: Extreme
    """Smallest bulk ESS over the scalars, over all chains; NaN for fewer than 10 draws a chain."""
    ess_tail: Extreme
    """Smallest tail ESS over the scalars, over all chains; NaN for fewer than 10 draws a chain."""
    bfmi: Extreme
    """Smallest energy fraction of missing information (E-BFMI) over the chains."""
    divergences: int
    """Number of draws with a divergence on the way to them."""
    nonfinite: int
    """Number of draws whose image, response, lp or energy is NaN or infinite."""
    acceptance: float
    """Mean acceptance probability of proposals."""
    draws: int
    """Number of draws over all chains."""
    weights: Weights | None = None
    """Those of the proposals that draws were resampled from; None for draws of chains. Resampled
    draws have an ESS, and neither R-hat, E-BFMI, divergences nor acceptance."""

    @property
    def headline(self) -> str:
        """The state in a few words."""
        return HEADLINES[self.state]

    @property
    def sentence(self) -> str:
        """What was found and what to do about it."""
        nothing = say.NOTHING_FOUND if self.weights is None else say.WEIGHTS_SUFFICE
        return " ".join(each.sentence for each in self.findings) or nothing

    def __str__(self) -> str:
        rows = (
            ("largest R-hat", self.rhat, ".3f", f"at most {RHAT_GOOD} is good"),
            ("smallest bulk ESS", self.ess_bulk, ",.0f", f"at least {ESS_GOOD} is good"),
            ("smallest tail ESS", self.ess_tail, ",.0f", f"at least {ESS_GOOD} is good"),
            ("smallest E-BFMI", self.bfmi, ".2f", f"at least {BFMI_GOOD} is good"),
        )
        lines = [f"{self.headline}. {self.sentence}", ""]
        lines += [
            f"{label:18}{value:>10{form}}  ({of}; {note})"
            for label, (value, of), form, note in rows
            if of
        ]
        if self.weights is None:
            lines.append(f"{'divergences':18}{self.divergences:>10,}  (of {self.draws:,} draws)")
            lines.append(f"{'mean acceptance':18}{self.acceptance:>10.2f}")
        else:
            lines += _of_weights(self.weights)
        return "\n".join(lines)


def _of_weights(weights: Weights) -> list[str]:
    return [
        f"{'log Z':18}{weights.log_z.value:>10.3f}  (standard error {weights.log_z.error:.2g})",
        f"{'ESS of the weights':18}{weights.effective:>10,.0f}  (of {len(weights.tilts):,}; "
        f"at least {ENOUGH_WEIGHTS} is good)",
        f"{'Pareto k':18}{weights.pareto_k:>10.2f}  (at most {weights.largest_k:.2f} is good)",
    ]


def judge(
    quantities: xr.DataTree,
    table: pd.DataFrame,
    *,
    config: Mapping[str, Any] | None = None,
    mixing: Mixing | None = None,
    sides: Sides | None = None,
    climbs: Climbs | None = None,
    resumes: bool = False,
) -> Verdict:
    """Judges a run and says what to do about it.

    Args:
        quantities: the result of `scalars`.
        table: the result of `summary`.
        config: the run's settings; `warmup`, `thin` and `target_accept` make the advice concrete.
        mixing: how the chains mix, with their starts and drifts.
        sides: how the two sides compare, if there are two.
        climbs: what the replicas did, if there are any.
        resumes: whether a run with more draws resumes from these.
    """
    config = config or {}
    posterior = quantities.children["posterior"].to_dataset()
    table = table[table["sd"] > 0]
    chains, draws = posterior["response"].shape
    found = Verdict(
        state="good",
        findings=(),
        rhat=largest_rhat(table),
        ess_bulk=extreme(table["ess_bulk"]),
        ess_tail=extreme(table["ess_tail"]),
        bfmi=_smallest_bfmi(posterior["energy"].values),
        divergences=int(variable(quantities, "sample_stats/diverging").sum()),
        nonfinite=int((~_finite(posterior)).sum()),
        acceptance=float(variable(quantities, "sample_stats/acceptance_rate").mean()),
        draws=chains * draws,
    )
    useless = _useless(found, variable(quantities, "posterior/response").values, config)
    if useless is not None:
        return found._replace(state="bad", findings=(useless,))
    known = _of_mixing(mixing, sides)
    faults = [each for each in known if each.severity == "bad"]
    faults += _faults(found, quantities, faults, config)
    if faults:
        return found._replace(state="bad", findings=tuple(faults))
    shortages = [*known, *(climbs.findings() if climbs is not None else ())]
    shortages += _shortages(found, chains, draws, config, resumes)
    return found._replace(state="short" if shortages else "good", findings=tuple(shortages))


def judge_weights(
    quantities: xr.DataTree,
    weighing: Weighing,
    *,
    config: Mapping[str, Any] | None = None,
    resumes: bool = False,
) -> Verdict:
    """Judges a run by resampling, whose draws are as good as the weights of its proposals.

    Args:
        quantities: the result of `scalars`.
        weighing: what is known of the weights.
        config: the run's settings.
        resumes: whether a run with more draws resumes from these.
    """
    nothing, weights = Extreme(math.nan, ""), weighing.weights
    chains, draws = quantities["posterior/response"].shape
    images = "images" in (config or {})
    found: list[say.Finding] = []
    if np.ptp(weights.tilts) == 0:
        found.append(say.DeadUnit())
    elif weights.pareto_k > weights.largest_k:
        found.append(say.HeavyWeights(weights.pareto_k, weights.largest_k, images))
    elif weighing.effective < ESS_GOOD and weights.effective < ENOUGH_WEIGHTS:
        effective = weights.effective
        found.append(say.FewWeights(len(weights.tilts), effective, ENOUGH_WEIGHTS, images))
    elif weighing.effective < ESS_GOOD:
        wanted = 1 / (1 / ESS_GOOD - 1 / weights.effective) / chains
        found.append(say.TooFewDraws("errors", _round_up(wanted), None, resumes))
    severities = {each.severity for each in found}
    return Verdict(
        state="bad" if "bad" in severities else "short" if severities else "good",
        findings=tuple(found),
        rhat=nothing,
        ess_bulk=weighing.worth,
        ess_tail=weighing.worth,
        bfmi=nothing,
        divergences=0,
        nonfinite=0,
        acceptance=math.nan,
        draws=chains * draws,
        weights=weights,
    )


def _smallest_bfmi(energy: Float[np.ndarray, "chain draw"]) -> Extreme:
    with quiet():
        ratio = np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1, ddof=1)
    chains = [f"chain {chain}" for chain in range(len(energy))]
    return extreme(pd.Series(ratio, chains))


def _finite(posterior: xr.Dataset) -> Bool[np.ndarray, "chain draw"]:
    finite = [np.isfinite(values.values) for values in posterior.data_vars.values()]
    every = [each.reshape(*each.shape[:2], -1).all(axis=2) for each in finite]
    return np.asarray(np.logical_and.reduce(every))


def _useless(
    found: Verdict, response: Float[np.ndarray, "chain draw"], config: Mapping[str, Any]
) -> say.Finding | None:
    """A finding after which nothing else is worth saying."""
    if found.nonfinite:
        return say.NotFinite(found.nonfinite, found.draws)
    if np.ptp(response) == 0 and found.acceptance > 0.1:
        return say.DeadUnit()
    stuck = int((np.ptp(response, axis=1) == 0).sum())
    if stuck:
        return say.StuckChains(stuck, len(response), config.get("warmup"))
    return None


def _of_mixing(mixing: Mixing | None, sides: Sides | None) -> list[say.Finding]:
    """What starts, sides and drifts speak against, bad or short."""
    found: list[say.Finding] = []
    if mixing is not None and mixing.near and mixing.end is not None:
        own, others = mixing.end.own, mixing.end.others
        if mixing.disagree:
            found.append(say.SeparateSamples(mixing.chains, mixing.mixes_within, own, others))
        else:
            found.append(say.NearStarts(own, others))
    if sides is not None and sides.state == "apart":
        found.append(say.SidesDisagree(sides.rhat))
    elif sides is not None and sides.state == "unclear":
        found.append(say.SidesUnclear())
    for each in mixing.trends if mixing is not None else ():
        if each.drifts:
            found.append(say.BurnIn(each.of, *each.halves, each.errors))
            break
        if each.worst_drifts:
            found.append(say.ChainDrifts(each.of, each.worst.of, each.worst.value))
            break
    return found


def _faults(
    found: Verdict,
    quantities: xr.DataTree,
    known: Sequence[say.Finding],
    config: Mapping[str, Any],
) -> list[say.Finding]:
    """Further reasons not to use the draws."""
    faults: list[say.Finding] = []
    explained = any(isinstance(each, say.SeparateSamples) for each in known)
    if not explained and chains_disagree(quantities):
        faults.append(say.ChainsDisagree(config.get("warmup")))
    if found.divergences > DIVERGENT_SHARE * found.draws:
        settings = config.get("warmup"), config.get("target_accept")
        faults.append(say.ManyDivergences(found.divergences, found.draws, *settings))
    return faults


def _shortages(
    found: Verdict, chains: int, draws: int, config: Mapping[str, Any], resumes: bool
) -> list[say.Finding]:
    """What sound draws still lack."""
    shortages: list[say.Finding] = []
    if found.divergences:
        accept = config.get("target_accept")
        shortages.append(say.FewDivergences(found.divergences, found.draws, accept))
    if found.bfmi.value < BFMI_GOOD:
        shortages.append(say.SlowEnergy())
    if chains == 1:
        shortages.append(say.OneChain())
    ess = min(found.ess_bulk.value, found.ess_tail.value)
    unknown = draws < ESS_DRAWS
    if unknown or ess < ESS_GOOD or found.rhat.value > RHAT_GOOD:
        # R-hat^2 - 1 falls as 1/draws once the chains mix, and the ESS grows with them.
        excess = (found.rhat.value**2 - 1) / (RHAT_GOOD**2 - 1)
        factor = np.nanmax([1.5, ESS_GOOD / (found.draws if unknown else ess), excess])
        missing: Literal["effective", "errors", "agreement"] = "agreement"
        if unknown:
            missing = "effective"
        elif ess < ESS_GOOD:
            missing = "errors"
        wanted, most = draws * factor, max(1000, 10 * draws)
        every = math.ceil(wanted / most)
        thin = every * config.get("thin", 1) if every > 1 else None
        shortages.append(say.TooFewDraws(missing, _round_up(wanted / every), thin, resumes))
    return shortages


def _round_up(number: float) -> int:
    """To a multiple of 50, or of 500 from 1,000 on, and so on."""
    unit = 5 * int(10 ** max(1, math.floor(math.log10(number)) - 1))
    return math.ceil(number / unit) * unit
