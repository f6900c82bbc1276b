"""Adaptation of step size, angle, moves and ladder of rungs, pooled over a unit's chains.

Each adapted quantity is a NamedTuple with `around`, its state before the first transition, and
`update`, its state after another. A leading axis of units is allowed everywhere.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ppl_cnn.inference.kernels.choice import ANGLES, Choice, ChoiceTuning, Trial
from ppl_cnn.inference.kernels.softness import Softness, SoftTrial, SoftTuning

SHRINKAGE = 0.2
"""Nesterov's gamma. With Stan's 0.05 a single chain's step swings by factors of ten in the first
transitions, and all chains would wait for the smallest. Pooled acceptances are less noisy and
want less."""
DELAY = 10.0
"""t_0: it damps the first updates."""
FORGETTING = 0.75
"""kappa: decay of the averages' weights; the larger, the longer the first steps count."""


class StepSize(NamedTuple):
    """Dual averaging of the log step size towards a mean acceptance probability.

    Source: Hoffman, Gelman, The No-U-Turn sampler, JMLR 15, 2014, section 3.2, with the mean over
    chains in place of one chain's acceptance probability, and the search's centre at the step
    that suits the reference instead of ten times it.
    """

    log_centre: Float[Array, "*unit"]
    log_step: Float[Array, "*unit"]
    log_average: Float[Array, "*unit"]
    """Average of the log steps so far; the chains keep it after the warmup."""
    error: Float[Array, "*unit"]
    """Running mean of target minus acceptance probability."""
    transitions: Float[Array, "*unit"]

    @classmethod
    def around(cls, step: Float[Array, "*unit"]) -> "StepSize":
        """The state before the first transition, which uses this step."""
        log, zero = jnp.log(step), jnp.zeros_like(step)
        return cls(log, log, log, zero, zero)

    def update(
        self, acceptance: Float[Array, "*unit"], target: float, longest: float = math.inf
    ) -> "StepSize":
        """The state after a transition.

        Args:
            acceptance: mean acceptance probability of all chains, for each unit.
            target: the acceptance probability that is wanted.
            longest: largest step allowed.
        """
        count = self.transitions + 1
        weight = 1 / (count + DELAY)
        error = (1 - weight) * self.error + weight * (target - acceptance)
        log_step = self.log_centre - jnp.sqrt(count) / SHRINKAGE * error
        log_step = jnp.minimum(log_step, math.log(longest))
        share = count**-FORGETTING
        log_average = share * log_step + (1 - share) * self.log_average
        return StepSize(self.log_centre, log_step, log_average, error, count)

    def current(self, settled: Bool[Array, "*unit"]) -> Float[Array, "*rung"]:
        """The step that is taken next.

        Args:
            settled: whether the warmup has ended, so that the average is taken.
        """
        return jnp.exp(jnp.where(settled, self.log_average, self.log_step))


LONGEST = math.pi
"""Largest angle of a trajectory, in radians: beyond half a turn, a Gaussian comes back."""
LONGEST_STEP = 0.9 * math.pi
"""Largest step, in radians: at half a turn the kick, tan(h/2) times the force, is infinite."""
SHORTEST = 0.02
"""Smallest angle of a trajectory, in radians."""
FADING = 0.95
"""Factor by which a transition's feedback has faded at the next transition of its round."""
FIRST_ROUND = 16
"""Transitions of the first round of adaptation; each later round is as long as all before it."""


def ends_round(count: Float[Array, "*unit"]) -> Bool[Array, "*unit"]:
    """Whether a round of adaptation ends with a transition.

    Args:
        count: number of transitions so far, that one included.
    """
    rounds = jnp.log2(count / FIRST_ROUND)
    return (count >= FIRST_ROUND) & (rounds == jnp.round(rounds))


FUNCTIONS = 2
"""Number of functions of z whose squared jumps decide on the angle: |z|^2/2 and the tilt."""


class Feedback(NamedTuple):
    """What a transition tells the adaptation; pooled over chains, the mean of each field.

    With replicas on a ladder each rung has its own step size and angle, and every field has an
    axis of rungs.
    """

    acceptance: Float[Array, "*unit"]
    squared: Float[Array, "*unit function"] | None = None
    """Squared jumps of some functions of z, times the acceptance probability."""
    slope: Float[Array, "*unit function"] | None = None
    """Derivatives of the squared jumps with respect to the log of the angle."""
    several: Float[Array, "*unit"] | None = None
    """1 where the trajectory had more than one step, so that a longer one costs more gradients."""
    refused: Float[Array, "*unit"] | None = None
    """Probability that a swap of each rung with the one below is refused."""
    trial: Trial | None = None
    """What moves of either kind did; None for kernels that don't choose."""
    softened: SoftTrial | None = None
    """What a softened force did; None where there is none to try."""

    @classmethod
    def none(cls, tuned: "Tuned") -> "Feedback":
        """The feedback of no transition, with the fields that are adapted.

        Args:
            tuned: what the kernel adapts.
        """
        shape = jnp.shape(tuned.step_size)
        zero, each = jnp.zeros(shape), jnp.zeros((*shape, FUNCTIONS))
        trial = None if tuned.choice is None else Trial.none()
        if tuned.angle is None:
            return cls(zero, trial=trial)
        refused = None if tuned.strengths is None else zero
        softened = (
            None if tuned.softness is None else SoftTrial.none(tuned.softness.sizes.shape[-1])
        )
        return cls(zero, each, each, zero, refused, trial, softened)


class Angle(NamedTuple):
    """Ascent of the log angle to the largest expected squared jump per gradient.

    For a function phi, the derivative of the logarithm of that ratio is

        E[a d/dlog(angle) (phi(z') - phi(z))^2] / E[a (phi(z') - phi(z))^2] - 1

    with the acceptance probability a, as the number of gradients grows like the angle. Each
    expectation is a fading average over the chains and the transitions of a round, and the ascent
    is the mean over the functions. A new round forgets the last: chains that come from far off jump
    so far at first that their feedback would outweigh all that follows, the more so the shorter it
    makes the angle.

    Source: after Hoffman, Radul, Sountsov, An adaptive-MCMC scheme for setting trajectory lengths
    in Hamiltonian Monte Carlo, AISTATS 2021, which takes the function |z - E z|^2 and no cost.
    """

    log_angle: Float[Array, "*unit"]
    log_average: Float[Array, "*unit"]
    """Average of the log angles so far; the chains keep it after the warmup."""
    squared: Float[Array, "*unit function"]
    """Fading sum of the round's squared jumps."""
    slope: Float[Array, "*unit function"]
    """Fading sum of their derivatives."""
    several: Float[Array, "*unit"]
    """Fading sum of the transitions with more than one step."""
    weight: Float[Array, "*unit"]
    """Fading number of the transitions that the sums are over."""
    transitions: Float[Array, "*unit"]
    """Number of transitions so far."""

    @classmethod
    def around(cls, angle: Float[Array, "*unit"]) -> "Angle":
        """The state before the first transition, which uses this angle."""
        log, zero = jnp.log(angle), jnp.zeros_like(angle)
        none = jnp.zeros((*angle.shape, FUNCTIONS))
        return cls(log, log, none, none, zero, zero, zero)

    def update(self, feedback: Feedback) -> "Angle":
        """The state after a transition.

        Args:
            feedback: mean of all chains, for each unit.
        """
        assert feedback.squared is not None
        assert feedback.slope is not None
        assert feedback.several is not None
        count = self.transitions + 1
        squared = FADING * self.squared + feedback.squared
        slope = FADING * self.slope + feedback.slope
        several = FADING * self.several + feedback.several
        total = FADING * self.weight + 1
        cost = several / total
        jumps = squared > 0
        gains = jnp.where(jumps, slope / jnp.where(jumps, squared, 1.0), 0.0)
        gain = gains.sum(axis=-1) / jnp.maximum(jumps.sum(axis=-1), 1)
        ascent = jnp.clip(gain - cost, -1.0, 1.0)
        log_angle = self.log_angle + ascent / (count + DELAY) ** 0.6
        log_angle = jnp.clip(log_angle, math.log(SHORTEST), math.log(LONGEST))
        share = count**-FORGETTING
        log_average = share * log_angle + (1 - share) * self.log_average
        left = jnp.where(ends_round(count), 0.0, 1.0)
        of_each = left[..., None]
        return Angle(
            log_angle,
            log_average,
            of_each * squared,
            of_each * slope,
            left * several,
            left * total,
            count,
        )


_LEAST_REFUSED = 1e-3
"""Smallest probability of a refusal that counts, so that no two rungs become one."""


class LadderTuning(NamedTuple):
    """Rungs b_1 < ... < b_R = 1 of densities N(0, I) exp(b g) above the reference, b_0 = 0.

    A round's mean refusals of swaps between neighbours add up to a function of b, the
    communication barrier. At the end of the round, the rungs are placed at equal distances in it.

    Source: Syed, Bouchard-Côté, Deligiannidis, Doucet, Non-reversible parallel tempering: a
    scalable highly parallel MCMC scheme, JRSS B 84, 2022, sections 5.1 to 5.4.
    """

    strengths: Float[Array, "*unit_rung"]
    refused: Float[Array, "*unit_rung"]
    """Mean refusal of swaps with the rung below, over the round so far."""
    transitions: Float[Array, "*unit_rung"]
    """Number of transitions so far."""

    @classmethod
    def around(cls, strengths: Float[Array, "*unit_rung"]) -> "LadderTuning":
        """The state before the first transition, which uses these strengths."""
        zero = jnp.zeros_like(strengths)
        return cls(strengths, zero, zero)

    def update(self, refused: Float[Array, "*unit_rung"]) -> "LadderTuning":
        """The state after a transition.

        Args:
            refused: probability that a swap with the rung below is refused, mean of all chains.
        """
        count = self.transitions + 1
        ended = ends_round(count)
        # This round's transitions are those since the last round's end, at a power of two.
        rounds = jnp.ceil(jnp.log2(count / FIRST_ROUND))
        begun = jnp.where(count <= FIRST_ROUND, 0.0, FIRST_ROUND * 2 ** (rounds - 1))
        mean = self.refused + (refused - self.refused) / (count - begun)
        placed = jnp.where(ended, placed_evenly(self.strengths, mean), self.strengths)
        return LadderTuning(placed, jnp.where(ended, 0.0, mean), count)


def placed_evenly(
    strengths: Float[Array, "*unit_rung"], refused: Float[Array, "*unit_rung"]
) -> Float[Array, "*unit_rung"]:
    """The strengths at equal distances in the barrier that these refusals add up to.

    Args:
        strengths: b_1 to b_R.
        refused: probability that a swap with the rung below is refused.
    """

    def place(strengths: Array, refused: Array) -> Array:
        barrier = jnp.cumsum(jnp.clip(refused, _LEAST_REFUSED, 1.0))
        share = jnp.arange(1, len(strengths) + 1) / len(strengths)
        known, at = (jnp.pad(values, (1, 0)) for values in (barrier, strengths))
        return jnp.interp(share * barrier[-1], known, at).at[-1].set(1.0)

    placed: Array = jnp.vectorize(place, signature="(r),(r)->(r)")(strengths, refused)
    return placed


class Tuned(NamedTuple):
    """What adaptation has found, for a chain or, with a leading axis, for several."""

    step_size: Float[Array, "*rung"]
    """Largest step: radians between kicks, or leapfrog's step."""
    angle: Float[Array, "*rung"] | None = None
    """Radians of a trajectory; lengths spread evenly over 0.5 to 1.5 times that. None for kernels
    whose trajectories have no angle."""
    strengths: Float[Array, "*rung"] | None = None
    """Strengths b of a ladder's rungs; None for kernels without replicas."""
    choice: Choice | None = None
    """Which moves are made; None for kernels that don't choose."""
    softness: Softness | None = None
    """Which force trajectories follow; None where there is the exact one alone."""
    tuning: "Tuning | None" = None
    """State of the adaptation, if the kernel itself adapts."""


class Tuning(NamedTuple):
    """State of all that is adapted for a unit's chains."""

    step: StepSize
    angle: Angle | None = None
    """None for kernels whose trajectories have no angle."""
    ladder: LadderTuning | None = None
    """None for kernels without replicas."""
    choice: ChoiceTuning | None = None
    """None for kernels that don't choose their moves."""
    softness: SoftTuning | None = None
    """None where there is the exact force alone."""
    softened_step: StepSize | None = None
    """The step of trajectories that follow a softened force."""

    @property
    def transitions(self) -> Float[Array, "*unit"]:
        """Number of transitions so far, by whichever step."""
        softened = 0.0 if self.softened_step is None else self.softened_step.transitions
        return self.step.transitions + softened

    @classmethod
    def around(cls, first: Tuned) -> "Tuning":
        """The state before the first transition, which uses what is given here."""
        softness = softened_step = None
        if first.softness is not None:
            assert first.choice is not None
            softness = SoftTuning.around(first.choice, first.softness.sizes)
            softened_step = StepSize.around(first.step_size)
        return cls(
            StepSize.around(first.step_size),
            None if first.angle is None else Angle.around(first.angle),
            None if first.strengths is None else LadderTuning.around(first.strengths),
            None if first.choice is None else ChoiceTuning.around(first.choice),
            softness,
            softened_step,
        )

    def update(self, feedback: Feedback, target: float) -> "Tuning":
        """The state after a transition.

        Args:
            feedback: mean of all chains, for each unit.
            target: mean acceptance probability that is wanted.
        """
        ladder, choice = self.ladder, self.choice
        if choice is not None:
            assert feedback.trial is not None
            ended = ends_round(choice.transitions + 1)
            choice = choice.update(feedback.trial, ended=ended)
        if self.angle is None:
            # The step is that of turns beside fresh draws; a quarter turn is a fresh draw itself.
            longest = math.inf if choice is None else ANGLES[0]
            step = self.step.update(feedback.acceptance, target, longest)
            return Tuning(step, choice=choice)
        # One step may be the whole of a trajectory, but no more.
        step = self.step.update(feedback.acceptance, target, LONGEST_STEP)
        if ladder is not None:
            assert feedback.refused is not None
            ladder = ladder.update(feedback.refused)
        tuning = Tuning(step, self.angle.update(feedback), ladder, choice)
        return tuning if self.softness is None else self._softened(tuning, feedback, target)

    def _softened(self, after: "Tuning", feedback: Feedback, target: float) -> "Tuning":
        """The state after a transition, with its acceptance told to the step that was taken."""
        assert self.softness is not None
        assert self.softened_step is not None
        assert feedback.softened is not None
        made = feedback.softened.made > 0
        ended = ends_round(self.softness.transitions + 1)
        softness = self.softness.update(feedback.softened, ended=ended)
        own = self.softened_step.update(feedback.acceptance, target, LONGEST_STEP)
        step, own = (
            jax.tree.map(partial(jnp.where, taken), new, old)
            for taken, new, old in ((~made, after.step, self.step), (made, own, self.softened_step))
        )
        return after._replace(step=step, softness=softness, softened_step=own)

    def current(self, settled: Bool[Array, "*unit"]) -> Tuned:
        """What the chains use next.

        Args:
            settled: whether the warmup has ended, so that the averages are used.
        """
        step = self.step.current(settled)
        choice = None if self.choice is None else self.choice.current(settled)
        if self.angle is None:
            return Tuned(step, choice=choice)
        angle = jnp.exp(jnp.where(settled, self.angle.log_average, self.angle.log_angle))
        strengths = None if self.ladder is None else self.ladder.strengths
        if self.softness is None:
            return Tuned(step, angle, strengths, choice)
        assert choice is not None
        assert self.softened_step is not None
        softness, choice = self.softness.current(settled, choice, angle / step)
        step = jnp.where(softness.width > 0, self.softened_step.current(settled), step)
        return Tuned(step, angle, strengths, choice, softness)
