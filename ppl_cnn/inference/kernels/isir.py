"""The i-SIR kernel: choices among fresh draws of the reference, then turns of the latent.

The latents of a generator's images that a tilt likes lie in hills apart, between which a trajectory
seldom crosses. Where the tilt is so mild that some of a few dozen draws of the reference are good,
choosing among them crosses at once, and takes no gradient. Where the warmup finds that a good share
of fresh draws counts, chains draw from pools of many (`moves.pool`), which gives more for the same
work.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.inference.kernels.adaptation import Feedback, Tuned
from ppl_cnn.inference.kernels.chain_state import ChainState, first_chain
from ppl_cnn.inference.kernels.choice import FUNCTIONS, NO_GRADIENTS, Choice, Trial
from ppl_cnn.inference.kernels.freshness import Weights
from ppl_cnn.inference.kernels.kernel import Statistic, Target, at_least_one, parsed_count
from ppl_cnn.inference.kernels.moves.pool import Pool, drawn_if
from ppl_cnn.inference.kernels.moves.trajectory import (
    FIRST_ANGLE,
    FIRST_STEP,
    Latent,
    Point,
    Tilt,
    normal_like,
    point_at,
    turned,
)
from ppl_cnn.inference.kernels.tilt_kernel import TiltKernel

FRESH = 12
"""Fresh draws of the reference in a transition."""
_ROUND = 4
"""Largest number of them among which a chain chooses at once. Their images are held together: a
forward pass holds a layer or two where a gradient holds all, so that it needs no more memory. And
of a few draws, seldom two are good and one of them wasted."""
_FRESH_TO_A_TURN = 3
"""Fresh draws for every turn."""
TARGET_ACCEPT = 0.5
"""Mean acceptance of turns. At 0.39, 0.54 and 0.67 there were 63, 84 and 72 effective draws for the
work of 1,000 gradients (class Bag of `alexnet-fashion`, one seed)."""
_TO_A_GRADIENT = 8
"""Transitions to a gradient, where there is a Stein mean: 2 % of the work, by default."""
_PASSES_TO_A_GRADIENT = _TO_A_GRADIENT * (FRESH + FRESH // _FRESH_TO_A_TURN)
"""Forward passes to one where there are pools."""
_POOL = 2
"""What is folded into a key for the pool."""


class ISIR(TiltKernel[ChainState]):
    """Iterated sampling importance resampling and turns, for exp(g(z)) N(z; 0, I).

    A transition has global moves: a chain chooses among its latent and up to four fresh draws of
    N(0, I) by the weights exp(g), and so on until N fresh draws are made. Then it has local moves,
    one for every three fresh draws: turns of z that Metropolis accepts (`trajectory.turned`), whose
    angle the warmup adapts. Both leave p invariant, whatever N, and take forward passes alone.
    Where there is a Stein mean, every eighth transition takes a gradient, so that `tilt_gradient`
    is that of the last transition which took one; its mean over draws is the same. With `MCMC.run`
    give `init_params` as for `Split`.

    A warmup of at least 64 transitions weighs the fresh draws (`freshness.Weights`). If each is
    worth at least 1/32 of an independent draw, chains draw from pools of fresh draws from its end
    on, with as many to a draw as make it worth a third of an independent one.

    A choice with probabilities proportional to the weights would often fall on where the chain is.
    Here it falls on fresh draw j with probability w_j / (1 - min(w_j, w)), where w is the weight of
    where the chain is and all weights sum to 1. That leaves at least as often, and always for
    draws of the same weight.

    Args:
        tilt: g, a function of z (an array or a tree of arrays) and of the arguments that `run`
            is given, to a scalar. Leave it out for `ppl_cnn.draw`, which takes the density's.
        fresh: N, the number of fresh draws in a transition, at least 1, where there are no pools;
            best a multiple of 4.
        target_accept_prob: mean acceptance probability of the turns.

    Raises:
        ArgumentError: a setting is out of range.

    Source: Andrieu, Lee, Vihola, Uniform ergodicity of the iterated conditional SMC and geometric
    ergodicity of particle Gibbs samplers, Bernoulli 24, 2018; with local moves: Samsonov et al.,
    Local-Global MCMC kernels: the best of both worlds, NeurIPS 2022; the choice: Liu, Peskun's
    theorem and a modified discrete-state Gibbs sampler, Biometrika 83, 1996.

    Examples:
        >>> print(ISIR(fresh=8))
        isir:8
    """

    name = "isir"
    own_statistics: ClassVar[Mapping[str, Statistic]] = {
        "forward_passes": Statistic(np.int32, "sum"),
        "global_acceptance_rate": Statistic(np.float32, "mean"),
        "fresh_per_draw": Statistic(np.int32),  # of draws from pools; 0 where there are none
    }

    def __init__(
        self,
        tilt: Tilt | None = None,
        *,
        fresh: int = FRESH,
        target_accept_prob: float = TARGET_ACCEPT,
    ) -> None:
        super().__init__(tilt, target_accept_prob=target_accept_prob)
        self._fresh = at_least_one("fresh", fresh)
        self._turns = max(fresh // _FRESH_TO_A_TURN, 1)
        self._takes_gradients = True

    @classmethod
    def parse(cls, value: str) -> Self:
        """The kernel with that many fresh draws in a transition.

        Raises:
            ArgumentError: the text is no positive whole number.
        """
        return cls(fresh=parsed_count(cls.name, value, what="fresh draws", letter="N"))

    def __str__(self) -> str:
        """`isir`, or `isir:N` where N is not the default."""
        return self.name if self._fresh == FRESH else f"{self.name}:{self._fresh}"

    def bind(self, target: Target) -> Self:
        """A kernel of the same settings for the target's tilt.

        Args:
            target: the density to draw from. Without a Stein mean, no gradient is taken.

        Raises:
            ArgumentError: the kernel was given a tilt of its own.
        """
        bound = super().bind(target)
        bound._takes_gradients = target.has_stein_mean
        return bound

    def first_state(self, tilt: Tilt, key: Array, z: Latent) -> ChainState:
        """One chain's first state."""
        none = jnp.zeros((), jnp.int32)
        own = {"forward_passes": none, "global_acceptance_rate": jnp.zeros(())}
        period = _PASSES_TO_A_GRADIENT if self._takes_gradients else NO_GRADIENTS
        first = Tuned(jnp.asarray(FIRST_STEP), choice=Choice.trajectories(period))
        own |= {"fresh_per_draw": none}
        pool = Pool.none(jax.random.fold_in(key, _POOL), z)
        return first_chain(tilt, key, z, first, own=own, pool=pool)

    def next_state(self, tilt: Tilt, state: ChainState) -> ChainState:
        """One chain's state after another transition."""
        key, key_move = jax.random.split(state.rng_key)
        choice = state.adapt_state.choice
        assert choice is not None
        assert state.pool is not None
        pooled = choice.fresh > 0

        def choose_and_turn(_: Array, at: Moved) -> Moved:
            # Without a tilt, a quarter turn forgets the start.
            angle = jnp.minimum(state.adapt_state.step_size, FIRST_ANGLE)
            return globally_and_locally(
                tilt, at.point, key_move, fresh=self._fresh, turns=self._turns, angle=angle
            )

        # Loops that run once or never stand for conditions, as in `split`.
        start = Moved.none(state.point, self._fresh)
        moved = jax.lax.fori_loop(0, (~pooled).astype(jnp.int32), choose_and_turn, start)
        key_pool = jax.random.fold_in(key_move, _POOL)
        found = drawn_if(tilt, moved.point, state.pool, key_pool, choice.fresh)
        passes = found.passes + jnp.where(pooled, 0, self._fresh + self._turns)
        left = found.moved.astype(jnp.float32)
        after = state.after(
            found.point,
            key,
            acceptance=jnp.where(pooled, left, moved.acceptance),
            num_steps=0,
            feedback=told(state, moved, choice),
            own={
                "forward_passes": passes,
                "global_acceptance_rate": jnp.where(pooled, left, moved.rate),
                "fresh_per_draw": choice.fresh,
            },
        )._replace(pool=found.pool)
        if not self._takes_gradients:
            return after

        def with_gradient(_: Array, state: ChainState) -> ChainState:
            point = point_at(tilt, state.z)
            return state._replace(point=point, num_steps=state.num_steps + 1)

        every = jnp.where(pooled, choice.transitions_to_a_gradient, _TO_A_GRADIENT)
        due = (state.i % every == 0).astype(jnp.int32)
        with_its: ChainState = jax.lax.fori_loop(0, due, with_gradient, after)
        return with_its


class Moved(NamedTuple):
    """Where global and local moves have led a chain."""

    point: Point
    acceptance: Float[Array, ""]
    """Mean acceptance probability of the turns."""
    rate: Float[Array, ""]
    """Mean probability with which a choice fell on a fresh draw."""
    fresh: Float[Array, " fresh"]
    """g of the fresh draws."""

    @classmethod
    def none(cls, point: Point, fresh: int) -> "Moved":
        """No moves.

        Args:
            point: where the chain is.
            fresh: number of fresh draws that moves would make.
        """
        zero = jnp.zeros(())
        return cls(point, zero, zero, jnp.zeros(fresh))


def globally_and_locally(
    tilt: Tilt, point: Point, key: Array, *, fresh: int, turns: int, angle: Float[Array, ""]
) -> Moved:
    """Choices among fresh draws, then turns.

    Args:
        tilt: g.
        point: where the chain is.
        key: random key of all.
        fresh: number of fresh draws.
        turns: number of turns.
        angle: of each, in radians.
    """
    key_global, key_local = jax.random.split(key)
    chosen = resampled(tilt, point, key_global, fresh)
    turned_on = turned(tilt, chosen.point, key_local, angle, jnp.asarray(turns))
    return chosen._replace(point=turned_on.point, acceptance=turned_on.acceptance)


def told(state: ChainState, moved: Moved, choice: Choice) -> Feedback:
    """What a transition tells the adaptation: of fresh draws, their weights alone.

    Args:
        state: of the chain before it.
        moved: what its moves did.
        choice: the chain's moves.
    """
    none = jnp.zeros(FUNCTIONS)
    trial = Trial(
        tilt=state.tilt,
        spread=jnp.ones(FUNCTIONS),
        of_trajectory=none,
        steps=jnp.ones(()),
        of_turn=none,
        accepted=jnp.zeros(()),
        tried=choice.tried.astype(jnp.float32),
        weights=Weights.of(moved.fresh, state.tilt, choice.centre),
    )
    return Feedback(moved.acceptance, trial=trial)


def resampled(tilt: Tilt, point: Point, key: Array, fresh: int) -> Moved:
    """A latent that is chosen again and again among itself and fresh draws of N(0, I).

    Each choice is by weights exp(g), as `ISIR` says. Given the set, the chain is at each of its
    members with probability proportional to the weight; w_i P(i, j) = w_i w_j / (1 - min(w_i, w_j))
    is symmetric, so that this stays true, and p is left invariant.

    Args:
        tilt: g.
        point: where the chain is.
        key: random key of the draws and the choices.
        fresh: number of fresh draws in all; each choice is among the largest number of them, up to
            four, that divides it.
    """
    together = max(n for n in range(1, _ROUND + 1) if fresh % n == 0)

    def choose(at: Point, key: Array) -> tuple[Point, tuple[Array, Array]]:
        z, here = at.z, at.tilt
        key_draws, key_choice = jax.random.split(key)
        draws = jax.vmap(lambda key: normal_like(key, z))(jax.random.split(key_draws, together))
        tilts = jax.vmap(tilt)(draws)
        # A draw whose tilt isn't finite is never chosen.
        tilts = jnp.append(jnp.where(jnp.isfinite(tilts), tilts, -jnp.inf), here)
        weights = jax.nn.softmax(tilts)
        leave = weights[:-1] / (1 - jnp.minimum(weights[:-1], weights[-1]))
        stay = jnp.maximum(1 - leave.sum(), 0)  # the rounded sum can exceed 1
        chosen = jax.random.categorical(key_choice, jnp.log(jnp.append(leave, stay)))
        every = jax.tree.map(lambda new, old: jnp.concatenate([new, old[None]]), draws, z)
        z = jax.tree.map(lambda leaf: leaf[chosen], every)
        return at._replace(z=z, tilt=tilts[chosen]), (1 - stay, tilts[:-1])

    keys = jax.random.split(key, fresh // together)
    chosen, (rates, tilts) = jax.lax.scan(choose, point, keys)
    return Moved(chosen, jnp.zeros(()), rates.mean(), tilts.ravel())
