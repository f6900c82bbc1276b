"""Resampling's text and settings."""

import pytest

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.sampling.resampling.settings import PROPOSALS, Resample, Resampling


@pytest.mark.parametrize("count", [2, 500, PROPOSALS])
def test_a_text_gives_it_back(count):
    text = str(Resample(count))
    assert Resample.parse(text.partition(":")[2] or str(PROPOSALS)) == Resample(count)


@pytest.mark.parametrize("value", ["1", "0", "-5", "many", "1.5", "9999999999"])
def test_other_numbers_are_refused(value, refused):
    with refused(value, kind=ArgumentError, argument="kernel"):
        Resample.parse(value)


def test_settings_are_refused_and_recorded(refused):
    with refused("chains", 0, kind=ArgumentError, argument="chains"):
        Resampling(chains=0)
    with refused("seed", -1, kind=ArgumentError, argument="seed"):
        Resampling(seed=-1)
    record = Resampling(kernel=Resample(50), chains=3, seed=7).record()
    assert record == {"kernel": "resample:50", "chains": 3, "seed": 7}
