"""The i-SIR kernel: a choice among fresh draws of the reference, then a trajectory.

A latent that a generator maps to images is far from Gaussian under a tilt: hills lie apart, and a
trajectory crosses between them seldom. Where the tilt is mild enough that some of a few draws of
the reference are good, choosing among them crosses at once.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels import split
from ppl_cnn.inference.kernels.adaptation import Tuned
from ppl_cnn.inference.kernels.chain_state import ChainState, first_chain
from ppl_cnn.inference.kernels.kernel import Statistic
from ppl_cnn.inference.kernels.tilt_kernel import TiltKernel
from ppl_cnn.inference.kernels.trajectory import (
    FIRST_ANGLE,
    FIRST_STEP,
    Latent,
    Point,
    Tilt,
    normal_like,
    point_at,
    potential_at,
)

CANDIDATES = 16
"""Latents to choose among, the current one included."""
_AT_ONCE = 4
"""Largest number of a chain's candidates whose images are held at once. A forward pass holds a
layer or two where a gradient holds all, so that these need about the memory of one gradient."""


class ISIR(TiltKernel[ChainState]):
    """Iterated sampling importance resampling and `Split`, for p(z) ∝ exp(g(z)) N(z; 0, I).

    In each transition a chain first chooses among its latent and N - 1 fresh draws of N(0, I), each
    with probability proportional to exp(g): the global move. Then it moves by one trajectory of
    `Split`: the local move, to which alone the warmup adapts step size and angle. Both leave p
    invariant, whatever N. Candidates take forward passes; the chosen one takes a gradient. With
    `MCMC.run` give `init_params` as for `Split`.

    Args:
        tilt: g, a function of z (an array or a tree of arrays) and of the arguments that `run`
            is given, to a scalar. Leave it out for `ppl_cnn.draw`, which takes the density's.
        candidates: N, the number of latents to choose among, the current one included; at least 2.
        target_accept_prob: mean acceptance probability of trajectories.

    Raises:
        ArgumentError: a setting is out of range.

    Source: Andrieu, Lee, Vihola, Uniform ergodicity of the iterated conditional SMC and geometric
    ergodicity of particle Gibbs samplers, Bernoulli 24, 2018; with local moves: Samsonov et al.,
    Local-Global MCMC kernels: the best of both worlds, NeurIPS 2022.

    Examples:
        >>> print(ISIR(candidates=8))
        isir:8
    """

    name = "isir"
    own_statistics: ClassVar[Mapping[str, Statistic]] = {
        "forward_passes": Statistic(np.int32, "sum"),
        "global_acceptance_rate": Statistic(np.float32, "mean"),
    }

    def __init__(
        self,
        tilt: Tilt | None = None,
        *,
        candidates: int = CANDIDATES,
        target_accept_prob: float = 0.8,
    ) -> None:
        super().__init__(tilt, target_accept_prob=target_accept_prob)
        if candidates < 2:
            raise ArgumentError(
                f"`candidates` must be at least 2, not {candidates}.", argument="candidates"
            )
        self._candidates = candidates

    @classmethod
    def parse(cls, value: str) -> Self:
        """The kernel with that many candidates.

        Raises:
            ArgumentError: the text is no whole number of at least 2.
        """
        if not (value.isascii() and value.isdigit() and int(value) > 1):
            raise ArgumentError(
                f"Kernel {'isir:' + value!r} has no number of candidates. Write isir:N with N at "
                f"least 2, for example isir:16.",
                argument="kernel",
            )
        return cls(candidates=int(value))

    def __str__(self) -> str:
        """`isir`, or `isir:N` where N is not the default."""
        return self.name if self._candidates == CANDIDATES else f"{self.name}:{self._candidates}"

    def first_state(self, tilt: Tilt, key: Array, z: Latent) -> ChainState:
        """One chain's first state."""
        first = Tuned(jnp.asarray(FIRST_STEP), jnp.asarray(FIRST_ANGLE))
        none = {"forward_passes": jnp.zeros((), jnp.int32), "global_acceptance_rate": jnp.zeros(())}
        return first_chain(tilt, key, z, first, own=none)

    def next_state(self, tilt: Tilt, state: ChainState) -> ChainState:
        """One chain's state after another transition."""
        key, key_global = jax.random.split(state.rng_key)
        z, left = resampled(tilt, state.point, key_global, self._candidates)
        point = point_at(tilt, z)
        chosen = state._replace(point=point, potential_energy=potential_at(point), rng_key=key)
        moved = split.transition(tilt, chosen)
        own: dict[str, Array] = {
            "forward_passes": jnp.asarray(self._candidates - 1, jnp.int32),
            "global_acceptance_rate": left,
        }
        return moved._replace(num_steps=moved.num_steps + 1, own=own)


def resampled(
    tilt: Tilt, point: Point, key: Array, candidates: int
) -> tuple[Latent, Float[Array, ""]]:
    """One of a latent and fresh draws of N(0, I), by weights exp(g); p is invariant.

    Draws are made again from their keys, so that only their tilts are held.

    Args:
        tilt: g.
        point: where the chain is.
        key: random key of the draws and the choice.
        candidates: number of latents to choose among, the current one included.

    Returns:
        The latent that is chosen, and the probability that it was to be a fresh one.
    """
    key_draws, key_choice = jax.random.split(key)
    fresh = candidates - 1
    keys = jax.random.split(key_draws, fresh)
    at_once = max(n for n in range(1, _AT_ONCE + 1) if fresh % n == 0)
    tilts = jax.lax.map(lambda key: tilt(normal_like(key, point.z)), keys, batch_size=at_once)
    # A draw whose tilt isn't finite is never chosen.
    weights = jnp.append(jnp.where(jnp.isfinite(tilts), tilts, -jnp.inf), point.tilt)
    chosen = jax.random.categorical(key_choice, weights)
    drawn = normal_like(keys[jnp.minimum(chosen, fresh - 1)], point.z)
    z: Latent = jax.tree.map(lambda new, old: jnp.where(chosen < fresh, new, old), drawn, point.z)
    return z, jax.nn.softmax(weights)[:-1].sum()
