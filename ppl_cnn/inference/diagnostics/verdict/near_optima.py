"""The finding that chains are still at the optima where they started, and what it explains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ppl_cnn.inference.diagnostics.thresholds import AT_OPTIMUM
from ppl_cnn.inference.diagnostics.verdict.sentences import (
    ChainsDisagree,
    FarTooFewDraws,
    Finding,
    SeparateSamples,
    StuckChains,
)

_FOLLOWS = (ChainsDisagree, FarTooFewDraws, SeparateSamples)
"""What is said of such chains if their starts are not known to be optima."""


@dataclass(frozen=True)
class NearOptima(Finding):
    """Chains started at optima, and nothing shows that they have left them."""

    severity = "bad"
    own: float
    """Correlation of the last draws with each chain's own start."""

    def _said(self) -> str:
        return (
            f"Each chain is still near the optimum where it started (correlation {self.own:.2f}): "
            f"take these for optima with the reference's noise about them, not for draws of the "
            f"density. For draws, raise the `temperature` and draw more."
        )


def with_optima(
    findings: Sequence[Finding], own: float, config: Mapping[str, Any]
) -> list[Finding]:
    """The findings, with `NearOptima` in place of those that it explains.

    Args:
        findings: what speaks against the draws.
        own: correlation of the last draws with each chain's own start; NaN if it isn't known.
        config: the run's settings; `init` is where its chains started.
    """
    started = str(config.get("init", "")).partition(":")[0]
    speaks = any(isinstance(each, (*_FOLLOWS, StuckChains)) for each in findings)
    if started != "rto" or not own > AT_OPTIMUM or not speaks:
        return list(findings)
    rest = (each for each in findings if not isinstance(each, _FOLLOWS))
    return [NearOptima(own), *rest]
