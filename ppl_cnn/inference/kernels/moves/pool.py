"""Draws from pools: fresh draws of the reference N(0, I), taken as often as their weights say.

Where the tilt g is mild, fresh draws and their weights w = exp(g) are all that is needed. A pool
has the chain's place and many fresh draws, the members. Given the members, whichever of them the
chain has come from, p(z) ∝ exp(g(z)) N(z; 0, I) is left invariant by any move among them that
leaves their normalised weights invariant (iterated sampling importance resampling, i-SIR).

Here the moves are a systematic resampling. The members lie one after the other on a circle of
length 1, each on an arc as long as its weight. The chain begins at a random point of its own
member's arc, and goes on by equal steps; where it comes to lie, the draw is taken. So each member
is drawn as often as its weight says, rounded up or down, and draws of one member follow each other.

While draws are taken from a pool, the next one's members are made, so that each transition takes
as many forward passes. A member's tilt is kept, and the key that makes it again.

Source: i-SIR: Andrieu, Lee, Vihola, Uniform ergodicity of the iterated conditional SMC and
geometric ergodicity of particle Gibbs samplers, Bernoulli 24, 2018; all members of a proposal set
as draws: Calderhead, A general construction for parallelizing Metropolis-Hastings algorithms,
PNAS 111, 2014; systematic resampling: Kitagawa, Monte Carlo filter and smoother for non-Gaussian
nonlinear state space models, Journal of Computational and Graphical Statistics 5, 1996.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.inference.kernels.freshness import MOST_FRESH
from ppl_cnn.inference.kernels.moves.trajectory import Latent, Point, Tilt, normal_like

FEW, MANY = 16, 32
"""Draws from a pool: few where a transition makes one fresh draw, so that most members count and
are drawn once; many where it makes more, so that some ten members count. A pool has as many times
the fresh draws of a transition. With one, a random LeNet at T = 1/30 made 1,290, 1,370, 1,310 and
1,280 effective draws for the work of 1,000 gradients with 8, 16, 32 and 64 (two seeds)."""
LARGEST = MANY * MOST_FRESH
"""Fresh draws of a pool at most."""


class Pool(NamedTuple):
    """The pool that a chain draws from, and the next one as far as it is made."""

    origin: Latent
    """Where the chain was when the pool was taken up: the first member."""
    tilts: Float[Array, "*chain member"]
    """g of all members, the origin's first; -inf beyond the last."""
    key: Array
    """The random key of its fresh draws."""
    start: Float[Array, "*chain"]
    """Where on the circle the chain began, on the origin's arc."""
    left: Int[Array, "*chain"]
    """Draws still to be taken."""
    last: Int[Array, "*chain"]
    """The member that was drawn last."""
    coming: Float[Array, "*chain fresh"]
    """g of the next pool's fresh draws."""
    coming_key: Array
    """Their random key."""
    made: Int[Array, "*chain"]
    """Number of them that are made."""

    @classmethod
    def none(cls, key: Array, z: Latent) -> "Pool":
        """A pool with nothing left, before the first.

        Args:
            key: random key of the chain.
            z: where the chain is.
        """
        zero = jnp.zeros((), jnp.int32)
        none = jnp.full(LARGEST, -jnp.inf)
        tilts = jnp.full(LARGEST + 1, -jnp.inf)
        key, coming_key = jax.random.split(key)
        return cls(z, tilts, key, jnp.zeros(()), zero, zero, none, coming_key, zero)


class Drawn(NamedTuple):
    """A transition by a pool."""

    pool: Pool
    point: Point
    """Where the chain is, with the gradient of where it was before."""
    moved: Bool[Array, ""]
    """Whether another member was drawn than before."""
    passes: Int[Array, ""]
    """Forward passes that it took."""


def drawn(tilt: Tilt, point: Point, pool: Pool, key: Array, fresh: Int[Array, ""]) -> Drawn:
    """A draw from the pool, and fresh draws for the next one; exp(g) N(0, I) is invariant.

    The first transition makes a whole pool at once.

    Args:
        tilt: g.
        point: where the chain is.
        pool: what it has so far.
        key: random key of the transition.
        fresh: fresh draws to a draw, at least 1; the same in every transition.
    """
    size = draws_of(fresh) * fresh
    passes = jnp.where(pool.left == 0, size - pool.made, fresh)

    def make(index: Array, coming: Array) -> Array:
        number = pool.made + index
        made = tilt(member(pool.coming_key, number, point.z))
        # A draw whose tilt isn't finite is never taken.
        return coming.at[number].set(jnp.where(jnp.isfinite(made), made, -jnp.inf))

    coming = jax.lax.fori_loop(0, passes, make, pool.coming)
    pool = pool._replace(coming=coming, made=pool.made + passes)
    renewed = taken_up(point, pool, key, fresh)
    pool = jax.tree.map(lambda new, old: jnp.where(pool.left == 0, new, old), renewed, pool)
    chosen = next_member(pool, fresh)
    again = member(pool.key, chosen - 1, pool.origin)
    z = jax.tree.map(lambda old, new: jnp.where(chosen == 0, old, new), pool.origin, again)
    reached = point._replace(z=z, tilt=pool.tilts[chosen])
    moved = chosen != pool.last
    return Drawn(pool._replace(left=pool.left - 1, last=chosen), reached, moved, passes)


def drawn_if(tilt: Tilt, point: Point, pool: Pool, key: Array, fresh: Int[Array, ""]) -> Drawn:
    """A draw from the pool, if there are to be any.

    Args:
        tilt: g.
        point: where the chain is.
        pool: what it has so far.
        key: random key of the transition.
        fresh: fresh draws to a draw; 0 stays.
    """

    def draw(_: Array, at: Drawn) -> Drawn:
        # XLA takes what depends on nothing that the loop changes out of it, and does it always.
        return drawn(tilt, at.point, at.pool, key, fresh)

    # A loop that runs once or never stands for a condition: in a batch of chains, a condition would
    # compute both ways.
    start = Drawn(pool, point, jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    found: Drawn = jax.lax.fori_loop(0, (fresh > 0).astype(jnp.int32), draw, start)
    return found


def member(key: Array, index: Int[Array, ""], like: Latent) -> Latent:
    """A fresh draw of N(0, I), made again from its pool's key.

    Args:
        key: the pool's.
        index: the fresh draw's, from 0; another number gives a draw of no pool.
        like: a latent of that structure.
    """
    return normal_like(jax.random.fold_in(key, index), like)


def draws_of(fresh: Int[Array, ""]) -> Int[Array, ""]:
    """How many draws are taken from a pool.

    Args:
        fresh: fresh draws to a draw.
    """
    return jnp.where(fresh == 1, FEW, MANY).astype(jnp.int32)


def taken_up(point: Point, pool: Pool, key: Array, fresh: Int[Array, ""]) -> Pool:
    """The pool whose fresh draws were coming, with the chain's place as its origin.

    The others' order is random, so that each order of all members around the circle is as likely,
    whichever the chain is at; and its point is spread evenly over the circle, as its member is
    drawn by the weights and the point evenly from that one's arc.

    Args:
        point: where the chain is.
        pool: with all of the next one's fresh draws.
        key: random key of the point, and of the fresh draws after these.
        fresh: fresh draws to a draw.
    """
    key_start, key_coming = jax.random.split(key)
    others = jnp.where(jnp.arange(LARGEST) < draws_of(fresh) * fresh, pool.coming, -jnp.inf)
    tilts = jnp.concatenate([point.tilt[None], others])
    zero = jnp.zeros_like(pool.made)
    return Pool(
        origin=point.z,
        tilts=tilts,
        key=pool.coming_key,
        start=jax.nn.softmax(tilts)[0] * jax.random.uniform(key_start),
        left=draws_of(fresh),
        last=zero,
        coming=pool.coming,
        coming_key=key_coming,
        made=zero,
    )


def next_member(pool: Pool, fresh: Int[Array, ""]) -> Int[Array, ""]:
    """The member that is drawn next: 0 for the origin, then the fresh draws.

    The last draw, with which the chain goes on to the next pool, is half of the circle from where
    it began: no other step leaves the origin more surely.

    Args:
        pool: with draws left.
        fresh: fresh draws to a draw.
    """
    draws = draws_of(fresh)
    step = (draws - pool.left + 1) / draws
    ends = jnp.cumsum(jax.nn.softmax(pool.tilts))
    place = (pool.start + 0.5 + step) % 1.0 * ends[-1]
    # Members without weight have empty arcs, which end where the one before does.
    return jnp.searchsorted(ends, place, side="right").clip(0, draws * fresh).astype(jnp.int32)
