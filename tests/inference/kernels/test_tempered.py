import math
from functools import partial

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro.infer import MCMC
from scipy import stats

import ppl_cnn
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.adaptation import FIRST_ROUND, LadderTuning, Tuned, placed_evenly
from ppl_cnn.inference.kernels.tempered import Tempered, exchange, swaps

MATRIX = np.asarray([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 0.2]], np.float32)
SLOPE = np.asarray([1.0, -2.0, 0.5], np.float32)


def quadratic(z):
    """p = N((I + A)^-1 b, (I + A)^-1)."""
    return SLOPE @ z - z @ MATRIX @ z / 2


def two_hills(z):
    """exp(g) is a mixture of N(6, 1/4) and, e times as often, N(-6, 1/4) in each coordinate."""
    up, down = (-2 * jnp.sum((z - 6 * side) ** 2) for side in (1, -1))
    return jnp.logaddexp(up, down + 1)


def run(kernel, dimensions, draws, warmup=300, chains=4):
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = jax.random.normal(jax.random.key(1), (chains, dimensions))
    mcmc.run(jax.random.key(0), init_params=start, extra_fields=("restarts", "tilts", "num_steps"))
    return mcmc


def errors_of(z, truth, moment="mean"):
    """Errors of means or sds in units of their Monte Carlo standard error."""
    found = xr.Dataset({"z": (("chain", "draw", "entry"), np.asarray(z, np.float64))})
    estimate = getattr(found["z"], moment)(("chain", "draw"))
    error = arviz_stats.mcse(found, method={"std": "sd"}.get(moment, moment))["z"]
    return ((estimate - truth) / error).values


def test_a_quadratic_tilt_gives_the_other_gaussian_on_every_rung():
    mcmc = run(Tempered(quadratic, rungs=4), 3, 2000)
    z = np.asarray(mcmc.get_samples(group_by_chain=True))
    matrix, slope = np.asarray(MATRIX, np.float64), np.asarray(SLOPE, np.float64)
    covariance = np.linalg.inv(np.eye(3) + matrix)
    # The largest of six standard normal errors exceeds 4 with probability 4e-4.
    assert np.abs(errors_of(z, covariance @ slope)).max() < 4
    assert np.abs(errors_of(z, np.sqrt(np.diag(covariance)), "std")).max() < 4
    # The tilt's mean on each rung, from that rung's Gaussian.
    strengths = np.asarray(mcmc.last_state.adapt_state.strengths[0], np.float64)
    truth = []
    for strength in (0.0, *strengths):
        cov = np.linalg.inv(np.eye(3) + strength * matrix)
        mean = strength * cov @ slope
        truth.append(slope @ mean - (np.trace(matrix @ cov) + mean @ matrix @ mean) / 2)
    tilts = mcmc.get_extra_fields(group_by_chain=True)["tilts"]
    assert np.abs(errors_of(tilts, truth)).max() < 4


def test_chains_cross_where_a_trajectory_would_not():
    """The share of each hill, from chains that all start between them, is exact."""
    mcmc = run(Tempered(two_hills, rungs=10), 2, 4000)
    above = np.asarray(mcmc.get_samples(group_by_chain=True)).sum(axis=-1) > 0
    share = 1 / (1 + math.e)
    restarts = np.asarray(mcmc.get_extra_fields()["restarts"])
    # A climb from the reference is an independent draw at best.
    assert restarts.sum() > 200
    assert abs(errors_of(above[..., None], share)[0]) < 4
    found = above.mean()
    assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / restarts.sum() * 4)


def test_each_rung_takes_as_many_gradients_as_it_needs():
    state = Tempered(quadratic, rungs=3).init(jax.random.key(0), 0, jnp.zeros(3), (), {})
    strengths = state.adapt_state.strengths
    steps, angle = jnp.asarray([2.0, 0.5, 0.1]), jnp.asarray([1.0, 1.0, 0.4])
    state = state.with_chain(state.top._replace(adapt_state=Tuned(steps, angle, strengths)))
    # Angles of several steps are times 0.5 and 1, the jitter's first; the reference takes one, too.
    assert exchange(quadratic, state).num_steps == 1 + 1 + 2 + 1
    once = state.with_chain(state.top._replace(i=jnp.ones_like(state.i)))
    assert exchange(quadratic, once).num_steps == 1 + 2 + 4 + 1


def test_without_a_tilt_every_swap_is_made_and_replicas_climb_a_rung_at_a_time():
    """Even-odd swaps take a fresh draw to the top of R rungs in R transitions, and every other."""
    rungs = 4

    def flat(z):
        return jnp.zeros(()) * z[0]

    state = Tempered(flat, rungs=rungs).init(jax.random.key(0), 0, jnp.zeros(2), (), {})
    move = jax.jit(partial(exchange, flat))
    arrivals = []
    for _ in range(12):
        state = move(state)
        arrivals.append(int(state.restarts))
    first = arrivals.index(1)
    assert first + 1 == rungs
    assert arrivals[first:] == [1, 0] * ((12 - first) // 2) + [1] * ((12 - first) % 2)


def test_swaps_keep_the_joint_density():
    """Brute force: over all outcomes of a round, detailed balance of the tilts' order."""
    strengths, tilts = jnp.asarray([0.2, 0.5, 1.0]), jnp.asarray([1.0, -0.5, 2.0, 0.3])
    every = np.asarray([0.0, *strengths])

    def log_density(values):
        return float(every @ np.asarray(values))

    keys = jax.random.split(jax.random.key(0), 4000)
    for parity, pairs in ((0, (0, 2)), (1, (1,))):
        order, acceptance = jax.vmap(swaps, (0, None, None, None))(
            keys, strengths, tilts, jnp.asarray(parity)
        )
        order = np.asarray(order)
        for pair in range(3):
            swapped = np.asarray(tilts).copy()
            swapped[[pair, pair + 1]] = swapped[[pair + 1, pair]]
            truth = min(1.0, math.exp(log_density(swapped) - log_density(tilts)))
            assert acceptance[0, pair] == pytest.approx(truth, rel=1e-5)
            made = (order[:, pair] == pair + 1).mean()
            expected = truth if pair in pairs else 0.0
            assert made == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))
            assert (np.sort(order, axis=1) == np.arange(4)).all()


def test_a_tilt_that_is_not_finite_is_never_swapped():
    order, acceptance = swaps(
        jax.random.key(0), jnp.ones(1), jnp.asarray([jnp.nan, 0.0]), jnp.asarray(0)
    )
    assert acceptance[0] == 0
    assert order.tolist() == [0, 1]


# The ladder


def test_rungs_at_equal_refusals_stay_and_others_move():
    strengths = jnp.asarray([0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(placed_evenly(strengths, jnp.full(4, 0.3)), strengths, rtol=1e-6)
    # All of the barrier is below 0.25: the rungs divide that.
    moved = placed_evenly(strengths, jnp.asarray([0.9, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(moved[:3], [0.0627, 0.1254, 0.1881], atol=2e-4)
    assert moved[-1] == 1


def test_a_round_is_as_long_as_all_before_it():
    ladder = LadderTuning.around(jnp.asarray([0.5, 1.0]))
    changed = []
    for count in range(1, 8 * FIRST_ROUND + 1):
        refused = jnp.asarray([0.6, 0.2]) if count > FIRST_ROUND else jnp.asarray([0.4, 0.4])
        before, ladder = ladder.strengths, ladder.update(refused)
        if (before != ladder.strengths).any() or (count == FIRST_ROUND):
            changed.append(count)
        if count == FIRST_ROUND:
            np.testing.assert_allclose(ladder.strengths, [0.5, 1.0], rtol=1e-6)
        if count == 2 * FIRST_ROUND:
            # That round alone: a barrier of 0.8, of which 0.6 below 0.5.
            np.testing.assert_allclose(ladder.strengths, [0.5 * 0.4 / 0.6, 1.0], rtol=1e-5)
    assert changed == [FIRST_ROUND * factor for factor in (1, 2, 4, 8)]


def test_warmup_makes_all_swaps_as_likely():
    mcmc = run(Tempered(lambda z: 30 * z[0], rungs=12), 2, 1000, warmup=600)
    strengths = np.asarray(mcmc.last_state.adapt_state.strengths[0])
    tilts = np.asarray(mcmc.get_extra_fields()["tilts"], np.float64)
    gaps = np.diff(np.asarray([0.0, *strengths]))
    accepted = np.minimum(1, np.exp(gaps * (tilts[:, :-1] - tilts[:, 1:]))).mean(axis=0)
    # Between N(30 b, 1) and its neighbour the mean acceptance is 2 Phi(-30 gap / sqrt 2).
    np.testing.assert_allclose(accepted, 2 * stats.norm.cdf(-30 * gaps / math.sqrt(2)), atol=0.04)
    even = 2 * stats.norm.cdf(-30 / 12 / math.sqrt(2))
    np.testing.assert_allclose(accepted, even, atol=0.05)


# In the driver


@pytest.mark.long
def test_a_network_s_draws_hold_the_replicas_tilts():
    net = ppl_cnn.load("alexnet-fashion")
    density = ppl_cnn.TiltedDensity(net.unit("conv2:3"), ppl_cnn.WhiteNoise(10.0), 0.02)
    draws = ppl_cnn.draw(
        density, kernel=Tempered(rungs=5), chains=3, draws=60, warmup=40, progress=False
    )
    ladder = draws["tempering"]
    assert ladder["tilt"].shape == (3, 60, 6)
    strengths = ladder["strength"].values
    assert (strengths[:, 0] == 0).all()
    assert (strengths[:, -1] == 1).all()
    assert (np.diff(strengths, axis=1) > 0).all()
    response = draws["posterior/response"].values / 0.02
    np.testing.assert_allclose(ladder["tilt"].values[..., -1], response, rtol=1e-4, atol=1e-3)
    assert draws["sample_stats/restarts"].sum() > 0
    assert (ladder["tilt"].mean(("chain", "draw")).diff("rung") > 0).all()


def test_a_ladder_without_a_rung_is_refused(refused):
    with refused("at least 1", "0", kind=ArgumentError, argument="rungs"):
        Tempered(quadratic, rungs=0)
