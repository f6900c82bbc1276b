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

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.adaptation import Angle, Feedback, Tuned
from ppl_cnn.inference.kernels.choice import Choice
from ppl_cnn.inference.kernels.isir import ISIR
from ppl_cnn.inference.kernels.moves.trajectory import (
    Point,
    decided,
    divided,
    integrate,
    metropolis,
)
from ppl_cnn.inference.kernels.split import Split, transition
from ppl_cnn.inference.kernels.tempered import Tempered

MATRIX = np.asarray([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 0.2]], np.float32)
SLOPE = np.asarray([1.0, -2.0, 0.5], np.float32)


def quadratic(z):
    """p = N((I + A)^-1 b, (I + A)^-1)."""
    return SLOPE @ z - z @ MATRIX @ z / 2


def bent(z):
    return jnp.sum(jnp.sin(2 * z)) + jnp.tanh(z[0] * z[1]) - 0.1 * z[2] ** 4


def at(tilt, z):
    return Point(z, *jax.value_and_grad(tilt)(z))


def energy(tilt, z, p):
    return jnp.sum(z**2) / 2 + jnp.sum(p**2) / 2 - tilt(z)


def states_of(kernel, chains, tilt_dimensions, seed=0):
    keys = jax.random.split(jax.random.key(seed), chains)
    z = jax.random.normal(jax.random.key(seed + 1), (chains, tilt_dimensions))
    return jax.jit(lambda keys, z: kernel.init(keys, 0, z, (), {}))(keys, z)


# The integrator


@partial(jax.jit, static_argnums=(0, 3, 4))
def trajectory(tilt, z, p, step_size, steps):
    return integrate(tilt, at(tilt, z), p, step_size, steps)


def test_a_trajectory_leads_back():
    with jax.enable_x64(True):
        z, p = jnp.asarray([0.3, -1.0, 2.0]), jnp.asarray([1.0, 0.2, -0.7])
        there = trajectory(bent, z, p, 0.3, 7)
        back = trajectory(bent, there.point.z, -there.momentum, 0.3, 7)
        np.testing.assert_allclose(back.point.z, z, atol=1e-13)
        np.testing.assert_allclose(-back.momentum, p, atol=1e-13)
        np.testing.assert_allclose(back.energy_change, -there.energy_change, atol=1e-13)


def test_it_keeps_volumes():
    def flow(both):
        end = integrate(bent, at(bent, both[:3]), both[3:], 0.4, 5)
        return jnp.concatenate([end.point.z, end.momentum])

    with jax.enable_x64(True):
        jacobian = jax.jit(jax.jacfwd(flow))(jnp.asarray([0.3, -1.0, 2.0, 1.0, 0.2, -0.7]))
        assert np.linalg.det(jacobian) == pytest.approx(1, abs=1e-12)
        assert np.abs(jacobian).max() > 2  # and is no mere rotation


def test_the_summed_energy_change_is_the_energys():
    with jax.enable_x64(True):
        z, p = jnp.asarray([0.3, -1.0, 2.0]), jnp.asarray([1.0, 0.2, -0.7])
        end = trajectory(bent, z, p, 0.5, 4)
        change = energy(bent, end.point.z, end.momentum) - energy(bent, z, p)
        np.testing.assert_allclose(end.energy_change, change, atol=1e-13)
        assert abs(change) > 0.01


def test_errors_fall_with_the_square_of_the_step():
    with jax.enable_x64(True):
        z, p = jnp.asarray([0.3, -1.0, 2.0]), jnp.asarray([1.0, 0.2, -0.7])
        errors = [
            abs(integrate(bent, at(bent, z), p, 1.2 / steps, steps).energy_change)
            for steps in (40, 80)
        ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_without_a_tilt_turns_are_exact():
    z, p = jnp.asarray([0.3, -1.0]), jnp.asarray([1.0, 0.2])

    def nothing(z):
        return jnp.zeros(()) * z[0]

    end = integrate(nothing, at(nothing, z), p, math.pi / 2, 1)
    np.testing.assert_allclose(end.point.z, p, atol=1e-6)
    np.testing.assert_allclose(end.momentum, -z, atol=1e-6)
    assert end.energy_change == 0


def test_noise_that_the_tilt_does_not_see_costs_nothing():
    """However many dimensions it has: the error, and so acceptance and step, stay the same."""
    with jax.enable_x64(True):
        z, p = jax.random.normal(jax.random.key(0), (2, 20_003), jnp.float64)
        changes = [
            integrate(lambda z: bent(z[:3]), at(lambda z: bent(z[:3]), z[:size]), p[:size], 0.5, 4)
            for size in (3, 20_003)
        ]
        few, many = (float(end.energy_change) for end in changes)
    assert many == pytest.approx(few, abs=1e-9)
    assert abs(few) > 0.01


def test_energies_of_150_000_dimensions_are_right_in_float32():
    """Against the same trajectory in double precision; the energy itself has steps of 1/64."""
    rng = np.random.default_rng(0)
    z, p, w = rng.normal(size=(3, 150_000)) * np.asarray([[1], [1], [0.05]])

    def change(dtype):
        weights = jnp.asarray(w, dtype)

        def tilt(z):
            return jnp.sum(jnp.sin(z * 3) * weights) * 20

        return integrate(tilt, at(tilt, jnp.asarray(z, dtype)), jnp.asarray(p, dtype), 0.2, 8)

    found = float(jax.jit(lambda: change(jnp.float32).energy_change)())
    with jax.enable_x64(True):
        truth = float(change(jnp.float64).energy_change)
    assert abs(truth) > 0.5
    assert found == pytest.approx(truth, abs=1e-2)


def test_one_step_is_pcnls_proposal_with_its_own_metropolis_ratio():
    """Proposal and ratio as densities: N(y; cos h z + (1 - cos h) grad g(z), sin^2 h I)."""
    h = 0.7

    def log_proposal(there, here):
        mean = math.cos(h) * here + (1 - math.cos(h)) * jax.grad(bent)(here)
        return -jnp.sum((there - mean) ** 2) / (2 * math.sin(h) ** 2)

    with jax.enable_x64(True):
        z, xi = jnp.asarray([0.3, -1.0, 2.0]), jnp.asarray([1.0, 0.2, -0.7])
        end = integrate(bent, at(bent, z), xi, h, 1)
        y = math.cos(h) * z + (1 - math.cos(h)) * jax.grad(bent)(z) + math.sin(h) * xi
        np.testing.assert_allclose(end.point.z, y, atol=1e-13)
        ratio = bent(y) - jnp.sum(y**2) / 2 + log_proposal(z, y)
        ratio -= bent(z) - jnp.sum(z**2) / 2 + log_proposal(y, z)
        np.testing.assert_allclose(end.energy_change, -ratio, atol=1e-12)
        assert abs(ratio) > 0.05


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("h", [0.5, 1.4, 2.6])
def test_a_linear_tilt_costs_no_energy_at_any_step(h, steps):
    with jax.enable_x64(True):
        z, p = jnp.asarray([0.3, -1.0, 2.0]), jnp.asarray([1.0, 0.2, -0.7])
        end = integrate(lambda z: SLOPE @ z, at(lambda z: SLOPE @ z, z), p, h, steps)
        np.testing.assert_allclose(end.energy_change, 0.0, atol=1e-12)


def test_a_quarter_turn_of_a_linear_tilt_is_an_independent_draw():
    """It forgets z: p = N(b, I), and what is drawn is b plus the momentum."""
    z = 100 * jax.random.normal(jax.random.key(0), (3,))
    start = at(lambda z: SLOPE @ z, z)
    quarter, one = jnp.asarray(math.pi / 2), jnp.asarray(1)
    moved = jax.vmap(lambda key: metropolis(lambda z: SLOPE @ z, start, key, quarter, one))(
        jax.random.split(jax.random.key(1), 4000)
    )
    np.testing.assert_allclose(moved.acceptance, 1.0, atol=1e-3)
    draws = np.asarray(moved.point.z, np.float64)
    # The largest of nine standard normal errors exceeds 4 with probability 6e-4.
    assert np.abs((draws.mean(axis=0) - SLOPE) * math.sqrt(4000)).max() < 4
    variance = np.cov(draws.T) - np.eye(3)
    assert np.abs(variance / np.sqrt((1 + np.eye(3)) / 4000)).max() < 4


def test_one_step_is_not_jittered_and_several_are():
    index = jnp.arange(8)
    one = Tuned(jnp.asarray(1.5), jnp.asarray(1.2))
    steps, sizes = jax.vmap(partial(divided, one))(index)
    assert (steps == 1).all()
    np.testing.assert_allclose(sizes, 1.2, rtol=1e-6)
    several = Tuned(jnp.asarray(0.5), jnp.asarray(1.2))
    steps, sizes = jax.vmap(partial(divided, several))(index)
    spread = np.asarray([4, 8, 6, 10, 5, 9, 7, 11]) / 8
    np.testing.assert_allclose(steps.astype(np.float32) * sizes, 1.2 * spread, rtol=1e-5)


# The kernel


def errors_of(z, truth, moment):
    """Errors of means or sds in units of their Monte Carlo standard error."""
    found = xr.Dataset({"z": (("chain", "draw", "entry"), np.asarray(z, np.float64))})
    estimate = getattr(found["z"], moment)(("chain", "draw"))
    return (
        (estimate - truth) / arviz_stats.mcse(found, method={"std": "sd"}.get(moment, moment))["z"]
    ).values


@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_a_quadratic_tilt_gives_the_other_gaussian(method):
    mcmc = MCMC(
        Split(quadratic, moves="trajectories"),
        num_warmup=300,
        num_samples=1500,
        num_chains=4,
        chain_method=method,
        progress_bar=False,
    )
    start = jax.random.normal(jax.random.key(1), (4, 3))
    mcmc.run(jax.random.key(0), init_params=start, extra_fields=("accept_prob", "adapt_state"))
    z = np.asarray(mcmc.get_samples(group_by_chain=True))
    covariance = np.linalg.inv(np.eye(3) + np.asarray(MATRIX, np.float64))
    # The largest of six standard normal errors exceeds 4 with probability 4e-4.
    assert np.abs(errors_of(z, covariance @ np.asarray(SLOPE), "mean")).max() < 4
    assert np.abs(errors_of(z, np.sqrt(np.diag(covariance)), "std")).max() < 4
    products = (z[..., 0] * z[..., 1])[..., None]
    mean = covariance @ np.asarray(SLOPE)
    assert np.abs(errors_of(products, covariance[0, 1] + mean[0] * mean[1], "mean")).max() < 4
    fields = mcmc.get_extra_fields(group_by_chain=True)
    # Steps are cut to divide a trajectory's angle, so that they accept a little more.
    assert 0.6 < fields["accept_prob"].mean() < 0.97
    steps = np.asarray(fields["adapt_state"].step_size)
    assert (steps == steps[:, :1]).all()
    assert len(np.unique(steps)) == (1 if method == "vectorized" else 4)


def test_an_argument_and_a_tree_of_latents():
    def tilt(z, weight):
        return weight * (z["a"] + jnp.sum(z["b"]))

    mcmc = MCMC(Split(tilt), num_warmup=100, num_samples=2000, progress_bar=False)
    mcmc.run(jax.random.key(0), 0.7, init_params={"a": jnp.zeros(()), "b": jnp.zeros(2)})
    for values in mcmc.get_samples().values():
        z = np.asarray(values).reshape(2000, -1)[None]
        assert np.abs(errors_of(z, 0.7, "mean")).max() < 4
        assert np.abs(errors_of(z, 1.0, "std")).max() < 4


def test_nan_is_never_accepted_and_diverges():
    kernel = Split(lambda z: jnp.where(z[0] > 0, jnp.nan, 0.0) * z[0], step_size=0.5)
    state = kernel.init(jax.random.key(0), 0, jnp.asarray([-1.0, 0.0]), (), {})
    step = jax.jit(lambda state: kernel.sample(state, (), {}))
    diverged = 0
    for _ in range(40):
        state = step(state)
        assert state.z[0] <= 0
        assert np.isfinite(state.potential_energy)
        assert state.diverging == (state.accept_prob == 0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.feedback))
        diverged += int(state.diverging)
    assert 0 < diverged < 40


def test_bad_settings_and_no_start_are_refused(refused):
    with refused("0.0", kind=ArgumentError, argument="step_size"):
        Split(quadratic, step_size=0.0)
    with refused("nan", kind=ArgumentError, argument="angle"):
        Split(quadratic, angle=math.nan)
    with refused("1.5", kind=ArgumentError, argument="target_accept_prob"):
        Split(quadratic, target_accept_prob=1.5)
    with refused("split", kind=ArgumentError, argument="init_params"):
        Split(quadratic).init(jax.random.key(0), 10, None, (), {})


def test_a_kernel_without_a_tilt_is_refused(refused):
    with refused("split", "ppl_cnn.draw", kind=ArgumentError, argument="tilt"):
        MCMC(Split(), num_warmup=2, num_samples=2, progress_bar=False).run(
            jax.random.key(0), init_params=jnp.zeros(2)
        )


def test_energies_are_those_of_the_state():
    kernel = Split(quadratic)
    states = states_of(kernel, 5, 3)
    step = jax.jit(lambda states: kernel.sample(states, (), {}))
    for _ in range(3):
        states = step(states)
    z = np.asarray(states.z)
    truth = (z**2).sum(axis=1) / 2 - [quadratic(each) for each in z]
    constant = 3 / 2 * math.log(2 * math.pi)
    np.testing.assert_allclose(states.potential_energy, truth + constant, rtol=1e-5)
    assert (states.energy >= states.potential_energy).all()


# Adaptation


def best_angle():
    """For |z|^2/2 on N(0, I), whose squared jump is like sin^2 of the angle, per radian."""
    jitter = np.arange(4096) / 4096 + 0.5
    angles = np.linspace(0.2, 2.5, 4000)
    jumps = np.asarray([np.mean(np.sin(angle * jitter) ** 2) for angle in angles]) / angles
    return angles[jumps.argmax()]


def test_the_angle_climbs_to_the_largest_jump_per_gradient():
    kernel = Split(lambda z: jnp.zeros(()) * z[0], step_size=0.05)
    states = states_of(kernel, 16, 50)
    angle = Angle.around(jnp.asarray(3.0))

    @jax.jit
    def step(states, angle):
        current = jnp.full(16, jnp.exp(angle.log_angle))
        states = states._replace(adapt_state=states.adapt_state._replace(angle=current))
        states = jax.vmap(lambda state: transition(lambda z: jnp.zeros(()) * z[0], state))(states)
        return states, angle.update(jax.tree.map(lambda leaf: leaf.mean(axis=0), states.feedback))

    for _ in range(600):
        states, angle = step(states, angle)
    assert float(jnp.exp(angle.log_average)) == pytest.approx(best_angle(), rel=0.1)


def test_a_few_huge_jumps_do_not_make_the_angle_collapse():
    """Chains that start far off jump far at first, less so the longer the trajectory."""
    angle = Angle.around(jnp.asarray(1.5))
    one, none = jnp.asarray(1.0), jnp.zeros(())
    for count in range(100):
        radians = jnp.exp(angle.log_angle)
        # For a coordinate of N(0, 1): E (z' - z)^2 = 2 (1 - cos) and its derivative by the log.
        squared, slope = 2 * (1 - jnp.cos(radians)), 2 * radians * jnp.sin(radians)
        if count < 4:
            squared, slope = jnp.asarray(400.0), jnp.asarray(-400.0)
        each = jnp.stack([squared, squared]), jnp.stack([slope, slope])
        angle = angle.update(Feedback(one, *each, none))
    # Without a cost, the longest jump on average is that of half a turn.
    assert float(jnp.exp(angle.log_average)) == pytest.approx(math.pi, rel=0.2)


def test_while_a_single_step_will_do_a_longer_angle_costs_nothing():
    angle = Angle.around(jnp.asarray(0.5))
    feedback = Feedback(jnp.asarray(1.0), jnp.ones(2), jnp.full(2, 0.5), jnp.asarray(0.0))
    assert angle.update(feedback).log_angle > angle.log_angle
    costly = feedback._replace(several=jnp.asarray(1.0))
    assert angle.update(costly).log_angle < angle.log_angle


def test_the_feedback_is_the_derivative_of_the_squared_jump():
    """Finite differences in the angle, of one trajectory in double precision."""
    with jax.enable_x64(True):
        z = jnp.asarray([0.3, -1.0, 2.0])
        kernel = Split(bent, step_size=1e-3, angle=0.6)
        state = kernel.init(jax.random.key(3), 0, z, (), {})
        # The same momentum and, as the sequence begins at 0, half the angle.
        reached = [
            transition(bent, state._replace(adapt_state=state.adapt_state._replace(angle=angle)))
            for angle in (jnp.asarray(0.6 - 2e-3), jnp.asarray(0.6), jnp.asarray(0.6 + 2e-3))
        ]
        squared = [np.asarray(each.feedback.squared / each.accept_prob) for each in reached]
        numeric = (squared[2] - squared[0]) / (math.log(0.602) - math.log(0.598))
        slope = reached[1].feedback.slope / reached[1].accept_prob
        np.testing.assert_allclose(slope, numeric, rtol=1e-3)


# Simulation-based calibration

POINTS, DIMENSIONS, KEPT = 12, 4, 15
ALARM = 0.002
"""Five histograms, each refused wrongly in 0.2 % of all cases: together 1 %."""


class Turning(Split):
    """By turns from the start, as if a warmup had chosen them."""

    def first_state(self, tilt, key, z):
        state = super().first_state(tilt, key, z)
        choice = Choice.trajectories()._replace(turns=jnp.asarray(9), angle=jnp.asarray(0.7))
        return state._replace(adapt_state=state.adapt_state._replace(choice=choice))


class Pooled(Split):
    """By pools from the start, as if a warmup had chosen them."""

    def first_state(self, tilt, key, z):
        state = super().first_state(tilt, key, z)
        choice = Choice.trajectories()._replace(fresh=jnp.asarray(8))
        return state._replace(adapt_state=state.adapt_state._replace(choice=choice))


KERNELS = {
    "split": partial(Split, step_size=0.6, angle=1.2),
    "turns": Turning,
    "pools": Pooled,
    "isir": partial(ISIR, fresh=16),  # of four, draws eight transitions apart are too much alike
    "tempered": partial(Tempered, rungs=2),
}


def design():
    """The covariates of a logistic regression."""
    return jax.random.normal(jax.random.key(7), (POINTS, DIMENSIONS)) * 1.5


def log_likelihood(z, y):
    """The tilt of logistic regression, whose prior is N(0, I)."""
    logits = design() @ z
    return jnp.sum(y * jax.nn.log_sigmoid(logits) + (1 - y) * jax.nn.log_sigmoid(-logits))


def rank_histograms(kernel, replicas):
    """Ranks of true parameters, and of the true tilt, among posterior draws: p of uniformity.

    Source: Talts, Betancourt, Simpson, Vehtari, Gelman, Validating Bayesian inference algorithms
    with simulation-based calibration, arXiv 1804.06788.
    """

    @jax.jit
    def ranks(key):
        key_truth, key_data, key_chain, key_start = jax.random.split(key, 4)
        truth = jax.random.normal(key_truth, (DIMENSIONS,))
        chances = jax.nn.sigmoid(design() @ truth)
        y = (jax.random.uniform(key_data, (POINTS,)) < chances).astype(jnp.float32)
        state = kernel.init(key_chain, 0, jax.random.normal(key_start, (DIMENSIONS,)), (y,), {})

        def draw(state, _):
            state = jax.lax.fori_loop(0, 8, lambda _, state: kernel.sample(state, (y,), {}), state)
            return state, (state.z, state.chain.tilt)

        _, (z, tilt) = jax.lax.scan(draw, state, length=KEPT + 5)
        entries = (z[5:] < truth[None]).sum(axis=0)
        return jnp.append(entries, (tilt[5:] < log_likelihood(truth, y)).sum())

    found = np.asarray(
        jax.lax.map(ranks, jax.random.split(jax.random.key(0), replicas), batch_size=2000)
    )
    counts = [np.bincount(column, minlength=KEPT + 1) for column in found.T]
    return [stats.chisquare(count).pvalue for count in counts]


@pytest.mark.parametrize("replicas", [1000, pytest.param(50_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", KERNELS)
def test_ranks_of_parameters_among_their_posterior_draws_are_uniform(name, replicas):
    assert min(rank_histograms(KERNELS[name](log_likelihood), replicas)) > ALARM


def test_a_kernel_that_accepts_everything_is_not_calibrated(monkeypatch):
    def all_accepted(*arguments):
        moved = decided(*arguments)
        return moved._replace(point=moved.end.point)

    for module in ("trajectory", "softening"):
        monkeypatch.setattr(f"ppl_cnn.inference.kernels.moves.{module}.decided", all_accepted)
    assert min(rank_histograms(KERNELS["split"](log_likelihood), 2000)) < ALARM / 100
