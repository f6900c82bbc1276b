import dataclasses
import re

import numpy as np
import pytest

from ppl_cnn.errors import with_options
from ppl_cnn.inference.diagnostics.stein import stein_check
from ppl_cnn.inference.diagnostics.summary import Extreme, summary
from ppl_cnn.inference.diagnostics.thresholds import ESS_GOOD, RHAT_POOR
from ppl_cnn.inference.diagnostics.verdict import sentences as say
from ppl_cnn.inference.diagnostics.verdict.identity import broken_identity
from ppl_cnn.inference.diagnostics.verdict.rule import RHAT, worst
from ppl_cnn.inference.diagnostics.verdict.verdict import judge


def judged(tree, config=None, **given):
    return judge(tree, summary(tree), config=config, **given)


def test_independent_draws_are_good(quantities):
    found = judged(quantities(draws=1000))
    assert found.state == "good"
    assert 0.99 < found.rhat.value < 1.01
    # The smallest of seven estimates of 4,000.
    assert found.ess_bulk.value == pytest.approx(4000, rel=0.15)
    assert found.ess_tail.value == pytest.approx(4000, rel=0.25)
    # E(e' - e)^2 = 2 Var e.
    assert found.bfmi.value == pytest.approx(2, rel=0.15)
    assert (found.divergences, found.nonfinite, found.draws) == (0, 0, 4000)
    assert found.findings == ()
    assert found.sentence == say.NOTHING_FOUND


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_the_ess_of_an_autoregression(phi, quantities):
    tree = quantities(chains=4, draws=5000, phi=phi)
    table = summary(tree)
    expected = 20_000 * (1 - phi) / (1 + phi)
    # One estimate has an error of some 10 %, the mean of seven less.
    assert table["ess_bulk"].mean() == pytest.approx(expected, rel=0.1)
    found = judged(tree)
    assert found.ess_bulk.value == table["ess_bulk"].min()
    assert found.ess_bulk.of == table["ess_bulk"].idxmin()
    # E-BFMI of an autoregression is 2(1 - phi).
    assert found.bfmi.value == pytest.approx(2 * (1 - phi), rel=0.15)


def test_shifted_chains_disagree(quantities):
    tree = quantities()
    tree["posterior/response"][0] += 4
    found = judged(tree, {"warmup": 100})
    assert found.state == "bad"
    assert found.rhat.of == "response"
    assert found.rhat.value > 1.3
    assert found.findings == (say.ChainsDisagree(warmup=100),)
    assert "`warmup=200`" in found.sentence


def test_few_draws_of_sound_chains_are_not_called_a_disagreement(quantities):
    found = judged(quantities(chains=8, draws=12))
    assert found.rhat.value > RHAT_POOR
    assert found.state == "bad"
    (few,) = found.findings
    assert isinstance(few, say.FarTooFewDraws)
    assert few.rhat == found.rhat
    assert f"{found.rhat.value:.2f}" in found.sentence


def test_effective_draws_of_short_chains_are_not_told(quantities):
    # 32 chains of 9 draws: ArviZ has 616 of 288, whatever they do.
    tree = quantities(chains=32, draws=9)
    table, found = summary(tree), judge(tree, summary(tree).assign(r_hat=1.03))
    assert table[["ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"]].isna().all(axis=None)
    assert table[["mean", "sd", "r_hat"]].notna().all(axis=None)
    assert np.isnan([found.ess_bulk.value, found.ess_tail.value]).all()
    assert found.state == "short"
    (few,) = found.findings
    assert few.missing == "effective"
    longer = summary(quantities(chains=32, draws=10))
    assert longer[["ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"]].notna().all(axis=None)


def test_the_draws_asked_for_would_do(quantities):
    found = judged(quantities(draws=400, phi=0.8))
    assert found.state == "short"
    (few,) = found.findings
    assert few.missing == "errors"
    assert judged(quantities(draws=few.draws, phi=0.8)).ess_bulk.value > ESS_GOOD


def test_no_number_of_draws_is_promised_from_an_ess_below_50(quantities):
    tree = quantities(draws=300)
    found = judge(tree, summary(tree).assign(ess_bulk=5.0, r_hat=1.02))
    assert found.state == "bad"
    assert [type(each) for each in found.findings] == [say.FarTooFewDraws]
    assert "`draws`" in found.sentence
    assert "should be enough" not in found.sentence


def test_the_verdict_is_ordered_by_severity(quantities):
    """No table of figures has a milder verdict than one whose figures are all as good or better."""
    tree = quantities(draws=300)
    table = summary(tree)
    ranks = {"good": 0, "short": 1, "bad": 2}
    grid = [
        (rhat, ess, ranks[judge(tree, table.assign(r_hat=rhat, ess_bulk=ess)).state])
        for rhat in (1.002, 1.03, 1.06, 1.27, 1.67)
        for ess in (2000.0, 380.0, 60.0, 5.0)
    ]
    assert {rank for _, _, rank in grid} == {0, 1, 2}
    for rhat, ess, rank in grid:
        assert all(rank >= r for other, e, r in grid if other <= rhat and e >= ess)


def test_a_verdict_below_good_says_why(quantities):
    """Whatever the figures are: each state has findings of its own severity."""
    tree, rng = quantities(draws=120), np.random.default_rng(0)
    table = summary(tree)
    for _ in range(30):
        rhat, bulk, tail = 1 + rng.exponential(0.03), *np.exp(rng.uniform(1, 8, 2))
        found = judge(tree, table.assign(r_hat=rhat, ess_bulk=bulk, ess_tail=tail))
        assert found.state == worst(figure.state for figure in found.figures)
        assert {each.severity for each in found.findings} <= {found.state}
        assert bool(found.findings) == (found.state != "good")


def test_draws_that_break_steins_identity(quantities):
    tree, rng = quantities(draws=400), np.random.default_rng(0)
    stein = rng.normal(size=(4, 5, 6, 1))
    mean = stein + rng.normal(scale=0.1, size=stein.shape)
    sound, broken = stein_check(mean, stein), stein_check(mean + 3, stein)
    # Student's t for 3 degrees of freedom, and for one.
    assert sound.largest == 13.0
    assert stein_check(mean[:2], stein[:2]).largest == 636.7
    assert judged(tree, stein=sound).state == "good"
    found = judged(tree, stein=broken)
    assert (found.state, found.findings) == ("bad", tuple(broken_identity(broken)))
    assert judged(tree, {"approximate": True}, stein=broken).stein is None
    tree["posterior/response"][0] += 4  # What explains it stands alone.
    assert judged(tree, stein=broken).findings == (say.ChainsDisagree(warmup=None),)


def test_chance_seldom_breaks_steins_identity():
    rng = np.random.default_rng(1)
    for pixels in (1, 60):
        for chains in (2, 4, 8):
            made = [rng.normal(size=(chains, 1, pixels, 1)) for _ in range(1000)]
            checks = [stein_check(each, np.zeros_like(each)) for each in made]
            # A single pixel is judged by a probability of 0.001.
            assert sum(bool(broken_identity(check)) for check in checks) <= 5


def test_a_slow_energy(quantities, autoregressive):
    rng = np.random.default_rng(3)
    found = judged(quantities(draws=5000, energy=autoregressive(rng, 0.95, 4, 5000)))
    assert found.bfmi.value == pytest.approx(0.1, rel=0.3)
    assert found.state == "short"
    assert found.findings == (say.SlowEnergy(),)


@pytest.mark.parametrize(("count", "state"), [(1, "short"), (100, "bad")])
def test_divergences_are_counted(count, state, quantities):
    diverging = np.zeros((4, 500), bool)
    diverging.flat[:count] = True
    found = judged(quantities(diverging=diverging), {"target_accept": 0.8})
    assert found.divergences == count
    assert found.state == state
    (divergences,) = found.findings
    assert (divergences.count, divergences.draws) == (count, 2000)
    assert "`target_accept=0.9`" in found.sentence


def test_one_chain_has_no_r_hat(quantities):
    found = judged(quantities(chains=1, draws=2000))
    assert found.state == "short"
    assert np.isnan(found.rhat.value)
    assert found.ess_bulk.value > 1000
    assert found.findings == (say.OneChain(),)
    assert "`chains=4`" in found.sentence


@pytest.mark.parametrize(
    ("acceptance", "finding"),
    [(0.8, say.DeadUnit()), (0.01, say.StuckChains(count=4, chains=4, warmup=None))],
)
def test_a_constant_response(acceptance, finding, quantities):
    rates = np.full((4, 500), acceptance)
    found = judged(quantities(response=np.full((4, 500), 2.5), acceptance_rate=rates))
    assert found.state == "bad"
    assert found.findings == (finding,)
    # The other quantities are judged all the same.
    assert found.rhat.of != "response"
    assert found.rhat.value < 1.02


def test_a_chain_that_stands_still(quantities):
    tree = quantities()
    tree["posterior/response"][2] = 0.3
    found = judged(tree)  # Its proposals are accepted.
    assert (found.state, found.findings) == ("bad", (say.DeadChains(count=1, chains=4),))
    tree["sample_stats/acceptance_rate"][2] = 0.01
    found = judged(tree, {"warmup": 100})
    assert found.state == "bad"
    assert found.findings == (say.StuckChains(count=1, chains=4, warmup=100),)
    assert "1 of 4 chains" in found.sentence
    assert "`warmup=200`" in found.sentence


def test_everything_constant(quantities):
    zeros = np.zeros((4, 500))
    values = dict.fromkeys(("response", "lp", "energy"), zeros)
    values |= {name: np.zeros((4, 500, 2)) for name in ("projections", "pixels")}
    found = judged(quantities(**values))
    assert found.state == "bad"
    assert np.isnan([found.rhat.value, found.ess_bulk.value, found.bfmi.value]).all()


def test_draws_that_are_not_finite(quantities):
    tree = quantities()
    tree["posterior/response"][1, 100:] = np.nan
    tree["posterior/projections"][1, 90:95, 1] = np.inf
    found = judged(tree)
    assert found.nonfinite == 405
    assert found.state == "bad"
    assert found.findings == (say.NotFinite(count=405, draws=2000),)
    assert "405 of 2,000" in found.sentence


def kinds(cls=say.Finding):
    for kind in cls.__subclasses__():
        yield kind
        yield from kinds(kind)


def made(kind):
    """A finding of that kind, with a number in every field."""
    values = {
        "rhat": Extreme(1.2, "response"),
        "ess": Extreme(5.0, "lp"),
        "strengths": (0.1, 0.2),
        "quantity": "lp",
        "chain": "chain 2",
        "missing": "errors",
        "resumes": True,
        "mixes_within": True,
        "images": False,
        "bias": None,
    }
    fields = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: values.get(name, 3) for name in fields})


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_a_sentence_is_whole_and_its_arguments_have_options(kind):
    finding = made(kind)
    assert finding.severity in ("short", "bad")
    said = finding.sentence
    assert said[0].isupper() or said[0].isdigit()
    assert said.endswith(".")
    assert "  " not in said
    arguments = re.findall(r"`(\w+)", said)
    assert set(arguments) <= {
        *("draws", "thin", "warmup", "chains", "target_accept", "temperature", "kernel", "start"),
        *("unit", "reference"),
    }
    assert said.count("`") == 2 * len(arguments)
    assert "`" not in with_options(said)


def test_a_verdict_prints_its_sentence_and_numbers(quantities):
    found = judged(quantities(draws=400, phi=0.8))
    said = str(found).splitlines()
    assert said[0] == f"{found.headline}. {found.sentence}"
    assert f"{found.rhat.value:.3f}" in said[2]
    assert RHAT.state(found.rhat.value) in said[2]
    assert found.rhat.of in said[2]
    assert f"{found.ess_bulk.value:,.0f}" in said[3]
