import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import NUTS

import ppl_cnn
from ppl_cnn.inference.kernels.kernel import (
    KERNELS,
    JitteredHMC,
    Transition,
    make_kernel,
    start,
    statistics,
    tilt_gradient,
)
from ppl_cnn.inference.kernels.split import Split, van_der_corput
from ppl_cnn.inference.kernels.tempered import Tempered

SLOPE = jnp.asarray([[0.3, -0.2], [0.0, 0.5]])[..., None]


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


def transition(**changes) -> Transition:
    values = {
        "lp": jnp.asarray(-1.0),
        "energy": jnp.asarray(2.0),
        "acceptance_rate": jnp.asarray(0.5),
        "diverging": jnp.asarray(False),
        "n_steps": jnp.asarray(3),
        "step_size": jnp.asarray(0.1),
        "tree_depth": jnp.asarray(2),
        "restarts": jnp.asarray(1),
    }
    return Transition(**values | {key: jnp.asarray(value) for key, value in changes.items()})


def test_transitions_in_a_row_add_up_costs_and_keep_the_last_place():
    first = transition(diverging=True)
    later = transition(lp=-4.0, energy=7.0, acceptance_rate=1.0, n_steps=5, step_size=0.2)
    both = first.then(later)
    assert both.n_steps == 8
    assert both.diverging
    assert both.acceptance_rate == 1.5
    assert both.restarts == 2
    assert (both.lp, both.energy, both.tree_depth) == (-4, 7, 2)
    assert both.step_size == later.step_size
    assert not later.then(later).diverging


def test_the_mean_acceptance_is_over_the_transitions_in_between():
    three = transition(acceptance_rate=0.3).then(transition(acceptance_rate=0.6))
    three = three.then(transition(acceptance_rate=0.9, n_steps=4)).averaged(jnp.asarray(3))
    assert three.acceptance_rate == pytest.approx(0.6)
    assert three.n_steps == 10


@pytest.mark.parametrize(
    ("name", "kind"),
    [("split", Split), ("tempered", Tempered), ("hmc", JitteredHMC), ("nuts", NUTS)],
)
def test_a_kernels_transition_is_that_of_its_state(name, kind):
    density = linear_density()
    kernel = make_kernel(name, density)
    assert isinstance(kernel, kind)

    @jax.jit
    def one(key):
        state = start(kernel, density, {}, key)
        return kernel.sample(state, ({},), {})

    state = one(jax.random.key(0))
    z = state.z["image_base"]
    found = Transition.of(state)
    assert z.shape == (2, 2, 1)
    # The model's density in z holds the constant of the standard normal; float32.
    constant = 4 / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(found.lp, -density.potential(z) - constant, rtol=1e-5)
    assert found.energy >= -found.lp
    assert 0 <= found.acceptance_rate <= 1
    assert found.tree_depth == int(np.log2(found.n_steps)) + 1
    # R(z) = 3 z and T = 0.5, so that the tilt's gradient is 3 w / 0.5.
    np.testing.assert_allclose(tilt_gradient(state), 6 * SLOPE, atol=1e-5)


def test_trajectory_lengths_spread_over_half_to_one_and_a_half_quarter_turns():
    density = linear_density()
    kernel = make_kernel("hmc", density)
    state = jax.jit(lambda key: start(kernel, density, {}, key))(jax.random.key(0))
    step = jax.jit(lambda state: kernel.sample(state, ({},), {}))
    quarter, lengths = np.pi / 2, []
    for _ in range(8):
        state = step(state)
        lengths.append(float(state.trajectory_length) / quarter - 0.5)
    np.testing.assert_allclose(sorted(lengths), np.arange(8) / 8, atol=1e-6)


def test_statistics_are_the_transitions_but_for_what_is_one_kernels_alone():
    assert set(Transition._fields) - set(statistics("nuts")) == {"restarts"}
    assert set(Transition._fields) - set(statistics("tempered:3")) == {"tree_depth"}
    for kernel in ("split", "hmc"):
        assert set(Transition._fields) - set(statistics(kernel)) == {"tree_depth", "restarts"}
    assert statistics("hmc")["diverging"] is np.bool_


def test_unknown_kernels_are_refused(refused):
    with refused("'gibbs'", ", ".join(KERNELS)):
        make_kernel("gibbs", linear_density())
