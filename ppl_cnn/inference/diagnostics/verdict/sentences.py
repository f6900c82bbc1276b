"""What can speak against draws of chains, and the sentences that say so.

A finding holds the numbers of its sentence. Advice names arguments in backticks, alone (`warmup`)
or with a value (`warmup=400`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from ppl_cnn.inference.diagnostics.summary import Extreme

NOTHING_FOUND = (
    "The chains agree and there are enough draws: means, quantiles and their standard errors are "
    "reliable."
)


class Finding(ABC):
    """Something that speaks against a run.

    Subclasses are frozen dataclasses with the numbers of their sentence.
    """

    severity: ClassVar[Literal["short", "bad"]]
    """`bad` if the draws must not be used, `short` if they lack something."""

    @property
    def sentence(self) -> str:
        """What was found and what to do about it, in one or two short sentences."""
        return self._said()

    @abstractmethod
    def _said(self) -> str:
        """The sentence itself."""


def _counted(count: int, every: int, things: str) -> str:
    return f"{count:,} of {every:,} {things} {'is' if count == 1 else 'are'}"


def _longer(warmup: int | None) -> str:
    return f"`warmup={2 * warmup}`" if warmup else "a longer `warmup`"


def _smaller_steps(target_accept: float | None) -> str:
    if target_accept is None:
        return "a larger `target_accept`"
    return f"`target_accept={1 - (1 - target_accept) / 2:g}`"


# Findings after which nothing else is worth saying


@dataclass(frozen=True)
class NotFinite(Finding):
    """Some draws are NaN or infinite."""

    severity = "bad"
    count: int
    draws: int

    def _said(self) -> str:
        return (
            f"{_counted(self.count, self.draws, 'draws')} not finite, because the response "
            f"overflows. Raise the `temperature`, or check the network's weights and preprocessing."
        )


@dataclass(frozen=True)
class DeadUnit(Finding):
    """The response is the same in every draw although proposals are accepted."""

    severity = "bad"

    def _said(self) -> str:
        return (
            "The response is the same in every draw: the unit is dead on these images, and its "
            "density is the reference. Choose another `unit`, or a `reference` of more contrast."
        )


@dataclass(frozen=True)
class StuckChains(Finding):
    """Chains whose proposals are nearly all rejected."""

    severity = "bad"
    count: int
    chains: int
    warmup: int | None

    def _said(self) -> str:
        return (
            f"{_counted(self.count, self.chains, 'chains')} standing still: nearly every proposal "
            f"was rejected, so the step size is too large. Adapt it with {_longer(self.warmup)}."
        )


@dataclass(frozen=True)
class DeadChains(Finding):
    """Chains whose response is the same in every draw although proposals are accepted."""

    severity = "bad"
    count: int
    chains: int

    def _said(self) -> str:
        return (
            f"In {self.count} of {self.chains} chains the response is the same in every draw: they "
            f"are where the unit is dead and stay there, while others aren't. Raise the "
            f"`temperature`, or use `kernel=tempered`, whose replicas climb from the reference."
        )


# Reasons not to use the draws


@dataclass(frozen=True)
class SeparateSamples(Finding):
    """Chains disagree because each is still near its start."""

    severity = "bad"
    chains: int
    mixes_within: bool
    own: float
    """Correlation of the last draws with each chain's own start."""
    others: float
    """Correlation of the last draws with other chains' starts."""

    def _said(self) -> str:
        within = "mixes within itself" if self.mixes_within else "doesn't even mix within itself"
        return (
            f"Each chain {within} but is still near its start (correlation {self.own:z.2f} with "
            f"its own start, {self.others:z.2f} with others'): these are {self.chains} separate "
            f"samples, not draws of one density. Raise the `temperature`, or use "
            f"`kernel=tempered`, whose replicas climb from the reference."
        )


@dataclass(frozen=True)
class SidesDisagree(Finding):
    """Chains from draws of the reference and those from elsewhere differ by more than chance."""

    severity = "bad"
    rhat: Extreme

    def _said(self) -> str:
        return (
            f"The two sides disagree: R-hat of {self.rhat.of} between them is "
            f"{self.rhat.value:.2f}. Draw more, or raise the `temperature`."
        )


@dataclass(frozen=True)
class SidesUnclear(Finding):
    """The two sides differ, but no more than chance."""

    severity = "bad"

    def _said(self) -> str:
        return "There are too few draws to tell whether the two sides agree. Draw more."


@dataclass(frozen=True)
class BurnIn(Finding):
    """The mean of a quantity drifts over all chains."""

    severity = "bad"
    quantity: str
    first: float
    """Mean over the first half of the draws."""
    second: float
    """Mean over the second half of the draws."""
    errors: float
    """Their difference in Monte Carlo errors."""

    def _said(self) -> str:
        moves = "rises" if self.second > self.first else "falls"
        return (
            f"Burn-in is not over: the mean of {self.quantity} {moves} from {self.first:,.4g} in "
            f"the first half of the draws to {self.second:,.4g} in the second, by "
            f"{abs(self.errors):.1f} Monte Carlo errors. Start a new run with a longer `warmup`, "
            f"or from these draws with `start=run:FOLDER`."
        )


@dataclass(frozen=True)
class ChainsDisagree(Finding):
    """Chains differ by more than chance, and nothing else found explains it."""

    severity = "bad"
    warmup: int | None

    def _said(self) -> str:
        return (
            f"The chains disagree: they are still in burn-in, or in different modes of the "
            f"density. Run again with {_longer(self.warmup)} and more `draws`; if they still "
            f"disagree, look at each chain by itself, or raise the `temperature`."
        )


@dataclass(frozen=True)
class FarTooFewDraws(Finding):
    """R-hat or ESS is bad, and no more than chance sets the chains apart."""

    severity = "bad"
    draws: int
    """Draws over all chains."""
    rhat: Extreme | None
    """The largest R-hat; None if it isn't bad."""
    ess: Extreme | None
    """The smallest ESS; None if it isn't bad, or can't be told."""

    def _said(self) -> str:
        found = []
        if self.ess is not None:
            found.append(f"they are worth {self.ess.value:,.0f} independent ones ({self.ess.of})")
        if self.rhat is not None:
            found.append(f"R-hat of {self.rhat.of} is {self.rhat.value:.2f}")
        said = ", and ".join(found) or f"there are only {self.draws}"
        return (
            f"The draws are far too few to rely on: {said}. Give ten times the `draws`, with more "
            f"`thin` to keep the store small, and look again: from so few it can't be told how "
            f"many are needed."
        )


@dataclass(frozen=True)
class ManyDivergences(Finding):
    """A large share of the draws had a divergence."""

    severity = "bad"
    count: int
    draws: int
    warmup: int | None
    target_accept: float | None

    def _said(self) -> str:
        return (
            f"{self.count:,} of {self.draws:,} draws had a divergence, so parts of the density are "
            f"missing. Use smaller steps with {_smaller_steps(self.target_accept)}, or "
            f"{_longer(self.warmup)}."
        )


# What sound draws lack


@dataclass(frozen=True)
class NearStarts(Finding):
    """Chains agree but are still near their starts."""

    severity = "short"
    own: float
    """Correlation of the last draws with each chain's own start."""
    others: float
    """Correlation of the last draws with other chains' starts."""

    def _said(self) -> str:
        return (
            f"The chains are still near their starts (correlation {self.own:z.2f} with their own "
            f"start, {self.others:z.2f} with others'). Draw more."
        )


@dataclass(frozen=True)
class ChainDrifts(Finding):
    """The mean of a quantity drifts in one chain."""

    severity = "short"
    quantity: str
    chain: str
    errors: float
    """The change in Monte Carlo errors."""

    def _said(self) -> str:
        return (
            f"The mean of {self.quantity} drifts in {self.chain}, by {abs(self.errors):.1f} Monte "
            f"Carlo errors from the first half of the draws to the second. Draw more and see "
            f"whether the drift ends."
        )


@dataclass(frozen=True)
class RareSwaps(Finding):
    """Two neighbouring rungs of a tempered run hardly ever swap their replicas."""

    severity = "short"
    strengths: tuple[float, float]
    share: float
    """Mean acceptance probability of their swap."""
    rungs: int
    """How many rungs the ladder has above the reference."""

    def _said(self) -> str:
        one, other = self.strengths
        return (
            f"The replicas at strengths {one:.3g} and {other:.3g} hardly ever swap "
            f"({self.share:.0%}). Use {2 * self.rungs} rungs, or a longer `warmup`."
        )


@dataclass(frozen=True)
class NoClimbs(Finding):
    """Chains of a tempered run that no replica from the reference has reached."""

    severity = "short"
    count: int
    chains: int

    def _said(self) -> str:
        return (
            f"In {self.count} of {self.chains} chains no replica has climbed from the reference to "
            f"the density, so these chains know only what is near their starts. Draw more, or use "
            f"more rungs."
        )


@dataclass(frozen=True)
class FewDivergences(Finding):
    """A small share of the draws had a divergence."""

    severity = "short"
    count: int
    draws: int
    target_accept: float | None

    def _said(self) -> str:
        return (
            f"{self.count:,} of {self.draws:,} draws had a divergence. Use smaller steps with "
            f"{_smaller_steps(self.target_accept)} and see whether the results stay the same."
        )


@dataclass(frozen=True)
class SlowEnergy(Finding):
    """E-BFMI is low: the energy changes slowly from draw to draw."""

    severity = "short"

    def _said(self) -> str:
        return (
            "The energy changes slowly from draw to draw, so the tails of the density may be "
            "missing. Draw more, with a larger `thin` to keep the store small."
        )


@dataclass(frozen=True)
class OneChain(Finding):
    """There is a single chain."""

    severity = "short"

    def _said(self) -> str:
        return (
            "A single chain can't show that it has reached its density. Run at least four "
            "(`chains=4`) and see whether they agree."
        )


@dataclass(frozen=True)
class TooFewDraws(Finding):
    """ESS is low or unknown, or R-hat is above what is good."""

    severity = "short"
    missing: Literal["effective", "errors", "agreement"]
    """What can't be told: how many draws are effective, their errors, or whether chains agree."""
    draws: int
    """Draws per chain that should be enough."""
    resumes: bool
    """Whether a run with more draws resumes from the stored ones."""

    def _said(self) -> str:
        what = {
            "effective": "to tell how many of them are effective",
            "errors": "for reliable error estimates",
            "agreement": "to see whether the chains agree",
        }[self.missing]
        advice = f"A run with `draws={self.draws}`"
        if self.resumes:
            advice = f"The same run with `draws={self.draws}` resumes from here and"
        return f"There are too few draws {what}. {advice} should be enough."
