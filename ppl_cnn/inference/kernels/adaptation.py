"""Adaptation of step size, trajectory angle and ladder of rungs, pooled over a unit's chains."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SHRINKAGE = 0.2
"""Nesterov's gamma. Stan's 0.05 lets a single chain's step swing by factors of ten in the first
transitions; all chains would then wait for the one with the smallest. Pooled acceptances are less
noisy and want less."""
DELAY = 10.0
"""t_0: transitions that the first few count as."""
FORGETTING = 0.75
"""kappa: how fast the average forgets the first steps."""


class StepSize(NamedTuple):
    """Dual averaging of the log step size towards a mean acceptance probability.

    Source: Hoffman, Gelman, The No-U-Turn sampler, JMLR 15, 2014, section 3.2, with the mean over
    chains in place of one chain's acceptance probability, and the search's centre at the step
    that suits the reference instead of ten times it.
    """

    log_centre: Float[Array, "*unit"]
    log_step: Float[Array, "*unit"]
    log_average: Float[Array, "*unit"]
    """Of the steps so far; what the chains keep after warmup."""
    error: Float[Array, "*unit"]
    """Running mean of target minus acceptance."""
    transitions: Float[Array, "*unit"]

    @classmethod
    def around(cls, step: Float[Array, "*unit"]) -> "StepSize":
        """Before the first transition."""
        log, zero = jnp.log(step), jnp.zeros_like(step)
        return cls(log, log, log, zero, zero)

    def update(
        self, acceptance: Float[Array, "*unit"], target: float, longest: float = math.inf
    ) -> "StepSize":
        """After a transition.

        Args:
            acceptance: mean acceptance probability of all chains, for each unit.
            target: what it should be.
            longest: step that makes sense.
        """
        count = self.transitions + 1
        weight = 1 / (count + DELAY)
        error = (1 - weight) * self.error + weight * (target - acceptance)
        log_step = self.log_centre - jnp.sqrt(count) / SHRINKAGE * error
        log_step = jnp.minimum(log_step, math.log(longest))
        share = count**-FORGETTING
        log_average = share * log_step + (1 - share) * self.log_average
        return StepSize(self.log_centre, log_step, log_average, error, count)


LONGEST = math.pi
"""Radians of a trajectory; beyond half a turn, a Gaussian comes back."""
SHORTEST = 0.02
FADING = 0.95
"""What a transition leaves of the evidence before it in its round."""
FIRST_ROUND = 16
"""Transitions of the first round of adaptation; each other one is as long as all before it."""


def ends_round(count: Float[Array, "*unit"]) -> Bool[Array, "*unit"]:
    """Whether a round of adaptation ends with a transition.

    Args:
        count: of the transitions so far, that one included.
    """
    rounds = jnp.log2(count / FIRST_ROUND)
    return (count >= FIRST_ROUND) & (rounds == jnp.round(rounds))


class Evidence(NamedTuple):
    """What transitions tell the adaptation; over several chains, the mean of each.

    Of replicas on a ladder, each rung has its own step size and angle: a unit's axis is followed
    by one of rungs.
    """

    acceptance: Float[Array, "*unit"]
    squared: Float[Array, "*unit function"] | None = None
    """Squared jumps of some functions of the chain, times the acceptance probability."""
    slope: Float[Array, "*unit function"] | None = None
    """Their derivatives with respect to the log of the angle."""
    several: Float[Array, "*unit"] | None = None
    """1 where the trajectory had more than one step, so that a longer one costs more gradients."""
    refused: Float[Array, "*unit"] | None = None
    """Probability that a swap of each rung with the one below is refused."""

    @classmethod
    def none(cls, functions: int) -> "Evidence":
        """Of no transition."""
        one, each = jnp.zeros(()), jnp.zeros(functions)
        return cls(one, each, each, one)


class Angle(NamedTuple):
    """Ascent of the log angle to the largest expected squared jump per gradient.

    The derivative of the logarithm of that ratio is, of each function phi,

        E[a d/dlog(angle) (phi(z') - phi(z))^2] / E[a (phi(z') - phi(z))^2] - 1

    with the acceptance probability a, as gradients grow like the angle. Each expectation is a
    fading average over the chains and the transitions of a round, and the ascent is the mean over
    the functions. A new round forgets: chains that come from far off jump so far at first that
    their evidence would outweigh all that follows, the more so the shorter it makes the angle.

    Source: after Hoffman, Radul, Sountsov, An adaptive-MCMC scheme for setting trajectory lengths
    in Hamiltonian Monte Carlo, AISTATS 2021, which takes the function |z - E z|^2 and no cost.
    """

    log_angle: Float[Array, "*unit"]
    log_average: Float[Array, "*unit"]
    """Of the angles so far; what the chains keep after warmup."""
    squared: Float[Array, "*unit function"]
    slope: Float[Array, "*unit function"]
    several: Float[Array, "*unit"]
    evidence: Float[Array, "*unit"]
    """How many transitions the sums are of, faded as they are."""
    transitions: Float[Array, "*unit"]

    @classmethod
    def around(cls, angle: Float[Array, "*unit"]) -> "Angle":
        """Before the first transition."""
        log, zero = jnp.log(angle), jnp.zeros_like(angle)
        none = jnp.zeros((*angle.shape, 2))
        return cls(log, log, none, none, zero, zero, zero)

    def update(self, evidence: Evidence) -> "Angle":
        """After a transition."""
        assert evidence.squared is not None
        assert evidence.slope is not None
        assert evidence.several is not None
        count = self.transitions + 1
        squared = FADING * self.squared + evidence.squared
        slope = FADING * self.slope + evidence.slope
        several = FADING * self.several + evidence.several
        total = FADING * self.evidence + 1
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
"""A swap counts as refused at least so often, so that no two rungs become one."""


class Ladder(NamedTuple):
    """Rungs b_1 < ... < b_R = 1 of densities N(0, I) exp(b g) above the reference, b_0 = 0.

    A round's mean refusals of swaps between neighbours add up to a function of b, the
    communication barrier. In the round's end, the rungs are placed at equal distances in it.

    Source: Syed, Bouchard-Côté, Deligiannidis, Doucet, Non-reversible parallel tempering: a
    scalable highly parallel MCMC scheme, JRSS B 84, 2022, sections 5.1 to 5.4.
    """

    strengths: Float[Array, "*unit_rung"]
    refused: Float[Array, "*unit_rung"]
    """Mean over the round so far, of swaps with the rung below."""
    transitions: Float[Array, "*unit_rung"]

    @classmethod
    def around(cls, strengths: Float[Array, "*unit_rung"]) -> "Ladder":
        """Before the first transition."""
        zero = jnp.zeros_like(strengths)
        return cls(strengths, zero, zero)

    def update(self, refused: Float[Array, "*unit_rung"]) -> "Ladder":
        """After a transition."""
        count = self.transitions + 1
        ended = ends_round(count)
        # The transitions of this round: those since the last power of two.
        rounds = jnp.ceil(jnp.log2(count / FIRST_ROUND))
        begun = jnp.where(count <= FIRST_ROUND, 0.0, FIRST_ROUND * 2 ** (rounds - 1))
        mean = self.refused + (refused - self.refused) / (count - begun)
        placed = jnp.where(ended, placed_evenly(self.strengths, mean), self.strengths)
        return Ladder(placed, jnp.where(ended, 0.0, mean), count)


def placed_evenly(
    strengths: Float[Array, "*unit_rung"], refused: Float[Array, "*unit_rung"]
) -> Float[Array, "*unit_rung"]:
    """The strengths at equal distances in the barrier that these refusals add up to."""

    def place(strengths: Array, refused: Array) -> Array:
        barrier = jnp.cumsum(jnp.clip(refused, _LEAST_REFUSED, 1.0))
        share = jnp.arange(1, len(strengths) + 1) / len(strengths)
        known, at = (jnp.pad(values, (1, 0)) for values in (barrier, strengths))
        return jnp.interp(share * barrier[-1], known, at).at[-1].set(1.0)

    return jnp.vectorize(place, signature="(r),(r)->(r)")(strengths, refused)


class Tuned(NamedTuple):
    """What adaptation has found, for a chain or, with a leading axis, several."""

    step_size: Float[Array, "*rung"]
    """Radians between kicks, at most."""
    angle: Float[Array, "*rung"] | None = None
    """Radians of a trajectory; lengths spread evenly over 0.5 to 1.5 times that."""
    strengths: Float[Array, "*rung"] | None = None
    """Of the rungs of a ladder."""
    tuning: "Tuning | None" = None
    """Where it stands, if the kernel itself adapts."""


class Tuning(NamedTuple):
    """All that is adapted for a unit's chains."""

    step: StepSize
    angle: Angle | None = None
    """None for kernels whose trajectories it doesn't suit."""
    ladder: Ladder | None = None
    """None for kernels without one."""

    @classmethod
    def around(cls, first: Tuned) -> "Tuning":
        """Before the first transition."""
        return cls(
            StepSize.around(first.step_size),
            None if first.angle is None else Angle.around(first.angle),
            None if first.strengths is None else Ladder.around(first.strengths),
        )

    def update(self, evidence: Evidence, target: float) -> "Tuning":
        """After a transition.

        Args:
            evidence: the mean of all chains, for each unit.
            target: mean acceptance probability.
        """
        if self.angle is None:
            return Tuning(self.step.update(evidence.acceptance, target))
        # One step may be the whole of a trajectory, but no more.
        step = self.step.update(evidence.acceptance, target, LONGEST)
        if self.ladder is None:
            return Tuning(step, self.angle.update(evidence))
        assert evidence.refused is not None
        return Tuning(step, self.angle.update(evidence), self.ladder.update(evidence.refused))

    def current(self, settled: Bool[Array, "*unit"]) -> Tuned:
        """What chains are to use; once settled, the averages."""
        step = jnp.where(settled, self.step.log_average, self.step.log_step)
        if self.angle is None:
            return Tuned(jnp.exp(step))
        angle = jnp.where(settled, self.angle.log_average, self.angle.log_angle)
        strengths = None if self.ladder is None else self.ladder.strengths
        return Tuned(jnp.exp(step), jnp.exp(angle), strengths)
