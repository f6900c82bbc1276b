import math

import pytest

from ppl_cnn.inference.diagnostics.summary import Extreme
from ppl_cnn.inference.diagnostics.verdict import sentences as say
from ppl_cnn.inference.diagnostics.verdict.near_optima import NearOptima, with_optima

SEPARATE = say.SeparateSamples(2, mixes_within=False, own=0.97, others=0.1)
FEW = say.FarTooFewDraws(8, None, None)
DISAGREE, DRIFT = say.ChainsDisagree(3), say.BurnIn("response", -8.0, -6.0, 9.0)
STUCK = say.StuckChains(1, 2, 3)


@pytest.mark.parametrize(
    ("findings", "rest"),
    [
        ([SEPARATE, FEW], []),
        ([FEW], []),
        ([DRIFT, DISAGREE], [DRIFT]),
        ([STUCK], [STUCK]),
    ],
)
def test_chains_near_their_optima_are_called_so(findings, rest):
    for start in ("rto", "rto:100"):
        assert with_optima(findings, 0.97, {"init": start}) == [NearOptima(0.97), *rest]
    said = NearOptima(0.97).sentence
    assert "0.97" in said
    assert "optima with the reference's noise about them, not for draws of the density" in said


@pytest.mark.parametrize(
    ("own", "start", "findings"),
    [
        (0.97, "prior", [FEW]),
        (0.97, "two-sided:rto", [FEW]),
        (0.6, "rto", [FEW, SEPARATE]),
        (math.nan, "rto", [FEW]),
        # A density about one optimum that the chains sample well.
        (0.97, "rto", []),
        (0.97, "rto", [say.TooFewDraws("errors", 500, resumes=True)]),
        (0.97, "rto", [say.SidesDisagree(Extreme(2.0, "response"))]),
    ],
)
def test_other_chains_are_not(own, start, findings):
    assert with_optima(findings, own, {"init": start}) == findings
