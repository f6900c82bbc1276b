"""What precision is for: at low temperatures, TF32's products keep a chain from moving."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.inference.kernels.moves.trajectory import metropolis, point_at
from ppl_cnn.machines.arithmetic import products


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_programs_for_a_gpu_have_the_precision_that_was_asked_for(precision):
    shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)

    def lowered(platform):
        with products(precision, platform):
            traced = jax.jit(lambda x, y: x @ y).trace(shape, shape)
            return traced.lower(lowering_platforms=(platform,)).as_text()

    assert f"precision = [{precision.upper()}, {precision.upper()}]" in lowered("cuda")
    assert "HIGH" not in lowered("cpu")


def short(x):
    """With the 10 bits of mantissa that TF32 has."""
    return jax.lax.reduce_precision(x, 8, 10)


@jax.custom_vjp
def short_product(a, b):
    return short(a) @ short(b)


def _backward(operands, g):
    _, b = operands
    return (short(b) @ short(g) if b.ndim == 2 else short(b) * short(g)), jnp.zeros_like(b)


short_product.defvjp(lambda a, b: (short_product(a, b), (a, b)), _backward)


@partial(jax.jit, static_argnums=0)
def acceptance(product, temperature, step_size, steps):
    """Mean acceptance of trajectories from N(0, I), of a random network with 64 hidden units."""
    random = np.random.default_rng(0)
    first = jnp.asarray(random.standard_normal((144, 64)) / 12, jnp.float32)
    last = jnp.asarray(random.standard_normal(64) / 8, jnp.float32)

    def tilt(z):
        return product(jnp.tanh(product(z, first)), last) / temperature

    def move(key):
        start = point_at(tilt, jax.random.normal(jax.random.fold_in(key, 1), (144,)))
        return metropolis(tilt, start, key, step_size, steps).acceptance

    return jax.vmap(move)(jax.random.split(jax.random.key(0), 64)).mean()


@pytest.mark.parametrize(("temperature", "harmed"), [(0.02, False), (0.0005, True)])
def test_short_products_lower_the_acceptance_at_low_temperatures_alone(temperature, harmed):
    """At T = 0.0005 the energy's error doesn't fall with the step, as it does in float32."""
    steps = [(0.2 * temperature**0.5, 8), (0.025 * temperature**0.5, 64)]
    exact, rounded = (
        [float(acceptance(product, temperature, *step)) for step in steps]
        for product in (jnp.matmul, short_product)
    )
    assert exact[1] > max(0.99, exact[0])
    assert (rounded[1] < 0.9) == harmed
