import math

import pytest

from ppl_cnn.inference.diagnostics.diagnose import ChosenMoves
from ppl_cnn.inference.report.parts.facts import advice_html, density_text, moves_text


def test_advice_names_options_for_a_command_and_arguments_for_python():
    text = "It is < 1: use `warmup=400`, or a larger `target_accept`."
    by_command = advice_html(text, {"command": "python -m ppl_cnn.sample --unit conv5:12"})
    assert "<code>--warmup 400</code>" in by_command
    assert "<code>--target-accept</code>" in by_command
    assert "It is &lt; 1" in by_command
    for record in ({"command": "ppl_cnn.draw"}, {"command": "ppl_cnn.evidence"}, {}):
        in_python = advice_html(text, record)
        assert "<code>warmup=400</code>" in in_python
        assert "<code>target_accept</code>" in in_python


def test_an_unknown_density_is_described_without_inventing():
    said = density_text({})
    assert "T = ?" in said
    assert "q = ?" in said


@pytest.mark.parametrize(
    ("moves", "facts"),
    [
        (
            ChosenMoves(None, 7, 7.4, 0.02, 0.23, 0.01, None, math.nan),
            ("draws from pools of fresh draws", "7 fresh to a draw", "0.23", "0.02", "0.01"),
        ),
        (
            ChosenMoves(math.pi / 4, None, 3.0, 0.51, 0.0, 0.22, None, math.nan),
            ("turns of 45°", "3 a draw", "0.51", "0.22"),
        ),
        (
            ChosenMoves(None, None, 0.0, 0.01, 0.0, 0.22, None, math.nan),
            ("trajectories by the exact force", "0.22", "0.01"),
        ),
        (
            ChosenMoves(None, None, 1.0, 0.01, math.nan, 0.22, 0.15, 0.4),
            ("trajectories by a softened force", "0.15", "0.4", "0.22"),
        ),
        (
            ChosenMoves(None, None, 0.0, math.nan, math.nan, math.nan, None, math.nan),
            ("trajectories", "too short"),
        ),
    ],
)
def test_the_moves_are_told_with_their_reason(moves, facts):
    said = moves_text(moves)
    assert all(fact in said for fact in facts)
    assert said.startswith(facts[0])
