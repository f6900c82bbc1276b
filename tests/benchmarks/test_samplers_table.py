"""The tables of the samplers' benchmark, from lines whose answers are known."""

import arviz
import numpy as np
import pytest


@pytest.fixture
def table(monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks.sampling import samplers_table

    return samplers_table


def line_of(kernel, figure, seed=0, shift=0.0, scale=1.0, ess=1000.0):
    """A line of independent draws of 52 quantities of standard deviation 3, all but one exact."""
    draws = 3 * np.random.default_rng(seed).standard_normal((52, 4, 500))
    draws[0] = scale * draws[0] + 3 * shift
    return {
        "case": "lenet-T1",
        "kernel": kernel,
        "seed": seed,
        "tilt_sd": 0.5,
        "chains": 4,
        "draws": 500,
        "gradients": 4_000,
        "ess": {"bulk": ess, "tail": ess},
        "ess_per_1000_gradients": figure,
        "mean": draws.mean(axis=(1, 2)).tolist(),
        "sd": draws.std(axis=(1, 2)).tolist(),
        "mean_error": [float(arviz.mcse(values, method="mean")) for values in draws],
        "sd_error": [float(arviz.mcse(values, method="sd")) for values in draws],
    }


def test_split_is_set_beside_the_best_exact_peer(table):
    lines = [
        line_of(kernel, figure, seed)
        for kernel, figures in {
            "split": (30.0, 50.0),
            "pcn": (10.0, 11.0),
            "blackjax-mala": (15.0, 25.0),
            "blackjax-mclmc": (300.0, 310.0),
            "isir": (90.0, 90.0),
            "numpyro-nuts": (None, 99.0),
        }.items()
        for seed, figure in enumerate(figures)
    ]
    row, median = table.best_peers(lines)
    assert row == ["lenet-T1", "0.5", "40.0 (30.0, 50.0)", "20.0 (15.0, 25.0)", *row[4:]]
    assert row[4:] == ["blackjax-mala", "2.00"]
    assert median[-1] == "2.00"


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 1.6), (-0.4, 0.6)])
def test_a_bias_is_found(table, shift, scale):
    exact = [line_of("split", 30.0, seed) for seed in (1, 2)]
    # A chain that hasn't mixed says nothing of the density.
    lost = line_of("pcn", 1.0, 3, shift=5.0, ess=20.0)
    line = line_of("blackjax-mclmc", 300.0, 4, shift=shift, scale=scale)
    ((_, _, _, *told),) = table.biases([*exact, lost, line])
    for text, true in zip(told, (shift, np.log(scale)), strict=True):
        value, error = map(float, text.split(" ± "))
        # Where there is no bias, the largest of 52 is some 2.5 errors.
        assert abs(abs(value) - abs(true)) < 4 * error
        assert error < 0.1


def test_without_a_reliable_exact_run_the_bias_is_unknown(table):
    lines = [line_of("split", 1.0, ess=30.0), line_of("langevin", 9.0, 1)]
    ((*_, of_mean, of_sd),) = table.biases(lines)
    assert (of_mean, of_sd) == ("-", "-")
