"""The width of a softened force, adapted in the warmup, and whether the force pays.

A trajectory whose kicks follow a smooth relative g_w of the tilt g (`softening`) has an energy
error at its ends beside that of its steps: the change of the gap g_w - g from end to end. The wider
the kinks, the longer the steps and the larger the gap.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.inference.kernels.choice import ENOUGH, Choice, ChoiceTuning, Trial

GAP = 0.3
"""Mean absolute change of the gap along a trajectory that the width is adapted to. A trained LeNet
at T = 1/100 drew most where it was about 0.3, and a fifth as much where it was 0.6."""
FIRST_WIDTH = 0.1
NARROWEST, WIDEST = 1e-3, 1.0
TRANSITIONS_IN_A_ROW = 8
"""In the warmup, so many follow either force in turn. The angle's jitter takes numbers of
transitions by their last bits, so that both forces have angles of all lengths."""
LEAST_STEPS = 2.0
"""Steps of a trajectory by the exact force from which a softened one is tried. Shorter ones can't
save what it takes besides: a forward pass, and a gradient now and then for the Stein mean."""
LEAST_GAIN = 1.2
"""How many times as much as the best other move a softened force must be expected to give. Less is
within the noise of a warmup, and the exact force takes the gradient of g at every draw."""
_DELAY, _FORGETTING, _ASCENT = 10.0, 0.75, 0.6
"""As in `adaptation`."""


class Softness(NamedTuple):
    """Which force a chain's trajectories follow."""

    width: Float[Array, "*unit"]
    """Relative width of the kinks; 0 for the exact force."""
    sizes: Float[Array, "*unit kink"]
    """Root mean square of what each kink compares, which its width is relative to."""
    tried: Int[Array, "*unit"]
    """1 in the warmup, where the gap is measured, otherwise 0."""
    worth: Float[Array, "*unit"]
    """Independent draws expected for the work of a gradient; NaN where no warmup has told."""

    @classmethod
    def none(cls, kinks: int) -> "Softness":
        """The exact force, with nothing known of others.

        Args:
            kinks: number of the tilt's kinks.
        """
        zero = jnp.zeros((), jnp.int32)
        return cls(jnp.zeros(()), jnp.zeros(kinks), zero, jnp.asarray(jnp.nan))

    @property
    def widths(self) -> Float[Array, "*unit kink"]:
        """The width of each kink."""
        return self.width[..., None] * self.sizes


class SoftTrial(NamedTuple):
    """What a transition of the warmup tells about the softened force."""

    made: Float[Array, "*unit"]
    """1 where its trajectory followed one, otherwise 0."""
    gap: Float[Array, "*unit"]
    """Absolute change of g_w - g from its start to its end; 0 where it followed none."""
    squares: Float[Array, "*unit kink"]
    """Mean square of what each kink compares; 0 where it followed none."""
    trial: Trial
    """What it gave for its work, as of `choice`; nothing is tried where it followed none."""

    @classmethod
    def none(cls, kinks: int) -> "SoftTrial":
        """The result of no transition.

        Args:
            kinks: number of the tilt's kinks.
        """
        return cls(jnp.zeros(()), jnp.zeros(()), jnp.zeros(kinks), Trial.none())


class SoftTuning(NamedTuple):
    """Stochastic approximation of the log width, and the trials of softened trajectories."""

    log_width: Float[Array, "*unit"]
    log_average: Float[Array, "*unit"]
    """Average of the log widths so far; the chains keep it after the warmup."""
    squares: Float[Array, "*unit kink"]
    """Average of the mean squares of what each kink compares."""
    made: Float[Array, "*unit"]
    """Number of softened trajectories so far."""
    trials: ChoiceTuning
    """What softened trajectories alone have shown."""
    transitions: Float[Array, "*unit"]
    """Number of all transitions so far."""

    @classmethod
    def around(cls, choice: Choice, sizes: Float[Array, "*unit kink"]) -> "SoftTuning":
        """The state before the first transition.

        Args:
            choice: the moves with which it begins.
            sizes: of the kinks, as far as they are known; 0 leaves them sharp at first.
        """
        zero = jnp.zeros_like(choice.angle)
        log = jnp.full_like(zero, math.log(FIRST_WIDTH))
        return cls(log, log, sizes**2, zero, ChoiceTuning.around(choice), zero)

    def update(self, told: SoftTrial, *, ended: Bool[Array, "*unit"]) -> "SoftTuning":
        """The state after a transition.

        Args:
            told: mean of all chains, for each unit.
            ended: whether a round of the adaptation ends with it.
        """
        made = self.made + told.made
        descent = told.made * jnp.clip((GAP - told.gap) / GAP, -1.0, 1.0)
        log_width = self.log_width + descent / (made + _DELAY) ** _ASCENT
        log_width = jnp.clip(log_width, math.log(NARROWEST), math.log(WIDEST))
        share = told.made * jnp.maximum(made, 1.0) ** -_FORGETTING
        log_average = share * log_width + (1 - share) * self.log_average
        squares = self.squares + share[..., None] * (told.squares - self.squares)
        trials = self.trials.update(told.trial, ended=ended)
        return SoftTuning(log_width, log_average, squares, made, trials, self.transitions + 1)

    def current(
        self, settled: Bool[Array, "*unit"], choice: Choice, steps: Float[Array, "*unit"]
    ) -> tuple[Softness, Choice]:
        """The force that is followed next, and the moves with which it is.

        Args:
            settled: whether the warmup has ended.
            choice: between turns and trajectories by the exact force.
            steps: how many of these a trajectory takes.
        """
        found = self.trials.current(settled).worth_of_trajectories
        counted = self.trials.now.trials + self.trials.before.trials
        without = jnp.maximum(choice.worth_of_turns, choice.worth_of_fresh)
        other = jnp.maximum(choice.worth_of_trajectories, without)
        pays = settled & (counted >= ENOUGH) & (found > LEAST_GAIN * other)
        in_turn = (self.transitions // TRANSITIONS_IN_A_ROW) % 2 == 1
        tries = ~settled & in_turn & (steps > LEAST_STEPS)
        log = jnp.where(settled, self.log_average, self.log_width)
        width = jnp.where(pays | tries, jnp.exp(log), 0.0)
        worth = jnp.where(counted > 0, found, jnp.nan)
        softness = Softness(width, jnp.sqrt(self.squares), (~settled).astype(jnp.int32), worth)
        turns, fresh = (jnp.where(pays, 0, count) for count in (choice.turns, choice.fresh))
        return softness, choice._replace(turns=turns, fresh=fresh)
