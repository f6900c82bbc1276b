"""What every kernel tells the chain driver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.isir import ISIR
from ppl_cnn.inference.kernels.kernel import COMMON, Statistic, Target, averaged, joined
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import HMC, NUTS
from ppl_cnn.inference.kernels.moves.trajectory import van_der_corput
from ppl_cnn.inference.kernels.registry import KERNELS, parse_kernel
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.kernels.tempered import Tempered

SLOPE = np.asarray([[0.3, -0.2], [0.0, 0.5]], np.float32)[..., None]


def linear(image):
    return jnp.sum(SLOPE * image)


def linear_density():
    return ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(linear, SLOPE.shape), ppl_cnn.WhiteNoise(3.0), temperature=0.5
    )


def test_van_der_corput_begins_with_halves_quarters_and_eighths():
    values = [float(van_der_corput(jnp.asarray(index))) for index in range(8)]
    assert values == [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]


def test_van_der_corput_fills_the_unit_interval_evenly():
    values = np.sort(jax.vmap(van_der_corput)(jnp.arange(256)))
    np.testing.assert_array_equal(values, np.arange(256) / 256)


# Statistics

STATISTICS = {
    **COMMON,
    **{"tree_depth": Statistic(np.int32), "restarts": Statistic(np.int32, "sum")},
}


def report(**changes):
    values = {
        "lp": -1.0,
        "energy": 2.0,
        "acceptance_rate": 0.5,
        "diverging": False,
        "n_steps": 3,
        "step_size": 0.1,
        "tree_depth": 2,
        "restarts": 1,
    }
    return {name: jnp.asarray(value) for name, value in (values | changes).items()}


def test_transitions_in_a_row_add_up_costs_and_keep_the_last_place():
    first = report(diverging=True)
    later = report(lp=-4.0, energy=7.0, acceptance_rate=1.0, n_steps=5, step_size=0.2)
    both = joined(STATISTICS, first, later)
    assert both["n_steps"] == 8
    assert both["diverging"]
    assert both["acceptance_rate"] == 1.5
    assert both["restarts"] == 2
    assert (both["lp"], both["energy"], both["tree_depth"]) == (-4, 7, 2)
    assert both["step_size"] == later["step_size"]
    assert not joined(STATISTICS, later, later)["diverging"]


def test_the_mean_acceptance_is_over_the_transitions_in_between():
    three = joined(STATISTICS, report(acceptance_rate=0.3), report(acceptance_rate=0.6))
    three = joined(STATISTICS, three, report(acceptance_rate=0.9, n_steps=4))
    three = averaged(STATISTICS, three, jnp.asarray(3))
    assert three["acceptance_rate"] == pytest.approx(0.6)
    assert three["n_steps"] == 10


def test_statistics_are_the_common_ones_and_what_is_one_kernels_alone():
    assert set(NUTS().statistics) - set(COMMON) == {"tree_depth"}
    assert set(Tempered(rungs=3).statistics) - set(COMMON) == {"restarts"}
    own = {"forward_passes", "global_acceptance_rate", "fresh_per_draw"}
    assert set(ISIR().statistics) - set(COMMON) == own
    for kernel in (Split(moves="trajectories"), HMC()):
        assert kernel.statistics == COMMON
    assert set(Split().statistics) - set(COMMON) == {
        *(
            "forward_passes",
            "turn",
            "fresh_per_draw",
            "worth_of_turns",
            "worth_of_fresh",
            "worth_of_trajectories",
        ),
        *("width", "worth_of_softened"),
    }
    assert HMC().statistics["diverging"].dtype is np.bool_


# States


def test_a_density_is_a_target():
    assert isinstance(linear_density(), Target)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernels_report_is_that_of_its_state(name):
    density = linear_density()
    kernel = parse_kernel(name).bind(density)
    assert type(kernel) is KERNELS[name]

    @jax.jit
    def one(key):
        key_start, key_chain = jax.random.split(key)
        z = jax.random.normal(key_start, density.latent_shape)
        return kernel.move(kernel.start(key_chain, z, density.params), density.params)

    state = one(jax.random.key(0))
    z, found = kernel.latent(state), kernel.transition(state)
    assert set(found) == set(kernel.statistics)
    assert z.shape == (2, 2, 1)
    # The model's density in z holds the constant of the standard normal; float32.
    constant = 4 / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(found["lp"], -density.potential(z) - constant, rtol=1e-5)
    assert found["energy"] >= -found["lp"]
    assert 0 <= found["acceptance_rate"] <= 1
    if "tree_depth" in found:
        assert found["tree_depth"] == int(np.log2(found["n_steps"])) + 1
    # R(z) = 3 z and T = 0.5, so that the tilt's gradient is 3 w / 0.5.
    np.testing.assert_allclose(kernel.tilt_gradient(state), 6 * SLOPE, atol=1e-5)
    assert (kernel.ladder(state) is None) == (name != "tempered")
    assert (kernel.replica_tilts(state) is None) == (name != "tempered")


@pytest.mark.parametrize("name", KERNELS)
def test_what_adaptation_finds_is_what_a_state_moves_with(name):
    density = linear_density()
    kernel = parse_kernel(name).bind(density)
    state = kernel.start(jax.random.key(0), jnp.zeros((2, 2, 1)), density.params)
    first = kernel.tuned(state)
    found = first._replace(step_size=first.step_size / 2)
    np.testing.assert_array_equal(
        kernel.tuned(kernel.retuned(state, found)).step_size, found.step_size
    )
    step = kernel.transition(kernel.retuned(state, found))["step_size"]
    assert float(step) == float(jnp.ravel(found.step_size)[-1])


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_without_a_target_is_refused(name, refused):
    with refused(f"'{name}'", "ppl_cnn.draw", kind=ArgumentError):
        parse_kernel(name).start(jax.random.key(0), jnp.zeros(2), {})


def test_binding_leaves_the_settings_as_they_are():
    settings = Split(step_size=0.3)
    bound = settings.bind(linear_density())
    assert str(bound) == str(settings) == "split(step_size=0.3)"
    assert bound is not settings


@pytest.mark.parametrize("kind", [Split, ISIR, Tempered])
def test_a_kernel_with_a_tilt_of_its_own_is_not_bound_to_another(kind, refused):
    with refused(f"'{kind.name}'", kind=ArgumentError, argument="tilt"):
        kind(lambda z: z[0]).bind(linear_density())


# NumPyro's kernels


def test_trajectory_lengths_spread_over_half_to_one_and_a_half_quarter_turns():
    density = linear_density()
    kernel, params = HMC().bind(density), density.params
    begin = jax.jit(lambda key: kernel.start(key, jnp.zeros((2, 2, 1)), params))
    state = begin(jax.random.key(0))
    step = jax.jit(lambda state: kernel.move(state, params))
    quarter, lengths = np.pi / 2, []
    for _ in range(8):
        state = step(state)
        lengths.append(float(state.trajectory_length) / quarter - 0.5)
    np.testing.assert_allclose(sorted(lengths), np.arange(8) / 8, atol=1e-6)


def test_the_deepest_tree_is_the_one_that_is_given():
    density = linear_density()
    kernel = NUTS(max_tree_depth=2).bind(density)
    state = kernel.start(jax.random.key(0), jnp.zeros((2, 2, 1)), density.params)
    state = kernel.retuned(state, kernel.tuned(state)._replace(step_size=jnp.asarray(1e-3)))
    state = jax.jit(lambda state: kernel.move(state, density.params))(state)
    assert state.num_steps == 3


def test_bad_settings_are_refused(refused):
    with refused("0", kind=ArgumentError, argument="max_tree_depth"):
        NUTS(max_tree_depth=0)
    with refused("inf", kind=ArgumentError, argument="trajectory_length"):
        HMC(trajectory_length=np.inf)
    for kind in (HMC, NUTS):
        with refused("0.0", kind=ArgumentError, argument="target_accept_prob"):
            kind(target_accept_prob=0.0)
