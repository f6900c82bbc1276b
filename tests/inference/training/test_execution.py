import pytest

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.training.execution import Execution


@pytest.mark.parametrize(
    ("argument", "value", "least"),
    [
        *(("keep", 0, 1), ("checkpoint_every", 0, 1), ("checkpoint_seconds", -1.0, 0)),
        *(("evaluate_every", -1, 0), ("accumulate", 0, 1), ("readers", -1, 0)),
    ],
)
def test_values_out_of_range_are_refused(argument, value, least, refused):
    with refused(f"`{argument}`", f"{least}", f"{value}", kind=ArgumentError, argument=argument):
        Execution(**{argument: value})
