import logging
import shutil
import subprocess
import sys

import arviz
import numpy as np
import pytest
import xarray as xr

from ppl_cnn.inference.diagnostics import pixel_maps as maps
from ppl_cnn.inference.diagnostics.pixel_maps import Maps, convergence_maps, stored_maps
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.summary import ESS_DRAWS
from ppl_cnn.inference.report.heatmaps import Heatmap, maps_html
from ppl_cnn.inference.runs.store import DrawStore


def write_run(folder, image, block=7):
    """A run's folder with these draws (chain, draw, row, col, channel), and nothing else."""
    chains, draws, *shape = image.shape
    folder.mkdir(exist_ok=True)
    store = DrawStore(folder / "draws.zarr", block)
    sizes = {dim: range(n) for dim, n in zip(("row", "col", "channel"), shape, strict=True)}
    stats = ("lp", "energy", "acceptance_rate", "diverging")
    store.create({"chain": range(chains), **sizes}, dict.fromkeys(stats, np.float32), {})
    for number, start in enumerate(range(0, draws, block)):
        part = image[:, start : start + block].astype(np.float32)
        names = (*(f"sample_stats/{name}" for name in stats), "posterior/response")
        values = dict.fromkeys(names, np.zeros(part.shape[:2], np.float32))
        values |= {"posterior/image": part, "stein/image": part[:, :1]}
        store.write(start, number, {**values, "stein/draws": np.asarray([part.shape[1]])})
    return read(folder)


def chains_of_every_kind(chains, draws):
    """(chain, draw, kind, pixel, 1): independent; slow; with refused proposals; of few values;
    disagreeing; constant; not finite."""
    rng = np.random.default_rng(chains * draws)
    image = rng.normal(size=(7, chains, draws, 6))
    for step in range(1, draws):
        image[1, :, step] += 0.9 * image[1, :, step - 1]
        refused = rng.random((chains, 6)) < 0.4
        image[2, :, step] = np.where(refused, image[2, :, step - 1], image[2, :, step])
    image[3] = image[3].round()
    image[4] += np.arange(chains)[:, None, None]
    image[5] = 2.5
    image[6, 0, draws // 2, :3] = np.nan
    image[6, 0, 0, 3:] = np.inf
    return np.moveaxis(image, 0, 2)[..., None].astype(np.float32)


def by_arviz(image, diagnostic, **options):
    """The second implementation, value by value."""
    values = image.reshape(*image.shape[:2], -1).astype(np.float64)
    logging.getLogger("arviz_stats").setLevel(logging.ERROR)
    with np.errstate(all="ignore"):
        found = [diagnostic(values[:, :, i], **options) for i in range(values.shape[2])]
    logging.getLogger("arviz_stats").setLevel(logging.NOTSET)
    return np.asarray(found, np.float64).reshape(image.shape[2:])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("chains", "draws"),
    [(4, 50), (2, 7), (3, 101), (1, 40), (2, 4), (2, 5), (8, 64), (2, 9), (2, 10), (3, 11)],
)
def test_every_pixel_has_the_values_of_arviz(tmp_path, chains, draws):
    image = chains_of_every_kind(chains, draws)
    found = convergence_maps(write_run(tmp_path, image), tmp_path)
    ess = by_arviz(image, arviz.ess, method="bulk")
    if draws < ESS_DRAWS:
        ess[:] = np.nan
    np.testing.assert_allclose(found.ess, ess, rtol=1e-6)
    rhat = by_arviz(image, arviz.rhat)
    # With two draws in half a chain all of them may be equal; 0/0 is rounded to anything.
    sound = ~(rhat > 1e6)
    np.testing.assert_allclose(found.rhat[sound], rhat[sound], rtol=1e-6)
    assert (found.rhat[~sound] > 1e6).all()
    assert np.isnan(found.rhat[6, :3]).all()


@pytest.mark.parametrize("group_bytes", [1, 4 * 3 * 20 * 7, 2**30])
def test_groups_of_pixels_make_no_difference(tmp_path, monkeypatch, group_bytes):
    image = np.random.default_rng(0).normal(size=(3, 20, 4, 5, 2))
    tree = write_run(tmp_path, image)
    expected = convergence_maps(tree)
    monkeypatch.setattr(maps, "_GROUP_BYTES", group_bytes)
    for one, other in zip(convergence_maps(tree, tmp_path), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["draws.zarr"]


def test_maps_are_computed_once_for_each_number_of_draws(tmp_path, monkeypatch):
    image = np.random.default_rng(0).normal(size=(3, 24, 4, 5, 1))
    first = stored_maps(tmp_path, write_run(tmp_path, image[:, :12]))
    calls = []
    monkeypatch.setattr(
        maps, "convergence_maps", lambda *given: calls.append(given) or convergence_maps(*given)
    )
    tree = read(tmp_path)
    np.testing.assert_array_equal(stored_maps(tmp_path, tree).ess, first.ess)
    assert not calls
    shutil.rmtree(tmp_path / "draws.zarr")
    tree = write_run(tmp_path, image)
    assert stored_maps(tmp_path, tree).ess.mean() > first.ess.mean()
    (tmp_path / "maps.npz").write_bytes(b"PK damaged")
    np.testing.assert_array_equal(stored_maps(tmp_path, tree).ess, convergence_maps(tree).ess)
    assert len(calls) == 2


def test_a_damaged_chunk_is_one_sentence(tmp_path, refused):
    tree = write_run(tmp_path, np.ones((2, 20, 3, 3, 1)))
    chunk = next(p for p in (tmp_path / "draws.zarr/posterior/image/c").rglob("*") if p.is_file())
    chunk.write_bytes(b"damaged")
    with refused("the store is damaged"):
        convergence_maps(tree)


@pytest.mark.long
def test_memory_is_that_of_a_group(tmp_path):
    """Peak resident memory grows by far less than the draws do."""
    script = """
import sys
from pathlib import Path
from ppl_cnn.inference.diagnostics.summary import ESS_DRAWS
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics import pixel_maps as maps
maps._GROUP_BYTES = 2**20
maps.convergence_maps(read(Path(sys.argv[1])), Path(sys.argv[1]))
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""
    peaks = []
    for draws in (40, 1_280):
        folder = tmp_path / str(draws)
        noise = np.random.default_rng(0).standard_normal((4, draws, 64, 64, 3), np.float32)
        write_run(folder, noise, block=20)
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    megabytes = 4 * 1_240 * 64 * 64 * 3 * 4 / 2**20
    assert peaks[1] - peaks[0] < megabytes / 2


# As pictures


def test_a_map_tells_its_numbers():
    values = np.arange(1, 5).reshape(2, 2, 1) / 2 + 0.0
    source = Heatmap("R-hat", values, ".3f", 1, 2, 1.01, larger_is_worse=True).html()
    assert "0.500 to 2.000, median 1.000" in source
    assert "50.00% of 4 values miss it" in source
    assert 'left:1.0%"' in source


def test_undefined_values_and_stuck_chains_are_said():
    rhat = np.asarray([[1.0, np.inf], [np.nan, 1.2]])[..., None]
    source = maps_html(Maps(rhat, np.full((2, 2, 1), np.nan)), "h2")
    assert "1.000 to ∞, median 1.200" in source
    assert "not defined for 1 more" in source
    assert "≥ 2.000" in source
    assert "Bulk ESS" not in source
    assert maps_html(Maps(rhat + np.nan, rhat + np.nan), "h2") == ""


def test_in_memory_draws_have_maps_too():
    image = np.random.default_rng(1).normal(size=(2, 30, 3, 3, 1)).astype(np.float32)
    dims = ("chain", "draw", "row", "col", "channel")
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"image": (dims, image)})})
    np.testing.assert_allclose(
        convergence_maps(tree).ess, by_arviz(image, arviz.ess, method="bulk"), rtol=1e-6
    )
