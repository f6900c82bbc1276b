"""blackjax's kernels that tune themselves, each by its own warm-up and as its authors advise.

The mass matrix is the identity, which suits the reference N(0, I), except where the kernel is about
estimating it (meads, low_rank_nuts). Kernels that tune a single chain do so on the first one, and
all chains take over what it has found.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.mcmc import adjusted_mclmc_dynamic, dynamic_hmc

from ppl_cnn.inference.kernels.libraries.numpyro_kernels import gaussian_step_size

MCLACHLAN = 2
"""Gradients of a step of the microcanonical kernels' integrator, McLachlan's."""
ADJUSTED_STEPS, ADJUSTED_TARGET = 2, 0.9
"""Mean steps of a trajectory of adjusted_mclmc, blackjax's default, and the acceptance that its
tutorial aims at."""
CHEES_STEPS, CHEES_LONGEST = 200, 100
"""Transitions of the warm-up, and the most leapfrogs of one."""
NUTS_STEPS, NUTS_TREE = 200, 31
"""Transitions of the warm-up, and about how many leapfrogs one takes."""


class Warmed(NamedTuple):
    """What a warm-up has found."""

    inner: Any
    """The library's own states, of all chains."""
    settings: Any
    """What the kernel moves with, the same for all chains: a dictionary of arguments."""
    gradients: jax.Array | int


class Moved(NamedTuple):
    """A chain after a transition."""

    inner: Any
    gradients: jax.Array | int
    acceptance: jax.Array | float


class SelfTuned(NamedTuple):
    """A kernel that its library tunes."""

    warm: Callable[..., Warmed]
    """A function of a log density of flat z, a key, points (chain, size), and about how many
    gradients it may take."""
    move: Callable[..., Moved]
    """A function of a log density, a key, a chain's state, and the settings."""
    chains: int | None = None
    """How many chains it needs, to tune itself by what they do together; None for any number."""


def warm_mclmc(log_density, key, points, budget):
    """The default variance of the energy, 5e-4 a dimension, in 0.3 of the steps asked for."""
    key, *keys = jax.random.split(key, 2 + len(points))
    states = jax.vmap(lambda flat, key: blackjax.mclmc.init(flat, log_density, key))(
        points, jnp.stack(keys[1:])
    )
    _, found, steps = blackjax.mclmc_find_L_and_step_size(
        blackjax.mclmc.build_kernel(),
        max(round(budget / MCLACHLAN / 0.3), 100),
        jax.tree.map(lambda leaf: leaf[0], states),
        key,
        log_density,
        diagonal_preconditioning=False,
    )
    settings = {"L": found.L, "step_size": found.step_size}
    return Warmed(states, settings, MCLACHLAN * steps)


def move_mclmc(log_density, key, state, settings):
    kernel = blackjax.mclmc.build_kernel()
    state, _ = kernel(key, state, log_density, inverse_mass_matrix=1.0, **settings)
    return Moved(state, MCLACHLAN, 1.0)


ADJUSTED = adjusted_mclmc_dynamic.build_kernel(
    adjusted_mclmc_dynamic.make_random_trajectory_length_fn(random_trajectory_length=True)
)


def warm_adjusted(log_density, key, points, budget):
    """In 0.3 of the transitions asked for, each some two steps."""
    keys = jax.random.split(key, 1 + len(points))
    states = jax.vmap(lambda flat, key: adjusted_mclmc_dynamic.init(flat, log_density, key))(
        points, keys[1:]
    )
    _, found, steps = blackjax.adjusted_mclmc_find_L_and_step_size(
        ADJUSTED,
        log_density,
        max(round(budget / (ADJUSTED_STEPS * MCLACHLAN) / 0.3), 100),
        jax.tree.map(lambda leaf: leaf[0], states),
        keys[0],
        target=ADJUSTED_TARGET,
        diagonal_preconditioning=False,
        target_num_integration_steps=float(ADJUSTED_STEPS),
    )
    return Warmed(states, {"step_size": found.step_size}, MCLACHLAN * steps)


def move_adjusted(log_density, key, state, settings):
    mean = (float(ADJUSTED_STEPS),)
    state, info = ADJUSTED(key, state, log_density, **settings, integration_steps_params=mean)
    return Moved(state, MCLACHLAN * info.num_integration_steps, info.acceptance_rate)


def halton_leapfrogs(index, leapfrogs):
    """chees_adaptation's own lengths: evenly up to twice their mean."""
    share = dynamic_hmc.halton_sequence(index, 14)
    return jnp.ceil(share * leapfrogs).astype(jnp.int32)


def warm_chees(log_density, key, points, budget):
    """Adam as Hoffman, Radul and Sountsov have it: 0.025, without momentum."""
    chains, size = points.shape
    warmup = blackjax.chees_adaptation(
        log_density,
        chains,
        max_leapfrog_steps=CHEES_LONGEST,
        adaptation_info_fn=lambda state, info, adapted: info.num_integration_steps,
    )
    optimizer = optax.adam(0.025, b1=0.0, b2=0.95)
    steps = int(np.clip(budget // chains, 4, CHEES_STEPS))
    (states, found), counts = warmup.run(
        key, points, jnp.asarray(gaussian_step_size(size)), optimizer, steps
    )
    settings = {name: found[name] for name in ("step_size", "integration_steps_params")}
    return Warmed(states, settings, counts.sum())


def move_chees(log_density, key, state, settings):
    kernel = dynamic_hmc.build_kernel(
        integration_steps_fn=halton_leapfrogs, next_random_arg_fn=lambda index: index + 1
    )
    state, info = kernel(
        key, state, log_density, inverse_mass_matrix=jnp.ones_like(state.position), **settings
    )
    return Moved(state, info.num_integration_steps, info.acceptance_rate)


def warm_meads(log_density, key, points, budget):
    chains = len(points)
    steps = max(budget // chains, 4)
    warmup = blackjax.meads_adaptation(
        log_density, chains, adaptation_info_fn=lambda state, info, adapted: None
    )
    (states, found), _ = warmup.run(key, points, steps)
    return Warmed(states, found, chains * steps)


def move_meads(log_density, key, state, settings):
    state, info = blackjax.ghmc.build_kernel()(key, state, log_density, **settings)
    return Moved(state, 1, info.acceptance_rate)


def warm_low_rank(log_density, key, points, budget):
    """nutpie's low-rank modified mass matrix, of rank 10 at most, as blackjax has it."""
    warmup = blackjax.window_adaptation_low_rank(
        blackjax.nuts, log_density, initial_step_size=gaussian_step_size(points.shape[1])
    )
    steps = int(np.clip(budget // NUTS_TREE, 20, NUTS_STEPS))
    (_, found), told = warmup.run(key, points[0], steps)
    states = jax.vmap(lambda flat: blackjax.nuts.init(flat, log_density))(points)
    return Warmed(states, found, told.info.num_integration_steps.sum())


def move_low_rank(log_density, key, state, settings):
    state, info = blackjax.nuts.build_kernel()(key, state, log_density, **settings)
    return Moved(state, info.num_integration_steps, info.acceptance_rate)


SELF_TUNED = {
    "blackjax-mclmc": SelfTuned(warm_mclmc, move_mclmc),
    "blackjax-adjusted_mclmc": SelfTuned(warm_adjusted, move_adjusted),
    "blackjax-chees": SelfTuned(warm_chees, move_chees, chains=16),
    "blackjax-meads": SelfTuned(warm_meads, move_meads, chains=64),
    "blackjax-low_rank_nuts": SelfTuned(warm_low_rank, move_low_rank),
}
"""Name -> kernel. mclmc is biased, as it never rejects."""
