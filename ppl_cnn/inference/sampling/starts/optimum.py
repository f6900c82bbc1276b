"""Randomize-then-optimize: the optimum of a density next to a draw of the reference."""

import jax
import optax
from jaxtyping import Array, Float

from ppl_cnn.models.density import DensityParams, TiltedDensity
from ppl_cnn.models.units.views import Averaged

STEPS = 600
"""Adam's steps, each of one gradient."""
_RATE = 0.4
"""Adam's first learning rate, in z; it falls to 0 as a cosine."""


def randomize_then_optimize(
    density: TiltedDensity,
    params: DensityParams,
    noise: Float[Array, "..."],
    *,
    steps: int = STEPS,
) -> Float[Array, "..."]:
    """The latent z that minimises |z - z_0|^2/2 - g(z) next to a draw z_0 of N(0, I), by Adam.

    If g = f/T is linear, z is a draw of the density; otherwise it is a point of high density. If
    the unit is averaged over fixed views, each step takes g of another random view, at the cost
    of one.

    Args:
        density: the target, or one whose unit has the same program.
        params: the density's weights.
        noise: z_0, of the density's `latent_shape`.
        steps: Adam's steps.

    Source: Bardsley, Solonen, Haario, Laine, Randomize-then-optimize: a method for sampling from
    posterior distributions in nonlinear inverse problems, SIAM J. Sci. Comput. 36, 2014.
    """
    rule = optax.adam(optax.cosine_decay_schedule(_RATE, steps))
    views = jax.random.key(0)

    def tilt(z: Array, index: Array) -> Array:
        unit = density.unit
        if not isinstance(unit, Averaged):
            return density.tilt(z, params)
        key = jax.random.fold_in(views, index)
        return unit.glimpse(params.unit, density.push(z, params), key) / density.temperature

    def step(index: Array, carry: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
        z, state = carry
        descent, state = rule.update(z - noise - jax.grad(tilt)(z, index), state)
        return optax.apply_updates(z, descent), state

    found: Array = jax.lax.fori_loop(0, steps, step, (noise, rule.init(noise)))[0]
    return found
