import numpy as np
import pytest
import xarray as xr

from ppl_cnn.inference.diagnostics.mixing.closeness import (
    closeness,
    likeness,
    low_pass,
    unmoved,
)


def tree_of(images, starts):
    dims = ("row", "col", "channel")
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"image": (("chain", "draw", *dims), images)}),
            "start": xr.Dataset({"image": (("chain", *dims), starts)}),
        }
    )


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_correlations_are_those_of_the_images():
    """x = r s + sqrt(1 - r^2) noise has the correlation r with s."""
    starts = noise((6, 16, 16, 3))
    images = 0.6 * starts[:, None] + 0.8 * noise((6, 10, 16, 16, 3), 1)
    found = closeness(tree_of(images, starts), np.arange(10), two_sided=False)
    # Means over 6 chains, 10 draws and 768 pixels.
    assert found.own == pytest.approx(0.6, abs=0.02)
    assert found.others == pytest.approx(0, abs=0.03)
    assert found.beyond_chance
    assert likeness(tree_of(images, starts), np.arange(10)) == pytest.approx(found.own)


def test_a_single_chain_is_like_its_start_or_not():
    start = noise((1, 16, 16, 3))
    images = 0.6 * start[:, None] + 0.8 * noise((1, 10, 16, 16, 3), 1)
    tree = tree_of(images, start)
    assert likeness(tree, np.arange(10)) == pytest.approx(0.6, abs=0.05)
    assert closeness(tree, np.arange(10), two_sided=False) is None
    assert np.isnan(likeness(tree_of(images, 0 * start), np.arange(10)))
    assert np.isnan(likeness(xr.DataTree(children={"posterior": tree["posterior"]}), np.arange(1)))


def test_chains_whose_last_image_is_nearly_their_start_have_not_moved():
    starts = noise((3, 8, 8, 1))
    images = np.stack([noise((3, 8, 8, 1), 1), starts], axis=1)
    images[1, 1] = 0.8 * starts[1] + 0.6 * noise((8, 8, 1), 2)
    images[2, 1] += 0.01
    assert unmoved(tree_of(images, starts)) == (0, 2)
    # A blank start has no length: only a chain that stands still is near it.
    assert unmoved(tree_of(images, 0 * starts)) == ()


def test_what_all_chains_have_in_common_is_no_memory():
    common = 3 * noise((1, 1, 12, 12, 1))
    starts = common[:, 0] + noise((6, 12, 12, 1), 1)
    images = common + noise((6, 10, 12, 12, 1), 2)
    found = closeness(tree_of(images, starts), np.arange(10), two_sided=False)
    assert found.own > 0.8
    assert found.excess == pytest.approx(0, abs=0.02)
    assert not found.beyond_chance


def test_chance_is_called_memory_as_rarely_as_it_should():
    """Among 400 runs of independent images, each chain's drawn once, about 1 in 100 is."""
    rng = np.random.default_rng(0)
    for shape in ((3, 3, 1), (16, 16, 1)):
        called = 0
        for _ in range(400):
            starts, images = rng.normal(size=(8, *shape)), rng.normal(size=(8, 1, *shape))
            tree = tree_of(images.repeat(3, axis=1), starts)
            called += closeness(tree, np.arange(3), two_sided=False).beyond_chance
        assert called <= 4 + 4 * 2


def test_sides_are_compared_with_themselves():
    """That one side's images are alike says nothing of the chains' own starts."""
    pattern = np.zeros((8, 1, 12, 12, 1))
    pattern[4:] = 3 * noise((1, 1, 12, 12, 1))
    starts = pattern[:, 0] + noise((8, 12, 12, 1), 1)
    images = pattern + noise((8, 5, 12, 12, 1), 2)
    found = closeness(tree_of(images, starts), np.arange(5), two_sided=True)
    assert found.excess == pytest.approx(0, abs=0.03)


def test_starts_that_are_not_told_apart_tell_nothing():
    images = noise((4, 5, 6, 6, 1))
    same = np.repeat(noise((1, 6, 6, 1), 1), 4, axis=0)
    assert closeness(tree_of(images, same), np.arange(5), two_sided=False) is None
    assert closeness(tree_of(images, 0 * same), np.arange(5), two_sided=False) is None
    unknown = tree_of(images, same)
    del unknown["start"]
    assert closeness(unknown, np.arange(5), two_sided=False) is None


def test_low_pass_images_are_means_of_blocks():
    images = noise((2, 32, 7, 3))
    found = low_pass(images)
    assert found.shape == (2, 16, 7, 3)
    np.testing.assert_allclose(found[:, 3], images[:, 6:8].mean(axis=1), rtol=1e-5)
    uneven = low_pass(noise((21, 21, 1)))
    assert uneven.shape == (16, 16, 1)
