"""The verdict on a run: good, short or bad, why, and the numbers that it rests on.

The rule is in `rule`, its bounds in `diagnostics.thresholds`, the sentences are in `sentences` and
`weights_sentences`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from ppl_cnn.inference.diagnostics.mixing.mixing import Mixing, chains_disagree, largest_rhat
from ppl_cnn.inference.diagnostics.mixing.step_bias import StepBias
from ppl_cnn.inference.diagnostics.mixing.two_sides import Sides
from ppl_cnn.inference.diagnostics.replicas import Climbs
from ppl_cnn.inference.diagnostics.scan import variable
from ppl_cnn.inference.diagnostics.stein import SteinCheck
from ppl_cnn.inference.diagnostics.summary import Extreme, extreme, quiet
from ppl_cnn.inference.diagnostics.thresholds import (
    BFMI_GOOD,
    DIVERGENT_SHARE,
    ENOUGH_WEIGHTS,
    ESS_BAD,
    ESS_DRAWS,
    ESS_GOOD,
)
from ppl_cnn.inference.diagnostics.verdict import sentences as say
from ppl_cnn.inference.diagnostics.verdict.approximate import Approximate
from ppl_cnn.inference.diagnostics.verdict.identity import broken_identity
from ppl_cnn.inference.diagnostics.verdict.missing import missing_draws, round_up
from ppl_cnn.inference.diagnostics.verdict.near_optima import with_optima
from ppl_cnn.inference.diagnostics.verdict.rule import (
    BFMI,
    DIVERGENT,
    ESS,
    RHAT,
    SIDES,
    STEPS,
    Bounds,
    Figure,
    State,
    worst,
)
from ppl_cnn.inference.diagnostics.verdict.weights_sentences import (
    WEIGHTS_SUFFICE,
    FarTooFewWeights,
    FewWeights,
    HeavyWeights,
)
from ppl_cnn.inference.diagnostics.weighing import Weighing
from ppl_cnn.inference.importance import Weights

_MOVING = 0.1
"""Mean acceptance probability from which chains move, whatever their response does."""

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
    """Why; empty for a good run. All have the severity that `state` names, but `approximate`, which
    is always among them."""
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
    sides: Extreme | None = None
    """Largest R-hat of one side of the chains against the other; None if all started alike."""
    stein: SteinCheck | None = None
    """How far mean and Stein mean differ; None if there is nothing to compare."""
    approximate: Approximate | None = None
    """That the kernel corrects no errors, and the bias that is seen; None for an exact kernel."""
    weights: Weights | None = None
    """Those of the proposals that draws were resampled from; None for draws of chains. Resampled
    draws have an ESS, and neither R-hat, E-BFMI, divergences nor acceptance."""

    @property
    def headline(self) -> str:
        """The state in a few words."""
        said = HEADLINES[self.state]
        if self.approximate is None:
            return said
        alone = self.findings == (self.approximate,)
        return "Approximate" if alone else f"Approximate: {said[0].lower()}{said[1:]}"

    @property
    def sentence(self) -> str:
        """What was found and what to do about it."""
        nothing = say.NOTHING_FOUND if self.weights is None else WEIGHTS_SUFFICE
        return " ".join(each.sentence for each in self.findings) or nothing

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The numbers as a reader sees them, each with its own state."""
        return _of_chains(self) if self.weights is None else _of_weights(self, self.weights)

    def __str__(self) -> str:
        lines = [f"{self.headline}. {self.sentence}", ""]
        for figure in self.figures:
            state = "" if figure.state is None else figure.state
            lines.append(f"{figure.name:18}{figure.text:>10}  {state:5}  ({figure.note})")
        return "\n".join(lines)


_STEIN = "mean less Stein mean, over what chance gives"


def _of_chains(found: Verdict) -> tuple[Figure, ...]:
    # A single chain and draws that stand still have no R-hat, which the findings say.
    judged = Figure.judged
    divergences = DIVERGENT.state(found.divergences / found.draws)
    figures = [
        judged("Largest R-hat", *found.rhat, digits=3, bounds=RHAT, needed=False),
        judged("Smallest bulk ESS", *found.ess_bulk, digits=0, bounds=ESS),
        judged("Smallest tail ESS", *found.ess_tail, digits=0, bounds=ESS),
        judged("Smallest E-BFMI", *found.bfmi, digits=2, bounds=BFMI, needed=False),
        Figure(
            "Divergences",
            f"{found.divergences:,}",
            f"of {found.draws:,} draws; none is good, more than {DIVERGENT.bad:.0%} bad",
            divergences,
        ),
    ]
    if found.sides is not None:
        figures.append(judged("R-hat of two sides", *found.sides, digits=3, bounds=SIDES))
    if found.stein is not None:
        chance = Bounds(found.stein.largest, found.stein.largest)
        given = "Stein's identity", found.stein.ratio, _STEIN
        figures.append(judged(*given, digits=1, bounds=chance, needed=False))
    if found.approximate is not None and found.approximate.bias is not None:
        apart = found.approximate.bias.worst
        figures.append(
            judged("Step and its half", abs(apart.errors), apart.of, digits=1, bounds=STEPS)
        )
    if found.nonfinite:
        note = f"of {found.draws:,} draws; none is good, any is bad"
        figures.append(Figure("Not finite", f"{found.nonfinite:,}", note, "bad"))
    figures.append(Figure("Acceptance", f"{found.acceptance:.2f}", "mean", None))
    return tuple(figures)


def _of_weights(found: Verdict, weights: Weights) -> tuple[Figure, ...]:
    k = Bounds(weights.largest_k, weights.largest_k)
    return (
        Figure("log Z", f"{weights.log_z.value:.3f}", f"± {weights.log_z.error:.2g}", None),
        Figure.judged("Effective draws", *found.ess_bulk, digits=0, bounds=ESS),
        Figure(
            "ESS of the weights",
            f"{weights.effective:,.0f}",
            f"of {len(weights.tilts):,} proposals",
            None,
        ),
        Figure.judged("Pareto k", weights.pareto_k, "", digits=2, bounds=k, needed=False),
    )


def judge(
    quantities: xr.DataTree,
    table: pd.DataFrame,
    *,
    config: Mapping[str, Any] | None = None,
    mixing: Mixing | None = None,
    sides: Sides | None = None,
    climbs: Climbs | None = None,
    stein: SteinCheck | None = None,
    step_bias: StepBias | None = None,
    resumes: bool = False,
) -> Verdict:
    """Judges a run and says what to do about it.

    Args:
        quantities: the result of `scalars`.
        table: the result of `summary`.
        config: the run's settings; `warmup` and `target_accept` make the advice concrete.
        mixing: how the chains mix, with their starts and drifts.
        sides: how the two sides compare, if there are two.
        climbs: what the replicas did, if there are any.
        stein: how far mean and Stein mean differ, if that is known.
        step_bias: how chains at two steps differ, under an approximate kernel.
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
        sides=None if sides is None else sides.rhat,
        stein=None if config.get("approximate") else stein,
        approximate=Approximate(step_bias) if config.get("approximate") else None,
    )
    own = math.nan if mixing is None else mixing.own
    useless = _useless(found, quantities, config)
    if useless is not None:
        return _ruled(found, with_optima([useless], own, config))
    findings = _of_mixing(mixing, sides)
    findings += climbs.findings() if climbs is not None else ()
    findings += _of_energy(found, config)
    findings += _of_agreement(found, quantities, findings, config, resumes)
    if worst(each.severity for each in findings) != "bad" and found.stein is not None:
        findings += broken_identity(found.stein)
    return _ruled(found, with_optima(findings, own, config))


def _ruled(found: Verdict, findings: Sequence[say.Finding]) -> Verdict:
    """The verdict by the rule, with the findings that are as severe as it."""
    of_figures = [figure.state for figure in found.figures]
    always = [] if found.approximate is None else [found.approximate]
    state = worst([*of_figures, *(each.severity for each in (*findings, *always))])
    kept = [each for each in findings if each.severity == state]
    return found._replace(state=state, findings=(*kept, *always))


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
    nothing = Extreme(math.nan, "")
    chains, draws = quantities["posterior/response"].shape
    judged = Verdict(
        state="good",
        findings=(),
        rhat=nothing,
        ess_bulk=weighing.worth,
        ess_tail=weighing.worth,
        bfmi=nothing,
        divergences=0,
        nonfinite=0,
        acceptance=math.nan,
        draws=chains * draws,
        weights=weighing.weights,
    )
    images = "images" in (config or {})
    return _ruled(judged, _of_proposals(weighing, chains, images, resumes))


def _of_proposals(
    weighing: Weighing, chains: int, images: bool, resumes: bool
) -> list[say.Finding]:
    """What the weights speak against, or the number of draws by them."""
    weights, worth = weighing.weights, weighing.worth
    if np.ptp(weights.tilts) == 0:
        return [say.DeadUnit()]
    if weights.pareto_k > weights.largest_k:
        return [HeavyWeights(weights.pareto_k, weights.largest_k, images)]
    if worth.value >= ESS_GOOD:
        return []
    if weights.effective < ENOUGH_WEIGHTS:
        kind = FarTooFewWeights if worth.value < ESS_BAD else FewWeights
        return [kind(len(weights.tilts), weights.effective, ENOUGH_WEIGHTS, images)]
    if worth.value < ESS_BAD:
        return [say.FarTooFewDraws(weighing.draws, None, worth)]
    wanted = 1 / (1 / ESS_GOOD - 1 / weights.effective) / chains
    return [say.TooFewDraws("errors", round_up(wanted), resumes)]


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
    found: Verdict, quantities: xr.DataTree, config: Mapping[str, Any]
) -> say.Finding | None:
    """A finding after which nothing else is worth saying."""
    response = variable(quantities, "posterior/response").values
    accepted = variable(quantities, "sample_stats/acceptance_rate").values.mean(axis=1) > _MOVING
    if found.nonfinite:
        return say.NotFinite(found.nonfinite, found.draws)
    if np.ptp(response) == 0 and found.acceptance > _MOVING:
        return say.DeadUnit()
    still = np.ptp(response, axis=1) == 0
    if stuck := int((still & ~accepted).sum()):
        return say.StuckChains(stuck, len(response), config.get("warmup"))
    return say.DeadChains(int(still.sum()), len(response)) if still.any() else None


def _of_mixing(mixing: Mixing | None, sides: Sides | None) -> list[say.Finding]:
    """What starts, sides and drifts speak against, bad or short."""
    found: list[say.Finding] = []
    if mixing is not None and mixing.near and mixing.end is not None:
        own, others = mixing.end.own, mixing.end.others
        if mixing.state == "bad":
            found.append(say.SeparateSamples(mixing.chains, mixing.mixes_within, own, others))
        else:
            found.append(say.NearStarts(own, others))
    if sides is not None and sides.state == "apart":
        found.append(say.SidesDisagree(sides.rhat))
    elif sides is not None and sides.state == "unclear":
        found.append(say.SidesUnclear())
    for each in mixing.trends if mixing is not None else ():
        if each.state == "bad":
            found.append(say.BurnIn(each.of, *each.halves, each.errors))
            break
        if each.state == "short":
            found.append(say.ChainDrifts(each.of, each.worst.of, each.worst.value))
            break
    return found


def _of_energy(found: Verdict, config: Mapping[str, Any]) -> list[say.Finding]:
    """What divergences and the energy speak against."""
    findings: list[say.Finding] = []
    accept = config.get("target_accept")
    if found.divergences > DIVERGENT_SHARE * found.draws:
        given = found.divergences, found.draws, config.get("warmup"), accept
        findings.append(say.ManyDivergences(*given))
    elif found.divergences:
        findings.append(say.FewDivergences(found.divergences, found.draws, accept))
    if found.bfmi.value < BFMI_GOOD:
        findings.append(say.SlowEnergy())
    return findings


def _of_agreement(
    found: Verdict,
    quantities: xr.DataTree,
    known: Sequence[say.Finding],
    config: Mapping[str, Any],
    resumes: bool,
) -> list[say.Finding]:
    """Whether the chains agree, and how many draws are missing."""
    chains, draws = quantities["posterior/response"].shape
    if any(isinstance(each, say.SeparateSamples) for each in known):
        return []
    if chains_disagree(quantities):
        return [say.ChainsDisagree(config.get("warmup"))]
    ess = min(found.ess_bulk, found.ess_tail, key=lambda each: each.value)
    rhat = found.rhat if RHAT.state(found.rhat.value) == "bad" else None
    few = ess if ess.value < ESS_BAD else None
    if rhat or few or (draws < ESS_DRAWS and found.draws < ESS_BAD):
        return [say.FarTooFewDraws(found.draws, rhat, few)]
    findings: list[say.Finding] = [say.OneChain()] if chains == 1 else []
    return findings + missing_draws(ess, found.rhat.value, (chains, draws), resumes)
