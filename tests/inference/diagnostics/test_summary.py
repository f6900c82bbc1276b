import arviz
import numpy as np
import pytest

from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.summary import by_label, scalars, summary
from ppl_cnn.inference.diagnostics.thresholds import ESS_DRAWS


def test_pixels_are_labelled_by_their_place(tmp_path, write_blocks, noise):
    posterior = scalars(read(write_blocks(tmp_path / "grey", noise(2, 8, (9, 6, 1)))))["posterior"]
    labels = [f"{row},{col}" for row in (1, 4, 7) for col in (1, 3, 5)]
    assert posterior["pixel"].values.tolist() == labels
    posterior = scalars(read(write_blocks(tmp_path / "colour", noise(2, 8, (1, 1, 3)))))[
        "posterior"
    ]
    assert posterior["pixel"].values.tolist() == ["0,0,1"]


def test_every_label_of_the_summary_has_its_values(quantities):
    tree = quantities()
    table, every = summary(tree), by_label(tree)
    assert list(every) == table.index.tolist()
    for label, values in every.items():
        assert float(values.mean()) == pytest.approx(table.loc[label, "mean"])


@pytest.mark.parametrize("phi", [0.0, 0.9])
@pytest.mark.parametrize("draws", [ESS_DRAWS - 1, ESS_DRAWS])
def test_arviz_cannot_tell_effective_draws_of_short_chains(draws, phi, autoregressive):
    values = autoregressive(np.random.default_rng(0), phi, 4, draws)
    halves = 4 * 2 * (draws // 2)
    at_its_bound = float(arviz.ess(values)) == pytest.approx(halves * np.log10(halves))
    assert at_its_bound == (draws < ESS_DRAWS)
