"""The compiled block of a sampling run: chains in, draws and moved chains out."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.kernels.adaptation import Tuning
from ppl_cnn.inference.kernels.kernel import (
    Ladder,
    State,
    Transition,
    averaged,
    joined,
    zeros_of,
)
from ppl_cnn.inference.sampling.keys import chain_keys
from ppl_cnn.inference.sampling.placement import CHAIN, EVERYWHERE, Placement
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.state import Chains, Position
from ppl_cnn.models.density import DensityParams, TiltedDensity

BLOCK_BYTES = 16 * 2**20
"""Size of a unit's images of a block: as much is held at once, and lost at most."""
LONGEST_BLOCK = 50
"""Largest number of draws in a block."""


class Kept(NamedTuple):
    """The draws of a block and what their transitions report."""

    image: Array
    """(chain, draw, row, col, channel), in pixel units minus the mean."""
    response: Array
    """(chain, draw)"""
    transition: Transition
    """(chain, draw) each, over all transitions since the draw before."""
    stein: Array
    """(chain, row, col, channel): mean of R(grad_z f / T) over the block, if R is linear."""
    tilts: Array | None
    """(chain, draw, rung): g of all replicas, the reference's first; None without replicas."""
    ladder: Ladder | None
    """(chain, rung) each: the rungs of the replicas; None without replicas."""

    def variables(
        self, count: int, names: Iterable[str], chains: slice = slice(None), *, stein: bool = True
    ) -> dict[str, np.ndarray]:
        """The first draws of some chains as the store's variables.

        Args:
            count: number of draws.
            names: the `sample_stats` that are wanted.
            chains: the chains of one unit.
            stein: whether the store has Stein means.
        """
        found = {f"sample_stats/{name}": self.transition[name] for name in names}
        found |= {"posterior/image": self.image, "posterior/response": self.response}
        kept = {name: np.asarray(values[chains])[:, :count] for name, values in found.items()}
        if stein:
            kept["stein/image"] = np.asarray(self.stein[chains])[:, None]
            kept["stein/draws"] = np.asarray([count])
        if self.tilts is not None and self.ladder is not None:
            kept["tempering/tilt"] = np.asarray(self.tilts[chains])[:, :count]
            for name, values in self.ladder._asdict().items():
                kept[f"tempering/{name}"] = np.asarray(values[chains])[:1]
        return kept


class Program:
    """The compiled block of densities side by side; it moves a run on.

    One program serves warmup and sampling and blocks of every length: the number of draws and
    the thinning are arguments of its loops. So nothing is compiled twice, and the bits of a run
    don't depend on where it was stopped. The chains of all densities, those of the first first,
    are one batch, spread over this process's devices (`Placement`).

    Args:
        densities: of units whose programs are equal.
        sampling: how each is sampled.
    """

    def __init__(self, densities: Sequence[TiltedDensity], sampling: Sampling) -> None:
        self.densities, self._sampling = densities, sampling
        self._density = densities[0]
        self.kernel = sampling.kernel.bind(self._density)
        """The kernel, bound to the first density; the others' weights are arguments."""
        per_draw = sampling.chains * 4 * math.prod(self._density.unit.shape)
        self.block = int(np.clip(BLOCK_BYTES // per_draw, 1, LONGEST_BLOCK))
        """Draws of a block."""
        self.placement = Placement(densities, sampling.chains, self.kernel.replicas)
        self._keys = chain_keys(densities, sampling.seed, sampling.chains)
        # The kernel builds its functions when it first starts; a run that continues needs them too.
        self.chains = jax.eval_shape(self._start, self.placement.params, self._keys)
        """Shapes and types of the chains."""
        self._specs: Any = Chains._make((CHAIN, EVERYWHERE))
        self._compiled: Callable[..., tuple[Chains, Kept]] | None = None

    @property
    def rungs(self) -> int:
        """Number of rungs of the kernel's ladder, the reference included; 0 without one."""
        ladder = jax.eval_shape(self.kernel.ladder, self.chains.states)
        return 0 if ladder is None else ladder.strength.shape[-1]

    def chains_of(self, index: int) -> slice:
        """The chains of a density.

        Args:
            index: the density's.
        """
        count = self._sampling.chains
        return slice(index * count, (index + 1) * count)

    def place(self, chains: Chains) -> Chains:
        """The chains, on the devices."""
        return Chains._make(map(jax.device_put, chains, self.placement.placed(self._specs)))

    def _start(self, params: DensityParams, keys: Array, z: Array | None = None) -> Chains:
        def begin(params: DensityParams, key: Array, z: Array | None) -> State:
            key_start, key_chain = jax.random.split(key)
            if z is None:
                z = jax.random.normal(key_start, self._density.latent_shape)
            return self.kernel.start(key_chain, z, params)

        states = jax.vmap(begin, in_axes=(self.placement.axes, 0, 0))(params, keys, z)
        each = jax.tree.map(lambda leaf: leaf[:: self._sampling.chains], states)
        # A Python number's weak type isn't stored: the block would be another program later.
        chains: Chains = jax.tree.map(
            lambda leaf: leaf.astype(leaf.dtype),
            Chains(states, Tuning.around(self.kernel.tuned(each))),
        )
        return chains

    def begin(self, z: Array | None = None, spent: Sequence[int] = ()) -> Position:
        """The position at the start of a run.

        Args:
            z: where each chain starts; by default at its own draw of the reference.
            spent: gradients that the starts of each unit's chains have taken.

        Raises:
            MismatchError: the response of a chain is not finite there.
        """
        clock = time.monotonic()
        begin = jax.jit(self._start, out_shardings=self.placement.placed(self._specs))
        chains = begin(self.placement.params, self._keys, z)
        finite = np.isfinite(self.kernel.transition(chains.states)["lp"])
        if not finite.all():
            density = self.densities[int(self.placement.members[~finite][0])]
            raise MismatchError(
                f"The response of {density.unit} is not finite where a chain starts. Check the "
                f"network's weights and preprocessing, and the `start`."
            )
        seconds = {"compile": time.monotonic() - clock, "warmup": 0.0, "sampling": 0.0}
        none = [0] * len(self.densities)
        gradients = {"start": list(spent)} if any(spent) else {}
        gradients |= {"warmup": none, "sampling": none}
        return Position(chains, 0, 0, 0, gradients, seconds)

    def images(self, position: Position) -> Array:
        """The images at which all chains are, in pixel units minus the mean.

        Args:
            position: where the run stands.
        """
        return self._density.push(self.kernel.latent(position.chains.states), self.placement.params)

    def advance(self, position: Position, draws: int) -> tuple[Position, Kept]:
        """Moves a run on by a block: of warmup until that is done, then of draws.

        Args:
            position: where the run stands; its chains are used up.
            draws: draws wanted in all.
        """
        seconds = dict(position.seconds)
        clock = time.monotonic()
        warming = position.warmup < self._sampling.warmup
        left = self._sampling.warmup - position.warmup if warming else draws - position.draws
        # A run that was extended first completes the block that it ended in.
        count = min(left, self.block if warming else self.block - position.draws % self.block)
        arguments = (
            self.placement.params,
            position.chains,
            self.placement.members,
            np.int32(count),
            np.int32(1 if warming else self._sampling.thin),
            np.bool_(warming),
        )
        if self._compiled is None:
            self._compiled = self._program().lower(*arguments).compile()
            seconds["compile"] += time.monotonic() - clock
            clock = time.monotonic()
        chains, kept = self._compiled(*arguments)
        jax.block_until_ready(chains)
        phase = "warmup" if warming else "sampling"
        seconds[phase] += time.monotonic() - clock
        steps = np.asarray(kept.transition["n_steps"], np.int64)[:, :count].sum(axis=1)
        evaluated = steps.reshape(len(self.densities), -1).sum(axis=1) + position.gradients[phase]
        gradients = {**position.gradients, phase: evaluated.tolist()}
        moved = replace(position, chains=chains, gradients=gradients, seconds=seconds)
        if warming:
            return replace(moved, warmup=position.warmup + count), kept
        return replace(moved, draws=position.draws + count, blocks=position.blocks + 1), kept

    def _program(self) -> jax.stages.Wrapped:
        block = jax.shard_map(
            self._block,
            mesh=self.placement.mesh,
            in_specs=(self.placement.specs, self._specs, CHAIN, *[EVERYWHERE] * 3),
            out_specs=(self._specs, CHAIN),
            check_vma=False,  # loops over a device's own chains mix them with replicated counters
        )
        return jax.jit(block, donate_argnums=1)

    def _block(
        self,
        params: DensityParams,
        chains: Chains,
        members: Array,
        count: Array,
        thin: Array,
        adapting: Array,
    ) -> tuple[Chains, Kept]:
        """Draws `count` times after `thin` transitions each; what is kept beyond is zero."""
        density, kernel, axes = self._density, self.kernel, (self.placement.axes, 0)
        statistics = kernel.statistics
        move = jax.vmap(lambda params, state: kernel.move(state, params), axes)
        respond = jax.vmap(density.unit.score, (self.placement.axes.unit, 0))

        def transition(_: Array, carry: tuple[Chains, Transition]) -> tuple[Chains, Transition]:
            (states, tuning), since = carry
            states = self.placement.in_parts(move, params, states)
            since = joined(statistics, since, kernel.transition(states))
            adapt = partial(self._adapt, members)
            chains = jax.lax.cond(adapting, adapt, Chains, states, tuning)
            return chains, since

        def keep(index: Array, carry: tuple[Chains, Kept]) -> tuple[Chains, Kept]:
            chains, kept = carry
            since = zeros_of(kernel.transition(chains.states))
            chains, since = jax.lax.fori_loop(0, thin, transition, (chains, since))
            states = chains.states
            image = density.push(kernel.latent(states), params)
            response = respond(params.unit, image)

            def put(all_: Array, one: Array) -> Array:
                return all_.at[:, index].set(one)

            return chains, Kept(
                put(kept.image, image),
                put(kept.response, response),
                jax.tree.map(put, kept.transition, averaged(statistics, since, thin)),
                kept.stein + kernel.tilt_gradient(states),
                jax.tree.map(put, kept.tilts, kernel.replica_tilts(states)),
                kept.ladder,
            )

        chains, kept = jax.lax.fori_loop(0, count, keep, (chains, self._nothing(chains.states)))
        stein = density.push(kept.stein / count, params)
        return chains, kept._replace(stein=stein, ladder=kernel.ladder(chains.states))

    def _adapt(self, members: Array, states: State, tuning: Tuning) -> Chains:
        """Adapts what each unit's chains share; at the end of warmup, to the averages."""

        def pooled(each: Array) -> Array:
            total = jax.ops.segment_sum(each, members, len(self.densities))
            summed: Array = jax.lax.psum(total, "chain")
            return summed / self._sampling.chains

        feedback = jax.tree.map(pooled, self.kernel.feedback(states))
        tuning = tuning.update(feedback, self._sampling.target_accept)
        current = tuning.current(tuning.step.transitions >= self._sampling.warmup)
        each = jax.tree.map(lambda leaf: leaf[members], current)
        return Chains(self.kernel.retuned(states, each), tuning)

    def _nothing(self, states: State) -> Kept:
        """Room for a block of draws of these chains."""
        kernel, shape = self.kernel, self._density.unit.shape
        chains = len(kernel.latent(states))

        def room(one: Array) -> Array:
            return jnp.zeros((chains, self.block, *one.shape[1:]), one.dtype)

        return Kept(
            jnp.zeros((chains, self.block, *shape)),
            jnp.zeros((chains, self.block)),
            jax.tree.map(room, kernel.transition(states)),
            jnp.zeros((chains, *self._density.latent_shape)),
            jax.tree.map(room, kernel.replica_tilts(states)),
            kernel.ladder(states),
        )
