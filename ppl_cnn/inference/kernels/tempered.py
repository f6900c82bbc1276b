"""The tempered kernel: replica exchange from the reference up to the tilted density.

Each chain is a ladder of replicas. The replica on rung r has the density N(z; 0, I) exp(b_r g(z)).
On the lowest rung, b_0 = 0, every transition is a new, independent draw of the reference; the
highest, b_R = 1, has the density that is wanted. Replicas on neighbouring rungs are swapped: what
the reference has found climbs to the top, past hills that a trajectory there would not cross.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.inference.kernels.adaptation import Tuned
from ppl_cnn.inference.kernels.chain_state import ChainState, first_chain
from ppl_cnn.inference.kernels.kernel import (
    Ladder,
    Statistic,
    Transition,
    at_least_one,
    parsed_count,
)
from ppl_cnn.inference.kernels.moves.trajectory import (
    FIRST_ANGLE,
    FIRST_STEP,
    Latent,
    Point,
    Proposal,
    Tilt,
    divided,
    jump_feedback,
    metropolis,
    normal_like,
    point_at,
    potential_at,
)
from ppl_cnn.inference.kernels.tilt_kernel import TiltKernel

RUNGS = 16
"""Rungs above the reference."""
_CROWDING = 4
"""The first strengths are (r/R)^4: the barrier to the tilt is near the reference."""


class TemperedState(NamedTuple):
    """The state of a chain with its replicas, or of several chains with a leading axis."""

    top: ChainState
    """The replica on the top rung. Its gradients are those of all replicas; its feedback and what
    is tuned have an axis of rungs, the reference left out."""
    below: Point
    """The replicas on the rungs between the reference and the top, the weakest first."""
    tilts: Float[Array, "*chain rung"]
    """g of all replicas, the reference's first."""
    climbed: Bool[Array, "*chain rung"]
    """Whether the replica on a rung has been at the reference since it was at the top."""
    restarts: Int[Array, "*chain"]
    """1 if the last transition brought such a replica to the top, otherwise 0."""

    @property
    def chain(self) -> ChainState:
        """The chain on the top rung."""
        return self.top

    def with_chain(self, chain: ChainState) -> "TemperedState":
        """The state with another chain on the top rung."""
        return self._replace(top=chain)

    # NumPyro's MCMC and ArviZ collect these by name.

    @property
    def z(self) -> Latent:
        """Where the replica on the top rung is."""
        return self.top.z

    @property
    def i(self) -> Int[Array, "*chain"]:
        """Number of transitions done."""
        return self.top.i

    @property
    def potential_energy(self) -> Float[Array, "*chain"]:
        """-g(z) - log N(z; 0, I) on the top rung."""
        return self.top.potential_energy

    @property
    def energy(self) -> Float[Array, "*chain"]:
        """Potential and kinetic energy on the top rung."""
        return self.top.energy

    @property
    def num_steps(self) -> Int[Array, "*chain"]:
        """Gradients of the last transition, of all replicas."""
        return self.top.num_steps

    @property
    def accept_prob(self) -> Float[Array, "*chain"]:
        """Acceptance probability of the last trajectory on the top rung."""
        return self.top.accept_prob

    @property
    def mean_accept_prob(self) -> Float[Array, "*chain"]:
        """Its mean since the start or, after the warmup, since its end."""
        return self.top.mean_accept_prob

    @property
    def diverging(self) -> Bool[Array, "*chain"]:
        """Whether a trajectory of the last transition diverged, on any rung."""
        return self.top.diverging

    @property
    def adapt_state(self) -> Tuned:
        """Step sizes, angles and strengths of the rungs above the reference."""
        return self.top.adapt_state

    @property
    def rng_key(self) -> Array:
        """Random key of the next transition."""
        return self.top.rng_key


class Tempered(TiltKernel[TemperedState]):
    """Replica exchange of `Split` chains, for p(z) ∝ exp(g(z)) N(z; 0, I).

    In each transition, all replicas move by a trajectory, with as many gradients as their rungs
    need; then even pairs of neighbours, or in turn odd ones, may be swapped. Because pairs take
    turns instead of being chosen at random, replicas travel instead of diffusing. The warmup
    adapts step size and angle of each rung, and places the rungs so that all swaps are refused
    equally often (`adaptation.LadderTuning`). With `MCMC.run` give `init_params` as for `Split`.

    Args:
        tilt: g, a function of z (an array or a tree of arrays) and of the arguments that `run`
            is given, to a scalar. Leave it out for `ppl_cnn.draw`, which takes the density's.
        rungs: R, the number of rungs above the reference, at least 1.
        target_accept_prob: mean acceptance probability of trajectories, on each rung.

    Raises:
        ArgumentError: a setting is out of range.

    Source: Syed, Bouchard-Côté, Deligiannidis, Doucet, Non-reversible parallel tempering: a
    scalable highly parallel MCMC scheme, JRSS B 84, 2022.

    Examples:
        >>> print(Tempered(rungs=4))
        tempered:4
    """

    name = "tempered"
    own_statistics: ClassVar[Mapping[str, Statistic]] = {"restarts": Statistic(np.int32, "sum")}

    def __init__(
        self, tilt: Tilt | None = None, *, rungs: int = RUNGS, target_accept_prob: float = 0.8
    ) -> None:
        super().__init__(tilt, target_accept_prob=target_accept_prob)
        self._rungs = at_least_one("rungs", rungs)

    @classmethod
    def parse(cls, value: str) -> Self:
        """The kernel with that many rungs.

        Raises:
            ArgumentError: the text is no positive whole number.
        """
        return cls(rungs=parsed_count(cls.name, value, what="rungs", letter="R"))

    @property
    def replicas(self) -> int:
        """The replicas that move by trajectories: one on each rung above the reference."""
        return self._rungs

    def __str__(self) -> str:
        """`tempered`, or `tempered:R` where R is not the default."""
        return self.name if self._rungs == RUNGS else f"{self.name}:{self._rungs}"

    def first_state(self, tilt: Tilt, key: Array, z: Latent) -> TemperedState:
        """One chain's first state: all its replicas start at z."""
        count = self._rungs
        strengths = jnp.linspace(0.0, 1.0, count + 1)[1:] ** _CROWDING
        first = Tuned(jnp.full(count, FIRST_STEP), jnp.full(count, FIRST_ANGLE), strengths)
        top = first_chain(tilt, key, z, first)

        def everywhere(leaf: Array) -> Array:
            return jnp.broadcast_to(leaf, (count - 1, *leaf.shape))

        return TemperedState(
            top=top,
            below=jax.tree.map(everywhere, top.point),
            tilts=jnp.full(count + 1, top.tilt),
            climbed=jnp.zeros(count + 1, bool),
            restarts=jnp.zeros((), jnp.int32),
        )

    def next_state(self, tilt: Tilt, state: TemperedState) -> TemperedState:
        """One chain's state after another transition."""
        return exchange(tilt, state)

    def transition(self, state: TemperedState) -> Transition:
        """The statistics of the last transition; the step size is that of the top rung."""
        common = super().transition(state)
        return {
            **common,
            "step_size": common["step_size"][..., -1],
            "restarts": state.restarts,
        }

    def ladder(self, state: TemperedState) -> Ladder:
        """The rungs of the chain's replicas, the reference's first."""
        tuned = state.adapt_state
        assert tuned.strengths is not None
        assert tuned.angle is not None
        first = [(0, 0)] * (tuned.step_size.ndim - 1) + [(1, 0)]
        step, angle = (
            jnp.pad(leaf, first, constant_values=FIRST_ANGLE)
            for leaf in (tuned.step_size, tuned.angle)
        )
        return Ladder(jnp.pad(tuned.strengths, first), step, angle)

    def replica_tilts(self, state: TemperedState) -> Float[Array, "*chain rung"]:
        """g of the chain's replicas, the reference's first."""
        return state.tilts


def exchange(tilt: Tilt, state: TemperedState) -> TemperedState:
    """One trajectory of each replica and one round of swaps, without adaptation.

    Args:
        tilt: g.
        state: of one chain.
    """
    before = state.top
    key, key_move, key_reference, key_swap = jax.random.split(before.rng_key, 4)
    strengths = before.adapt_state.strengths
    assert strengths is not None
    rungs = len(strengths)
    start = _joined(state.below, jax.tree.map(lambda leaf: leaf[None], before.point))
    steps, step_size = divided(before.adapt_state, before.i)
    keys = jax.random.split(key_move, rungs)
    moved = _moved(tilt, start, keys, step_size, steps, strengths)
    feedback = jax.vmap(jump_feedback)(start, moved, step_size, steps)
    drawn = point_at(tilt, normal_like(key_reference, before.z))
    replicas = _joined(jax.tree.map(lambda leaf: leaf[None], drawn), moved.point)
    order, acceptance = swaps(key_swap, strengths, replicas.tilt, before.i % 2)
    replicas = jax.tree.map(lambda leaf: leaf[order], replicas)
    climbed = state.climbed.at[0].set(True)[order]
    point = jax.tree.map(_last, replicas)
    change = _last(moved.kinetic_energy) + _last(moved.energy_change)
    stayed = potential_at(jax.tree.map(_last, moved.point))
    top = before.after(
        point,
        key,
        acceptance=_last(moved.acceptance),
        energy=potential_at(point) + (before.potential_energy - stayed + change),
        num_steps=steps.sum() + 1,
        diverging=moved.diverging.any(),
        feedback=feedback._replace(refused=1 - acceptance),
    )
    return TemperedState(
        top=top,
        below=jax.tree.map(lambda leaf: leaf[1:-1], replicas),
        tilts=replicas.tilt,
        climbed=climbed.at[-1].set(False),
        restarts=climbed[-1].astype(jnp.int32),
    )


def _moved(tilt: Tilt, start: Point, *each: Array) -> Proposal:
    """A trajectory of each replica, with as many steps as its rung needs.

    A CPU follows them one after another: easy rungs need few steps, and a batch wouldn't be faster.
    Other devices follow them side by side, until the longest has ended.

    Args:
        tilt: g.
        start: where the replicas are.
        each: the further arguments of `metropolis`, with an axis of rungs.
    """
    move = partial(metropolis, tilt)

    def in_turn(start: Point, *each: Array) -> Proposal:
        moved: Proposal = jax.lax.map(lambda one: move(*one), (start, *each))
        return moved

    moved: Proposal = jax.lax.platform_dependent(start, *each, cpu=in_turn, default=jax.vmap(move))
    return moved


def swaps(
    key: Array,
    strengths: Float[Array, " rung"],
    tilts: Float[Array, " rung_and_reference"],
    parity: Int[Array, ""],
) -> tuple[Int[Array, " rung_and_reference"], Float[Array, " rung"]]:
    """The replica that each rung gets, and the probability of accepting each pair's swap.

    A swap of rungs r and r + 1 is accepted with min(1, exp((b_{r+1} - b_r) (g_r - g_{r+1}))).

    Args:
        key: random key of the decisions.
        strengths: b_1 to b_R; the reference's is 0.
        tilts: g of the replicas, the reference's first.
        parity: 0 for swaps of the rungs 0 and 1, 2 and 3, ...; 1 for 1 and 2, 3 and 4, ...
    """
    gaps = jnp.diff(strengths, prepend=0.0)
    log = gaps * (tilts[:-1] - tilts[1:])
    # A replica whose tilt isn't finite is never swapped.
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
