"""Adaptation of step size and trajectory angle, pooled over a unit's chains."""

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
"""What a transition leaves of the evidence before it."""


class Evidence(NamedTuple):
    """What transitions tell of step size and angle; over several chains, the mean of each."""

    acceptance: Float[Array, "*unit"]
    squared: Float[Array, "*unit function"] | None = None
    """Squared jumps of some functions of the chain, times the acceptance probability."""
    slope: Float[Array, "*unit function"] | None = None
    """Their derivatives with respect to the log of the angle."""
    several: Float[Array, "*unit"] | None = None
    """1 where the trajectory had more than one step, so that a longer one costs more gradients."""

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
    fading average over chains and transitions, and the ascent is the mean over the functions.

    Source: after Hoffman, Radul, Sountsov, An adaptive-MCMC scheme for setting trajectory lengths
    in Hamiltonian Monte Carlo, AISTATS 2021, which takes the function |z - E z|^2 and no cost.
    """

    log_angle: Float[Array, "*unit"]
    log_average: Float[Array, "*unit"]
    """Of the angles so far; what the chains keep after warmup."""
    squared: Float[Array, "*unit function"]
    slope: Float[Array, "*unit function"]
    several: Float[Array, "*unit"]
    transitions: Float[Array, "*unit"]

    @classmethod
    def around(cls, angle: Float[Array, "*unit"]) -> "Angle":
        """Before the first transition."""
        log, zero = jnp.log(angle), jnp.zeros_like(angle)
        none = jnp.zeros((*angle.shape, 2))
        return cls(log, log, none, none, zero, zero)

    def update(self, evidence: Evidence) -> "Angle":
        """After a transition."""
        assert evidence.squared is not None
        assert evidence.slope is not None
        assert evidence.several is not None
        count = self.transitions + 1
        squared = FADING * self.squared + evidence.squared
        slope = FADING * self.slope + evidence.slope
        several = FADING * self.several + evidence.several
        cost = several * (1 - FADING) / (1 - FADING**count)
        jumps = squared > 0
        gains = jnp.where(jumps, slope / jnp.where(jumps, squared, 1.0), 0.0)
        gain = gains.sum(axis=-1) / jnp.maximum(jumps.sum(axis=-1), 1)
        ascent = jnp.clip(gain - cost, -1.0, 1.0)
        log_angle = self.log_angle + ascent / (count + DELAY) ** 0.6
        log_angle = jnp.clip(log_angle, math.log(SHORTEST), math.log(LONGEST))
        share = count**-FORGETTING
        log_average = share * log_angle + (1 - share) * self.log_average
        return Angle(log_angle, log_average, squared, slope, several, count)


class Tuning(NamedTuple):
    """All that is adapted for a unit's chains."""

    step: StepSize
    angle: Angle | None
    """None for kernels whose trajectories it doesn't suit."""

    @classmethod
    def around(cls, step: Float[Array, "*unit"], angle: Float[Array, "*unit"] | None) -> "Tuning":
        """Before the first transition."""
        return cls(StepSize.around(step), None if angle is None else Angle.around(angle))

    def update(self, evidence: Evidence, target: float) -> "Tuning":
        """After a transition.

        Args:
            evidence: the mean of all chains, for each unit.
            target: mean acceptance probability.
        """
        if self.angle is None:
            return Tuning(self.step.update(evidence.acceptance, target), None)
        # One step may be the whole of a trajectory, but no more.
        step = self.step.update(evidence.acceptance, target, LONGEST)
        return Tuning(step, self.angle.update(evidence))

    def current(
        self, settled: Bool[Array, "*unit"]
    ) -> tuple[Float[Array, "*unit"], Float[Array, "*unit"] | None]:
        """Step size and angle; once settled, the averages."""
        step = jnp.where(settled, self.step.log_average, self.step.log_step)
        if self.angle is None:
            return jnp.exp(step), None
        angle = jnp.where(settled, self.angle.log_average, self.angle.log_angle)
        return jnp.exp(step), jnp.exp(angle)
