"""The compiled program of a sampling run: chains in, draws and moved chains out.

Three sizes are told apart. A *transition* is the kernel's step. A *call* of the program makes
transitions for a second or two. A *block* is what the store holds as a chunk: as many draws as
memory suggests, of one call or several.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.kernels.adaptation import Tuning
from ppl_cnn.inference.kernels.kernel import State, Transition, averaged, joined, zeros_of
from ppl_cnn.inference.sampling.call import Call, Told, wait_for
from ppl_cnn.inference.sampling.keys import chain_keys
from ppl_cnn.inference.sampling.placement import CHAIN, EVERYWHERE, Placement
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.state import Chains, Kept, Position
from ppl_cnn.machines.spreading import spread, whole
from ppl_cnn.models.density import DensityParams, TiltedDensity

BLOCK_BYTES = 16 * 2**20
"""Size of a unit's images of a block, at most, if it has several draws. Some blocks are held."""
LONGEST_BLOCK = 50
"""Largest number of draws in a block."""
ACCELERATED = 16
"""By how much a block may be larger on an accelerator, which draws faster and has memory of its
own: a second of draws should fit. Units side by side share that."""
CALL_SECONDS = 1.5
"""How long a call of the program should take; a draw may take longer."""


class Program:
    """The compiled block of densities side by side; it moves a run on.

    One program serves warmup and sampling and calls of every length: the number of draws and the
    thinning are arguments of its loops. So nothing is compiled twice, and the bits of a run depend
    neither on where it was stopped nor on how it was cut into calls. The chains of all densities,
    those of the first first, are one batch, spread over all devices (`Placement`). All processes
    make the same calls.

    Args:
        densities: of units whose programs are equal.
        sampling: how each is sampled.
        block: largest number of draws in a block; by default as many as memory suggests here.
        devices: what to compile for; by default the devices of all processes.
    """

    def __init__(
        self,
        densities: Sequence[TiltedDensity],
        sampling: Sampling,
        *,
        block: int | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        self.densities, self._sampling = densities, sampling
        self._density = densities[0]
        self.kernel = sampling.kernel.bind(self._density).after_warmup(sampling.warmup)
        """The kernel, bound to the first density; the others' weights are arguments."""
        self.placement = Placement(densities, sampling.chains, self.kernel.replicas, devices)
        self.block = block or self._fitting()
        """Draws of a block."""
        self._keys = chain_keys(densities, sampling.seed, sampling.chains)
        self._specs: Any = Chains._make((CHAIN, EVERYWHERE))
        self._begin = jax.jit(self._start, out_shardings=self.placement.placed(self._specs))
        # The kernel builds its functions when it first starts; a run that continues needs them too.
        self.chains: Chains = self._begin.eval_shape(self.placement.params, self._keys)
        """Shapes and types of the chains."""
        self.room: Kept = jax.eval_shape(self._nothing, self.chains.states)
        """Shapes and types of a block."""
        empty = partial(jax.tree.map, lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.room)
        self._empty = jax.jit(empty, out_shardings=self.placement.placed(CHAIN))
        self._compiled: Callable[..., tuple[Chains, Kept, Told]] | None = None
        self._compiling = 0.0
        """Seconds that are not in a position yet."""
        self._most = 1
        """Transitions of the next call."""
        self._ended = 0.0
        """When the last call had ended, on the monotonic clock."""

    def _fitting(self) -> int:
        draw = self._sampling.chains * 4 * math.prod(self._density.unit.shape)
        room, longest = BLOCK_BYTES, LONGEST_BLOCK
        if self.placement.mesh.devices.flat[0].platform != "cpu":
            units = len(self.densities)
            room, longest = ACCELERATED * room * 4 // max(4, units), ACCELERATED * longest
        return int(np.clip(room // draw, 1, longest))

    @cached_property
    def _members(self) -> Array:
        """Chain -> index of its density, on the devices."""
        members = self.placement.members.astype(np.int32)
        return spread(jnp.asarray(members), self.placement.placed(CHAIN))

    @property
    def most(self) -> int:
        """Transitions that the next call should make to take about `CALL_SECONDS`."""
        return self._most

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

    def place(self, position: Position) -> Position:
        """The position with its arrays on the devices."""
        chains = map(spread, position.chains, self.placement.placed(self._specs))
        block = spread(position.block, self.placement.placed(CHAIN))
        return replace(position, chains=Chains._make(chains), block=block)

    def _start(self, params: DensityParams, keys: Array, z: Array | None = None) -> Chains:
        def begin(params: DensityParams, key: Array, z: Array | None, chain: Array) -> State:
            key_start, key_chain = jax.random.split(key)
            if z is None:
                z = jax.random.normal(key_start, self._density.latent_shape)
            return self.kernel.numbered(self.kernel.start(key_chain, z, params), chain)

        numbers = jnp.arange(len(keys)) % self._sampling.chains
        axes = (self.placement.axes, 0, 0, 0)
        states = jax.vmap(begin, in_axes=axes)(params, keys, z, numbers)
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
        given = spread((self._keys, z), self.placement.placed((CHAIN, CHAIN)))
        chains: Chains = self._begin(self.placement.params, *given)
        finite = np.isfinite(whole(self.kernel.transition(chains.states)["lp"]))
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
        return Position(chains, 0, 0, 0, gradients, seconds, written=0)

    def to_save(self, position: Position) -> Position:
        """A copy of a position, all of which this process can save.

        Args:
            position: where the run stands; the next call may use its chains up.
        """
        alone = jax.process_count() == 1
        return position.copied(None if alone else self.placement.placed(EVERYWHERE))

    def images(self, position: Position) -> np.ndarray:
        """The images at which all chains are, in pixel units minus the mean.

        Args:
            position: where the run stands.
        """
        latents = self.kernel.latent(position.chains.states)
        return whole(self._density.push(latents, self.placement.params))

    def advance(self, position: Position, draws: int) -> tuple[Position, Kept]:
        """Moves a run on by a whole block: of warmup until that is done, then of draws.

        Args:
            position: where the run stands; its chains are used up.
            draws: draws wanted in all.
        """
        call = self.call(position, draws, most=self.block * self._sampling.thin)
        return self.ended(call, position), call.kept

    def call(self, position: Position, draws: int, most: int | None = None) -> Call:
        """Begins to move a run on, within a block of warmup until that is done, then of draws.

        The program may still be running when this returns: its result can be given to the next
        call, which then waits on the device and not here.

        Args:
            position: where the run stands; its chains are used up.
            draws: draws wanted in all.
            most: transitions, if that is at least a draw; by default as many as take about
                `CALL_SECONDS`.
        """
        warming = position.warmup < self._sampling.warmup
        thin = 1 if warming else self._sampling.thin
        first = 0 if warming else position.filled
        # A run that was extended first completes the block that it ended in.
        block = self.block if warming else self.block - position.written % self.block
        left = self._sampling.warmup - position.warmup if warming else draws - position.draws
        count = min(left, block - first, max(1, (most or self._most) // thin))
        room = self._empty() if position.block is None else position.block
        arguments = (
            *(self.placement.params, position.chains, room, self._members),
            *map(np.int32, (first, count, thin)),
            np.bool_(warming),
        )
        if self._compiled is None:
            clock = time.monotonic()
            self._compiled = self.lowered().compile()
            self._compiling += time.monotonic() - clock
        begun = time.monotonic()
        chains, kept, told = self._compiled(*arguments)
        if warming:
            moved = replace(position, chains=chains, warmup=position.warmup + count)
            return Call(moved, kept, told, count, closes=False, begun=begun)
        moved = replace(position, chains=chains, draws=position.draws + count, block=kept)
        closes = count == min(left, block - first)
        moved = moved.closed() if closes else moved
        return Call(moved, kept, told, count * thin, closes, begun)

    def ended(self, call: Call, before: Position) -> Position:
        """The position after a call, with gradients and seconds, once the call has ended.

        Args:
            call: what was begun.
            before: the position before it, with gradients and seconds.
        """
        wait_for(call.told)
        ended, begun = time.monotonic(), max(call.begun, self._ended)
        self._ended = ended
        fitting = CALL_SECONDS / max(ended - begun, 1e-9) * call.transitions
        self._most = int(np.clip(fitting, 1, 2 * max(self._most, call.transitions)))
        phase = "warmup" if before.warmup < self._sampling.warmup else "sampling"
        seconds = {**before.seconds, phase: before.seconds[phase] + ended - begun}
        seconds["compile"] += self._compiling
        self._compiling = 0.0
        steps = np.asarray(call.told.steps, np.int64).reshape(len(self.densities), -1)
        evaluated = (self._density.views * steps.sum(axis=1) + before.gradients[phase]).tolist()
        gradients = {**before.gradients, phase: evaluated}
        return replace(call.position, gradients=gradients, seconds=seconds)

    def lowered(self) -> jax.stages.Lowered:
        """The program, to be compiled; from shapes alone."""
        shapes, count = self.placement.shapes, jax.ShapeDtypeStruct((), np.int32)
        block = jax.shard_map(
            self._block,
            mesh=self.placement.mesh,
            in_specs=(self.placement.specs, self._specs, CHAIN, CHAIN, *[EVERYWHERE] * 4),
            out_specs=(self._specs, CHAIN, CHAIN),
            check_vma=False,  # loops over a device's own chains mix them with replicated counters
        )
        # Each process is told of all chains.
        places = self.placement.placed((self._specs, CHAIN, EVERYWHERE))
        return jax.jit(block, donate_argnums=(1, 2), out_shardings=places).lower(
            shapes(self.placement.params, self.placement.specs),
            shapes(self.chains, self._specs),
            shapes(self.room, CHAIN),
            shapes(jax.ShapeDtypeStruct(self.placement.members.shape, np.int32), CHAIN),
            *(count, count, count),
            jax.ShapeDtypeStruct((), np.bool_),
        )

    def _block(
        self,
        params: DensityParams,
        chains: Chains,
        kept: Kept,
        members: Array,
        first: Array,
        count: Array,
        thin: Array,
        adapting: Array,
    ) -> tuple[Chains, Kept, Told]:
        """Fills `count` more places of a block, after `thin` transitions each."""
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
                kept.stein,
                kept.total + kernel.tilt_gradient(states),
                jax.tree.map(put, kept.tilts, kernel.replica_tilts(states)),
                kept.ladder,
            )

        end = first + count
        kept = kept._replace(total=jnp.where(first > 0, kept.total, 0.0))
        chains, kept = jax.lax.fori_loop(first, end, keep, (chains, kept))
        kept = kept._replace(
            stein=density.push(kept.total / end, params), ladder=kernel.ladder(chains.states)
        )
        return chains, kept, self._told(kept, first, end)

    def _told(self, kept: Kept, first: Array, end: Array) -> Told:
        """What the host is told of the draws from `first` to `end` in a block."""
        places = jnp.arange(self.block)
        new = (places >= first) & (places < end)
        steps = jnp.where(new, kept.transition["n_steps"], 0).sum(axis=1)
        rates = jnp.where(new, kept.transition["acceptance_rate"], 0.0).sum(axis=1)
        return Told(steps, rates / (end - first))

    def _adapt(self, members: Array, states: State, tuning: Tuning) -> Chains:
        """Adapts what each unit's chains share; at the end of warmup, to the averages."""

        def in_order(each: Array) -> Array:
            own = members[:, None] == jnp.arange(len(self.densities))[None, :]
            own = own.reshape(own.shape + (1,) * (each.ndim - 1))
            return jnp.where(own, each[:, None], 0).sum(axis=0)

        def pooled(each: Array) -> Array:
            scattered = partial(jax.ops.segment_sum, num_segments=len(self.densities))
            # A GPU's scatter would add in an order of its own at each run.
            total = jax.lax.platform_dependent(
                each,
                cpu=lambda each: scattered(each, members),
                default=in_order,
            )
            # In the devices' order, in which between processes a `psum` doesn't add.
            summed: Array = jax.lax.all_gather(total, "chain").sum(axis=0)
            return summed / self._sampling.chains

        feedback = jax.tree.map(pooled, self.kernel.feedback(states))
        tuning = tuning.update(feedback, self._sampling.acceptance)
        current = tuning.current(tuning.transitions >= self._sampling.warmup)
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
            jnp.zeros((chains, *shape)),
            jnp.zeros((chains, *self._density.latent_shape)),
            jax.tree.map(room, kernel.replica_tilts(states)),
            kernel.ladder(states),
        )
