"""The choice, in the warmup, between trajectories and moves of z that take no gradient.

A turn goes from z to cos(a) z + sin(a) xi, xi ~ N(0, I), which leaves the reference N(0, I) as it
is; Metropolis accepts it with min(1, exp(g(z') - g(z))). So it takes a forward pass and no
gradient. Where the tilt is weak, turns draw more for the same work than trajectories do.

Turns that are made have one of several angles each, drawn with equal probabilities: from a quarter
turn, its half, and so on, down to the first that is accepted often enough. Large turns go far, and
small ones lead away from large tilts, where large ones would be rejected again and again.

Where a good share of quarter turns is accepted, fresh draws of N(0, I) can be gathered in pools,
from which a chain draws by their weights (`moves.pool`). For the same work that gives more.

Source of turns: preconditioned Crank-Nicolson, in Cotter, Roberts, Stuart, White, MCMC methods for
functions, Statistical Science 28, 2013; at a quarter turn, the independence sampler.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.inference.kernels.freshness import (
    LEAST_EFFICIENCY,
    Weights,
    fresh_per_draw,
    worth_of_fresh,
)
from ppl_cnn.work import FORWARD_COST

ANGLES = tuple(math.pi / 2 ** (1 + halvings) for halvings in range(4))
"""Radians of the turns that the warmup tries in turn: a quarter turn, half of it, and so on."""
MOST_TURNS = 16
"""Turns of a transition at most."""
TURNS_TO_A_GRADIENT = 64
"""A gradient now and then, for the Stein mean, adds 3 % to the work of turns. Few are enough: where
turns are chosen the tilt is weak, and its gradient varies far less than z."""
TURNS_IN_A_TRAJECTORY = 8
"""As many turns as one trajectory by a softened force stands for, where gradients are spaced: after
every eighth, as its draws are dearer and its gradients vary more."""
NO_GRADIENTS = 2**30
"""Forward passes to a gradient where there is no Stein mean."""
LEAST_WARMUP = 64
"""Transitions of a warmup that chooses, at least. Chains may start far from where they end."""
LEAST_ACCEPTED = 0.4
"""Mean acceptance of the smallest turns that are made, at least. Where fewer are accepted, a chain
that comes to a large tilt stays there for so long that no warmup tells how long."""
ENOUGH = 24
"""Trials of a round that need none of the round before."""
_LEAST = 1e-12
"""A spread or a number of trials that is smaller counts as none."""
FUNCTIONS = 2
"""Number of quantities by which moves are judged: z and the tilt."""


class Choice(NamedTuple):
    """Which moves a chain makes, and what the warmup expects of each kind."""

    turns: Int[Array, "*unit"]
    """Turns of a transition; 0 where it makes none."""
    fresh: Int[Array, "*unit"]
    """Fresh draws that are made in a transition for the next pool; 0 where there are no pools.
    Without turns and fresh draws, a transition is a trajectory."""
    angle: Float[Array, "*unit"]
    """Radians of the smallest turn that is made, or of the turn that is tried."""
    tried: Int[Array, "*unit"]
    """1 where a turn is tried beside each trajectory, as in the warmup, otherwise 0."""
    worth_of_turns: Float[Array, "*unit"]
    """Independent draws expected for the work of a gradient; NaN where no warmup has told."""
    worth_of_fresh: Float[Array, "*unit"]
    """The same of draws from pools."""
    worth_of_trajectories: Float[Array, "*unit"]
    """The same of trajectories."""
    centre: Float[Array, "*unit"]
    """The tilt about which the warmup measures it."""
    period: Int[Array, "*unit"]
    """Forward passes to a gradient."""

    @property
    def doublings(self) -> Int[Array, "*unit"]:
        """How often the smallest turn that is made is doubled at most: up to a quarter turn."""
        halvings = jnp.round(jnp.log2(ANGLES[0] / self.angle)).astype(jnp.int32)
        return jnp.where(self.turns > 0, halvings, 0)

    @property
    def passes(self) -> Int[Array, "*unit"]:
        """Forward passes of a transition without a gradient; 0 where it is a trajectory."""
        return self.turns + self.fresh

    @classmethod
    def trajectories(cls, period: int = TURNS_TO_A_GRADIENT) -> "Choice":
        """Trajectories, with nothing known of turns.

        Args:
            period: forward passes to a gradient, should no trajectories be chosen.
        """
        unknown, none = jnp.asarray(jnp.nan), jnp.zeros((), jnp.int32)
        return cls(
            turns=none,
            fresh=none,
            angle=jnp.asarray(ANGLES[0]),
            tried=none,
            worth_of_turns=unknown,
            worth_of_fresh=unknown,
            worth_of_trajectories=unknown,
            centre=jnp.zeros(()),
            period=jnp.asarray(period, jnp.int32),
        )

    @property
    def transitions_to_a_gradient(self) -> Int[Array, "*unit"]:
        """After how many transitions without trajectories a gradient is taken."""
        return transitions_to_a_gradient(self.passes, self.period)

    @property
    def trajectories_to_a_gradient(self) -> Int[Array, "*unit"]:
        """After how many trajectories by a softened force a gradient of the tilt is taken."""
        return jnp.maximum(self.period // TURNS_IN_A_TRAJECTORY, 1)


class Trial(NamedTuple):
    """What a transition of the warmup tells the choice; |z|^2 and its like are over d dimensions.

    A move's independence is the mean of a |z' - z|^2 / 2 over that of |z|^2, with its acceptance
    probability a: 1 if z' is independent of z, and otherwise 1 less the correlation of the two, as
    far as E z is small beside z. The tilt's is the same, about its mean.
    """

    tilt: Float[Array, "*unit"]
    """g(z)."""
    spread: Float[Array, "*unit function"]
    """|z|^2 / d, and (g(z) - centre)^2."""
    of_trajectory: Float[Array, "*unit function"]
    """a |z' - z|^2 / 2d and a (g(z') - g(z))^2 / 2 of the trajectory."""
    steps: Float[Array, "*unit"]
    """Its gradients."""
    of_turn: Float[Array, "*unit function"]
    """As `of_trajectory`, of the turn that was tried; 0 if none was."""
    accepted: Float[Array, "*unit"]
    """Its acceptance probability."""
    tried: Float[Array, "*unit"]
    """1 if a turn was tried, otherwise 0."""
    weights: Weights
    """The weight of the turn's end, a fresh draw if it was a quarter turn, and that of z."""

    @classmethod
    def none(cls) -> "Trial":
        """The result of no transition."""
        zero, each = jnp.zeros(()), jnp.zeros(FUNCTIONS)
        return cls(zero, each, each, zero, each, zero, zero, Weights.none())


class Sums(NamedTuple):
    """Sums over the trials of a round and a unit's chains."""

    tilt: Float[Array, "*unit"]
    """The sum of g - centre."""
    spread: Float[Array, "*unit function"]
    of_trajectories: Float[Array, "*unit function"]
    steps: Float[Array, "*unit"]
    of_turns: Float[Array, "*unit angle function"]
    accepted: Float[Array, "*unit angle"]
    tried: Float[Array, "*unit angle"]
    """Number of turns, by their angle; all together, of transitions."""
    weights: Weights
    """Weights of fresh draws and of the chains' places."""

    @classmethod
    def none(cls, units: tuple[int, ...]) -> "Sums":
        """Sums over nothing, for an array of units of that shape."""
        zero, each = jnp.zeros(units), jnp.zeros((*units, FUNCTIONS))
        of_turns = jnp.zeros((*units, len(ANGLES), FUNCTIONS))
        by_angle = of_turns[..., 0]
        return cls(zero, each, each, zero, of_turns, by_angle, by_angle, Weights.none(units))

    @property
    def trials(self) -> Float[Array, "*unit"]:
        """Number of trials."""
        return self.tried.sum(axis=-1)

    @property
    def spread_in_round(self) -> Float[Array, "*unit function"]:
        """`spread`, with the tilt's about its mean in the round."""
        shift = self.tilt**2 / jnp.maximum(self.trials, 1.0)
        return self.spread - jnp.stack([jnp.zeros_like(shift), shift], axis=-1)


class ChoiceTuning(NamedTuple):
    """What the trials of the warmup have shown, by rounds: chains may come from far off."""

    now: Sums
    """Over the round that is on."""
    before: Sums
    """Over the round before."""
    centre: Float[Array, "*unit"]
    """The tilt where the round began."""
    transitions: Float[Array, "*unit"]
    """Number of transitions so far."""
    period: Int[Array, "*unit"]
    """Forward passes to a gradient."""

    @classmethod
    def around(cls, choice: Choice) -> "ChoiceTuning":
        """The state before the first transition."""
        none = Sums.none(choice.angle.shape)
        return cls(none, none, choice.centre, jnp.zeros_like(choice.angle), choice.period)

    def update(self, trial: Trial, *, ended: Bool[Array, "*unit"]) -> "ChoiceTuning":
        """The state after a transition.

        Args:
            trial: mean of all chains, for each unit.
            ended: whether a round of the adaptation ends with it.
        """
        own = jax.nn.one_hot(self._next, len(ANGLES)) * trial.tried[..., None]
        tried = trial.tried[..., None]
        new = Sums(
            trial.tried * (trial.tilt - self.centre),
            tried * trial.spread,
            tried * trial.of_trajectory,
            trial.tried * trial.steps,
            own[..., None] * trial.of_turn[..., None, :],
            own * trial.accepted[..., None],
            own,
            trial.weights.counted(fresh=own[..., 0], here=trial.tried),
        )
        now: Sums = jax.tree.map(jnp.add, self.now, new)
        begins = ended | (self.transitions == 0)
        centre = jnp.where(begins, trial.tilt, self.centre)
        # A round's weights are about its centre; those of the round before, about this round's.
        over = now._replace(weights=now.weights.about(self.centre - centre))
        return ChoiceTuning(
            _where(ended, Sums.none(ended.shape), now),
            _where(ended, over, self.before),
            centre,
            self.transitions + 1,
            self.period,
        )

    @property
    def _next(self) -> Int[Array, "*unit"]:
        """Index of the angle that is tried in the next transition."""
        return self.transitions.astype(jnp.int32) % len(ANGLES)

    def current(self, settled: Bool[Array, "*unit"]) -> Choice:
        """What the chains do next: both while the warmup goes on, then what is worth more.

        Args:
            settled: whether the warmup has ended.
        """
        enough = self.now.trials >= ENOUGH
        before = _where(enough, Sums.none(enough.shape), self.before)
        sums: Sums = jax.tree.map(jnp.add, self.now, before)
        trials = jnp.maximum(sums.trials, _LEAST)
        spread = (self.now.spread_in_round + before.spread_in_round) / trials[..., None]
        found, angle, turns = self._of_turns(sums, spread)
        of_trajectories = least(sums.of_trajectories / trials[..., None], spread)
        other = worth_of_trajectories(of_trajectories, jnp.maximum(sums.steps / trials, 1.0))
        of_fresh, fresh = self._of_fresh(sums.weights)
        chooses = settled & (self.transitions >= LEAST_WARMUP)
        pools = chooses & (of_fresh > jnp.maximum(found, other))
        made = chooses & ~pools & (found > other)
        return Choice(
            turns=jnp.where(made, turns, 0),
            fresh=jnp.where(pools, fresh, 0),
            angle=jnp.where(settled, angle, jnp.asarray(ANGLES)[self._next]),
            tried=(~settled).astype(jnp.int32),
            worth_of_turns=found,
            worth_of_fresh=of_fresh,
            worth_of_trajectories=other,
            centre=self.centre,
            period=self.period,
        )

    def _of_turns(
        self, sums: Sums, spread: Float[Array, "*unit function"]
    ) -> tuple[Float[Array, "*unit"], Float[Array, "*unit"], Int[Array, "*unit"]]:
        """What turns are worth, the smallest of them, and how many a transition should make."""
        tried = jnp.maximum(sums.tried, _LEAST)
        # Where an angle is the smallest, all larger ones are made as often.
        count = jnp.broadcast_to(jnp.arange(1.0, len(ANGLES) + 1), tried.shape)
        jumps = jnp.cumsum(sums.of_turns / tried[..., None], axis=-2) / count[..., None]
        independence = least(jumps, spread[..., None, :])
        turns = turns_together(independence)
        of_each = worth_of_turns(independence, turns, self.period[..., None])
        of_each = jnp.where(sums.accepted / tried >= LEAST_ACCEPTED, of_each, 0.0)
        angles = jnp.broadcast_to(jnp.asarray(ANGLES), of_each.shape)
        best = of_each.argmax(axis=-1)[..., None]
        worth, angle, turns = (
            jnp.take_along_axis(each, best, axis=-1)[..., 0] for each in (of_each, angles, turns)
        )
        return worth, angle, turns

    def _of_fresh(self, weights: Weights) -> tuple[Float[Array, "*unit"], Int[Array, "*unit"]]:
        """What draws from pools are worth, and how many fresh draws a transition should make."""
        efficiency = weights.efficiency
        fresh = fresh_per_draw(efficiency)
        transitions = transitions_to_a_gradient(fresh, self.period)
        worth = worth_of_fresh(efficiency, fresh, transitions)
        return jnp.where(efficiency >= LEAST_EFFICIENCY, worth, 0.0), fresh


def _where(condition: Bool[Array, "*unit"], one: Sums, other: Sums) -> Sums:
    def each(one: Array, other: Array) -> Array:
        shape = condition.shape + (1,) * (one.ndim - condition.ndim)
        return jnp.where(condition.reshape(shape), one, other)

    chosen: Sums = jax.tree.map(each, one, other)
    return chosen


def least(
    jump: Float[Array, "*move function"], spread: Float[Array, "*#move function"]
) -> Float[Array, "*move"]:
    """The least independence of the quantities that vary at all.

    Args:
        jump: half the squared jumps, as in `Trial`.
        spread: what they are for moves to independent draws.
    """
    varies = spread > _LEAST
    return jnp.where(varies, jump / jnp.maximum(spread, _LEAST), 1.0).min(axis=-1)


def turns_together(independence: Float[Array, "*turn"]) -> Int[Array, "*turn"]:
    """How many turns make a transition: as many as halve the correlation with its start.

    Fewer would make draws that are much alike; many more would be work lost on a draw.

    Args:
        independence: of one turn.
    """
    correlation = jnp.clip(1 - independence, 1e-6, 1 - 1e-6)
    halving = jnp.ceil(jnp.log(0.5) / jnp.log(correlation) - 1e-3)
    return jnp.clip(halving, 1, MOST_TURNS).astype(jnp.int32)


def worth_of_turns(
    independence: Float[Array, "*turn"],
    turns: Int[Array, "*turn"],
    period: Int[Array, "*#turn"],
) -> Float[Array, "*turn"]:
    """Independent draws for the work of a gradient, of transitions by turns.

    Args:
        independence: of one turn.
        turns: how many make a transition.
        period: turns to a gradient.
    """
    correlation = jnp.clip(1 - independence, 0.0, 1.0) ** turns
    work = FORWARD_COST * turns.astype(jnp.float32) + 1 / transitions_to_a_gradient(turns, period)
    return worth(1 - correlation) / work


def worth_of_trajectories(
    independence: Float[Array, "*unit"], steps: Float[Array, "*unit"]
) -> Float[Array, "*unit"]:
    """Independent draws for the work of a gradient, of transitions by trajectories.

    Args:
        independence: of one trajectory.
        steps: its gradients.
    """
    return worth(independence) / steps


def worth(independence: Float[Array, "*move"]) -> Float[Array, "*move"]:
    """Independent draws that a draw counts as: (1 - r)/(1 + r), if the chain's correlation is r.

    Args:
        independence: 1 - r; beyond 1 it counts as 1.
    """
    independence = jnp.clip(independence, 0.0, 1.0)
    return independence / (2 - independence)


def transitions_to_a_gradient(
    turns: Int[Array, "*turn"], period: Int[Array, "*#turn"]
) -> Int[Array, "*turn"]:
    """After how many transitions without trajectories a gradient is taken.

    Args:
        turns: how many, or how many fresh draws, make a transition.
        period: turns to a gradient.
    """
    return jnp.maximum(period // jnp.maximum(turns, 1), 1)
