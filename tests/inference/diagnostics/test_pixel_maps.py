import logging
import subprocess
import sys

import arviz
import numpy as np
import pytest
import xarray as xr

from ppl_cnn.errors import FileError
from ppl_cnn.inference.diagnostics import pixel_maps as maps
from ppl_cnn.inference.diagnostics.pixel_maps import Maps, convergence_maps, stored_maps
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.thresholds import ESS_DRAWS


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
    [
        *((4, 50), (2, 7), (1, 40), (2, 4), (2, 5), (2, 9)),
        *(
            pytest.param(*sizes, marks=pytest.mark.long)
            for sizes in ((8, 64), (3, 101), (2, 10), (3, 11))
        ),
    ],
)
def test_every_pixel_has_the_values_of_arviz(tmp_path, write_blocks, chains, draws):
    image = chains_of_every_kind(chains, draws)
    found = convergence_maps(read(write_blocks(tmp_path, image)), tmp_path)
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
def test_groups_of_pixels_make_no_difference(tmp_path, write_blocks, monkeypatch, group_bytes):
    image = np.random.default_rng(0).normal(size=(3, 20, 4, 5, 2))
    tree = read(write_blocks(tmp_path, image))
    expected = convergence_maps(tree)
    monkeypatch.setattr(maps, "_GROUP_BYTES", group_bytes)
    for one, other in zip(convergence_maps(tree, tmp_path), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["draws.zarr"]


def test_stored_maps_are_those_of_the_same_draws(tmp_path):
    rng = np.random.default_rng(0)
    shape = (3, 24, 4, 5, 1)
    found = Maps(rng.normal(size=shape[2:]), rng.normal(size=shape[2:]))
    assert stored_maps(tmp_path, shape) is None
    (tmp_path / "maps.npz").write_bytes(found.saved(shape))
    for one, other in zip(stored_maps(tmp_path, shape), found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert stored_maps(tmp_path, (3, 25, 4, 5, 1)) is None
    (tmp_path / "maps.npz").write_bytes(b"PK damaged")
    assert stored_maps(tmp_path, shape) is None


def test_a_damaged_chunk_is_one_sentence(tmp_path, write_blocks, refused):
    tree = read(write_blocks(tmp_path, np.ones((2, 20, 3, 3, 1))))
    chunk = next(p for p in (tmp_path / "draws.zarr/posterior/image/c").rglob("*") if p.is_file())
    chunk.write_bytes(b"damaged")
    with refused("image of the draws", kind=FileError):
        convergence_maps(tree)


@pytest.mark.long
def test_memory_is_that_of_a_group(tmp_path, write_blocks):
    """Peak resident memory grows by far less than the draws do."""
    script = """
import sys
from pathlib import Path
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
        write_blocks(folder, noise, block=20)
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    megabytes = 4 * 1_240 * 64 * 64 * 3 * 4 / 2**20
    assert peaks[1] - peaks[0] < megabytes / 2


def test_in_memory_draws_have_maps_too():
    image = np.random.default_rng(1).normal(size=(2, 30, 3, 3, 1)).astype(np.float32)
    dims = ("chain", "draw", "row", "col", "channel")
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"image": (dims, image)})})
    np.testing.assert_allclose(
        convergence_maps(tree).ess, by_arviz(image, arviz.ess, method="bulk"), rtol=1e-6
    )


def test_numbers_of_a_map_are_those_of_its_defined_values():
    rhat = np.asarray([[1.0, np.inf], [np.nan, 1.2]])[..., None]
    found = Maps(rhat, np.full((2, 2, 1), np.nan))
    assert found.ess_numbers is None
    assert found.rhat_numbers == (1.0, 1.2, np.inf, 2 / 3, 3, 1)


def test_a_pixel_counts_by_its_worst_channel():
    values = np.asarray([[[1.0, 1.5, np.nan]]])
    found = Maps(values, 100 * values)
    assert found.worst_rhat == [[1.5]]
    assert found.worst_ess == [[100.0]]
