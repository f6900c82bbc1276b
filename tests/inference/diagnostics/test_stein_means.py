import numpy as np
import pytest

from ppl_cnn.errors import FileError
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.stein import stein_check, stein_means


def test_stein_means_weigh_blocks_by_their_draws(tmp_path, write_blocks, noise):
    stein = np.random.default_rng(2).normal(size=(2, 3, 5, 4, 1))
    tree = read(write_blocks(tmp_path, noise(2, 17), block=7, stein=stein))
    found = stein_means(tree, np.asarray([0, 6, 14, 16]))
    blocks = stein.astype(np.float32)
    np.testing.assert_allclose(found.running[:, 0], blocks[:, 0], rtol=1e-5)
    expected = np.average(blocks, axis=1, weights=[7, 7, 3])
    np.testing.assert_allclose(found.running[:, 1], expected, rtol=1e-4, atol=1e-6)
    assert (found.draws.tolist(), found.step.tolist()) == ([7, 17], [0, 0, 1, 1])


def test_a_store_may_lack_stein_means(tmp_path, refused, write_blocks, noise):
    tree = read(write_blocks(tmp_path, noise(2, 17)))
    with refused("Stein mean", kind=FileError, path=tmp_path / "draws.zarr"):
        stein_means(tree, np.asarray([17]))
    del tree["stein"]
    assert stein_means(tree, np.asarray([3])) is None


def test_stein_check_tells_chance_from_a_biased_sampler():
    rng = np.random.default_rng(0)
    stein = rng.normal(size=(8, 30, 30, 1))
    mean = stein + rng.normal(size=stein.shape)
    check = stein_check(mean, stein)
    assert check.chance == pytest.approx(1 / np.sqrt(8), rel=0.05)
    assert check.difference == pytest.approx(check.chance, rel=0.1)
    biased = stein_check(mean + 3, stein)
    assert biased.difference == pytest.approx(np.hypot(3, check.difference), rel=0.05)
    assert biased.chance == pytest.approx(check.chance)
    assert stein_check(mean[:1], stein[:1]) is None
    assert stein_check(mean + np.nan, stein) is None
