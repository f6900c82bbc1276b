"""Adaptation of the step size, pooled over a unit's chains."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

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

    def update(self, acceptance: Float[Array, "*unit"], target: float) -> "StepSize":
        """After a transition.

        Args:
            acceptance: mean acceptance probability of all chains, for each unit.
            target: what it should be.
        """
        count = self.transitions + 1
        weight = 1 / (count + DELAY)
        error = (1 - weight) * self.error + weight * (target - acceptance)
        log_step = self.log_centre - jnp.sqrt(count) / SHRINKAGE * error
        share = count**-FORGETTING
        log_average = share * log_step + (1 - share) * self.log_average
        return StepSize(self.log_centre, log_step, log_average, error, count)
