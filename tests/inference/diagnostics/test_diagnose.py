import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import ppl_cnn
from ppl_cnn.errors import ArgumentError, RunFolderError
from ppl_cnn.inference.diagnostics import diagnose as module
from ppl_cnn.inference.diagnostics.diagnose import diagnose
from ppl_cnn.inference.diagnostics.pixel_maps import convergence_maps
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.verdict.sentences import TooFewDraws


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run's folder, and what `ppl_cnn.draw` returned for it."""
    density = ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(jnp.sum, (3, 3, 1)), ppl_cnn.WhiteNoise(1.0)
    )
    folder = tmp_path_factory.mktemp("run")
    draws = ppl_cnn.draw(
        density, chains=4, draws=40, warmup=60, start="two-sided:rto", out=folder, progress=False
    )
    return folder, draws


def test_a_folder_and_its_draws_in_memory_have_the_same_diagnosis(stored):
    folder, draws = stored
    one, other = diagnose(folder), diagnose(draws.load())
    assert (one.folder, other.folder) == (folder, None)
    assert one.verdict.rhat == other.verdict.rhat
    assert one.sides == other.sides
    assert one.mixing.trends == other.mixing.trends
    # The layout of arrays in memory decides in which order einsum adds.
    assert one.mixing.end == pytest.approx(other.mixing.end)
    assert one.window == other.window == ((0, 2), (0, 2))
    np.testing.assert_array_equal(one.maps.ess, other.maps.ess)
    xr.testing.assert_identical(one.quantities, other.quantities)
    assert one.summary.equals(other.summary)
    assert (one.chains, one.draws) == (4, 40)
    assert one.config["warmup"] == other.config["warmup"] == 60


def test_it_writes_nothing(stored):
    folder, _ = stored
    before = contents(folder)
    diagnose(folder)
    assert contents(folder) == before


def test_it_prints_its_verdict(stored):
    folder, _ = stored
    found = diagnose(folder, maps=False)
    assert found.maps is None
    said = str(found)
    assert said.startswith("4 chains x 40 draws")
    assert found.verdict.sentence in said
    assert found.verdict.state in repr(found)


def test_only_stored_runs_are_told_to_resume(tmp_path, write_run):
    image = np.random.default_rng(0).normal(size=(4, 120, 3, 3, 1)).astype(np.float32)
    folder = write_run(tmp_path / "run", image)
    for run, resumes in ((folder, True), (read(folder).load(), False)):
        few = diagnose(run, maps=False).verdict.findings[-1]
        assert isinstance(few, TooFewDraws)
        assert few.resumes == resumes


def test_maps_are_computed_once_for_each_number_of_draws(tmp_path, write_run, monkeypatch):
    image = np.random.default_rng(0).normal(size=(3, 24, 4, 5, 1)).astype(np.float32)
    folder = write_run(tmp_path / "run", image)
    expected = convergence_maps(read(folder))
    shape = image.shape
    calls = []
    monkeypatch.setattr(
        module, "convergence_maps", lambda *given: calls.append(given) or convergence_maps(*given)
    )
    (folder / "maps.npz").write_bytes(expected.saved(shape))
    np.testing.assert_array_equal(diagnose(folder).maps.ess, expected.ess)
    assert not calls
    (folder / "maps.npz").write_bytes(expected.saved((3, 12, 4, 5, 1)))
    np.testing.assert_array_equal(diagnose(folder).maps.ess, expected.ess)
    (folder / "maps.npz").write_bytes(b"PK damaged")
    np.testing.assert_array_equal(diagnose(folder).maps.ess, expected.ess)
    assert len(calls) == 2


def test_what_is_no_tree_of_draws_is_refused(refused):
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": ("draw", np.ones(3))})})
    with refused("posterior/image", kind=ArgumentError, argument="run"):
        diagnose(tree)


def test_other_runs_are_refused(tmp_path, write_run, refused):
    image = np.zeros((2, 8, 3, 3, 1), np.float32)
    folder = write_run(tmp_path / "training", image, config={"kind": "training"})
    with refused(folder, kind=RunFolderError, path=folder):
        diagnose(folder)
    folder = write_run(tmp_path / "several", image, config={"units": ["conv2:3", "conv2:5"]})
    with refused("conv2-3, conv2-5", kind=RunFolderError, path=folder):
        diagnose(folder)
