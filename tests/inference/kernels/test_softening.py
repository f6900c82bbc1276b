"""Softened forces: what they are, and that whatever they are, the density stays."""

from functools import partial

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from flax import nnx
from numpyro.infer import MCMC

import ppl_cnn
from ppl_cnn.errors import UnknownNameError
from ppl_cnn.inference.kernels.choice import Choice, ChoiceTuning, Trial
from ppl_cnn.inference.kernels.freshness import Weights
from ppl_cnn.inference.kernels.moves import softening
from ppl_cnn.inference.kernels.moves.softening import kinks, soft_metropolis, softened
from ppl_cnn.inference.kernels.moves.trajectory import point_at
from ppl_cnn.inference.kernels.registry import parse_kernel
from ppl_cnn.inference.kernels.softness import (
    FIRST_WIDTH,
    GAP,
    TRANSITIONS_IN_A_ROW,
    Softness,
    SoftTrial,
    SoftTuning,
)
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.trained.cnn import CNN
from tests.models import onnx_files

# Smooth relatives


@pytest.mark.parametrize(
    ("kinked", "smooth"),
    [
        (jax.nn.relu, lambda x: (x + 0.5) ** 2 / 2),
        (lambda x: jnp.minimum(x, 0), lambda x: x - (x + 0.5) ** 2 / 2),
        (lambda x: jax.lax.clamp(0.0, x, 100.0), lambda x: (x + 0.5) ** 2 / 2),
        (jax.jit(jax.checkpoint(jax.nn.relu)), lambda x: (x + 0.5) ** 2 / 2),
    ],
)
def test_kinks_are_rounded_off_within_their_width(kinked, smooth):
    for x in (0.3, -0.3):
        z = jnp.asarray([x, 1.4])
        count = kinks(lambda z: kinked(z).sum(), z)
        assert count in (1, 2)
        widths = jnp.full(count, 0.5)
        found, slope = jax.value_and_grad(softened(lambda z: kinked(z)[0], widths))(z)
        assert float(found) == pytest.approx(smooth(x), rel=1e-5)
        assert float(slope[0]) == pytest.approx(
            (smooth(x + 1e-4) - smooth(x - 1e-4)) / 2e-4, rel=1e-4
        )


def test_pools_of_windows_are_rounded_off_as_shifted_maxima_are():
    def pooled(x):
        return nnx.max_pool(x, (3, 2), (2, 1), padding=((1, 1), (0, 1))).sum()

    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    assert kinks(pooled, x) == 2 + 1
    value, slope = jax.value_and_grad(softened(pooled, jnp.full(3, 0.3)))(x)
    assert pooled(x) < value < pooled(x) + 30
    # Maxima of what is moved up by 1 are: each window's derivatives add up to 1.
    np.testing.assert_allclose(slope.sum(), 2 * 4 * 6 * 3, rtol=1e-5)
    assert (np.asarray(jax.grad(pooled)(x)) == 0).sum() > (np.asarray(slope) == 0).sum()
    np.testing.assert_allclose(softened(pooled, jnp.zeros(3))(x), pooled(x), rtol=1e-6)


def test_whole_numbers_loops_and_other_kinks_stay():
    def tilt(z):
        count = jnp.maximum(z.size, jnp.argmax(z))
        looped = jax.lax.fori_loop(0, 2, lambda _, x: jnp.maximum(x, 0.1), z)
        return (looped + jax.nn.leaky_relu(z)).sum() * count.astype(jnp.float32)

    z = jnp.linspace(-1.0, 1.0, 5)
    assert kinks(tilt, z) == 0
    assert softened(tilt, jnp.zeros(0))(z) == tilt(z)


class Net(nnx.Module):
    def __init__(self):
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0))

    def __call__(self, x):
        return nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), (2, 2)).mean((1, 2))


def of_module():
    net = Net()
    return ppl_cnn.ScoreFunction(lambda image: 100 * net(image[None])[0, 0], (8, 8, 3))


def of_graph(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        onnx_files.node("Conv", "x w", "c", "/conv/Conv"),
        onnx_files.node("Relu", "c", "r", "/relu/Relu"),
        onnx_files.node("MaxPool", "r", "m", "/pool/MaxPool", kernel_shape=[2, 2]),
        onnx_files.node("GlobalAveragePool", "m", "p", "/mean/GlobalAveragePool"),
        onnx_files.node("Flatten", "p", "y", "/Flatten"),
    ]
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_files.content(nodes, {"w": kernel}, image=(1, 3, 8, 7), output="y"))
    return ppl_cnn.load(path, pixels="torchvision").unit("class:2")


def of_network():
    return CNN.random(LENET).unit("fc4:3")


@pytest.mark.parametrize(
    "kind", [pytest.param("network", marks=pytest.mark.long), "module", "graph"]
)
def test_networks_of_every_kind_soften(kind, tmp_path):
    unit = {"network": of_network, "module": of_module, "graph": partial(of_graph, tmp_path)}[kind]
    density = ppl_cnn.TiltedDensity(unit(), ppl_cnn.WhiteNoise(10.0), 1.0)
    z = jax.random.normal(jax.random.key(0), density.latent_shape)

    @jax.jit
    def found(params, z, widths):
        return jax.value_and_grad(softened(lambda z: density.tilt(z, params), widths))(z)

    _, squares = softening._relative(density.tilt, z, None)
    assert len(squares) == kinks(density.tilt, z) > 1
    exact, slope = jax.jit(jax.value_and_grad(density.tilt))(z, density.params)
    value, same = found(density.params, z, jnp.zeros_like(squares))
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    np.testing.assert_allclose(same, slope, rtol=1e-4, atol=1e-5 * float(jnp.abs(slope).max()))
    _, other = found(density.params, z, 0.1 * jnp.sqrt(squares))
    share = float(jnp.linalg.norm(other - slope) / jnp.linalg.norm(slope))
    assert 0.01 < share < 0.6


# Trajectories

CENTRE, SPREAD = np.asarray([1.0, -0.5, 0.2], np.float32), 0.5


def gaussian(z):
    """p = N(c, s^2 I)."""
    return -jnp.sum((z - CENTRE) ** 2) / (2 * SPREAD**2) + jnp.sum(z**2) / 2


def softness(width, kinks, *, tried=0):
    return Softness(jnp.asarray(width), jnp.ones(kinks), jnp.asarray(tried), jnp.asarray(jnp.nan))


def moved(tilt, z, key, width, *, step=0.3, steps=3, tried=0):
    start, told = point_at(tilt, z), softness(width, kinks(tilt, z), tried=tried)
    return soft_metropolis(tilt, start, key, jnp.asarray(step), jnp.asarray(steps), told)


@pytest.mark.parametrize("step", [0.1, 1.0, 2.5])
def test_kicks_amid_turns_have_no_error_for_a_linear_tilt(step):
    z = jnp.asarray([0.3, 1.0, -2.0])
    found = moved(lambda z: CENTRE @ z, z, jax.random.key(0), 0.1, step=step)
    assert abs(float(found.moved.end.energy_change)) < 1e-4
    assert found.passes == 1
    assert moved(lambda z: CENTRE @ z, z, jax.random.key(0), 0.1, tried=1).passes == 3
    np.testing.assert_array_equal(found.moved.point.tilt_grad, CENTRE)


def bad_relative(tilt, z, widths):
    """As wrong as can be: it swirls, and is large; it is no gradient of anything."""
    if widths is None:
        return tilt(z), jnp.zeros(1)
    swirl = 2 * jnp.stack([z[1], -z[0], jnp.sin(5 * z[0])])
    wrong = jnp.sum(jax.lax.stop_gradient(swirl) * z) - tilt(z) / 2
    return tilt(z) + jnp.where(widths[0] > 0, wrong, 0.0), jnp.zeros(1)


def test_whatever_the_force_the_density_stays(monkeypatch):
    monkeypatch.setattr(softening, "_relative", bad_relative)
    count = 40_000

    @jax.jit
    @jax.vmap
    def transitions(key):
        def transition(z, key):
            found = moved(gaussian, z, key, 0.1).moved
            return found.point.z, found.acceptance

        key_start, *keys = jax.random.split(key, 6)
        z = CENTRE + SPREAD * jax.random.normal(key_start, (3,))
        return jax.lax.scan(transition, z, jnp.stack(keys))

    z, rates = transitions(jax.random.split(jax.random.key(0), count))
    assert 0.1 < rates.mean() < 0.7
    normal = (np.asarray(z, np.float64) - CENTRE) / SPREAD
    # Standard errors are 0.005 of the means and 0.007 of the variances, 0.005 of the covariances.
    assert np.abs(normal.mean(0)).max() < 0.02
    assert np.abs(normal.T @ normal / count - np.eye(3)).max() < 0.03


def test_trajectories_by_a_softened_force_lead_back():
    def tilt(z):
        return 20 * jax.nn.relu(z).sum()

    z, p = jax.random.normal(jax.random.key(0), (2, 30))
    run = partial(softening._followed, tilt, softness=softness(0.3, 1))
    step, steps = jnp.asarray(0.2), jnp.asarray(4)
    there = run(point_at(tilt, z), p, step, steps)
    back = run(there.point, -there.momentum, step, steps)
    np.testing.assert_allclose(back.point.z, z, atol=1e-4)
    np.testing.assert_allclose(back.momentum, -p, atol=1e-4)


def test_a_tilt_that_is_no_number_is_never_accepted():
    def tilt(z):
        return jnp.where(z[0] > 0, jnp.nan, 0.0) * z[0] + jax.nn.relu(z).sum()

    keys = jax.random.split(jax.random.key(0), 50)
    found = jax.vmap(lambda key: moved(tilt, jnp.asarray([-0.2, 0.4]), key, 0.2, tried=1))(keys)
    assert (found.moved.point.z[:, 0] < 0).all()
    assert np.isfinite(found.moved.point.tilt).all()
    assert np.isfinite(found.squares).all()
    np.testing.assert_array_equal(found.gap == np.inf, np.isnan(found.moved.end.point.tilt))
    assert 0 < found.moved.acceptance.mean() < 1


# In the kernel

STRENGTH, DIMENSIONS = 15.0, 40


def kinked(z):
    """Coordinates are independent, N(0, 1) below 0 and exp(-15 z) N(0, 1) above."""
    return -STRENGTH * jax.nn.relu(z).sum()


def moments_of_kinked():
    z = np.linspace(-9, 3, 400_001)
    weights = np.exp(-STRENGTH * np.maximum(z, 0) - z**2 / 2)
    weights /= weights.sum()
    return weights @ z, weights @ z**2


@pytest.fixture(scope="module")
def draws():
    mcmc = MCMC(
        Split(kinked),
        num_warmup=300,
        num_samples=800,
        num_chains=8,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = jax.random.normal(jax.random.key(1), (8, DIMENSIONS))
    fields = ("own", "num_steps", "point")
    mcmc.run(jax.random.key(0), init_params=start, extra_fields=fields)
    return np.asarray(mcmc.get_samples(True), np.float64), mcmc.get_extra_fields(True)


def errors_of(values, truth):
    """Errors of means, in units of their Monte Carlo standard error."""
    found = xr.Dataset({"x": (("chain", "draw", "entry"), np.asarray(values, np.float64))})
    return ((found["x"].mean(("chain", "draw")) - truth) / arviz_stats.mcse(found)["x"]).values


def test_a_softened_force_is_chosen_where_it_pays_and_samples_the_density(draws):
    z, fields = draws
    own = {name: float(values[0, 0]) for name, values in fields["own"].items()}
    assert own["width"] > 0.01
    assert own["turn"] == 0
    assert own["worth_of_softened"] > max(own["worth_of_trajectories"], own["worth_of_turns"])
    first, second = moments_of_kinked()
    # The largest of eighty standard normal errors exceeds 4.4 with probability 1e-3.
    assert np.abs(errors_of(z, first)).max() < 4.4
    assert np.abs(errors_of(z**2, second)).max() < 4.4


def test_the_gradient_that_is_held_is_the_tilts_own_with_the_mean_of_all(draws):
    """Stein's identity: E[z] = E[grad g]."""
    z, fields = draws
    gradients = np.asarray(fields["point"].tilt_grad, np.float64)
    first, _ = moments_of_kinked()
    assert np.abs(errors_of(gradients, first)).max() < 4.4
    assert (np.asarray(fields["own"]["forward_passes"]) == 1).all()
    fresh = (gradients == np.where(z > 0, -STRENGTH, 0.0)).all(axis=2)
    # Every eighth draw has its own, and so have those where the chain stays.
    assert fresh.mean() > 1 / 8 - 0.01
    changed = (gradients[:, 1:] != gradients[:, :-1]).any(axis=2)
    assert changed.mean() < 1 / 7.9
    np.testing.assert_allclose(fields["point"].tilt, kinked_at(z), rtol=1e-3, atol=1e-3)


def kinked_at(z):
    return -STRENGTH * np.maximum(z, 0).sum(axis=-1)


def kinked_density():
    score = ppl_cnn.ScoreFunction(lambda image: -jax.nn.relu(image).sum(), (4, 4, 3))
    return ppl_cnn.TiltedDensity(score, ppl_cnn.WhiteNoise(1.0), 1 / STRENGTH)


def test_a_run_tries_nothing_beside_its_draws_once_the_warmup_has_ended():
    """The warmup's transitions are those by either force."""
    draws = ppl_cnn.draw(kinked_density(), chains=2, warmup=100, draws=20, progress=False)
    stats = draws["sample_stats"]
    assert np.isfinite(stats["worth_of_softened"]).all()  # it was tried
    by_force = np.where(stats["width"] > 0, 1, 0)
    np.testing.assert_array_equal(stats["forward_passes"], by_force)


@pytest.mark.long
def test_a_run_by_a_softened_force_is_resumed_to_the_same_bits(tmp_path):
    draw = partial(ppl_cnn.draw, kinked_density(), chains=2, warmup=200, progress=False)
    one = draw(draws=40, out=tmp_path / "one")
    draw(draws=10, out=tmp_path / "two")
    two = draw(draws=40, out=tmp_path / "two")
    assert (one["sample_stats/width"] > 0.01).all()
    for group in ("posterior", "sample_stats"):
        xr.testing.assert_identical(one[group].to_dataset(), two[group].to_dataset())
    moves = ppl_cnn.diagnose(tmp_path / "one").efficiency.moves
    assert moves.width == pytest.approx(float(one["sample_stats/width"][0, 0]))
    assert moves.worth_of_softened > moves.worth_of_trajectories


def test_forces_by_name(refused):
    kernel = parse_kernel("split(force=exact)")
    assert str(kernel) == "split(force=exact)"
    exact = Split(kinked, force="exact").init(jax.random.key(0), 0, jnp.zeros(3), (), {})
    assert exact.adapt_state.softness is None
    smooth = Split(gaussian).init(jax.random.key(0), 0, jnp.zeros(3), (), {})
    assert smooth.adapt_state.softness is None
    with refused("soft", "softened", "exact", kind=UnknownNameError):
        parse_kernel("split(force=soft)")


# The adaptation


def told(scale, *, of_softened, count=160, steps=5.0):
    """What a warmup finds whose gap is `scale` times the width to the power of 1.5."""
    choice, no, one = Choice.trajectories(), jnp.asarray(False), jnp.asarray(1.0)
    spread, none = jnp.asarray([1.0, 9.0]), jnp.zeros(2)

    def trial(worth, made):
        return Trial(one, spread, spread * worth, one * steps, none, one, made, Weights.none())

    def transition(carry, index):
        tuning, exact = carry
        soft, _ = tuning.current(no, exact.current(no), one * steps)
        made = (soft.width > 0).astype(jnp.float32)
        found = SoftTrial(made, scale * soft.width**1.5, 4.0 * made[None], trial(of_softened, made))
        exact = exact.update(trial(0.4, 1 - made), ended=index == 50)
        return (tuning.update(found, ended=index == 50), exact), soft.width

    start = SoftTuning.around(choice, jnp.zeros(1)), ChoiceTuning.around(choice)
    (tuning, exact), widths = jax.lax.scan(transition, start, jnp.arange(count))
    settled = jnp.asarray(True)
    return *tuning.current(settled, exact.current(settled), one * steps), np.asarray(widths)


def test_the_width_makes_the_gap_what_it_should_be():
    found, choice, widths = told(20.0, of_softened=0.8)
    assert float(found.width) == pytest.approx((GAP / 20) ** (1 / 1.5), rel=0.15)
    np.testing.assert_allclose(found.widths, 2 * found.width, rtol=1e-4)
    assert found.tried == 0
    assert choice.passes == 0
    np.testing.assert_allclose(found.worth, 0.8 / 1.2 / 5, rtol=1e-4)
    in_turn = widths.reshape(-1, TRANSITIONS_IN_A_ROW) > 0
    assert in_turn[1::2].all()
    assert not in_turn[::2].any()
    assert widths[TRANSITIONS_IN_A_ROW] == pytest.approx(FIRST_WIDTH)


def test_the_exact_force_is_taken_where_it_is_worth_more():
    found, *_ = told(20.0, of_softened=0.3)
    assert found.width == 0
    np.testing.assert_allclose(found.worth, 0.3 / 1.7 / 5, rtol=1e-4)


def test_a_softened_force_is_not_tried_where_trajectories_are_short():
    found, _, widths = told(1.0, of_softened=0.8, steps=1.5)
    assert not widths.any()
    assert found.width == 0
    assert np.isnan(found.worth)
