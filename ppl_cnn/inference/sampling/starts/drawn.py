"""Starts at draws of the reference, or of particles and optima that have moved from there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.importance import mean_weight
from ppl_cnn.inference.sampling.evidence.annealing import (
    PARTICLES,
    Arrival,
    anneal,
    find_schedule,
)
from ppl_cnn.inference.sampling.starts.optimum import STEPS, randomize_then_optimize
from ppl_cnn.inference.sampling.starts.start import (
    ChainSettings,
    Latents,
    Placed,
    Start,
    Started,
    UnitChains,
)
from ppl_cnn.machines.memory import own_room
from ppl_cnn.machines.spreading import in_turn
from ppl_cnn.models.density import DensityParams, TiltedDensity, gradient_bytes
from ppl_cnn.numeric import plain_fields, whole


@dataclass(frozen=True)
class Prior(Start):
    """Each chain starts at its own draw of the reference. Recorded as "prior"."""

    def __str__(self) -> str:
        return "prior"

    def place(self, chains: UnitChains) -> Placed:
        """The draws of the reference."""
        return chains.drawn, 0, {}

    def latents(
        self,
        densities: Sequence[TiltedDensity],
        settings: ChainSettings,
        *,
        progress: bool = True,
    ) -> Started:
        """None: kernels draw from the reference by themselves."""
        return Started(None, [0] * len(densities), [{} for _ in densities])


@dataclass(frozen=True)
class Rto(Start):
    """Each chain starts at the optimum next to a draw of the reference. Recorded as "rto".

    If the score is linear in z, the starts are draws of the density; see
    `optimum.randomize_then_optimize`.

    Args:
        steps: gradients that each chain's search takes; recorded unless it is 600 ("rto:300").

    Raises:
        ArgumentError: there is no step.
    """

    steps: int = STEPS

    def __post_init__(self) -> None:
        plain_fields(self)
        if whole("steps", self.steps) < 1:
            raise ArgumentError(f"`steps` must be at least 1, not {self.steps}.", argument="steps")

    def __str__(self) -> str:
        return "rto" if self.steps == STEPS else f"rto:{self.steps}"

    def place(self, chains: UnitChains) -> Placed:
        """An optimum for each chain."""
        count = len(chains.drawn)
        at_once = together(chains.density, count)
        optima = _optimum if at_once == 1 else _optima

        def search(noise: Array) -> Array:
            found: Array = optima(
                chains.compiled, chains.density.params, noise, steps=self.steps
            ).block_until_ready()
            chains.bar.update(at_once)
            return found

        found = in_turn(search, in_parts(chains.drawn, at_once))
        return jnp.stack(found).reshape(chains.drawn.shape), self.steps * count, {}


_optimum = jax.jit(randomize_then_optimize, static_argnums=0, static_argnames="steps")


@partial(jax.jit, static_argnums=0, static_argnames="steps")
def _optima(
    density: TiltedDensity, params: DensityParams, noise: Latents, *, steps: int
) -> Latents:
    search = partial(randomize_then_optimize, density, params, steps=steps)
    found: Latents = jax.vmap(search)(noise)
    return found


def together(density: TiltedDensity, chains: int, *, replicas: int = 1) -> int:
    """The chains that look for their starts at once: one on a CPU, elsewhere what memory holds.

    One chain alone leaves a GPU idle. On a CPU chains gain nothing from each other's company.

    Args:
        density: of the chains.
        chains: their number, of which the result is a divisor; each process has some of them.
        replicas: the latents that a chain moves at once.
    """
    room, processes = own_room(), jax.process_count()
    if not room:
        return 1
    fitting = room // (replicas * max(1, gradient_bytes(density)))
    most = min(max(fitting, 1), -(-chains // processes))
    return max(size for size in range(1, most + 1) if chains % size == 0)


def in_parts(chains: Array, size: int) -> Array:
    """Arrays of chains in parts of a size; of one chain, without an axis of its own."""
    return chains if size == 1 else chains.reshape(-1, size, *chains.shape[1:])


@dataclass(frozen=True)
class Annealed(Start):
    """Each chain starts at an approximate draw of the density. Recorded as "anneal".

    Particles of each chain climb from the reference to the density by sequential Monte Carlo
    (`annealing.anneal`); the chain starts at one of them. The record's field `annealing` has the
    schedule and the estimates of log Z that the climb gives.

    Args:
        particles: number for each chain, at least 2; recorded unless it is 16 ("anneal:64").

    Raises:
        ArgumentError: there are too few particles.
    """

    particles: int = PARTICLES

    def __post_init__(self) -> None:
        plain_fields(self)
        if whole("particles", self.particles) < 2:
            raise ArgumentError(
                f"`particles` must be at least 2, not {self.particles}.", argument="particles"
            )

    def __str__(self) -> str:
        return "anneal" if self.particles == PARTICLES else f"anneal:{self.particles}"

    def place(self, chains: UnitChains) -> Placed:
        """One of the particles of each chain."""
        bar = chains.bar

        def show(strength: float) -> None:
            bar.set_postfix_str(f"strength {strength:.2g}", refresh=False)
            bar.update(0)

        compiled, params = chains.compiled, chains.density.params
        keys = jax.vmap(partial(jax.random.fold_in, data=2))(chains.keys)
        scouts = jax.random.split(jax.random.fold_in(keys[0], 1), max(PARTICLES, self.particles))
        schedule, gradients = find_schedule(compiled, params, scouts, show=show)

        at_once = together(chains.density, len(keys), replicas=self.particles)

        def arrive(some: Array) -> Arrival:
            each = anneal(compiled, params, some, schedule, particles=self.particles, show=show)
            each.z.block_until_ready()
            bar.update(at_once)
            return each

        found = in_turn(arrive, in_parts(keys, at_once))
        log_z = np.ravel([each.log_z for each in found])
        note: dict[str, Any] = {
            "particles": self.particles,
            "strengths": schedule.strengths.tolist(),
            "log_z": log_z.tolist(),
        }
        if len(keys) > 1:
            estimate, effective = mean_weight(log_z)
            note |= {**estimate._asdict(), "effective": effective}
        gradients += sum(int(each.gradients) for each in found)
        spent = chains.density.views * gradients
        z = jnp.stack([each.z for each in found]).reshape(chains.drawn.shape)
        return z, spent, {"annealing": note}


@dataclass(frozen=True)
class TwoSided(Start):
    """Half of the chains start at draws of the reference, the others elsewhere.

    If both halves come to the same, the chains mix. Recorded as "two-sided:rto" and the like.

    Args:
        start: where the second half starts.

    Raises:
        ArgumentError: both sides would start at draws of the reference.
    """

    start: Start

    def __post_init__(self) -> None:
        plain_fields(self)
        if isinstance(self.start, TwoSided):
            raise ArgumentError(
                f"A two-sided start can't contain another one ({self.start}). Give its second "
                f"half alone, for example `start=rto`.",
                argument="start",
            )
        if isinstance(self.start, Prior):
            raise ArgumentError(
                f"Both sides can't start at draws of the reference ({self.start}). Give another "
                f"`start`, for example `start=rto`.",
                argument="start",
            )

    def __str__(self) -> str:
        return f"two-sided:{self.start}"

    def check(self, chains: int) -> None:
        """Refuses an odd number of chains."""
        if chains % 2:
            raise ArgumentError(
                f"An odd number of chains, {chains}, can't start on two sides. Give an even number "
                f"of `chains`.",
                argument="chains",
            )
        self.start.check(chains // 2)

    def place(self, chains: UnitChains) -> Placed:
        """Draws of the reference, then where the other start places its half."""
        half = len(chains.keys) // 2
        chains.bar.update(half)
        other = chains._replace(keys=chains.keys[half:], drawn=chains.drawn[half:])
        latents, gradients, note = self.start.place(other)
        return jnp.concatenate([chains.drawn[:half], latents]), gradients, note
