"""How many independent draws fresh draws of the reference are worth, as the warmup finds it.

Fresh draws xi of N(0, I) serve as draws of p(z) ∝ exp(g(z)) N(z; 0, I) by their weights
w = exp(g(xi)), where the tilt is mild (`moves.pool`). How mild it must be, the weights tell.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ppl_cnn.work import FORWARD_COST

LEAST_EFFICIENCY = 1 / 32
"""Efficiency from which fresh draws are used. Below it, the warmup sees too few good ones to tell,
and the largest pool holds eleven or fewer that count."""
DRAW = 1 / 3
"""What a draw should be worth, of an independent one: as much as by turns, whose correlation is a
half. With more fresh draws to a draw, more of them would be made in vain; with less, draws would be
much alike. At a half to two thirds, the class Bag of `alexnet-fashion` made 101 effective draws for
the work of 1,000 gradients."""
MOST_FRESH = round(DRAW / LEAST_EFFICIENCY)
"""Fresh draws to a draw at most."""
_FARTHEST = 40.0
"""Largest difference of a tilt from the centre that its weight tells: squares of weights must be
finite in float32."""
_LEAST = 1e-30
"""A sum of weights that is smaller counts as none."""


class Weights(NamedTuple):
    """Sums of weights w = exp(g - centre) over fresh draws, and over the places of chains."""

    fresh: Float[Array, "*unit"]
    """Sum of w over fresh draws of N(0, I)."""
    draws: Float[Array, "*unit"]
    """Number of fresh draws."""
    here: Float[Array, "*unit"]
    """Sum of w over the places of chains, which are draws of p."""
    squared: Float[Array, "*unit"]
    """Sum of w^2 over them."""
    places: Float[Array, "*unit"]
    """Number of places."""

    @classmethod
    def none(cls, units: tuple[int, ...] = ()) -> "Weights":
        """Sums over nothing, for an array of units of that shape."""
        return cls(*[jnp.zeros(units)] * 5)

    @classmethod
    def of(
        cls,
        fresh: Float[Array, "*chain draw"],
        here: Float[Array, "*chain"],
        centre: Float[Array, "*chain"],
    ) -> "Weights":
        """The weights of one place, and of one fresh draw or the mean of several.

        Args:
            fresh: g of fresh draws.
            here: g where the chain is.
            centre: the tilt about which weights are taken.
        """
        new, old = (
            # A tilt that isn't a number has no weight.
            jnp.where(jnp.isnan(above), 0.0, jnp.exp(jnp.clip(above, -_FARTHEST, _FARTHEST)))
            for above in (fresh - centre[..., None], here - centre)
        )
        one = jnp.ones_like(old)
        return cls(new.mean(axis=-1), one, old, old**2, one)

    def counted(self, *, fresh: Float[Array, "*unit"], here: Float[Array, "*unit"]) -> "Weights":
        """The sums with each part as often as given.

        Args:
            fresh: 1 to count fresh draws, 0 to leave them out.
            here: the same of places.
        """
        return Weights(
            fresh * self.fresh,
            fresh * self.draws,
            here * self.here,
            here * self.squared,
            here * self.places,
        )

    def about(self, shift: Float[Array, "*unit"]) -> "Weights":
        """The sums of weights about another centre.

        Args:
            shift: the old centre less the new one.
        """
        factor = jnp.exp(jnp.clip(shift, -_FARTHEST, _FARTHEST))
        fresh, here, squared = self.fresh * factor, self.here * factor, self.squared * factor**2
        return self._replace(fresh=fresh, here=here, squared=squared)

    @property
    def efficiency(self) -> Float[Array, "*unit"]:
        """Independent draws of p that a fresh draw is worth where weights are large.

        It is E_q[w] E_p[w] / E_p[w^2], q = N(0, I): over the places of p, each counted by its
        weight, the mean weight is so many times E_q[w]. In the mean over p it would be
        E_q[w] / E_p[w], the Kish efficiency; but the tails of a density are where g is largest and
        good fresh draws are scarcest.
        """
        fresh = self.fresh / jnp.maximum(self.draws, 1.0)
        found = fresh * self.here / jnp.maximum(self.squared, _LEAST)
        return jnp.where(self.draws > 0, jnp.clip(found, 0.0, 1.0), 0.0)


def fresh_per_draw(efficiency: Float[Array, "*unit"]) -> Int[Array, "*unit"]:
    """How many fresh draws there should be to a draw.

    Args:
        efficiency: independent draws that a fresh draw is worth.
    """
    wanted = jnp.round(DRAW / jnp.maximum(efficiency, LEAST_EFFICIENCY))
    return jnp.clip(wanted, 1, MOST_FRESH).astype(jnp.int32)


def worth_of_fresh(
    efficiency: Float[Array, "*unit"], fresh: Int[Array, "*unit"], transitions: Int[Array, "*unit"]
) -> Float[Array, "*unit"]:
    """Independent draws for the work of a gradient, of draws from pools of fresh ones.

    A pool gives a draw for every `fresh` of its members, each member as often as its weight says,
    rounded up or down at random. Rounding adds to the variance of a mean, in shares of that of one
    independent draw, about sqrt(1 - efficiency)/2 times `fresh`: 0.8 s/2 and more for log-weights
    of a small standard deviation s, and at most `fresh` where weights are uneven.

    Args:
        efficiency: independent draws that a fresh draw is worth.
        fresh: fresh draws to a draw.
        transitions: draws to a gradient.
    """
    rounding = fresh * jnp.sqrt(1 - efficiency) / 2
    each = efficiency / (1 + efficiency * rounding)
    return each * fresh / (FORWARD_COST * fresh + 1 / transitions)
