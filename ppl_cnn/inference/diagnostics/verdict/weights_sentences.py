"""What can speak against resampled draws, and the sentences that say so."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ppl_cnn.inference.diagnostics.verdict.sentences import Finding

WEIGHTS_SUFFICE = (
    "The draws are independent, and no few weights decide them: means, quantiles and their "
    "standard errors are reliable."
)


def _other_weights(images: bool) -> str:
    if images:
        return "Give a `reference` with more images, or raise the `temperature`."
    return (
        "Use more draws of the reference with `kernel=resample:N`, raise the `temperature`, or use "
        "`kernel=split`."
    )


@dataclass(frozen=True)
class HeavyWeights(Finding):
    """The tail of the weights is so heavy that the largest ones are yet to come."""

    severity = "bad"
    pareto_k: float
    largest: float
    """The largest Pareto k with which weights can be relied on."""
    images: bool
    """Whether the proposals are a data set's images."""

    def _said(self) -> str:
        return (
            f"The largest weights are yet to come (Pareto k is {self.pareto_k:.2f}, at most "
            f"{self.largest:.2f} is reliable): neither log Z nor these draws would come out alike "
            f"with other draws of the reference. {_other_weights(self.images)}"
        )


@dataclass(frozen=True)
class FewWeights(Finding):
    """The weights are effectively too few, however many draws are made from them."""

    severity: ClassVar[Literal["short", "bad"]] = "short"
    proposals: int
    effective: float
    wanted: int
    images: bool
    """Whether the proposals are a data set's images."""

    def _said(self) -> str:
        return (
            f"The {self.proposals:,} draws of the reference are worth {self.effective:,.0f} of the "
            f"density by their weights, and {self.wanted} are needed for reliable error estimates. "
            f"{_other_weights(self.images)}"
        )


@dataclass(frozen=True)
class FarTooFewWeights(FewWeights):
    """The weights are effectively so few that nothing can be relied on."""

    severity = "bad"
