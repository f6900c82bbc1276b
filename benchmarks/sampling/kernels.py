"""The kernels that samplers.py compares, ours and other libraries', behind one interface."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sampling.self_tuned import SELF_TUNED, SelfTuned
from ppl_cnn.inference.kernels.adaptation import Feedback, Tuned, Tuning
from ppl_cnn.inference.kernels.choice import LEAST_WARMUP
from ppl_cnn.inference.kernels.libraries.blackjax_kernels import BLACKJAX as OF_BLACKJAX
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import gaussian_step_size
from ppl_cnn.inference.kernels.registry import parse_kernel
from ppl_cnn.work import FORWARD_COST

try:
    import tensorflow_probability.substrates.jax as tfp
except ImportError:
    tfp = None

OURS = ("split", "isir", "tempered", "langevin")
NUMPYRO = ("numpyro-hmc", "numpyro-nuts")
BLACKJAX = tuple(f"blackjax-{name}" for name in OF_BLACKJAX)
TFP = ("tfp-hmc", "tfp-nuts") if tfp else ()
BIASED = ("langevin", "blackjax-mclmc")
"""Kernels that never reject, so that their draws are of a density near the one asked for."""
LEAST = 24
"""Transitions of a warm-up, at least; a tree of NUTS may cost so much that few fit into the
budget."""


class Told(NamedTuple):
    """What a kernel reports of a chain's last transition."""

    z: jax.Array
    gradients: jax.Array
    """Forward passes without a gradient among them, as `FORWARD_COST` each."""
    acceptance: jax.Array
    step_size: jax.Array


class Kernel(NamedTuple):
    """What this benchmark needs of a kernel; each for one chain."""

    begin: Callable[..., Any]
    """A function of weights, key and z to a state."""
    move: Callable[..., Any]
    """A function of weights and state to the next state."""
    told: Callable[[Any], Told]
    tuning: Callable[[Any], Tuning]
    """Where adaptation starts."""
    feedback: Callable[[Any], Feedback]
    tuned: Callable[[Any, Tuned], Any]
    target: float
    """Mean acceptance that its step is adapted to, as its authors advise."""
    least_warmup: int = LEAST
    """Transitions."""
    warm: Callable[..., Any] | None = None
    """The kernel's own warm-up in place of adaptation here: a function of weights, key, all chains'
    z and about how many gradients it may take, to states and the gradients it took."""


def ours(name, density):
    """A kernel of the chain driver, NumPyro's and blackjax's included."""
    kernel = parse_kernel(name).bind(density)

    def told(state):
        found = kernel.transition(state)
        count = found["n_steps"] + FORWARD_COST * found.get("forward_passes", 0)
        return Told(kernel.latent(state), count, found["acceptance_rate"], found["step_size"])

    return Kernel(
        # As in the chain driver, which draws a chain's start with the first of the two keys.
        begin=lambda params, key, z: kernel.start(jax.random.split(key)[1], z, params),
        move=lambda params, state: kernel.move(state, params),
        told=told,
        tuning=lambda state: Tuning.around(kernel.tuned(state)),
        feedback=kernel.feedback,
        tuned=kernel.retuned,
        target=kernel.target_accept_prob,
        # A shorter warm-up chooses no moves.
        least_warmup=LEAST_WARMUP if "fresh_per_draw" in kernel.statistics else LEAST,
    )


class Their(NamedTuple):
    """A chain of another library."""

    inner: Any
    key: jax.Array
    told: Told


def log_densities(density, *, of_tilt=False):
    """A function of weights to a log density of flat z.

    Args:
        density: the density.
        of_tilt: whether it is g, relative to N(0, I).
    """

    def log_density(params):
        def of(flat):
            z = flat.reshape(density.latent_shape)
            return density.tilt(z, params) if of_tilt else -density.potential(z, params)

        return of

    return log_density


def theirs(density, init, advance, *, target=0.8, of_tilt=False):
    """A kernel that is not the chain driver's.

    Args:
        density: its target.
        init: a function of a log density and a flat z to the library's own state.
        advance: a function of log density, key, state and step size to the next state, its z,
            gradients and acceptance.
        target: mean acceptance that the step is adapted to.
        of_tilt: whether their log density is g, relative to N(0, I).
    """
    log_density = log_densities(density, of_tilt=of_tilt)

    def begin(params, key, z):
        first = jnp.asarray(gaussian_step_size(z.size))
        told = Told(z, jnp.zeros(()), jnp.zeros(()), first)
        return Their(init(log_density(params), z.ravel()), key, told)

    def move(params, state):
        key, now = jax.random.split(state.key)
        step = state.told.step_size
        inner, z, count, acceptance = advance(log_density(params), now, state.inner, step)
        z = z.reshape(density.latent_shape)
        return Their(inner, key, Told(z, jnp.asarray(count, jnp.float32), acceptance, step))

    return Kernel(
        begin=begin,
        move=move,
        told=lambda state: state.told,
        tuning=lambda state: Tuning.around(Tuned(state.told.step_size)),
        feedback=lambda state: Feedback(state.told.acceptance),
        tuned=lambda state, found: state._replace(
            told=state.told._replace(step_size=found.step_size)
        ),
        target=target,
    )


@contextmanager
def unstrict():
    """Promotion of ranks and types as blackjax's code needs it; the tests forbid it elsewhere."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def self_tuned(density, kernel: SelfTuned):
    """A kernel whose library tunes it; a chain's state holds what was found."""
    log_density = log_densities(density)

    def warm(params, key, z, budget):
        key, *keys = jax.random.split(key, 1 + len(z))
        flat = z.reshape(len(z), -1)
        with unstrict():
            inner, settings, spent = kernel.warm(log_density(params), key, flat, budget)
        none = jnp.zeros(len(z))
        told = Told(z, none, none, jnp.full(len(z), settings["step_size"]))
        each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(z), *leaf.shape)), settings)
        return Their((inner, each), jnp.stack(keys), told), spent

    def move(params, state):
        key, now = jax.random.split(state.key)
        with unstrict():
            inner, count, acceptance = kernel.move(log_density(params), now, *state.inner)
        z = inner.position.reshape(density.latent_shape)
        told = Told(
            z,
            jnp.asarray(count, jnp.float32),
            jnp.asarray(acceptance, jnp.float32),
            state.told.step_size,
        )
        return Their((inner, state.inner[1]), key, told)

    return theirs(density, None, None)._replace(move=move, warm=warm)


def quarter_turn(density):
    """How many of the Gaussian's leapfrogs make a quarter turn."""
    return max(1, round(np.pi / 2 / gaussian_step_size(int(np.prod(density.latent_shape)))))


def pcn(density):
    """Preconditioned Crank-Nicolson: z' = cos(h) z + sin(h) N(0, I), by forward passes alone."""

    def advance(tilt, key, state, step):
        flat, (key_noise, key_accept) = state[0], jax.random.split(key)
        h = jnp.minimum(step, jnp.pi / 2)
        flat = jnp.cos(h) * flat + jnp.sin(h) * jax.random.normal(key_noise, flat.shape)
        reached = flat, tilt(flat)
        acceptance = jnp.exp(jnp.minimum(reached[1] - state[1], 0.0))
        accepted = jax.random.uniform(key_accept) < acceptance
        state = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), reached, state)
        return state, state[0], FORWARD_COST, acceptance

    return theirs(
        density, lambda tilt, flat: (flat, tilt(flat)), advance, target=0.25, of_tilt=True
    )


def elliptical_slice(density):
    """blackjax's, without the gradient that the chain driver takes for the Stein mean."""

    def sampler(tilt, size):
        return blackjax.elliptical_slice(tilt, mean=jnp.zeros(size), cov=jnp.ones(size))

    def advance(tilt, key, state, step):
        state, info = sampler(tilt, state.position.size).step(key, state)
        return state, state.position, FORWARD_COST * info.subiter, jnp.ones(())

    def init(tilt, flat):
        return sampler(tilt, flat.size).init(flat)

    # It accepts always and has no step: with this target the number stays as it is.
    return theirs(density, init, advance, target=1.0, of_tilt=True)


def of_tfp(name, density):
    """TensorFlow Probability's HMC or NUTS."""
    steps = quarter_turn(density)

    def make(log_density, step):
        if name == "hmc":
            return tfp.mcmc.HamiltonianMonteCarlo(log_density, step, steps)
        return tfp.mcmc.NoUTurnSampler(log_density, step)

    def init(log_density, flat):
        return flat, make(log_density, jnp.asarray(0.1)).bootstrap_results(flat)

    def advance(log_density, key, state, step):
        flat, results = state
        if name == "nuts":
            results = results._replace(step_size=step)
        flat, results = make(log_density, step).one_step(flat, results, seed=key)
        acceptance = jnp.exp(jnp.minimum(results.log_accept_ratio, 0.0))
        count = steps if name == "hmc" else results.leapfrogs_taken
        return (flat, results), flat, count, acceptance

    return theirs(density, init, advance)


FORWARD = {"pcn": pcn, "blackjax-elliptical_slice": elliptical_slice}
"""Kernels that take no gradient."""


def kernel_of(name, density):
    """The kernel of that name, bound to a density."""
    library, _, kind = name.partition("-")
    if name in SELF_TUNED:
        return self_tuned(density, SELF_TUNED[name])
    if name in FORWARD:
        return FORWARD[name](density)
    if library == "tfp":
        return of_tfp(kind, density)
    texts = {"blackjax": f"blackjax:{kind}", "numpyro": kind}
    return ours(texts.get(library, name), density)
