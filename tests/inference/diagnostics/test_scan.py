import numpy as np
import pytest
import xarray as xr

from ppl_cnn.errors import ArgumentError, FileError, RunFolderError
from ppl_cnn.inference.diagnostics.scan import loaded, read, scan
from ppl_cnn.inference.diagnostics.summary import scalars


@pytest.mark.parametrize("block", [1, 7, 100])
def test_scan_finds_the_same_whatever_the_blocks(tmp_path, block, write_blocks, noise):
    image = noise(3, 20).astype(np.float32)
    tree = read(write_blocks(tmp_path, image, block))
    images = scan(tree, shown=4)
    np.testing.assert_allclose(images.mean, image.mean(axis=1, dtype=np.float64), atol=1e-12)
    assert images.shown_draws.tolist() == [0, 6, 13, 19]
    np.testing.assert_array_equal(images.shown, image[:, [0, 6, 13, 19]])
    for number, draw in enumerate(images.shown_draws):
        expected = image[:, : draw + 1].mean(axis=1)
        np.testing.assert_allclose(images.running[:, number], expected, rtol=1e-4, atol=1e-5)
    row, col, channel = images.places.T
    np.testing.assert_array_equal(images.pixels, image[:, :, row, col, channel])


def test_projections_are_linear_and_in_pixel_units(tmp_path, write_blocks, noise):
    image = noise(4, 100, (12, 12, 3))
    once, twice = (
        scan(read(write_blocks(tmp_path / name, images, 50))).projections
        for name, images in (("once", image), ("twice", 2 * image))
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)
    # White noise of sigma 10 has sd 10 |v| along v; |v| is 1 up to 1/sqrt(2 * 432).
    assert once.std(axis=(0, 1)) == pytest.approx(10, rel=0.2)
    correlations = np.corrcoef(once.reshape(-1, once.shape[-1]).T) - np.eye(once.shape[-1])
    assert np.abs(correlations).max() < 0.3


def test_images_are_never_read_all_at_once(tmp_path, monkeypatch, write_blocks, noise):
    tree = read(write_blocks(tmp_path, noise(2, 40), block=5))
    sizes, load = [], loaded

    def watched(array):
        if array.name == "image":
            sizes.append(array.sizes["draw"])
        return load(array)

    monkeypatch.setattr("ppl_cnn.inference.diagnostics.scan.loaded", watched)
    scan(tree)
    assert sizes == [5] * 8


def test_without_draws_there_is_nothing_to_diagnose(tmp_path, refused, write_blocks, noise):
    tree = read(write_blocks(tmp_path, noise(2, 3)))
    with refused("3 draws", "at least 4", kind=ArgumentError, argument="draws"):
        scalars(tree)


def test_an_empty_store_is_read_but_not_diagnosed(tmp_path, refused, write_blocks, noise):
    tree = read(write_blocks(tmp_path, noise(2, 0)))
    with refused("0 draws", kind=ArgumentError, argument="draws"):
        scan(tree)


def test_a_folder_without_a_store(tmp_path, refused):
    with refused(tmp_path, "no draws", kind=RunFolderError):
        read(tmp_path)


def test_a_foreign_store(tmp_path, refused):
    groups = {
        name: xr.Dataset({"x": ("y", [1.0])}) for name in ("posterior", "sample_stats", "stein")
    }
    foreign = xr.DataTree.from_dict(groups)
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        foreign.to_zarr(tmp_path / "draws.zarr", consolidated=True)
    with refused("posterior/image"):
        read(tmp_path)


def test_a_truncated_chunk(tmp_path, refused, write_blocks, noise):
    write_blocks(tmp_path, noise(2, 20))
    chunk = next(p for p in (tmp_path / "draws.zarr/posterior/image/c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:40])
    with refused("image of the draws", kind=FileError):
        scan(read(tmp_path))
