import numpy as np
import pandas as pd
import pytest

from ppl_cnn.inference.diagnostics.mixing.closeness import Closeness
from ppl_cnn.inference.diagnostics.mixing.mixing import Mixing
from ppl_cnn.inference.diagnostics.mixing.trend import Trend
from ppl_cnn.inference.diagnostics.mixing.two_sides import Sides
from ppl_cnn.inference.diagnostics.replicas import Climbs
from ppl_cnn.inference.diagnostics.summary import Extreme
from ppl_cnn.inference.report.parts.tables import climbs_html, mixing_html, sides_html, summary_html


def mixing(chains=4, across=1.02, end=None):
    worst = Extreme(1.5, "chain 2")
    trends = (Trend("lp", (0.0, 1.0), 2.5, False, worst, False),)
    within = Extreme(1.03, "lp of chain 1")
    return Mixing(chains, within, True, Extreme(across, "lp"), False, None, end, trends)


def sides(rhat, apart=False):
    return Sides(Extreme(rhat, "response"), apart, (1.0, 2.0), (0.1, 0.2), (0.01, -0.02))


def test_mixing_has_a_row_for_what_is_known(parsed):
    page = parsed(mixing_html(mixing(), None, "h3"))
    assert len(page.all("tr")) == 3
    assert "<h3>Within and across starts</h3>" in page.source
    assert "1.030 (lp of chain 1)" in page.text
    assert "+2.5 over all, +1.5 in chain 2" in page.text
    near = parsed(mixing_html(mixing(end=Closeness(0.5, 0.1, True)), sides(1.2), "h2"))
    assert len(near.all("tr")) == 5
    assert "0.50 with their own, 0.10 with others'" in near.text
    assert "1.200 (response)" in near.text


def test_chains_that_hardly_moved_are_named(parsed):
    page = parsed(mixing_html(mixing()._replace(unmoved=(1, 3)), None, "h2"))
    assert "Start, hardly moved" in page.text
    assert "chain 1, 3" in page.text


def test_a_single_chain_has_no_other_to_compare(parsed):
    page = parsed(mixing_html(mixing(chains=1, across=np.nan), None, "h2"))
    assert "R-hat over chains" not in page.text


@pytest.mark.parametrize(
    ("rhat", "apart", "said"),
    [(1.01, False, "agree"), (1.3, True, "disagree"), (1.3, False, "too few draws to tell")],
)
def test_two_sides_say_whether_they_agree(parsed, rhat, apart, said):
    page = parsed(sides_html(sides(rhat, apart), "h2"))
    assert said in page.text
    assert f"{rhat:.3f} (response)" in page.text
    assert "1 ± 0.1" in page.text


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("rto", "from optima"),
        ("image", "from photographs"),
        ("images", "from given images"),
        ("something", "from something"),
    ],
)
def test_two_sides_say_where_the_chains_started(parsed, start, said):
    assert said in parsed(sides_html(sides(1.0), "h2", start)).text


def test_a_ladder_has_a_row_for_each_rung(parsed):
    rungs, pairs = np.linspace(0, 1, 7), np.full(6, 0.4)
    climbs = Climbs(rungs, 10 * rungs, 0.5 + rungs, 1 + rungs, pairs, np.asarray([11, 7]))
    page = parsed(climbs_html(climbs, "A finding.", "h2"))
    assert len(page.all("tr")) == 8
    assert "A finding." in page.text
    assert "11, 7" in page.text
    assert page.text.count("40%") == 6


def test_the_summary_has_a_row_for_each_quantity(parsed):
    columns = {"mean": 1234.5, "sd": 2.0, "ess_bulk": 400.4, "ess_tail": 300.0, "r_hat": 1.0123}
    table = pd.DataFrame(columns, index=["response", "<b>"])
    page = parsed(summary_html(table))
    assert len(page.all("tr")) == 3
    assert "1,234.50" in page.text
    assert "1.012" in page.text
    assert "<b>" in page.text
