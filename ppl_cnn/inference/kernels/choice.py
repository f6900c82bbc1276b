"""The choice, in the warmup, between trajectories and turns of z that take no gradient.

A turn goes from z to cos(a) z + sin(a) xi, xi ~ N(0, I), which leaves the reference N(0, I) as it
is; Metropolis accepts it with min(1, exp(g(z') - g(z))). So it takes a forward pass and no
gradient. Where the tilt is weak, turns draw more for the same work than trajectories do.

Source of turns: preconditioned Crank-Nicolson, in Cotter, Roberts, Stuart, White, MCMC methods for
functions, Statistical Science 28, 2013; at a quarter turn, the independence sampler.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.work import FORWARD_COST

ANGLES = tuple(math.pi / 2 ** (1 + halvings) for halvings in range(4))
"""Radians of the turns that the warmup tries in turn: a quarter turn, half of it, and so on."""
MOST_TURNS = 16
"""Turns of a transition at most."""
TURNS_TO_A_GRADIENT = 16
"""A gradient now and then, for the Stein mean, adds 14 % to the work of turns."""
NO_GRADIENTS = 2**30
"""Turns to a gradient where there is no Stein mean."""
LEAST_TRIED = 32
"""Transitions of a warmup that chooses, at least. Chains may start far from where they end."""
_FADING, _FADING_OF_ROUND = 0.98, 0.1
"""Factors by which a transition's result has faded at the next one, and after its round."""
_LEAST_SIZE, _LEAST_WEIGHT = 1e-12, 1e-6
"""Where all chains are at z = 0, and where an angle wasn't tried."""


class Choice(NamedTuple):
    """Which moves a chain makes, and what the warmup expects of each kind."""

    turns: Int[Array, "*unit"]
    """Turns of a transition; 0 where it is a trajectory."""
    angle: Float[Array, "*unit"]
    """Radians of a turn, made or tried."""
    tried: Int[Array, "*unit"]
    """1 where a turn is tried beside each trajectory, as in the warmup, otherwise 0."""
    worth_of_turns: Float[Array, "*unit"]
    """Independent draws expected for the work of a gradient; NaN where no warmup has told."""
    worth_of_trajectories: Float[Array, "*unit"]
    """The same of trajectories."""

    period: Int[Array, "*unit"]
    """Turns to a gradient."""

    @classmethod
    def trajectories(cls, period: int = TURNS_TO_A_GRADIENT) -> "Choice":
        """Trajectories, with nothing known of turns.

        Args:
            period: turns to a gradient, should turns be chosen.
        """
        none, unknown = jnp.zeros((), jnp.int32), jnp.asarray(jnp.nan)
        return cls(
            none, jnp.asarray(ANGLES[0]), none, unknown, unknown, jnp.asarray(period, jnp.int32)
        )

    @property
    def transitions_to_a_gradient(self) -> Int[Array, "*unit"]:
        """After how many transitions by turns a gradient is taken."""
        return transitions_to_a_gradient(self.turns, self.period)


class Trial(NamedTuple):
    """What a transition of the warmup tells the choice.

    A move's independence is the mean of a |z' - z|^2 / 2 over that of |z|^2, with its acceptance
    probability a: 1 if z' is independent of z, and otherwise 1 less the correlation of the two, as
    far as E z is small beside z.
    """

    size: Float[Array, "*unit"]
    """|z|^2 / d, with d dimensions."""
    of_trajectory: Float[Array, "*unit"]
    """a |z' - z|^2 / 2d of the trajectory."""
    steps: Float[Array, "*unit"]
    """Its gradients."""
    of_turn: Float[Array, "*unit"]
    """a |z' - z|^2 / 2d of the turn that was tried; 0 if none was."""
    tried: Float[Array, "*unit"]
    """1 if a turn was tried, otherwise 0."""

    @classmethod
    def none(cls) -> "Trial":
        """The result of no transition."""
        return cls(*[jnp.zeros(())] * len(cls._fields))


class ChoiceTuning(NamedTuple):
    """Fading sums, over the warmup and a unit's chains, of what was tried."""

    of_trajectories: Float[Array, "*unit"]
    """Independence of trajectories."""
    steps: Float[Array, "*unit"]
    """Their gradients."""
    weight: Float[Array, "*unit"]
    """Fading number of transitions that both sums are over."""
    of_turns: Float[Array, "*unit angle"]
    """Independence of turns."""
    tried: Float[Array, "*unit angle"]
    """Fading number of turns that each sum is over."""
    transitions: Float[Array, "*unit"]
    """Number of transitions so far."""
    period: Int[Array, "*unit"]
    """Turns to a gradient."""

    @classmethod
    def around(cls, choice: Choice) -> "ChoiceTuning":
        """The state before the first transition."""
        zero = jnp.zeros_like(choice.angle)
        none = jnp.zeros((*zero.shape, len(ANGLES)))
        return cls(zero, zero, zero, none, none, zero, choice.period)

    def update(self, trial: Trial, *, ended: Bool[Array, "*unit"]) -> "ChoiceTuning":
        """The state after a transition.

        Args:
            trial: mean of all chains, for each unit.
            ended: whether a round of the adaptation ends with it.
        """
        kept = jnp.where(ended, _FADING_OF_ROUND, 1.0)
        own, size = jax.nn.one_hot(self._next, len(ANGLES)), jnp.maximum(trial.size, _LEAST_SIZE)
        of_turns = _FADING * self.of_turns + own * (trial.of_turn / size)[..., None]
        tried = _FADING * self.tried + own * trial.tried[..., None]
        return ChoiceTuning(
            kept * (_FADING * self.of_trajectories + trial.of_trajectory / size),
            kept * (_FADING * self.steps + trial.steps),
            kept * (_FADING * self.weight + 1),
            kept[..., None] * of_turns,
            kept[..., None] * tried,
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
        angles = jnp.asarray(ANGLES)
        independence = self.of_turns / jnp.maximum(self.tried, _LEAST_WEIGHT)
        turns = turns_together(independence)
        of_each = worth_of_turns(independence, turns, self.period[..., None])
        best = of_each.argmax(axis=-1)[..., None]
        found, angle, turns = (
            jnp.take_along_axis(jnp.broadcast_to(each, of_each.shape), best, axis=-1)[..., 0]
            for each in (of_each, angles, turns)
        )
        other = worth_of_trajectories(
            self.of_trajectories / self.weight, jnp.maximum(self.steps / self.weight, 1.0)
        )
        made = settled & (self.transitions >= LEAST_TRIED) & (found > other)
        return Choice(
            turns=jnp.where(made, turns, 0),
            angle=jnp.where(settled, angle, angles[self._next]),
            tried=(~settled).astype(jnp.int32),
            worth_of_turns=found,
            worth_of_trajectories=other,
            period=self.period,
        )


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
    """After how many transitions by turns a gradient is taken.

    Args:
        turns: how many make a transition.
        period: turns to a gradient.
    """
    return jnp.maximum(period // jnp.maximum(turns, 1), 1)
