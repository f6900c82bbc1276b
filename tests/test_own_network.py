"""A network of one's own, from the command to its draws."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import ppl_cnn
from ppl_cnn.inference.runs.store import open_draws

EXAMPLE = Path(__file__).parent / "models"


@pytest.fixture
def there(command, monkeypatch):
    """Commands, as if started where the example's module is."""
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.chdir(EXAMPLE)
    return command


@pytest.mark.usefixtures("unplotted")
def test_its_unit_is_sampled_by_the_command(there, tmp_path):
    out = tmp_path / "run"
    settings = ("--chains", "2", "--draws", "20", "--warmup", "20", "--out", str(out))
    settings += ("--kernel", "langevin")  # which compiles in the least time
    model = ("--model", "own_network:ready", "--unit", "blocks.1.conv:3@0,7")
    done = there("ppl_cnn.sample", *model, *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(out / "report.html")]
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["model"] == "own_network:ready"
    assert record["config"]["unit"] == "blocks.1.conv:3@0,7"
    assert record["network"] == "OwnNetwork"
    assert record["preprocessing"]["mean"] == [127.5] * 3
    tree = open_draws(out / "draws.zarr")
    assert tree["posterior/image"].shape == (2, 20, 7, 6, 3)
    assert tree["posterior/row"].values.tolist() == list(range(7))
    assert tree["posterior/col"].values.tolist() == list(range(10, 16))


def test_its_units_are_listed_by_the_command(there):
    done = there("ppl_cnn.units", "--model", "own_network:ready")
    assert done.returncode == 0, done.stderr
    first, head, *rows = done.stdout.partition("\n\n")[0].splitlines()
    assert first == "OwnNetwork, images of 16 x 16 x 3"
    assert [row.split()[0] for row in rows][:2] == ["stem", "relu"]
    assert len(rows) == 11
    # Its multiplications aren't known, and its names are longer than the column's.
    for name in ("whole", "slab"):
        end = head.index(name) + len(name)
        assert {row[:end].split()[-1] for row in rows} == {"-"}


def test_data_cannot_show_which_of_its_units_respond(there):
    done = there("ppl_cnn.units", "--model", "own_network:ready", "--data", "fashion-embedded")
    assert (done.returncode, done.stdout) == (2, "")
    assert "OwnNetwork" in done.stderr
    assert "nonlinearit" in done.stderr
    assert "leave out" in done.stderr
    assert "data" in done.stderr


def test_what_is_wrong_is_said_in_a_sentence(there):
    done = there("ppl_cnn.sample", "--model", "own_network:nosuch", "--unit", "stem:0")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "own_network" in done.stderr
    assert "'nosuch'" in done.stderr


class Inner(nnx.Module):
    """f(x) = <w, x>."""

    def __init__(self):
        self.dense = nnx.Linear(18, 2, use_bias=False, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.dense(x.reshape(x.shape[0], -1))


@pytest.mark.long
def test_the_density_of_a_linear_response_is_gaussian():
    """p = N(s^2 w/T, s^2 I)."""
    module, sigma, temperature = Inner(), 2.0, 0.5
    unit = ppl_cnn.ModuleNetwork(module, (3, 2, 3)).unit("class:1")
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(sigma), temperature)
    tree = ppl_cnn.draw(density, chains=8, draws=400, warmup=100, seed=0, progress=False)
    images = tree["posterior/image"].values
    w = np.asarray(module.dense.kernel[...])[:, 1].reshape(3, 2, 3)
    # The chains' means tell the Monte Carlo error, whatever the draws' autocorrelation.
    means = images.mean(axis=1)
    error = means.std(axis=0, ddof=1) / np.sqrt(len(means))
    z = (means.mean(axis=0) - sigma**2 * w / temperature) / error
    assert np.abs(z).max() < 7  # of 18 with Student's t of 7 degrees of freedom: 1 in 250
    assert np.sqrt((z**2).mean()) < 2
    assert images.std() == pytest.approx(
        np.sqrt(sigma**2 + np.var(sigma**2 * w / temperature)), rel=0.03
    )
