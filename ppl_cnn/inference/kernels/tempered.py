"""The tempered kernel: replica exchange from the reference up to the tilted density.

Each chain is a ladder of replicas: the one on rung r has the density N(z; 0, I) exp(b_r g(z)). On
the lowest, b_0 = 0, every transition is a new, independent draw of the reference; on the highest,
b_R = 1, is the density that is wanted. Replicas on neighbouring rungs are swapped, so that what
the reference has found climbs to the top, past hills that a trajectory there would not cross.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.errors import InputError
from ppl_cnn.inference.kernels.adaptation import Evidence, Tuned
from ppl_cnn.inference.kernels.split import (
    FIRST_ANGLE,
    FIRST_STEP,
    Latent,
    Point,
    Split,
    Tilt,
    divided,
    jump_evidence,
    metropolis,
    normal_like,
    point_at,
    potential_at,
)

RUNGS = 16
"""Above the reference."""
_CROWDING = 4
"""The first strengths are (r/R)^4: the barrier to the tilt is near the reference."""


class TemperedState(NamedTuple):
    """A chain, or several with a leading axis; where a name is `SplitState`'s, of the top rung."""

    i: Int[Array, ""]
    z: Latent
    tilt: Float[Array, ""]
    tilt_grad: Latent
    potential_energy: Float[Array, ""]
    energy: Float[Array, ""]
    num_steps: Int[Array, ""]
    """Gradients of the last transition, of all rungs."""
    accept_prob: Float[Array, ""]
    mean_accept_prob: Float[Array, ""]
    diverging: Bool[Array, ""]
    evidence: Evidence
    """Of each rung but the reference."""
    adapt_state: Tuned
    """Likewise."""
    rng_key: Array
    below: Point
    """The replicas on the rungs between the reference and the top, the weakest first."""
    tilts: Float[Array, " rung"]
    """g of all replicas, the reference's first."""
    climbed: Bool[Array, " rung"]
    """Whether the replica on a rung has been at the reference since it was at the top."""
    restarts: Int[Array, ""]
    """1 if the last transition brought such a replica to the top."""


class Tempered(Split):
    """Replica exchange of `Split` chains, for p(z) ∝ exp(g(z)) N(z; 0, I).

    In each transition, all replicas move by a trajectory, in one batch and with a common number
    of gradients; then even pairs of neighbours, or in turn odd ones, may be swapped. Taking turns
    rather than choosing at random, replicas travel instead of diffusing. Step sizes and angles
    are adapted for each rung, and the rungs placed so that all swaps are refused equally often
    (`adaptation.Ladder`).

    Args:
        tilt: g, a function of z (an array or a tree of arrays) and of the arguments that `run`
            is given, to a scalar.
        rungs: R, above the reference.
        target_accept_prob: of trajectories.

    Source: Syed, Bouchard-Côté, Deligiannidis, Doucet, Non-reversible parallel tempering: a
    scalable highly parallel MCMC scheme, JRSS B 84, 2022.
    """

    def __init__(self, tilt: Tilt, rungs: int = RUNGS, target_accept_prob: float = 0.8) -> None:
        super().__init__(tilt, target_accept_prob)
        if rungs < 1:
            raise InputError(f"A ladder has at least 1 rung above the reference, not {rungs}.")
        self._rungs = rungs

    def _begin(
        self, key: Array, z: Latent, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TemperedState:
        def tilt(z: Latent) -> Float[Array, ""]:
            return self._tilt(z, *args, **kwargs)

        count = self._rungs
        point = point_at(tilt, z)

        def everywhere(leaf: Array, count: int = count) -> Array:
            return jnp.broadcast_to(leaf, (count, *leaf.shape))

        strengths = jnp.linspace(0.0, 1.0, count + 1)[1:] ** _CROWDING
        first = Tuned(jnp.full(count, FIRST_STEP), jnp.full(count, FIRST_ANGLE), strengths)
        potential, zero = potential_at(point), jnp.zeros(())
        refused = everywhere(zero)
        evidence = jax.tree.map(everywhere, Evidence.none(functions=2))._replace(refused=refused)
        return TemperedState(
            i=jnp.zeros((), jnp.int32),
            z=z,
            tilt=point.tilt,
            tilt_grad=point.tilt_grad,
            potential_energy=potential,
            energy=potential,
            num_steps=jnp.zeros((), jnp.int32),
            accept_prob=zero,
            mean_accept_prob=zero,
            diverging=jnp.zeros((), bool),
            evidence=evidence,
            adapt_state=self._tuned(first),
            rng_key=key,
            below=jax.tree.map(partial(everywhere, count=count - 1), point),
            tilts=jnp.full(count + 1, point.tilt),
            climbed=jnp.zeros(count + 1, bool),
            restarts=jnp.zeros((), jnp.int32),
        )

    def _move(self, tilt: Tilt, state: TemperedState) -> TemperedState:
        return exchange(tilt, state)


def exchange(tilt: Tilt, state: TemperedState) -> TemperedState:
    """One trajectory of each replica and one round of swaps; without adaptation."""
    key, key_move, key_reference, key_swap = jax.random.split(state.rng_key, 4)
    strengths = state.adapt_state.strengths
    assert strengths is not None
    rungs = len(strengths)
    top = Point(state.z, state.tilt, state.tilt_grad)
    start = _joined(state.below, jax.tree.map(lambda leaf: leaf[None], top))
    needed, step_size = divided(state.adapt_state, state.i)
    steps = needed.max()
    move = jax.vmap(partial(metropolis, tilt), (0, 0, 0, None, 0))
    moved = move(start, jax.random.split(key_move, rungs), step_size, steps, strengths)
    evidence = jax.vmap(jump_evidence, (0, 0, 0, None))(start, moved, step_size, steps)
    assert evidence.several is not None
    # Only where trajectories need the most steps do longer ones cost more.
    dear = evidence.several * (needed == steps).astype(jnp.float32)
    drawn = point_at(tilt, normal_like(key_reference, state.z))
    replicas = _joined(jax.tree.map(lambda leaf: leaf[None], drawn), moved.point)
    order, acceptance = swaps(key_swap, strengths, replicas.tilt, state.i % 2)
    replicas = jax.tree.map(lambda leaf: leaf[order], replicas)
    climbed = state.climbed.at[0].set(True)[order]
    top = jax.tree.map(lambda leaf: leaf[-1], replicas)
    potential = potential_at(top)
    change = _last(moved.kinetic_energy) + _last(moved.energy_change)
    stayed = potential_at(jax.tree.map(_last, moved.point))
    return TemperedState(
        i=state.i + 1,
        z=top.z,
        tilt=top.tilt,
        tilt_grad=top.tilt_grad,
        potential_energy=potential,
        energy=potential + (state.potential_energy - stayed + change),
        num_steps=rungs * steps + 1,
        accept_prob=_last(moved.acceptance),
        mean_accept_prob=state.mean_accept_prob,
        diverging=moved.diverging.any(),
        evidence=evidence._replace(several=dear, refused=1 - acceptance),
        adapt_state=state.adapt_state,
        rng_key=key,
        below=jax.tree.map(lambda leaf: leaf[1:-1], replicas),
        tilts=replicas.tilt,
        climbed=climbed.at[-1].set(False),
        restarts=climbed[-1].astype(jnp.int32),
    )


def swaps(
    key: Array,
    strengths: Float[Array, " rung"],
    tilts: Float[Array, " rung_and_reference"],
    parity: Int[Array, ""],
) -> tuple[Int[Array, " rung_and_reference"], Float[Array, " rung"]]:
    """Which replica each rung gets, and the probability of accepting each pair's swap.

    A swap of rungs r and r + 1 has the probability min(1, exp((b_{r+1} - b_r) (g_r - g_{r+1}))).

    Args:
        key: for the decisions.
        strengths: b_1 to b_R; the reference's is 0.
        tilts: g of the replicas, the reference's first.
        parity: 0 for swaps of the rungs 0 and 1, 2 and 3, ...; 1 for 1 and 2, 3 and 4, ...
    """
    gaps = jnp.diff(strengths, prepend=0.0)
    log = gaps * (tilts[:-1] - tilts[1:])
    # NaN, of a replica whose tilt isn't finite, is no acceptance.
    acceptance = jnp.where(jnp.isnan(log), 0.0, jnp.exp(jnp.minimum(log, 0.0)))
    pairs = jnp.arange(len(strengths))
    swapped = (pairs % 2 == parity) & (jax.random.uniform(key, pairs.shape) < acceptance)
    up, down = jnp.pad(swapped, (0, 1)), jnp.pad(swapped, (1, 0))
    return jnp.arange(len(tilts)) + up.astype(jnp.int32) - down.astype(jnp.int32), acceptance


def _joined(first: Point, second: Point) -> Point:
    joined: Point = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
    return joined


def _last(leaf: Array) -> Array:
    return leaf[-1]
