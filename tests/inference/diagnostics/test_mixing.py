import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import ppl_cnn
from ppl_cnn.inference.diagnostics.mixing import Mixing, closeness, low_pass, mixing_html, trend
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.summary import Extreme, scalars
from ppl_cnn.inference.report.page import build_report
from ppl_cnn.inference.report.section import Section
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts import Starts

LIMIT = 2**20


def autoregressive(rng, phi, chains, draws):
    """Stationary, of unit variance, autocorrelation phi^lag."""
    values = rng.normal(size=(chains, draws))
    for step in range(1, draws):
        values[:, step] = phi * values[:, step - 1] + math.sqrt(1 - phi**2) * values[:, step]
    return values


def tree_of(images, starts):
    dims = ("row", "col", "channel")
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"image": (("chain", "draw", *dims), images)}),
            "start": xr.Dataset({"image": (("chain", *dims), starts)}),
        }
    )


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Correlation with the start


def test_correlations_are_those_of_the_images():
    """x = r s + sqrt(1 - r^2) noise has the correlation r with s."""
    starts = noise((6, 16, 16, 3))
    images = 0.6 * starts[:, None] + 0.8 * noise((6, 10, 16, 16, 3), 1)
    found = closeness(tree_of(images, starts), np.arange(10), two_sided=False)
    # Means over 6 chains, 10 draws and 768 pixels.
    assert found.own == pytest.approx(0.6, abs=0.02)
    assert found.others == pytest.approx(0, abs=0.03)
    assert found.beyond_chance


def test_what_all_chains_have_in_common_is_no_memory():
    common = 3 * noise((1, 1, 12, 12, 1))
    starts = common[:, 0] + noise((6, 12, 12, 1), 1)
    images = common + noise((6, 10, 12, 12, 1), 2)
    found = closeness(tree_of(images, starts), np.arange(10), two_sided=False)
    assert found.own > 0.8
    assert found.excess == pytest.approx(0, abs=0.02)
    assert not found.beyond_chance


def test_chance_is_called_memory_as_rarely_as_it_should():
    """Of independent images, each chain's drawn once: 1 in 100, of 400 runs."""
    rng = np.random.default_rng(0)
    for shape in ((3, 3, 1), (16, 16, 1)):
        called = 0
        for _ in range(400):
            starts, images = rng.normal(size=(8, *shape)), rng.normal(size=(8, 1, *shape))
            tree = tree_of(images.repeat(3, axis=1), starts)
            called += closeness(tree, np.arange(3), two_sided=False).beyond_chance
        assert called <= 4 + 4 * 2


def test_sides_are_compared_with_themselves():
    """That one side's images are alike says nothing of the chains' own starts."""
    pattern = np.zeros((8, 1, 12, 12, 1))
    pattern[4:] = 3 * noise((1, 1, 12, 12, 1))
    starts = pattern[:, 0] + noise((8, 12, 12, 1), 1)
    images = pattern + noise((8, 5, 12, 12, 1), 2)
    found = closeness(tree_of(images, starts), np.arange(5), two_sided=True)
    assert found.excess == pytest.approx(0, abs=0.03)


def test_starts_that_are_not_told_apart_tell_nothing():
    images = noise((4, 5, 6, 6, 1))
    same = np.repeat(noise((1, 6, 6, 1), 1), 4, axis=0)
    assert closeness(tree_of(images, same), np.arange(5), two_sided=False) is None
    assert closeness(tree_of(images, 0 * same), np.arange(5), two_sided=False) is None
    unknown = tree_of(images, same)
    del unknown["start"]
    assert closeness(unknown, np.arange(5), two_sided=False) is None


def test_low_pass_images_are_means_of_blocks():
    images = noise((2, 32, 7, 3))
    found = low_pass(images)
    assert found.shape == (2, 16, 7, 3)
    np.testing.assert_allclose(found[:, 3], images[:, 6:8].mean(axis=1), rtol=1e-5)
    uneven = low_pass(noise((21, 21, 1)))
    assert uneven.shape == (16, 16, 1)


# Burn-in


def test_a_drift_is_told_in_its_errors():
    values = noise((4, 1000))
    values[:, 500:] += 0.3
    found = trend("lp", values)
    assert found.drifts
    assert found.halves == pytest.approx((0, 0.3), abs=0.1)
    # The error is that of two means of 2,000 draws, and itself 1.
    assert found.errors == pytest.approx(0.3 / math.sqrt(2 / 2000), abs=3)


def test_a_drift_of_one_chain_is_told():
    values = noise((8, 400))
    values[5] += np.linspace(0, 2, 400)
    found = trend("response", values)
    assert found.worst_drifts
    assert found.worst.of == "chain 5"


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_stationary_chains_rarely_drift(phi):
    rng = np.random.default_rng(1)
    found = [trend("lp", autoregressive(rng, phi, 4, 300)) for _ in range(60)]
    scores = np.asarray([each.errors for each in found])
    assert sum(each.drifts or each.worst_drifts for each in found) <= 1
    assert np.std(scores) == pytest.approx(1, abs=0.35)


def test_halves_too_short_for_effective_draws_show_no_drift():
    rng = np.random.default_rng(1)
    found = [trend("lp", autoregressive(rng, 0.9, 4, 18)) for _ in range(60)]
    assert not any(each.drifts or each.worst_drifts for each in found)


# Verdicts of real runs


def section_of(folder, density, text, draws=300, kernel="split", chains=8):
    sampling = Sampling(kernel, chains=chains, warmup=200, init=Starts(text).text)
    sample_to(folder, [density], sampling, draws, starts=Starts(text), progress=False)
    return Section.of(folder, LIMIT)


def two_hills():
    """A mixture of normals about two images, at right angles, 5 deviations from the mean."""
    one, other = jnp.asarray(np.linalg.qr(noise((16, 2)))[0].T.reshape(2, 4, 4, 1))

    def hills(x):
        return jnp.logaddexp(*(-8 * (jnp.sum(x * hill) - 5) ** 2 for hill in (one, other)))

    return ppl_cnn.TiltedDensity(ppl_cnn.ScoreFunction(hills, (4, 4, 1)), ppl_cnn.WhiteNoise(1.0))


def test_chains_that_stay_where_they_started_are_separate_samples(tmp_path):
    section = section_of(tmp_path, two_hills(), "rto")
    assert section.verdict.state == "bad"
    assert section.verdict.sentence.startswith(
        "Within each chain the draws mix, but the chains are still near their starts (correlation "
    )
    assert "8 separate samples, not the density" in section.verdict.sentence
    assert "The chains disagree" not in section.verdict.sentence
    assert "Within and across starts" in section.mixing


@pytest.mark.long
def test_chains_that_have_mixed_are_not_accused(tmp_path):
    """At T = 1, from draws of the reference and two-sided."""
    unit = ppl_cnn.load("alexnet-fashion").unit("conv2:3")
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0))
    for text in ("prior", "two-sided:rto"):
        section = section_of(tmp_path / text, density, text, draws=400)
        assert section.verdict.state == "good", section.verdict.sentence
        assert "Correlation of the last draws with starts" in section.mixing


def test_sides_that_differ_are_in_the_verdict(tmp_path, write_run):
    response = noise((4, 200)) + np.asarray([0, 0, 1, 1])[:, None]
    image = noise((4, 200, 5, 5, 1), 1)
    folder = write_run(tmp_path, image, config={"init": "two-sided"}, response=response)
    verdict = Section.of(folder, LIMIT).verdict
    assert verdict.state == "bad"
    assert "The two sides haven't come to the same: R-hat of response" in verdict.sentence


def test_burn_in_is_in_the_verdict(tmp_path, write_run):
    response = noise((4, 200)) + np.linspace(0, 1, 200, dtype=np.float32)
    section = Section.of(write_run(tmp_path, noise((4, 200, 5, 5, 1), 1), response=response), LIMIT)
    assert section.verdict.state == "bad"
    assert "Burn-in goes on: the mean of response rises" in section.verdict.sentence


def test_a_run_from_before_starts_were_stored_has_a_page(tmp_path, write_run):
    folder = write_run(tmp_path, noise((2, 40, 5, 5, 1)))
    page = build_report(folder).read_text()
    assert "Within and across starts" in page
    assert "with starts" not in page
    assert json.loads((folder / "run.json").read_text())["config"]["warmup"] == 100


def test_one_chain_has_no_other_to_compare(tmp_path, write_run):
    folder = write_run(tmp_path, noise((1, 40, 5, 5, 1)))
    tree = read(folder)
    quantities = scalars(tree)
    found = Mixing.of(tree, quantities, Extreme(math.nan, ""), None)
    assert (found.end, found.disagree, found.near) == (None, False, False)
    assert "over chains" not in mixing_html(found, "h2")
