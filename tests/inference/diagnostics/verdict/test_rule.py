import math

import pytest

from ppl_cnn.inference.diagnostics.verdict.rule import (
    BFMI,
    ESS,
    NOT_FINITE,
    RHAT,
    SIDES,
    Figure,
    worst,
)


@pytest.mark.parametrize(
    ("bounds", "value", "state"),
    [
        *((RHAT, 1.01, "good"), (RHAT, 1.0101, "short"), (RHAT, 1.05, "short")),
        *((RHAT, 1.27, "bad"), (RHAT, 1.67, "bad"), (RHAT, math.inf, "bad")),
        *((ESS, 400, "good"), (ESS, 399, "short"), (ESS, 50, "short"), (ESS, 49.9, "bad")),
        *((SIDES, 1.05, "good"), (SIDES, 1.06, "bad")),
        *((BFMI, 0.3, "good"), (BFMI, 0.01, "short")),
        *((NOT_FINITE, 0, "good"), (NOT_FINITE, 1, "bad"), (ESS, math.nan, "short")),
    ],
)
def test_a_value_has_one_state(bounds, value, state):
    assert bounds.state(value) == state


@pytest.mark.parametrize("value", [1.0096, 1.0099, 1.01001, 1.0504, 399.7, 49.996, 1.0, 1234.4])
def test_a_written_number_has_the_state_of_its_value(value):
    for bounds, digits in ((RHAT, 3), (ESS, 0)):
        text = bounds.written(value, digits)
        assert bounds.state(float(text.replace(",", ""))) == bounds.state(value)


def test_a_run_is_as_its_worst_figure():
    assert worst(["good", None, "short"]) == "short"
    assert worst(["short", "bad", "good"]) == "bad"
    assert worst([None]) == worst([]) == "good"
    undefined = Figure.judged("E-BFMI", math.nan, "", digits=2, bounds=BFMI, needed=False)
    assert (undefined.text, undefined.state) == ("–", None)
