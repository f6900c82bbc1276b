"""How many draws a run lacks, once its draws tell that."""

import math
from typing import Literal

import numpy as np

from ppl_cnn.inference.diagnostics.summary import Extreme
from ppl_cnn.inference.diagnostics.thresholds import ESS_DRAWS, ESS_GOOD, RHAT_GOOD
from ppl_cnn.inference.diagnostics.verdict.sentences import Finding, TooFewDraws


def missing_draws(
    ess: Extreme, rhat: float, shape: tuple[int, int], resumes: bool
) -> list[Finding]:
    """The finding that draws are missing, if any are.

    Args:
        ess: the smallest, over all chains.
        rhat: the largest.
        shape: the numbers of chains and of draws per chain.
        resumes: whether a run with more draws resumes from these.
    """
    chains, draws = shape
    unknown = draws < ESS_DRAWS
    if not (unknown or ess.value < ESS_GOOD or rhat > RHAT_GOOD):
        return []
    # R-hat^2 - 1 falls as 1/draws once the chains mix, and the ESS grows with them.
    excess = (rhat**2 - 1) / (RHAT_GOOD**2 - 1)
    factor = np.nanmax([1.5, ESS_GOOD / (chains * draws if unknown else ess.value), excess])
    missing: Literal["effective", "errors", "agreement"] = "agreement"
    if unknown:
        missing = "effective"
    elif ess.value < ESS_GOOD:
        missing = "errors"
    return [TooFewDraws(missing, round_up(draws * factor), resumes)]


def round_up(number: float) -> int:
    """The number of draws, rounded up to a multiple of 50, or of 500 from 1,000 on, and so on."""
    unit = 5 * int(10 ** max(1, math.floor(math.log10(number)) - 1))
    return math.ceil(number / unit) * unit
