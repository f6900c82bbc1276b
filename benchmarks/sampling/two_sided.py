"""Chains of classes in one batch, half of each class's from draws of q, half from optima."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppl_cnn.inference.kernels.adaptation import Tuning
from ppl_cnn.inference.kernels.registry import parse_kernel
from ppl_cnn.inference.sampling.starts.optimum import STEPS, randomize_then_optimize
from ppl_cnn.models.density import TiltedDensity

PROJECTIONS = 50


class Kept(NamedTuple):
    """What is kept of each draw (draw, member); members are the chains, class by class."""

    z: jax.Array
    response: jax.Array
    projections: jax.Array
    gradients: jax.Array
    forward_passes: jax.Array
    """Evaluations of the tilt without a gradient."""
    acceptance: jax.Array
    step_size: jax.Array
    restarts: jax.Array


class Tilted:
    """The tilt g for any class and temperature, so that a program serves all cases."""

    def __init__(self, density):
        self.density = density
        self.unit = density.unit
        self.has_stein_mean = density.has_stein_mean

    def tilt(self, z, given):
        """f/T; `given` are the weights with the class, and 1/T."""
        params, strength = given
        return strength * self.density.tilt(z, params)


def from_two_sides(
    density: TiltedDensity,
    kernel: str,
    *,
    classes: int,
    chains: int,
    warmup: int,
    draws: int,
    ascent: int = STEPS,
) -> Callable[..., Kept]:
    """A compiled run, a function of weights, 1/T, key and channels to the draws with the warmup.

    The step size and what else the kernel adapts is each class's own. Classes in one batch wait
    for the longest of their trajectories.

    Args:
        density: of any class at T = 1; classes differ in the unit's channel alone.
        kernel: as `parse_kernel` takes it; a kernel of tilts.
        classes: number of classes in a batch, and of channels that a run is given.
        chains: of each class, an even number.
        warmup: transitions that adapt.
        draws: transitions after them.
        ascent: steps to an optimum, each of one gradient.
    """
    tilted: Any = Tilted(density)
    made: Any = parse_kernel(kernel).bind(tilted).after_warmup(warmup)
    members = jnp.repeat(jnp.arange(classes), chains)
    moved = jnp.arange(classes * chains).reshape(classes, chains)[:, chains // 2 :].ravel()
    shape, size = density.latent_shape, math.prod(density.unit.shape)
    directions = jax.random.normal(jax.random.key(99), (size, PROJECTIONS)) / math.sqrt(size)

    def of_class(params, channel):
        return params._replace(unit={**params.unit, "unit": {"channel": channel}})

    def optimum(params, strength, noise, channel):
        given: Any = (of_class(params, channel), strength)
        return randomize_then_optimize(tilted, given, noise, steps=ascent)

    def begin(params, strength, key, z, channel):
        return made.init(key, 0, z, ((of_class(params, channel), strength),), {})

    def transition(params, strength, channels, carry, _):
        states, tuning, count = carry

        def move(state, channel):
            return made.sample(state, ((of_class(params, channel), strength),), {})

        states = jax.vmap(move)(states, channels)
        pooled = jax.tree.map(
            lambda each: jax.ops.segment_sum(each, members, classes) / chains,
            made.feedback(states),
        )
        adapting = count < warmup
        updated = tuning.update(pooled, made.target_accept_prob)
        tuning = jax.tree.map(partial(jnp.where, adapting), updated, tuning)
        tuned = tuning.current(jnp.full(classes, count + 1 >= warmup))
        states = made.retuned(states, jax.tree.map(lambda leaf: leaf[members], tuned))
        images = jax.vmap(density.push, (0, None))(states.z, params)
        step, none = states.adapt_state.step_size, jnp.zeros(len(members), jnp.int32)
        kept = Kept(
            states.z,
            states.chain.tilt / strength,
            images.reshape(len(members), -1) @ directions,
            states.num_steps,
            states.chain.own.get("forward_passes", none),
            states.accept_prob,
            step if step.ndim == 1 else step[:, -1],
            getattr(states, "restarts", none),
        )
        return (states, tuning, count + 1), kept

    @jax.jit
    def run(params, strength, key, channels):
        channels = channels[members]
        key_start, key_chain = jax.random.split(key)
        z = jax.random.normal(key_start, (len(members), *shape))
        ascend = jax.vmap(partial(optimum, params, strength))
        z = z.at[moved].set(ascend(z[moved], channels[moved]))
        keys = jax.random.split(key_chain, len(members))
        states = jax.vmap(partial(begin, params, strength))(keys, z, channels)
        each = jax.tree.map(lambda leaf: leaf[::chains], states)
        tuning = Tuning.around(made.tuned(each))
        step = partial(transition, params, strength, channels)
        start = (states, tuning, jnp.zeros((), jnp.int32))
        return jax.lax.scan(step, start, length=warmup + draws)[1]

    return run
