"""Kernels of a tilt: the part that `Split`, `Tempered` and kernels of one's own share.

A `TiltKernel` is a NumPyro `MCMCKernel`, for `numpyro.infer.MCMC`, and a `Kernel` of the chain
driver, for `ppl_cnn.draw`. A subclass gives the first state and the next one.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.adaptation import Feedback, Tuned, Tuning
from ppl_cnn.inference.kernels.chain_state import ChainState, HasChain
from ppl_cnn.inference.kernels.kernel import (
    Kernel,
    Target,
    Transition,
    reported,
)
from ppl_cnn.inference.kernels.moves.trajectory import Latent, Tilt


class TiltKernel[S: HasChain](MCMCKernel, Kernel):
    """A kernel for p(z) ∝ exp(g(z)) N(z; 0, I) that a subclass writes as a function of g.

    With `MCMC.run` give `init_params`, for example draws of N(0, I): an array or a tree of arrays
    (a dictionary, say), which the tilt then gets; with a leading axis if there are several chains.
    During the warmup the step size is adapted, with `chain_method="vectorized"` to all chains
    together.

    Args:
        tilt: g, a function of z and of the arguments that `run` is given, to a scalar. Without it,
            the kernel is a set of settings that `bind` gives a target.
        target_accept_prob: mean acceptance probability that the step size is adapted to.

    Raises:
        ArgumentError: a setting can't be used.
    """

    sample_field = "z"
    model = None
    """There is no NumPyro model; ArviZ's `from_numpyro` asks."""

    def __init__(self, tilt: Tilt | None = None, *, target_accept_prob: float = 0.8) -> None:
        self.target_accept_prob = self.checked_acceptance("target_accept_prob", target_accept_prob)
        self._given, self._warmup = tilt, 0

    @abstractmethod
    def first_state(self, tilt: Tilt, key: Array, z: Latent) -> S:
        """One chain's first state; `first_chain` makes one."""

    @abstractmethod
    def next_state(self, tilt: Tilt, state: S) -> S:
        """One chain's state after another transition; `ChainState.after` makes one."""

    # For the chain driver

    def bind(self, target: Target) -> Self:
        """A kernel of the same settings for the target's tilt.

        Args:
            target: the density to draw from.

        Raises:
            ArgumentError: the kernel was given a tilt of its own.
        """
        if self._given is not None:
            raise ArgumentError(
                f"Kernel {str(self)!r} has a `tilt` already. Leave it out to sample a density.",
                argument="tilt",
            )
        bound = copy.copy(self)
        bound._given = target.tilt
        return bound

    def start(self, key: Array, z: Float[Array, "..."], params: Any) -> S:
        """One chain's first state."""
        return self.init(key, 0, z, (params,), {})

    def move(self, state: S, params: Any) -> S:
        """One chain's state after another transition, without adaptation."""
        return self.sample(state, (params,), {})

    def latent(self, state: S) -> Float[Array, "..."]:
        """Where the chain is: z."""
        z: Array = state.chain.z
        return z

    def tilt_gradient(self, state: S) -> Float[Array, "..."]:
        """The gradient of g where the chain is."""
        gradient: Array = state.chain.tilt_grad
        return gradient

    def transition(self, state: S) -> Transition:
        """The statistics of the last transition."""
        return {**reported(state.chain), **state.chain.own}

    def feedback(self, state: S) -> Feedback:
        """What the last transition tells the adaptation."""
        return state.chain.feedback

    def tuned(self, state: S) -> Tuned:
        """Step size, and what else is adapted, that the state moves with."""
        return state.chain.adapt_state

    def retuned(self, state: S, tuned: Tuned) -> S:
        """The state with what adaptation has found."""
        return state.with_chain(state.chain._replace(adapt_state=tuned))

    # For NumPyro's MCMC

    @property
    def default_fields(self) -> tuple[str, ...]:
        """What `MCMC` collects without being asked."""
        return ("z", "diverging")

    def get_diagnostics_str(self, state: S) -> str:
        """The text beside `MCMC`'s progress bar."""
        chain = state.chain
        steps, step = jnp.mean(chain.num_steps), jnp.mean(chain.adapt_state.step_size)
        acceptance = jnp.mean(chain.mean_accept_prob)
        return f"{steps:.0f} steps of {step:.2e} radians. acc. prob={acceptance:.2f}"

    def _tilt(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tilt:
        """g as a function of z alone."""
        if self._given is None:
            raise ArgumentError(
                f"Kernel {str(self)!r} has no `tilt` to sample. Give it a `tilt`, or give the "
                f"kernel to `ppl_cnn.draw`.",
                argument="tilt",
            )
        given = self._given
        return lambda z: given(z, *args, **kwargs)

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Latent,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any],
    ) -> S:
        """The first state; of several chains if there are several keys.

        Args:
            rng_key: one random key, or one of each chain.
            num_warmup: transitions that adapt; 0 if the caller adapts.
            init_params: where the chains start.
            model_args: arguments of the tilt beside z.
            model_kwargs: its keyword arguments.

        Raises:
            ArgumentError: `init_params` or the tilt is missing.
        """
        tilt = self._tilt(model_args, model_kwargs)
        if init_params is None:
            raise ArgumentError(
                f"Kernel {str(self)!r} needs `init_params`. Give draws of N(0, I), for example.",
                argument="init_params",
            )
        self._warmup = num_warmup

        def begin(key: Array, z: Latent) -> S:
            state = self.first_state(tilt, key, z)
            if not num_warmup:
                return state
            first = self.tuned(state)
            return self.retuned(state, first._replace(tuning=Tuning.around(first)))

        made = begin if is_prng_key(rng_key) else jax.vmap(begin)
        return cast(Callable[[Array, Latent], S], made)(rng_key, init_params)

    def sample(self, state: S, model_args: tuple[Any, ...], model_kwargs: dict[str, Any]) -> S:
        """A transition of each chain; during the warmup also an adaptation.

        Args:
            state: of one chain or of several.
            model_args: arguments of the tilt beside z.
            model_kwargs: its keyword arguments.
        """
        tilt = self._tilt(model_args, model_kwargs)

        def move(state: S) -> S:
            return self.next_state(tilt, state)

        state = jax.vmap(move)(state) if state.chain.i.ndim > 0 else move(state)
        chain = state.chain
        started = jnp.where(chain.i > self._warmup, chain.i - self._warmup, chain.i)
        change = (chain.accept_prob - chain.mean_accept_prob) / started
        chain = chain._replace(mean_accept_prob=chain.mean_accept_prob + change)
        if chain.adapt_state.tuning is not None:
            warming = jnp.all(chain.i <= self._warmup)
            chain = jax.lax.cond(warming, self._adapted, lambda same: same, chain)
        return state.with_chain(chain)

    def _adapted(self, chain: ChainState) -> ChainState:
        """With what is tuned after a transition of the warmup, common to all chains."""
        chains = chain.i.shape
        tuning: Any = chain.adapt_state.tuning
        feedback = chain.feedback
        if chains:
            tuning = jax.tree.map(lambda leaf: leaf[0], tuning)
            feedback = jax.tree.map(lambda leaf: leaf.mean(axis=0), feedback)
        tuning = tuning.update(feedback, self.target_accept_prob)
        tuned = tuning.current(jnp.max(chain.i) >= self._warmup)._replace(tuning=tuning)
        tuned = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, chains + leaf.shape), tuned)
        return chain._replace(adapt_state=tuned)
