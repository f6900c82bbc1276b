import math

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro.infer import MCMC

import ppl_cnn
from ppl_cnn.errors import UnknownNameError
from ppl_cnn.inference.kernels.choice import (
    ANGLES,
    LEAST_ACCEPTED,
    LEAST_WARMUP,
    MOST_TURNS,
    TURNS_TO_A_GRADIENT,
    Choice,
    ChoiceTuning,
    Trial,
    least,
    transitions_to_a_gradient,
    turns_together,
    worth,
    worth_of_turns,
)
from ppl_cnn.inference.kernels.freshness import LEAST_EFFICIENCY, MOST_FRESH, Weights
from ppl_cnn.inference.kernels.moves.trajectory import point_at, turned
from ppl_cnn.inference.kernels.registry import parse_kernel
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.work import FORWARD_COST

CURVATURE, SLOPE = 0.01, np.asarray([0.03, -0.1, 0.05], np.float32)
MEAN = np.pad(SLOPE, (0, 27)) / (1 + CURVATURE)


def mild(z):
    """p = N(b / (1 + c), I / (1 + c))."""
    return SLOPE @ z[:3] - CURVATURE * jnp.sum(z**2) / 2


def steep(z):
    """p = N(0, I / 401)."""
    return -200 * jnp.sum(z**2)


def run(kernel, *, warmup=300, samples=20, chains=16, dimensions=30, seed=0):
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=samples,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = jax.random.normal(jax.random.key(seed + 1), (chains, dimensions))
    fields = ("adapt_state.choice", "num_steps", "own", "point.tilt_grad")
    mcmc.run(jax.random.key(seed), init_params=start, extra_fields=fields)
    return np.asarray(mcmc.get_samples(True), np.float64), mcmc.get_extra_fields(True)


def errors_of(values, truth):
    """Errors of means, in units of their Monte Carlo standard error."""
    found = xr.Dataset({"x": (("chain", "draw", "entry"), np.asarray(values, np.float64))})
    return ((found["x"].mean(("chain", "draw")) - truth) / arviz_stats.mcse(found)["x"]).values


@pytest.fixture
def no_pools(monkeypatch):
    """No fresh draws are good enough."""
    monkeypatch.setattr("ppl_cnn.inference.kernels.choice.LEAST_EFFICIENCY", 2.0)


def test_pools_are_chosen_where_the_tilt_is_mild_and_sample_it():
    z, fields = run(Split(mild), samples=800)
    choice, own = fields["adapt_state.choice"], fields["own"]
    assert (np.asarray(choice.fresh) == np.asarray(choice.fresh)[0, 0]).all()
    assert (np.asarray(choice.turns) == 0).all()
    assert (choice.worth_of_fresh > choice.worth_of_turns).all()
    assert (choice.worth_of_turns > choice.worth_of_trajectories).all()
    # N(0, I) in 30 dimensions for a precision of 1.01: nearly all fresh draws count.
    np.testing.assert_array_equal(np.asarray(choice.fresh), 1)
    passes = np.asarray(own["forward_passes"])
    assert (passes[:, 0] == 16).all()
    assert (passes[:, 1:] == 1).all()
    assert (own["fresh_per_draw"] == 1).all()
    assert np.abs(errors_of(z, MEAN)).max() < 4.3
    assert np.abs(errors_of((z - MEAN) ** 2, 1 / (1 + CURVATURE))).max() < 4.3


def test_turns_are_chosen_where_too_few_fresh_draws_count_and_sample_it(no_pools):
    z, fields = run(Split(mild), samples=800)
    turns = np.asarray(fields["adapt_state.choice"].turns)
    assert (turns == turns[0, 0]).all()
    assert 1 <= turns[0, 0] <= 3
    # The largest of sixty standard normal errors exceeds 4.3 with probability 1e-3.
    assert np.abs(errors_of(z, MEAN)).max() < 4.3
    assert np.abs(errors_of((z - MEAN) ** 2, 1 / (1 + CURVATURE))).max() < 4.3


@pytest.mark.parametrize("pools", [True, False])
def test_the_gradient_that_is_held_has_the_mean_of_all(pools, request):
    """Stein's identity: E[z] = E[grad g]."""
    if not pools:
        request.getfixturevalue("no_pools")
    z, fields = run(Split(mild), samples=800, seed=3)
    gradients = np.asarray(fields["point.tilt_grad"], np.float64)
    taken = np.asarray(fields["num_steps"])
    turns = int(fields["own"]["forward_passes"][0, 1])
    every = int(transitions_to_a_gradient(jnp.asarray(turns), jnp.asarray(TURNS_TO_A_GRADIENT)))
    assert taken.mean() == pytest.approx(1 / every, rel=0.05)
    # A draw that is looked at every so often, and held, has fewer effective draws; ESS knows it.
    assert np.abs(errors_of(gradients, MEAN)).max() < 4.3
    held = taken == 0
    same = (gradients[:, 1:] == gradients[:, :-1]).all(axis=2)
    np.testing.assert_array_equal(same, held[:, 1:])
    fresh = ~held
    truth = np.pad(SLOPE, (0, 27)) - CURVATURE * z[fresh]
    np.testing.assert_allclose(gradients[fresh], truth, rtol=1e-4, atol=1e-5)


def test_trajectories_are_chosen_where_the_tilt_is_strong_and_are_those_of_no_choice():
    chosen, fields = run(Split(steep), warmup=60)
    choice = fields["adapt_state.choice"]
    assert (np.asarray(choice.turns) == 0).all()
    assert (choice.worth_of_trajectories > 2 * choice.worth_of_turns).all()
    kernel = Split(steep, moves="trajectories")
    mcmc = MCMC(
        kernel,
        num_warmup=60,
        num_samples=20,
        num_chains=16,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = jax.random.normal(jax.random.key(1), (16, 30))
    mcmc.run(jax.random.key(0), init_params=start)
    np.testing.assert_allclose(chosen, mcmc.get_samples(True), rtol=1e-3, atol=1e-5)


def test_a_short_warmup_does_not_choose():
    _, fields = run(Split(mild), warmup=LEAST_WARMUP - 1, samples=3)
    assert (np.asarray(fields["adapt_state.choice"].turns) == 0).all()
    assert (np.asarray(fields["own"]["forward_passes"]) == 0).all()


@pytest.mark.parametrize(
    ("reference", "share"),
    [(ppl_cnn.WhiteNoise(10.0), 1 / TURNS_TO_A_GRADIENT), (ppl_cnn.Uniform(), 0.0)],
)
def test_where_there_is_no_stein_mean_turns_take_no_gradient(reference, share):
    density = ppl_cnn.TiltedDensity(ppl_cnn.ScoreFunction(jnp.sum, (1, 3, 1)), reference, 100.0)
    kernel = Split().bind(density)
    choice = kernel.start(jax.random.key(0), jnp.zeros((1, 3, 1)), None).adapt_state.choice
    by_turns = choice._replace(turns=jnp.asarray(1))
    assert 1 / float(by_turns.transitions_to_a_gradient) == pytest.approx(share, abs=1e-8)


def test_moves_by_name(refused):
    kernel = parse_kernel("split(moves=trajectories)")
    assert str(kernel) == "split(moves=trajectories)"
    assert "turn" not in kernel.statistics
    assert "turn" in Split().statistics
    with refused("leaps", "chosen", "trajectories", kind=UnknownNameError):
        parse_kernel("split(moves=leaps)")


# Turns


@pytest.mark.parametrize("angle", ANGLES[:3])
def test_without_a_tilt_a_turn_has_the_correlation_of_its_angle(angle):
    z = jax.random.normal(jax.random.key(0), (400_000,))
    start = point_at(lambda z: jnp.zeros(()) * z[0], z)
    reached = turned(
        lambda z: jnp.zeros(()) * z[0], start, jax.random.key(1), jnp.asarray(angle), jnp.asarray(1)
    )
    assert reached.acceptance == 1
    # Standard errors of a mean of 400,000 products are 0.0016 or less.
    found = float(jnp.mean(z * reached.point.z))
    assert found == pytest.approx(math.cos(angle), abs=0.007)
    assert float(reached.jump[0]) == pytest.approx(1 - math.cos(angle), abs=0.007)


def test_turns_in_a_row_are_a_longer_one():
    z = jax.random.normal(jax.random.key(0), (400_000,))
    start = point_at(lambda z: jnp.zeros(()) * z[0], z)
    reached = turned(
        lambda z: jnp.zeros(()) * z[0], start, jax.random.key(1), jnp.asarray(0.5), jnp.asarray(3)
    )
    found = float(jnp.mean(z * reached.point.z))
    assert found == pytest.approx(math.cos(0.5) ** 3, abs=0.007)


@pytest.mark.parametrize("doublings", [1, 3])
def test_turns_of_several_angles_have_their_mean_correlation(doublings):
    z = jax.random.normal(jax.random.key(0), (1_000, 400))

    def turn(key, z):
        start = point_at(lambda z: jnp.zeros(()) * z[0], z)
        smallest, one = jnp.asarray(ANGLES[doublings]), jnp.asarray(1)
        return turned(lambda z: jnp.zeros(()) * z[0], start, key, smallest, one, doublings).point.z

    reached = jax.vmap(turn)(jax.random.split(jax.random.key(1), 1_000), z)
    found = jnp.mean(z * reached, axis=1)
    # A thousand turns, whose cosines differ by up to 0.4 from each other in the mean.
    of_each = np.cos(ANGLES[: doublings + 1])
    assert float(found.mean()) == pytest.approx(of_each.mean(), abs=4 * of_each.std() / 1_000**0.5)
    nearest = np.abs(np.asarray(found)[:, None] - of_each).argmin(axis=1)
    shares = np.bincount(nearest, minlength=doublings + 1) / 1_000
    assert shares.min() > 1 / (doublings + 1) - 0.1


def test_turns_of_several_angles_leave_a_density_as_it_is_where_large_ones_are_rejected():
    """N(m, I / 5): 20,000 draws of it stay draws of it; of quarter turns some 4 % are accepted."""
    mean, precision = jnp.asarray([0.5, -0.3, 0.0, 0.8, 0.2]), 5.0

    def tilt(z):
        return precision * mean @ z - (precision - 1) * jnp.sum(z**2) / 2

    @jax.jit
    @jax.vmap
    def chain(key):
        key_start, key_turns = jax.random.split(key)
        z = mean + jax.random.normal(key_start, (5,)) / precision**0.5
        moved = turned(
            tilt, point_at(tilt, z), key_turns, jnp.asarray(ANGLES[3]), jnp.asarray(20), 3
        )
        return moved.point.z, moved.acceptance

    z, acceptance = chain(jax.random.split(jax.random.key(2), 20_000))
    assert 0.1 < float(acceptance.mean()) < 0.6
    z = np.asarray(z, np.float64)
    # The largest of twenty standard normal errors exceeds 4.1 with probability 1e-3.
    error = (precision / 20_000) ** -0.5
    assert np.abs((z.mean(axis=0) - mean) * error).max() < 4.1
    covariance = np.cov(z.T) * precision
    expected = np.eye(5)
    assert np.abs((covariance - expected) / np.sqrt((1 + expected) / 20_000)).max() < 4.1


def test_no_turns_stay():
    start = point_at(mild, jnp.asarray([0.3, 1.0, -2.0]))
    reached = turned(mild, start, jax.random.key(1), jnp.asarray(0.5), jnp.asarray(0))
    assert all(map(np.array_equal, jax.tree.leaves(reached.point), jax.tree.leaves(start)))
    assert reached.acceptance == 0
    assert (reached.jump == 0).all()


def test_a_tilt_that_is_no_number_is_never_accepted():
    def tilt(z):
        return jnp.where(z[0] > 0, jnp.nan, 0.0) * z[0]

    start = point_at(tilt, jnp.asarray([-1.0]))
    keys = jax.random.split(jax.random.key(0), 50)
    reached = jax.vmap(lambda key: turned(tilt, start, key, jnp.asarray(1.5), jnp.asarray(2)))(keys)
    assert (reached.point.z < 0).all()
    assert np.isfinite(reached.jump).all()
    assert 0 < reached.acceptance.mean() < 1


# The choice


def test_the_worth_of_draws_is_that_of_an_autoregression():
    """ArviZ's ESS of AR(1) chains, which is (1 - r)/(1 + r) of their draws."""
    rng, correlation, draws = np.random.default_rng(0), 0.6, 50_000
    chains = np.empty((4, draws))
    chains[:, 0] = rng.standard_normal(4)
    for index in range(1, draws):
        noise = math.sqrt(1 - correlation**2) * rng.standard_normal(4)
        chains[:, index] = correlation * chains[:, index - 1] + noise
    found = arviz_stats.ess(xr.Dataset({"x": (("chain", "draw"), chains)}))["x"]
    assert float(worth(jnp.asarray(1 - correlation))) == pytest.approx(
        float(found) / (4 * draws), rel=0.05
    )


def test_as_many_turns_as_halve_the_correlation():
    found = turns_together(jnp.asarray([1.2, 0.6, 0.5, 0.4, 0.1, 0.0]))
    np.testing.assert_array_equal(found, [1, 1, 1, 2, 7, MOST_TURNS])


update = jax.jit(lambda tuning, trial, ended: tuning.update(trial, ended=ended))
current = jax.jit(ChoiceTuning.current)


def told(
    of_turns,
    of_trajectory,
    steps,
    *,
    size=1.0,
    slower=1.0,
    accepted=0.6,
    efficiency=0.0,
    count=120,
):
    """What the warmup finds if every trial of an angle gives the same.

    The tilt varies by 9 about -1000, and its jumps are `slower` times as large beside that. A fresh
    draw's weight is `efficiency` times that of each place.
    """
    tuning, one = ChoiceTuning.around(Choice.trajectories()), jnp.asarray(1.0)

    def both(jump):
        return jnp.asarray([jump, jump / size * 9 * slower], jnp.float32)

    for _ in range(count):
        index = int(tuning.transitions) % len(ANGLES)
        if tuning.transitions > 0:
            tried = current(tuning, jnp.asarray(False))
            assert float(tried.angle) == pytest.approx(ANGLES[index])
            assert tried.turns == 0
            assert tried.tried == 1
            assert tried.centre == -1000
        spread, steps_ = jnp.asarray([size, 9.0], jnp.float32), jnp.asarray(steps)
        rate = jnp.broadcast_to(jnp.asarray(accepted), len(ANGLES))[index]
        found = both(of_trajectory), steps_, both(of_turns[index]), rate, one
        weights = Weights(jnp.asarray(efficiency), one, one, one, one)
        trial = Trial(jnp.asarray(-1000.0), spread, *found, weights)
        tuning = update(tuning, trial, jnp.asarray(tuning.transitions == 50))
    return current(tuning, jnp.asarray(True))


def test_what_is_worth_more_is_chosen():
    of_turns = [0.05, 0.2, 0.1, 0.02]
    dear = told(of_turns, 0.9, 8.0)
    # Six turns of 90° or 45°, of mean correlation 0.875, make a draw, with a gradient
    # every tenth draw.
    by_turns = float(worth_of_turns(jnp.asarray(0.125), jnp.asarray(6), jnp.asarray(64)))
    r = 0.875**6
    assert by_turns == pytest.approx((1 - r) / (1 + r) / (6 * FORWARD_COST + 1 / 10))
    np.testing.assert_allclose(dear.worth_of_turns, by_turns, rtol=1e-5)
    np.testing.assert_allclose(dear.worth_of_trajectories, 0.9 / 1.1 / 8, rtol=1e-5)
    assert by_turns > 0.9 / 1.1 / 8
    assert dear.turns == 6
    assert float(dear.angle) == pytest.approx(ANGLES[1])
    assert dear.doublings == 1
    assert dear.tried == 0
    assert by_turns < 0.9 / 1.1 / 5
    assert told(of_turns, 0.9, 5.0).turns == 0


def test_pools_are_chosen_where_enough_fresh_draws_count():
    of_turns = [0.05, 0.2, 0.1, 0.02]
    found = told(of_turns, 0.9, 8.0, efficiency=0.25)
    assert found.turns == 0
    assert found.fresh == found.passes == 1  # 4/3, rounded
    # A pool's draw counts 1 / (4 + sqrt(3/4)/2), with a gradient every 64th.
    worth = 1 / (4 + math.sqrt(0.75) / 2) / (FORWARD_COST + 1 / 64)
    np.testing.assert_allclose(found.worth_of_fresh, worth, rtol=1e-5)
    assert found.worth_of_turns < worth
    # Trajectories that are worth more go before.
    assert told(of_turns, 0.9, 1.0, efficiency=0.25).passes == 0
    enough, too_few = (
        told([0.0] * 4, 0.01, 50.0, efficiency=LEAST_EFFICIENCY * factor) for factor in (1.01, 0.99)
    )
    assert enough.fresh == MOST_FRESH
    assert too_few.fresh == 0
    assert too_few.worth_of_fresh == 0


def test_weights_of_a_round_count_about_its_own_centre():
    """A tilt that has risen between rounds: places of the round before, and their weights, sink."""
    tuning, one = ChoiceTuning.around(Choice.trajectories()), jnp.asarray(1.0)
    none = jnp.zeros(2)

    def after(tuning, tilt, fresh, ended):
        weights = Weights.of(jnp.asarray([fresh]), jnp.asarray(tilt), tuning.centre)
        trial = Trial(jnp.asarray(tilt), none + 1, none, one, none, one, one, weights)
        return update(tuning, trial, jnp.asarray(ended))

    tuning = after(tuning, 5.0, 5.0, False)
    for count in range(9):
        tuning = after(tuning, 5.0, 4.0, count == 8)
    found = tuning.before.weights
    assert tuning.centre == 5.0
    # Two quarter turns after the first, of the ten trials; that first is about a centre of 0.
    assert found.draws == 3
    np.testing.assert_allclose(found.here, 9 + math.exp(5), rtol=1e-5)
    for _ in range(4):
        tuning = after(tuning, 8.0, 7.0, False)
    tuning = after(tuning, 8.0, 7.0, True)
    assert tuning.centre == 8.0
    np.testing.assert_allclose(tuning.before.weights.here, 5.0, rtol=1e-5)


def test_jumps_are_measured_by_the_size_of_z():
    """Draws of N(0, I / 400) that jump by as much as they are large are independent."""
    found = told([x / 400 for x in (0.6, 0.3, 0.1, 0.0)], 1 / 400, 5.0, size=1 / 400)
    np.testing.assert_allclose(found.worth_of_trajectories, 1 / 5, rtol=1e-4)
    assert found.turns == 1


def test_the_slower_of_z_and_tilt_decides():
    of_turns = [0.05, 0.2, 0.1, 0.02]
    same, slow = told(of_turns, 0.9, 5.0), told(of_turns, 0.9, 5.0, slower=0.1)
    assert slow.turns == MOST_TURNS
    np.testing.assert_allclose(slow.worth_of_trajectories, 0.09 / 1.91 / 5, rtol=1e-4)
    assert same.worth_of_turns > 5 * slow.worth_of_turns


def test_angles_go_down_to_one_that_is_accepted_often_enough():
    """However far larger ones go: chains would stay at large tilts for longer than a warmup."""
    accepted = [LEAST_ACCEPTED - 0.2, LEAST_ACCEPTED - 0.1, LEAST_ACCEPTED + 0.1, 0.9]
    found = told([0.3, 0.2, 0.1, 0.02], 0.9, 50.0, accepted=accepted)
    assert float(found.angle) == pytest.approx(ANGLES[2])
    assert found.doublings == 2
    assert found.turns == 4


def test_turns_that_are_seldom_accepted_are_not_made():
    of_turns = [0.3, 0.3, 0.3, 0.3]
    assert told(of_turns, 0.9, 50.0, accepted=LEAST_ACCEPTED + 0.01).turns > 0
    found = told(of_turns, 0.9, 50.0, accepted=LEAST_ACCEPTED - 0.01)
    assert found.turns == 0
    assert found.worth_of_turns == 0


def test_a_tilt_that_does_not_vary_has_no_say():
    jump, spread = jnp.asarray([[0.3, 0.0]]), jnp.asarray([[1.0, 0.0]])
    np.testing.assert_allclose(least(jump, spread), 0.3)


def test_units_choose_each_for_themselves():
    tuning = ChoiceTuning.around(
        jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), Choice.trajectories())
    )
    two = jnp.ones(2)
    for count in range(70):
        trial = Trial(
            two,
            jnp.ones((2, 2)),
            jnp.full((2, 2), 0.5),
            jnp.asarray([1.0, 9.0]),
            jnp.asarray([[0.1, 0.1], [0.9, 0.9]]),
            two,
            two,
            Weights(jnp.asarray([0.5, 0.01]), two, two, two, two),
        )
        tuning = tuning.update(trial, ended=jnp.asarray([count == 40, False]))
    found = tuning.current(jnp.asarray([True, True]))
    np.testing.assert_array_equal(found.turns, [0, 1])
    np.testing.assert_array_equal(found.fresh, [1, 0])
