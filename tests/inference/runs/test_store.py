import arviz as az
import numpy as np
import pytest
import xarray as xr
import zarr

from ppl_cnn.errors import RunFolderError
from ppl_cnn.inference.runs.store import DrawStore, open_draws

SIZES = {"chain": range(2), "row": range(3, 6), "col": range(4), "channel": range(1)}


def block(value, draws=5):
    return {
        "posterior/image": np.full((2, draws, 3, 4, 1), value, np.float32),
        "posterior/response": np.full((2, draws), value, np.float32),
        "sample_stats/diverging": np.full((2, draws), value > 1),
        "stein/image": np.full((2, 1, 3, 4, 1), value, np.float32),
        "stein/draws": np.asarray([draws]),
    }


@pytest.fixture
def store(tmp_path):
    made = DrawStore(tmp_path / "draws.zarr", block=5)
    made.create(SIZES, {"diverging": np.bool_}, {"seed": 7})
    return made


def test_a_store_without_draws_opens(store, tmp_path):
    tree = open_draws(tmp_path / "draws.zarr")
    assert tree["posterior"].sizes["draw"] == 0
    assert tree.attrs["seed"] == 7


def test_blocks_join_with_their_coordinates(store, tmp_path):
    store.write(0, 0, block(1.0))
    store.write(5, 1, block(2.0, draws=3))
    tree = open_draws(tmp_path / "draws.zarr")
    image = tree["posterior/image"]
    assert image.dims == ("chain", "draw", "row", "col", "channel")
    assert image.shape == (2, 8, 3, 4, 1)
    np.testing.assert_array_equal(image[:, :, 0, 0, 0], [[1] * 5 + [2] * 3] * 2)
    np.testing.assert_array_equal(tree["posterior/draw"], np.arange(8))
    np.testing.assert_array_equal(tree["posterior/row"], [3, 4, 5])
    np.testing.assert_array_equal(tree["stein/draws"], [5, 3])
    np.testing.assert_array_equal(tree["sample_stats/diverging"].sum("draw"), [3, 3])


def test_arviz_opens_it(store, tmp_path):
    store.write(0, 0, block(1.0))
    tree = az.from_zarr(tmp_path / "draws.zarr")
    assert tree["posterior"].sizes["draw"] == 5


def test_a_block_written_again_changes_nothing(store, tmp_path):
    store.write(0, 0, block(1.0))
    store.write(5, 1, block(2.0))
    before = open_draws(tmp_path / "draws.zarr").load()
    store.write(5, 1, block(2.0))
    xr.testing.assert_identical(open_draws(tmp_path / "draws.zarr").load(), before)


def test_a_block_not_yet_published_is_not_seen(store, tmp_path, monkeypatch):
    store.write(0, 0, block(1.0))

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zarr, "consolidate_metadata", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write(5, 1, block(2.0))
    tree = open_draws(tmp_path / "draws.zarr")
    assert tree["posterior"].sizes["draw"] == tree["sample_stats"].sizes["draw"] == 5
    assert (tree["posterior/image"].values == 1).all()
    store.write(5, 1, block(2.0))
    assert open_draws(tmp_path / "draws.zarr")["posterior"].sizes["draw"] == 10


def test_what_is_no_store_is_refused(tmp_path, refused):
    path = tmp_path / "draws.zarr"
    with refused(tmp_path, "no draws", kind=RunFolderError, path=path):
        open_draws(path)
    other = tmp_path / "other.zarr"
    zarr.open_group(other, mode="w").create_group("posterior")
    with refused(other, kind=RunFolderError, path=other):
        open_draws(other)


def test_a_store_that_lost_a_chunk_is_refused(store, tmp_path, refused):
    store.write(0, 0, block(1.0))
    path = tmp_path / "draws.zarr"
    chunk = "posterior/image/c/0/0/0/0/0"
    (path / chunk).unlink()
    with refused(path, chunk, "lost", kind=RunFolderError, path=path):
        open_draws(path)


def test_a_damaged_store_takes_no_block(store, tmp_path, refused):
    path = tmp_path / "draws.zarr"
    (path / "posterior" / "image" / "zarr.json").write_text("{")
    with refused(path, "damaged", "`out`", kind=RunFolderError, path=path):
        store.write(0, 0, block(1.0))


def test_parts_of_a_block_are_seen_once_it_is_published(tmp_path):
    """As two processes write it: chains apart, each in files of its own."""
    path = tmp_path / "draws.zarr"
    stores = [DrawStore(path, block=5, chains=1) for _ in range(2)]
    stores[0].create(SIZES, {"diverging": np.bool_}, {"seed": 7})
    for number, draws in enumerate((5, 2)):
        whole, before = block(number + 1.0, draws), set(path.rglob("*"))
        for chain in (1, 0):
            some = {n: v if n == "stein/draws" else v[chain, None] for n, v in whole.items()}
            stores[chain].write_chunks(5 * number, number, some, chain=chain)
        assert open_draws(path)["posterior"].sizes["draw"] == 5 * number
        assert "zarr.json" not in {each.name for each in {*path.rglob("*")} - before}
        stores[0].publish(5 * number, number, draws)
    alone = DrawStore(tmp_path / "alone.zarr", block=5)
    alone.create(SIZES, {"diverging": np.bool_}, {"seed": 7})
    alone.write(0, 0, block(1.0))
    alone.write(5, 1, block(2.0, 2))
    xr.testing.assert_identical(*(open_draws(each).load() for each in (path, alone._path)))
