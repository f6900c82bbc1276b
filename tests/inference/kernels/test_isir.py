import math

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro.infer import MCMC

import ppl_cnn
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.isir import ISIR, resampled
from ppl_cnn.inference.kernels.moves.trajectory import point_at
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.work import FORWARD_COST

MATRIX = np.asarray([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 0.2]], np.float32)
SLOPE = np.asarray([1.0, -2.0, 0.5], np.float32)
HILL, WIDTH = np.asarray([1.5, 0.0], np.float32), 0.15


def quadratic(z):
    """p = N((I + A)^-1 b, (I + A)^-1)."""
    return SLOPE @ z - z @ MATRIX @ z / 2


def two_hills(z):
    """p is a mixture of N(HILL, WIDTH^2 I) and, e times as often, N(-HILL, WIDTH^2 I)."""
    up, down = (-jnp.sum((z - side * HILL) ** 2) / (2 * WIDTH**2) for side in (1, -1))
    return jnp.logaddexp(up, down + 1) + jnp.sum(z * z) / 2


def bent(z):
    return jnp.sum(jnp.sin(2 * z)) + jnp.tanh(z[0] * z[1]) - 0.1 * z[0] ** 4


def run(kernel, start, draws, fields=(), warmup=200):
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=draws,
        num_chains=len(start),
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), init_params=start, extra_fields=fields)
    return mcmc


def starts(dimensions):
    return jax.random.normal(jax.random.key(1), (4, dimensions))


def errors_of(z, truth, moment="mean"):
    """Errors of means or sds in units of their Monte Carlo standard error."""
    found = xr.Dataset({"z": (("chain", "draw", "entry"), np.asarray(z, np.float64))})
    estimate = getattr(found["z"], moment)(("chain", "draw"))
    error = arviz_stats.mcse(found, method={"std": "sd"}.get(moment, moment))["z"]
    return ((estimate - truth) / error).values


@pytest.mark.parametrize("fresh", [1, 16])
def test_a_quadratic_tilt_gives_the_other_gaussian(fresh):
    mcmc = run(ISIR(quadratic, fresh=fresh), starts(3), 1500)
    z = np.asarray(mcmc.get_samples(group_by_chain=True))
    covariance = np.linalg.inv(np.eye(3) + np.asarray(MATRIX, np.float64))
    mean = covariance @ np.asarray(SLOPE, np.float64)
    # The largest of seven standard normal errors exceeds 4 with probability 5e-4.
    assert np.abs(errors_of(z, mean)).max() < 4
    assert np.abs(errors_of(z, np.sqrt(np.diag(covariance)), "std")).max() < 4
    products = (z[..., 0] * z[..., 1])[..., None]
    assert np.abs(errors_of(products, covariance[0, 1] + mean[0] * mean[1])).max() < 4


def test_chains_cross_where_a_trajectory_would_not():
    """The share of each hill is exact, though all chains start on one; `split` stays there."""
    start = jnp.tile(HILL, (4, 1))
    above = {
        kind: np.asarray(run(kind(two_hills), start, 2500).get_samples(group_by_chain=True))
        for kind in (ISIR, Split)
    }
    assert (above[Split][..., 0] > 0).all()
    z = above[ISIR]
    share = 1 / (1 + math.e)
    assert abs(errors_of((z[..., :1] > 0), share)[0]) < 4
    assert np.abs(errors_of(z, (2 * share - 1) * HILL)).max() < 4
    assert np.abs(errors_of(z**2, HILL**2 + WIDTH**2)).max() < 4


def test_moments_are_those_of_brute_force():
    """The moments of a density in the plane, by quadrature."""
    axis = np.linspace(-6, 6, 401, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log = np.asarray(jax.vmap(bent)(grid), np.float64) - (grid.astype(np.float64) ** 2).sum(1) / 2
    weights = np.exp(log - log.max())
    weights /= weights.sum()

    def powers(z):
        z = np.asarray(z, np.float64)
        return np.concatenate([z, z**2, z[..., :1] * z[..., 1:], np.sin(3 * z)], axis=-1)

    z = run(ISIR(bent, fresh=4), starts(2), 3000).get_samples(group_by_chain=True)
    # The largest of seven standard normal errors exceeds 4 with probability 5e-4.
    assert np.abs(errors_of(powers(z), weights @ powers(grid))).max() < 4


@pytest.mark.parametrize("fresh", [1, 3, 16])
def test_global_moves_are_reversible(fresh):
    """From exact draws of N(b, I): their moments stay, and pairs are as likely either way.

    16 draws are four choices of one kind in a row, which are reversible too.
    """
    slope, count = np.asarray([0.8, -0.3], np.float32), 50_000

    def tilt(z):
        return slope @ z

    def pair(key):
        key_start, key = jax.random.split(key)
        z = slope + jax.random.normal(key_start, (2,))
        moved = resampled(tilt, point_at(tilt, z), key, fresh)
        return z, moved.point.z, moved.rate

    before, after, left = jax.jit(jax.vmap(pair))(jax.random.split(jax.random.key(2), count))
    x, y = np.asarray(before, np.float64), np.asarray(after, np.float64)
    moments = [y - slope, (y - slope) ** 2 - 1, x * y**2 - x**2 * y, x**3 * y - x * y**3]
    moments.append(np.prod(y - slope, axis=1, keepdims=True))
    values = np.concatenate(moments, axis=1)
    error = values.std(axis=0) / math.sqrt(count)
    # The largest of nine standard normal errors exceeds 4 with probability 6e-4.
    assert np.abs(values.mean(axis=0) / error).max() < 4
    if fresh < 5:  # one choice
        moved, rate = (x != y).any(axis=1), float(left.mean())
        assert abs(moved.mean() - rate) < 4 * math.sqrt(rate * (1 - rate) / count)


def test_a_draw_whose_tilt_is_not_finite_is_never_chosen():
    def tilt(z):
        return jnp.where(z[0] > 1, jnp.nan, jnp.where(z[0] > 0, jnp.inf, 0.0)) + 0 * z[0]

    point = point_at(tilt, jnp.asarray([-1.0]))
    choose = jax.vmap(lambda key: resampled(tilt, point, key, 4))
    moved = choose(jax.random.split(jax.random.key(0), 200))
    z, left = moved.point.z, moved.rate
    assert (z <= 0).all()
    assert len(np.unique(z)) > 100
    # All finite tilts are equal: a chain leaves for one of them, if there is one among the four.
    np.testing.assert_allclose(left, (z != -1).ravel(), atol=1e-6)


def test_more_draws_need_no_more_memory():
    """What the tilt computes is held of four at once."""

    def tilt(z):
        return jnp.sort(jnp.outer(z, jnp.arange(3000.0)).ravel())[1000]

    def bytes_of(fresh):
        def move(key, z):
            return resampled(tilt, point_at(tilt, z), key, fresh)

        compiled = jax.jit(move).lower(jax.random.key(0), jnp.zeros(100)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = bytes_of(4), bytes_of(400)
    assert few > 100 * 3000 * 4
    assert many < 1.1 * few


def test_an_argument_and_a_tree_of_latents():
    def tilt(z, weight):
        return weight * (z["a"] + jnp.sum(z["b"]))

    mcmc = MCMC(ISIR(tilt), num_warmup=100, num_samples=2000, progress_bar=False)
    mcmc.run(jax.random.key(0), 0.7, init_params={"a": jnp.zeros(()), "b": jnp.zeros(2)})
    for values in mcmc.get_samples().values():
        z = np.asarray(values).reshape(2000, -1)[None]
        assert np.abs(errors_of(z, 0.7)).max() < 4
        assert np.abs(errors_of(z, 1.0, "std")).max() < 4


def test_costs_add_up_over_thinning_and_the_page_s_efficiency_counts_both():
    unit = ppl_cnn.ScoreFunction(lambda image: jnp.sum(image) / 3, (2, 2, 1))
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(3.0))
    settings = {"chains": 2, "draws": 30, "warmup": 40, "thin": 3, "progress": False}
    draws = ppl_cnn.draw(density, kernel="isir:5", **settings)
    stats = draws["sample_stats"]
    # Five fresh draws and a turn in a transition, and a draw is kept of every three.
    assert (stats["forward_passes"] == 3 * 6).all()
    # A gradient in every eighth transition, from the 120th on, as the warmup is thinned too.
    assert set(stats["n_steps"].values.ravel()) == {0, 1}
    assert (stats["n_steps"].sum("draw") == len(range(120, 210, 8))).all()
    rate = stats["global_acceptance_rate"]
    assert ((rate > 0) & (rate < 1)).all()
    efficiency = ppl_cnn.diagnose(draws, maps=False).efficiency
    assert efficiency.forward_passes == 2 * 30 * 18
    assert efficiency.transitions["global_acceptance_rate"] == pytest.approx(float(rate.mean()))


def test_pools_are_chosen_where_enough_fresh_draws_count():
    """Without a tilt the turns' angle stops at a quarter, and each draw is of one fresh draw."""
    unit = ppl_cnn.ScoreFunction(lambda image: 1e-3 * jnp.sum(image), (2, 2, 1))
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.Uniform())
    settings = {"chains": 2, "draws": 40, "warmup": 64, "progress": False}
    draws = ppl_cnn.draw(density, kernel="isir", **settings)
    stats = draws["sample_stats"]
    assert (stats["fresh_per_draw"] == 1).all()
    assert (stats["forward_passes"][:, 0] == 16).all()
    assert (stats["forward_passes"][:, 1:] == 1).all()
    assert (stats["step_size"] <= math.pi / 2 + 1e-6).all()
    # There is no Stein mean, and no gradient; the report still tells what a draw has cost.
    assert (stats["n_steps"] == 0).all()
    efficiency = ppl_cnn.diagnose(draws, maps=False).efficiency
    assert efficiency.transitions["fresh_per_draw"] == 1
    cost = 2 * (16 + 39) * FORWARD_COST
    expected = pytest.approx(cost / efficiency.effective_draws)
    assert efficiency.gradients_per_effective_draw == expected


def test_the_gradients_that_are_held_have_the_mean_of_all():
    """Stein's identity: E[z] = E[grad g]. Without a Stein mean none is taken."""
    mcmc = run(ISIR(quadratic, fresh=3), starts(3), 4000, ("point.tilt_grad", "num_steps"))
    fields = mcmc.get_extra_fields(group_by_chain=True)
    covariance = np.linalg.inv(np.eye(3) + np.asarray(MATRIX, np.float64))
    assert np.abs(errors_of(fields["point.tilt_grad"], covariance @ SLOPE)).max() < 4
    assert fields["num_steps"].mean() == 1 / 8
    density = ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(jnp.sum, (1, 3, 1)), ppl_cnn.Uniform(), 100.0
    )
    kernel = ISIR().bind(density)
    state = kernel.start(jax.random.key(0), jnp.zeros((1, 3, 1)), None)
    assert kernel.move(state, None).num_steps == 0


def test_bad_settings_are_refused(refused):
    with refused("0", kind=ArgumentError, argument="fresh"):
        ISIR(fresh=0)
    with refused("1.5", kind=ArgumentError, argument="target_accept_prob"):
        ISIR(target_accept_prob=1.5)
