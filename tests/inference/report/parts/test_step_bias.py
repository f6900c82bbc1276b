import math

from ppl_cnn.inference.diagnostics.mixing.step_bias import Halved, StepBias
from ppl_cnn.inference.diagnostics.verdict.approximate import Approximate
from ppl_cnn.inference.report.parts.step_bias import step_bias_html

APART = Halved("response", 2.0, 0.3, 1.0, 0.4, 5.0)
BIAS = StepBias((0.4, 0.2), (Halved("lp", 1.0, 0.1, 1.0, 0.1, 1.0), APART))


def test_the_table_has_both_means_and_their_difference(parsed):
    page = parsed(step_bias_html(BIAS, "h3"))
    assert len(page.all("tr")) == 3
    for said in ("0.4 radians", "mean at 0.2", "2 ± 0.3", "1 ± 0.4", "+2.0", "+0.2"):
        assert said in page.text


def test_a_difference_is_told_in_errors_and_sds():
    assert (BIAS.worst, BIAS.worst.errors, BIAS.seen) == (APART, 2.0, False)
    assert "agree, up to 2.0 standard errors (response)" in Approximate(BIAS).sentence
    far = BIAS._replace(quantities=(APART._replace(whole=4.0),))
    assert far.seen
    assert "6.0 standard errors (response), there 0.6 of the sd" in Approximate(far).sentence
    unknown = BIAS._replace(quantities=(APART._replace(whole_error=math.nan),))
    assert not unknown.seen
    assert "too few draws" in Approximate(unknown).sentence
