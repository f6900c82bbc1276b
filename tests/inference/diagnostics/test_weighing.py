"""The diagnosis of resampled draws: their weights decide, not R-hat."""

import math

import numpy as np
import pytest
import xarray as xr

import ppl_cnn
from ppl_cnn.inference.diagnostics.verdict import sentences as say
from ppl_cnn.inference.diagnostics.verdict.weights_sentences import FewWeights, HeavyWeights
from ppl_cnn.inference.importance import Weights

SHAPE = (3, 4, 1)


def resampled(tilts, draws=200, rows=4, labels=None, config=None):
    """A tree as `ppl_cnn.draw` returns it, of proposals that are noise."""
    random = np.random.default_rng(0)
    weights = Weights(np.asarray(tilts, np.float32))
    drawn = weights.resampled(random.random((rows, draws)))
    image = random.normal(size=(len(tilts), *SHAPE)).astype(np.float32)
    place = ("row", "col", "channel")
    own = {"tilt": ("proposal", weights.tilts)}
    if labels is not None:
        own["label"] = ("proposal", np.asarray(labels, np.int32))
    heaviest = weights.heaviest(5)
    axes = {name: np.arange(n) for name, n in zip(place, SHAPE, strict=True)}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"config": config or {}, "labels": ["shoe", "bag"]}),
            "posterior": xr.Dataset(
                {
                    "image": (("chain", "draw", *place), image[drawn]),
                    "response": (("chain", "draw"), weights.tilts[drawn]),
                },
                {"chain": np.arange(rows), "draw": np.arange(draws), **axes},
            ),
            "sample_stats": xr.Dataset({"proposal": (("chain", "draw"), drawn)}),
            "weights": xr.Dataset(own),
            "heaviest": xr.Dataset(
                {"image": (("rank", *place), image[heaviest]), "proposal": ("rank", heaviest)}
            ),
            "reference": xr.Dataset({"image": (("sample", *place), image[:7])}),
        }
    )


def kinds(diagnosis):
    return [type(each) for each in diagnosis.verdict.findings]


def normal(count, sd=0.7):
    return np.random.default_rng(3).normal(0, sd, count)


def test_many_weights_and_draws_are_good():
    found = ppl_cnn.diagnose(resampled(normal(4000)))
    assert found.verdict.state == "good"
    assert found.mixing is None
    assert found.maps is None
    weights = found.weighing.weights
    assert found.verdict.ess_bulk.value == pytest.approx(weights.worth(800))
    assert math.isnan(found.verdict.rhat.value)
    row = found.summary.loc["response"]
    assert row["mcse_mean"] == pytest.approx(row["sd"] / math.sqrt(weights.worth(800)))
    said = str(found)
    assert "log Z" in said
    assert "R-hat" not in said
    assert "chains agree" not in said


def test_the_weights_limit_the_draws():
    """Rows of one pool agree, whatever it has missed; the verdict must not count that as mixing."""
    found = ppl_cnn.diagnose(resampled(normal(500, 1.0), draws=2000))
    assert found.verdict.state == "short"
    assert kinds(found) == [FewWeights]
    assert found.verdict.ess_bulk.value < found.weighing.weights.effective < 300
    assert "resample:N" in found.verdict.sentence
    images = ppl_cnn.diagnose(resampled(normal(500, 1.0), config={"images": "a set, 500 images"}))
    assert "more images" in images.verdict.sentence
    assert "resample:N" not in images.verdict.sentence


def test_too_few_draws_are_told_how_many_are_enough():
    found = ppl_cnn.diagnose(resampled(normal(4000), draws=50))
    (finding,) = found.verdict.findings
    assert isinstance(finding, say.TooFewDraws)
    assert found.weighing.weights.worth(4 * finding.draws) >= 400


def test_heavy_weights_are_bad():
    tilts = -1.5 * np.log(np.random.default_rng(2).random(5000))
    found = ppl_cnn.diagnose(resampled(tilts))
    assert found.verdict.state == "bad"
    assert kinds(found) == [HeavyWeights]


def test_a_dead_unit_is_named():
    tree = resampled(np.zeros(300))
    assert kinds(ppl_cnn.diagnose(tree)) == [say.DeadUnit]


def test_labels_have_their_shares_of_the_weight():
    labels = np.arange(1000) % 4 == 0
    found = ppl_cnn.diagnose(resampled(np.where(labels, math.log(9.0), 0.0), labels=labels))
    bag, shoe = found.weighing.labels
    assert (bag.label, bag.images) == ("bag", 0.25)
    assert bag.weight == pytest.approx(0.75)
    assert (shoe.label, shoe.weight) == ("shoe", pytest.approx(0.25))
    assert set(found.weighing.names) == {"bag"}
    assert found.weighing.heaviest.shape == (5, *SHAPE)
