import math

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from ppl_cnn.inference.kernels.freshness import MOST_FRESH, Weights, fresh_per_draw, worth_of_fresh
from ppl_cnn.inference.kernels.moves.pool import FEW, LARGEST, MANY, Pool, drawn, member
from ppl_cnn.inference.kernels.moves.trajectory import point_at
from ppl_cnn.work import FORWARD_COST

HILL, WIDTH = np.asarray([1.5, 0.0], np.float32), 0.4


def two_hills(z):
    """p is a mixture of N(HILL, WIDTH^2 I) and, e times as often, N(-HILL, WIDTH^2 I)."""
    up, down = (-jnp.sum((z - side * HILL) ** 2) / (2 * WIDTH**2) for side in (1, -1))
    return jnp.logaddexp(up, down + 1) + jnp.sum(z * z) / 2


def bent(z):
    return jnp.sum(jnp.sin(2 * z)) + jnp.tanh(z[0] * z[1]) - 0.1 * z[0] ** 4


def chain(tilt, z, key, transitions, fresh):
    """The draws of a chain, its tilts, whether it moved, and the forward passes of each."""

    def move(at, key):
        point, pool = at
        found = drawn(tilt, point, pool, key, jnp.asarray(fresh))
        return (found.point, found.pool), found

    keys = jax.random.split(key, transitions + 1)
    start = point_at(tilt, z), Pool.none(keys[0], z)
    return jax.lax.scan(move, start, keys[1:])[1]


def chains(tilt, z, transitions, fresh, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(z))
    run = jax.jit(jax.vmap(lambda z, key: chain(tilt, z, key, transitions, fresh)))
    return run(z, keys)


def errors_of(values, truth):
    """Errors of means, in units of their Monte Carlo standard error."""
    found = xr.Dataset({"z": (("chain", "draw", "entry"), np.asarray(values, np.float64))})
    return ((found["z"].mean(("chain", "draw")) - truth) / arviz_stats.mcse(found)["z"]).values


@pytest.mark.parametrize("fresh", [3, pytest.param(1, marks=pytest.mark.long)])
def test_each_draw_of_a_pool_leaves_a_density_as_it_is(fresh):
    """5,000 exact draws of the two hills stay such draws, at every place in pools."""
    count, share = 5_000, 1 / (1 + math.e)
    key_side, key_noise = jax.random.split(jax.random.key(5))
    side = jnp.where(jax.random.uniform(key_side, (count, 1)) < share, 1.0, -1.0)
    z = side * HILL[None] + WIDTH * jax.random.normal(key_noise, (count, 2))
    found = chains(two_hills, z, 35, fresh)
    reached = np.asarray(found.point.z, np.float64)
    # From its pools, a chain goes to either hill and stays on it less often than not.
    assert 0.3 < (np.sign(reached[:, -1, 0]) == np.sign(z[:, 0])).mean() < 0.8
    along = np.stack([reached[..., 0], reached[..., 1], reached[..., 0] > 0], axis=-1)
    squares = reached**2
    mean = np.append((2 * share - 1) * HILL, share)
    # The largest of 35 x 5 standard normal errors exceeds 4.5 with probability 1.2e-3.
    for values, truth in ((along, mean), (squares, HILL**2 + WIDTH**2)):
        errors = (values.mean(axis=0) - truth) / (values.std(axis=0) / count**0.5)
        assert np.abs(errors).max() < 4.5


def test_chains_from_anywhere_come_to_the_density():
    """Its moments are those by quadrature."""
    axis = np.linspace(-6, 6, 401, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log = np.asarray(jax.vmap(bent)(grid), np.float64) - (grid.astype(np.float64) ** 2).sum(1) / 2
    weights = np.exp(log - log.max())
    weights /= weights.sum()

    def powers(z):
        z = np.asarray(z, np.float64)
        return np.concatenate([z, z**2, z[..., :1] * z[..., 1:], np.sin(3 * z)], axis=-1)

    found = chains(bent, jnp.full((4, 2), 3.0), 4_000, 2)
    assert np.abs(errors_of(powers(found.point.z[:, 100:]), weights @ powers(grid))).max() < 4


def test_a_member_is_drawn_as_often_as_its_weight_says():
    fresh, z = 2, jnp.asarray([0.3, -0.2])
    found = chain(bent, z, jax.random.key(3), 3 * MANY, fresh)
    for first in range(0, 3 * MANY, MANY):
        tilts = np.asarray(found.pool.tilts[first], np.float64)
        assert np.isfinite(tilts).sum() == 1 + fresh * MANY
        expected = MANY * np.exp(tilts) / np.exp(tilts).sum()
        own = np.asarray(found.pool.last[first : first + MANY])
        counts = np.bincount(own, minlength=LARGEST + 1)
        assert (np.abs(counts - expected) < 1 + 1e-4).all()
        assert counts.sum() == MANY
        # One after the other, around the circle.
        changes = (np.diff(own) != 0).sum()
        assert changes <= len(set(own))
        for z, tilt, index in zip(
            *(x[first : first + MANY] for x in (found.point.z, found.point.tilt, found.pool.last)),
            strict=True,
        ):
            np.testing.assert_allclose(bent(z), tilt, rtol=1e-5, atol=1e-6)
            if index:
                again = member(found.pool.key[first], index - 1, z)
                np.testing.assert_array_equal(again, z)


def test_the_first_transition_makes_a_pool_and_each_later_one_its_share():
    for fresh, draws in ((1, FEW), (3, MANY)):
        found = chain(bent, jnp.zeros(2), jax.random.key(0), 3 * draws, fresh)
        passes = np.asarray(found.passes)
        assert passes[0] == fresh * draws
        assert (passes[1:] == fresh).all()


def test_without_a_tilt_each_draw_is_another():
    found = chain(lambda z: 0 * z[0], jnp.zeros(2), jax.random.key(0), 5 * FEW, 1)
    assert found.moved.all()
    # A pool has one member more than draws; the origin may be drawn again.
    assert len(np.unique(np.asarray(found.point.z)[:, 0])) >= 5 * FEW - 5


def test_a_draw_whose_tilt_is_not_finite_is_never_taken():
    def tilt(z):
        return jnp.where(z[0] > 1, jnp.nan, jnp.where(z[0] > 0, jnp.inf, 0.0)) + 0 * z[0]

    found = chains(tilt, jnp.full((100, 1), -1.0), 2 * FEW, 1)
    assert (found.point.z <= 0).all()
    assert len(np.unique(found.point.z)) > 500


def test_a_tree_of_latents():
    def tilt(z):
        return 0.7 * (z["a"] + jnp.sum(z["b"]))

    z = {"a": jnp.zeros(4), "b": jnp.zeros((4, 2))}
    keys = jax.random.split(jax.random.key(1), 4)
    found = jax.vmap(lambda z, key: chain(tilt, z, key, 2_000, 2))(z, keys)
    for values in found.point.z.values():
        values = np.asarray(values).reshape(4, 2_000, -1)
        assert np.abs(errors_of(values, 0.7)).max() < 4
        assert np.abs(errors_of((values - 0.7) ** 2, 1.0)).max() < 4


def test_pools_of_one_reference_and_of_many_chains_are_different():
    found = chains(lambda z: 0 * z[0], jnp.zeros((3, 2)), FEW, 1)
    assert len(np.unique(np.asarray(found.point.z)[..., 0])) >= 3 * FEW - 3


# How many independent draws fresh ones are worth


@pytest.mark.parametrize("spread", [0.1, 0.4])
def test_the_efficiency_is_that_of_a_gaussian_tilt(spread):
    """g = s z under N(0, 1): E_q[w] E_p[w] / E_p[w^2] = exp(s^2/2 + 3 s^2/2 - 4 s^2)."""
    xi = np.random.default_rng(0).standard_normal((2, 200_000))
    fresh, here = spread * xi[0], spread * (spread + xi[1])
    centre = jnp.full(xi.shape[1], 100.0)
    fresh, here = (jnp.asarray(g + 100, jnp.float32) for g in (fresh, here))
    told = Weights.of(fresh[:, None], here, centre)
    sums = Weights(*(leaf.sum() for leaf in told))
    expected = math.exp(-2 * spread**2)
    # The relative standard error of E_p[w^2], which has the largest, is below 0.01.
    np.testing.assert_allclose(sums.efficiency, expected, rtol=0.02)
    np.testing.assert_allclose(sums.about(jnp.asarray(7.0)).efficiency, expected, rtol=0.02)


def test_fresh_draws_that_miss_where_chains_are_have_no_worth():
    zero = jnp.zeros(())
    missed = Weights.of(jnp.asarray([-500.0]), zero, zero)
    assert missed.efficiency < 1e-10
    assert Weights.none().efficiency == 0
    # A tilt that isn't a number, or overflows, leaves no trace of the kind.
    for odd in (jnp.nan, -jnp.inf, jnp.inf, 1e30):
        found = Weights.of(jnp.asarray([odd]), zero, zero)
        assert 0 <= found.efficiency <= 1


def test_the_worth_of_fresh_draws():
    one, never = jnp.asarray(1), jnp.asarray(2**30)
    whole = worth_of_fresh(jnp.asarray(1.0), one, never)
    np.testing.assert_allclose(whole, 1 / FORWARD_COST, rtol=1e-6)
    # A gradient every tenth draw is a tenth more.
    told = worth_of_fresh(jnp.asarray(1.0), one, jnp.asarray(10))
    np.testing.assert_allclose(told, 1 / (FORWARD_COST + 0.1), rtol=1e-6)
    few = worth_of_fresh(jnp.asarray(0.1), jnp.asarray(7), never)
    expected = 1 / (10 + 7 * math.sqrt(0.9) / 2) / FORWARD_COST
    np.testing.assert_allclose(few, expected, rtol=1e-6)


def test_a_draw_is_worth_about_a_third_of_an_independent_one():
    found = fresh_per_draw(jnp.asarray([1.0, 0.4, 0.1, 0.054, 0.01]))
    np.testing.assert_array_equal(found, [1, 1, 3, 6, MOST_FRESH])
    assert LARGEST == MANY * MOST_FRESH


@pytest.mark.parametrize("spread", [0.55, pytest.param(0.25, marks=pytest.mark.long)])
def test_rounding_costs_about_what_the_worth_says(spread):
    """Means over whole pools, of a Gaussian tilt and of a function that it doesn't touch."""

    def tilt(z):
        return spread * z[0]

    start = jax.random.normal(jax.random.key(4), (200, 2)) + jnp.asarray([[spread, 0.0]])
    found = chains(tilt, start, 41 * FEW, 1)
    z = np.asarray(found.point.z, np.float64)[:, FEW:, 1]
    # 200 independent means of 640 draws: their variance has a relative error of 10 %.
    independent = 1 / (z.mean(axis=1).var() * z.shape[1])
    weights = math.exp(spread**2)  # of a function that weights don't depend on
    rounding = math.sqrt(1 - math.exp(-2 * spread**2)) / 2
    assert independent == pytest.approx(1 / (weights + rounding), rel=0.35)
