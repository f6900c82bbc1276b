"""Latents of given images where the reference can't be inverted: the nearest, by Adam."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ppl_cnn.models.density import DensityParams, TiltedDensity

STEPS = 400
"""Adam's steps from each point, each of one gradient of R."""
POINTS = 16
"""Points that Adam begins at: z = 0 and draws of N(0, I)."""
DEVIATION = 10.0
"""s, in grey levels: how far a pixel may be off at the price of one standard deviation of z."""
_RATE = 0.2
"""Adam's first learning rate, in z; it falls to 0 as a cosine."""


@partial(jax.jit, static_argnums=0)
def nearest_latent(
    density: TiltedDensity, params: DensityParams, image: Float[Array, "row col channel"]
) -> Float[Array, "..."]:
    """The latent whose image is near a given one: it minimises |R(z) - x|^2/(2 s^2) + |z|^2/2.

    That is the mode of z given x = R(z) + N(0, s^2 I), s = `DEVIATION`. R may be far from linear,
    so Adam begins at `POINTS` points, and the best of their ends is kept.

    Args:
        density: the target, or one with the same program; its unit's score is not used.
        params: the density's weights.
        image: x, an image of the unit in pixel units minus the mean.
    """
    rule = optax.adam(optax.cosine_decay_schedule(_RATE, STEPS))

    def loss(z: Array) -> Array:
        off = density.push(z, params) - image
        return jnp.sum(off * off) / (2 * DEVIATION**2) + jnp.sum(z * z) / 2

    def step(_: Array, carry: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
        z, state = carry
        descent, state = rule.update(jax.grad(loss)(z), state)
        return optax.apply_updates(z, descent), state

    def descended(z: Array) -> tuple[Array, Array]:
        end: Array = jax.lax.fori_loop(0, STEPS, step, (z, rule.init(z)))[0]
        return end, loss(end)

    first = jax.random.normal(jax.random.key(0), (POINTS, *density.latent_shape)).at[0].set(0.0)
    ends, losses = jax.vmap(descended)(first)
    return ends[jnp.nanargmin(losses)]
