"""The compiled block of a sampling run: chains in, draws and moved chains out."""

import io
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.kernels.adaptation import Tuning
from ppl_cnn.inference.kernels.kernel import (
    SITE,
    Rungs,
    State,
    Transition,
    evidence_of,
    first_tuning,
    make_kernel,
    replicas,
    retuned,
    rungs_of,
    start,
    tilt_gradient,
)
from ppl_cnn.inference.kernels.tempered import TemperedState
from ppl_cnn.inference.sampling.keys import chain_keys
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.models.density import TiltedDensity, gradient_bytes
from ppl_cnn.models.networks.graph import Params

BLOCK_BYTES = 16 * 2**20
"""Of a unit's images of a block: what is held at once and lost at most."""


LONGEST_BLOCK = 50
"""Draws."""


CHAINS_PER_CORE = {"cpu": 4}
"""Chains of a batch that move at once at most, by platform; elsewhere all do. More gain little, and
would wait for the longest trajectory of more chains."""


CACHE_PER_CORE = 16 * 2**20
"""What the gradients of such chains may need, unless the weights that they share weigh more: on two
cores, 8 chains of a SqueezeNet class took 1.56 times as long each as 2, and of AlexNet's conv5
1.24; but of its fc8, mostly weights, 0.87."""


_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile)
"""What NumPy and zipfile raise on a damaged file."""


class Kept(NamedTuple):
    """The draws of a block, and what their transitions report."""

    image: Array
    """(chain, draw, row, col, channel)"""
    response: Array
    """(chain, draw)"""
    transition: Transition
    """(chain, draw) each; gradients and divergences over all transitions since the draw before."""
    stein: Array
    """(chain, row, col, channel): mean of R(grad_z f / T) over the block; of use if R is linear."""
    tilts: Array | None
    """(chain, draw, rung): g of all replicas, the reference's first; of the tempered kernel."""
    rungs: Rungs | None
    """Likewise."""

    def variables(
        self, count: int, names: Iterable[str], chains: slice = slice(None), stein: bool = True
    ) -> dict[str, np.ndarray]:
        """The first `count` draws of some chains as the store's variables.

        Args:
            count: draws.
            names: of the `sample_stats` wanted.
            chains: those of one unit.
            stein: whether there is a Stein mean.
        """
        found = {f"sample_stats/{name}": getattr(self.transition, name) for name in names}
        found |= {"posterior/image": self.image, "posterior/response": self.response}
        kept = {name: np.asarray(values[chains])[:, :count] for name, values in found.items()}
        if stein:
            kept["stein/image"] = np.asarray(self.stein[chains])[:, None]
            kept["stein/draws"] = np.asarray([count])
        if self.tilts is not None and self.rungs is not None:
            kept["tempering/tilt"] = np.asarray(self.tilts[chains])[:, :count]
            for name, values in self.rungs._asdict().items():
                kept[f"tempering/{name}"] = np.asarray(values[chains])[:1]
        return kept


class Chains(NamedTuple):
    """All that a transition changes."""

    states: State
    """The kernel's, with a leading axis of chains."""
    tuning: Tuning
    """Of each unit's chains."""


@dataclass(frozen=True)
class Position:
    """Where a run stands."""

    chains: Chains
    warmup: int
    """Transitions done of the warmup."""
    draws: int
    """Kept so far, per chain."""
    blocks: int
    """Of kept draws, so far."""
    gradients: dict[str, list[int]]
    """Evaluated in each unit's chains together, in "warmup" and "sampling"; and in the "start" if
    it took any."""
    seconds: dict[str, float]
    """Spent on "compile", "warmup" and "sampling"."""


class Program:
    """The compiled block of densities side by side, and how it moves a run on.

    One program serves warmup and sampling and blocks of every length: the number of draws and
    the thinning are arguments of its loops. So nothing is compiled twice, and the bits of a run
    don't depend on where it was stopped. The chains of all densities, those of the first first,
    are one batch, spread over this process's devices.

    Args:
        densities: of units whose programs are equal.
        sampling: how each is sampled.
    """

    def __init__(self, densities: Sequence[TiltedDensity], sampling: Sampling) -> None:
        self.densities, self._sampling = densities, sampling
        self._density = densities[0]
        self._kernel = make_kernel(sampling.kernel, self._density)
        per_draw = sampling.chains * 4 * math.prod(self._density.unit.shape)
        self.block = int(np.clip(BLOCK_BYTES // per_draw, 1, LONGEST_BLOCK))
        self._members = np.repeat(np.arange(len(densities)), sampling.chains)
        devices, count = jax.local_devices(), len(self._members)
        used = max(n for n in range(1, len(devices) + 1) if count % n == 0)
        self._mesh = Mesh(np.asarray(devices[:used]), ("chain",))
        weights = [density.unit.params for density in densities]
        own = jax.tree.map(lambda *leaves: any(leaf is not leaves[0] for leaf in leaves), *weights)
        self._own = own
        together = partial(_together, chains=sampling.chains)
        self._axes = jax.tree.map(lambda own: 0 if own else None, own)
        specs = jax.tree.map(lambda own: PartitionSpec("chain") if own else PartitionSpec(), own)
        self._params = jax.device_put(jax.tree.map(together, *weights), self._placed(specs))
        self._most = self._at_once()
        self._keys = chain_keys(densities, sampling.seed, sampling.chains)
        # The kernel builds its functions when it first starts; a run that continues needs them too.
        self._chains = jax.eval_shape(self._start, self._params, self._keys)
        self._specs: Any = Chains._make((PartitionSpec("chain"), PartitionSpec()))
        self._arguments = (specs, self._specs, PartitionSpec("chain"), *[PartitionSpec()] * 3)
        self._compiled: Callable[..., tuple[Chains, Kept]] | None = None

    def chains_of(self, index: int) -> slice:
        """Where the chains of a density are."""
        count = self._sampling.chains
        return slice(index * count, (index + 1) * count)

    def _start(self, params: Params, keys: Array, z: Array | None = None) -> Chains:
        begin = partial(start, self._kernel, self._density)
        states = jax.vmap(begin, in_axes=(self._axes, 0, 0))(params, keys, z)
        each = jax.tree.map(lambda leaf: leaf[:: self._sampling.chains], states)
        # A Python number's weak type isn't stored: the block would be another program later.
        return jax.tree.map(
            lambda leaf: leaf.astype(leaf.dtype), Chains(states, first_tuning(each))
        )

    def _at_once(self) -> int:
        """How many chains of a device move at once at most."""
        chains, platform = len(self._members), self._mesh.devices.flat[0].platform
        if chains == 1 or platform not in CHAINS_PER_CORE:
            return chains
        cores = os.cpu_count() or 1
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(self._density.unit.params))
        room = max(cores * CACHE_PER_CORE, weights)
        fitting = room // max(1, gradient_bytes(self._density))
        images = min(cores * CHAINS_PER_CORE[platform], fitting)
        return max(1, images // replicas(self._sampling.kernel))

    def _placed(self, specs: Any) -> Any:
        """Where arrays of these specifications lie."""
        return jax.tree.map(partial(NamedSharding, self._mesh), specs)

    def begin(self, z: Array | None = None, spent: Sequence[int] = ()) -> Position:
        """The start of a run.

        Args:
            z: where each chain starts; by default at its own draw of the reference.
            spent: gradients that the starts of each unit's chains have taken.

        Raises:
            InputError: the response there is not finite.
        """
        clock = time.monotonic()
        begin = jax.jit(self._start, out_shardings=self._placed(self._specs))
        chains = begin(self._params, self._keys, z)
        finite = np.isfinite(chains.states.potential_energy)
        if not finite.all():
            density = self.densities[int(self._members[~finite][0])]
            raise InputError(
                f"The response of {density.unit} where a chain starts is not finite: the "
                f"network's weights or preprocessing, or the start, can't be right."
            )
        seconds = {"compile": time.monotonic() - clock, "warmup": 0.0, "sampling": 0.0}
        none = [0] * len(self.densities)
        gradients = {"start": list(spent)} if any(spent) else {}
        gradients |= {"warmup": none, "sampling": none}
        return Position(chains, 0, 0, 0, gradients, seconds)

    def images(self, position: Position) -> Array:
        """Where all chains are, as images of their units."""
        return self._density.push(position.chains.states.z[SITE])

    def advance(self, position: Position, draws: int) -> tuple[Position, Kept]:
        """Moves a run on by a block, of warmup until that is done and then of draws.

        Args:
            position: where it stands; its chains are used up.
            draws: wanted in all.
        """
        seconds = dict(position.seconds)
        clock = time.monotonic()
        warming = position.warmup < self._sampling.warmup
        left = self._sampling.warmup - position.warmup if warming else draws - position.draws
        # A run that was extended first completes the block that it ended in.
        count = min(left, self.block if warming else self.block - position.draws % self.block)
        arguments = (
            self._params,
            position.chains,
            self._members,
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
        steps = np.asarray(kept.transition.n_steps, np.int64)[:, :count].sum(axis=1)
        evaluated = steps.reshape(len(self.densities), -1).sum(axis=1) + position.gradients[phase]
        gradients = {**position.gradients, phase: evaluated.tolist()}
        moved = replace(position, chains=chains, gradients=gradients, seconds=seconds)
        if warming:
            return replace(moved, warmup=position.warmup + count), kept
        return replace(moved, draws=position.draws + count, blocks=position.blocks + 1), kept

    def _program(self) -> jax.stages.Wrapped:
        block = jax.shard_map(
            self._block,
            mesh=self._mesh,
            in_specs=self._arguments,
            out_specs=(self._specs, PartitionSpec("chain")),
            check_vma=False,  # loops over a device's own chains mix them with replicated counters
        )
        return jax.jit(block, donate_argnums=1)

    def _block(
        self,
        params: Params,
        chains: Chains,
        members: Array,
        count: Array,
        thin: Array,
        adapting: Array,
    ) -> tuple[Chains, Kept]:
        """Draws `count` times after `thin` transitions each; what is kept beyond is zero."""
        density, axes = self._density, (self._axes, 0)
        move = jax.vmap(lambda params, state: self._kernel.sample(state, (params,), {}), axes)

        def transition(_: Array, carry: tuple[Chains, Transition]) -> tuple[Chains, Transition]:
            (states, tuning), since = carry
            states = self._in_parts(move, params, states)
            since = since.then(jax.vmap(Transition.of)(states))
            adapt = partial(self._adapt, members)
            chains = jax.lax.cond(adapting, adapt, Chains, states, tuning)
            return chains, since

        def keep(index: Array, carry: tuple[Chains, Kept]) -> tuple[Chains, Kept]:
            chains, kept = carry
            since = jax.tree.map(lambda x: jnp.zeros_like(x[:, 0]), kept.transition)
            chains, since = jax.lax.fori_loop(0, thin, transition, (chains, since))
            states = chains.states
            image = density.push(states.z[SITE])
            response = jax.vmap(density.unit.score, axes)(params, image)
            return chains, Kept(
                kept.image.at[:, index].set(image),
                kept.response.at[:, index].set(response),
                jax.tree.map(
                    lambda all_, one: all_.at[:, index].set(one),
                    kept.transition,
                    since.averaged(thin),
                ),
                kept.stein + jax.vmap(tilt_gradient)(states),
                _put(kept.tilts, index, states),
                kept.rungs,
            )

        chains, kept = jax.lax.fori_loop(0, count, keep, (chains, self._nothing(chains.states)))
        stein = density.push(kept.stein / count)
        return chains, kept._replace(stein=stein, rungs=rungs_of(chains.states))

    def _in_parts(self, move: Callable[..., State], params: Params, states: State) -> State:
        """Moves chains, as many at once as is best here."""
        count = len(states.i)
        size = max(n for n in range(1, min(self._most, count) + 1) if count % n == 0)
        if size == count or size < self._most // 2:
            return move(params, states)

        def part(index: Array) -> State:
            cut = partial(jax.lax.dynamic_slice_in_dim, start_index=index * size, slice_size=size)
            own = jax.tree.map(lambda leaf, own: cut(leaf) if own else leaf, params, self._own)
            return move(own, jax.tree.map(cut, states))

        parts = jax.lax.map(part, jnp.arange(count // size))
        return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), parts)

    def _adapt(self, members: Array, states: State, tuning: Tuning) -> Chains:
        """Moves each unit's step size and angle; in the end of warmup, to their averages."""

        def pooled(each: Array) -> Array:
            total = jax.ops.segment_sum(each, members, len(self.densities))
            return jax.lax.psum(total, "chain") / self._sampling.chains

        evidence = jax.tree.map(pooled, jax.vmap(evidence_of)(states))
        tuning = tuning.update(evidence, self._sampling.target_accept)
        current = tuning.current(tuning.step.transitions >= self._sampling.warmup)
        each = jax.tree.map(lambda leaf: leaf[members], current)
        return Chains(retuned(states, each), tuning)

    def _nothing(self, states: State) -> Kept:
        """Room for a block of draws of these chains."""
        chains, shape = states.z[SITE].shape[0], self._density.unit.shape
        transition = jax.eval_shape(jax.vmap(Transition.of), states)
        rungs, tilts = rungs_of(states), None
        if rungs is not None:
            tilts = jnp.zeros((chains, self.block, rungs.strength.shape[-1]))
        return Kept(
            jnp.zeros((chains, self.block, *shape)),
            jnp.zeros((chains, self.block)),
            jax.tree.map(lambda x: jnp.zeros((chains, self.block), x.dtype), transition),
            jnp.zeros((chains, *self._density.latent_shape)),
            tilts,
            rungs,
        )

    def save(self, position: Position, path: Path) -> None:
        """Writes where the run stands, aside and renamed."""
        leaves = jax.tree.leaves(jax.tree.map(_raw, position.chains))
        counts = {name: getattr(position, name) for name in ("warmup", "draws", "blocks")}
        text = json.dumps({**counts, "gradients": position.gradients, "seconds": position.seconds})
        stream = io.BytesIO()
        np.savez(stream, *(np.asarray(leaf) for leaf in leaves), position=np.asarray(text))
        write_aside(path, stream.getvalue())

    def restore(self, path: Path) -> Position | None:
        """Where the run stood when it was stopped; None if it had not begun.

        Raises:
            InputError: the file is damaged.
        """
        if not path.exists():
            return None
        wanted, tree = jax.tree.flatten(self._chains)
        try:
            counts = _counts(path)
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                leaves = [file[f"arr_{index}"] for index in range(len(wanted))]
            leaves = [_like(leaf, like) for leaf, like in zip(leaves, wanted, strict=True)]
            chains: Chains = jax.tree.unflatten(tree, leaves)
            placed = map(jax.device_put, chains, self._placed(self._specs))
            return Position(Chains(*placed), **counts)
        except _DAMAGE:
            raise InputError(
                f"{path} is damaged, so the run can't be continued; its draws remain readable, "
                f"and another --out starts a new one."
            ) from None


def draws_before(path: Path) -> int:
    """How many draws per chain a stored state follows; 0 if there is none, or a damaged one."""
    try:
        return int(_counts(path)["draws"])
    except _DAMAGE:
        return 0


def _counts(path: Path) -> dict[str, Any]:
    """All of a stored position but its chains."""
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        return json.loads(str(file["position"]))


def _together(*leaves: Array, chains: int) -> Array:
    """One array that is the same in all units, or each chain's of those that differ."""
    if all(leaf is leaves[0] for leaf in leaves):
        return leaves[0]
    return jnp.repeat(jnp.stack(leaves), chains, axis=0)


def _put(tilts: Array | None, index: Array, states: State) -> Array | None:
    """With the tilts of a draw's replicas, if it has several."""
    if tilts is None or not isinstance(states, TemperedState):
        return None
    return tilts.at[:, index].set(states.tilts)


def _raw(leaf: Array) -> Array:
    """A random key as its bits; anything else as it is."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _like(stored: np.ndarray, wanted: jax.ShapeDtypeStruct) -> Array:
    """The array or random key of that shape and type from its bits."""
    if jnp.issubdtype(wanted.dtype, jax.dtypes.prng_key):
        leaf = jax.random.wrap_key_data(jnp.asarray(stored))
    else:
        leaf = jnp.asarray(stored)
    if leaf.shape != wanted.shape or leaf.dtype != wanted.dtype:
        raise ValueError(f"{leaf.shape} {leaf.dtype} in place of {wanted}")
    return leaf
