import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.models.generators.flow import Flow, _order

FLOW = Flow(dim=6, couplings=3, width=8)


@pytest.fixture(scope="module")
def params():
    """Weights under which the flow is far from linear."""
    made = FLOW.weights(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return jax.tree.map(lambda x: x + 0.4 * jax.random.normal(next(keys), x.shape), made)


def test_each_way_undoes_the_other(params):
    z = jax.random.normal(jax.random.key(2), (5, 6))
    u = FLOW.to_data(params, z)
    assert jnp.abs(u - z).max() > 0.5
    back, _ = FLOW.to_noise(params, u)
    np.testing.assert_allclose(back, z, atol=1e-5)


def test_log_prob_is_the_normal_s_and_the_jacobian_s_determinant(params):
    z = jax.random.normal(jax.random.key(3), (6,))
    jacobian = jax.jacobian(lambda z: FLOW.to_data(params, z[None])[0])(z)
    normal = -0.5 * z @ z - 3 * np.log(2 * np.pi)
    expected = normal - np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    found = FLOW.log_prob(params, FLOW.to_data(params, z[None]))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_order_of_entries_is_that_of_every_version():
    assert _order(6, 0).tolist() == [2, 4, 5, 1, 0, 3]
    assert _order(6, 1).tolist() == [0, 2, 4, 5, 1, 3]
