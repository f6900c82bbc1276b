"""The compiled block of a sampling run: chains in, draws and moved chains out."""

import hashlib
import json
import math
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ppl_cnn import InputError
from ppl_cnn.inference.kernels import SITE, Transition, make_kernel, start, tilt_gradient
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.network import Params

BLOCK_BYTES = 16 * 2**20
"""Of the images of a block: what is held at once and lost at most."""
LONGEST_BLOCK = 50
"""Draws."""


@dataclass(frozen=True)
class Sampling:
    """What, beside the density, determines the draws."""

    kernel: str = "hmc"
    chains: int = 8
    warmup: int = 200
    """Transitions in which the step size is adapted, not kept."""
    thin: int = 1
    """Transitions per kept draw."""
    target_accept: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("chains", "warmup", "thin"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"The seed must be a non-negative integer, not {self.seed}.")


class Kept(NamedTuple):
    """The draws of a block, and what their transitions report."""

    image: Array
    """(chain, draw, row, col, channel)"""
    response: Array
    """(chain, draw)"""
    transition: Transition
    """(chain, draw) each; gradients and divergences over all transitions since the draw before."""
    stein: Array
    """(chain, row, col, channel): mean of R(grad_z f / T) over the block."""

    def variables(self, count: int, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The first `count` draws as the store's variables, with these `sample_stats`."""
        found = {f"sample_stats/{name}": getattr(self.transition, name) for name in names}
        found |= {"posterior/image": self.image, "posterior/response": self.response}
        kept = {name: np.asarray(values)[:, :count] for name, values in found.items()}
        kept["stein/image"] = np.asarray(self.stein)[:, None]
        kept["stein/draws"] = np.asarray([count])
        return kept


@dataclass(frozen=True)
class Position:
    """Where a run stands."""

    states: Any
    """The kernel's, with a leading axis of chains."""
    warmup: int
    """Transitions done of the warmup."""
    draws: int
    """Kept so far, per chain."""
    blocks: int
    """Of kept draws, so far."""
    gradients: dict[str, int]
    """Evaluated in all chains together, in "warmup" and "sampling"."""
    seconds: dict[str, float]
    """Spent on "compile", "warmup" and "sampling"."""


class Program:
    """The compiled block of a density and a sampling, and how it moves a run on.

    One program serves warmup and sampling and blocks of every length: the number of draws and
    the thinning are arguments of its loops. So nothing is compiled twice, and the bits of a run
    don't depend on where it was stopped. The chains are spread over this process's devices.
    """

    def __init__(self, density: TiltedDensity, sampling: Sampling) -> None:
        self._density, self._sampling = density, sampling
        self._kernel = make_kernel(sampling.kernel, density, sampling.target_accept)
        per_draw = sampling.chains * 4 * math.prod(density.unit.shape)
        self.block = int(np.clip(BLOCK_BYTES // per_draw, 1, LONGEST_BLOCK))
        devices = jax.local_devices()
        count = max(n for n in range(1, len(devices) + 1) if sampling.chains % n == 0)
        self._mesh = Mesh(np.asarray(devices[:count]), ("chain",))
        self._params = jax.device_put(
            density.unit.params, NamedSharding(self._mesh, PartitionSpec())
        )
        # The kernel builds its functions when it first starts; a run that continues needs them too.
        self._states = jax.eval_shape(self._start, self._params, self._keys())
        self._compiled: Callable[..., tuple[Any, Kept]] | None = None

    def config(self, model: str) -> dict[str, Any]:
        """What determines the draws, for the record; weights as a digest."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self._density.unit.params):
            digest.update(np.asarray(leaf).tobytes())
        return {
            "kind": "sampling",
            "model": model,
            "unit": str(self._density.unit),
            "weights": digest.hexdigest()[:16],
            "reference": str(self._density.reference),
            "temperature": self._density.temperature,
            **asdict(self._sampling),
            "block": self.block,
        }

    def _keys(self) -> Array:
        return jax.random.split(jax.random.key(self._sampling.seed), self._sampling.chains)

    def _start(self, params: Params, keys: Array) -> Any:
        chain = partial(start, self._kernel, self._density, params, warmup=self._sampling.warmup)
        return jax.vmap(lambda key: chain(key=key))(keys)

    def begin(self) -> Position:
        """The start of a run: every chain at its own draw of the reference.

        Raises:
            InputError: the response there is not finite.
        """
        clock = time.monotonic()
        split = NamedSharding(self._mesh, PartitionSpec("chain"))
        states = jax.jit(self._start, out_shardings=split)(self._params, self._keys())
        if not np.isfinite(states.potential_energy).all():
            raise InputError(
                f"The response of {self._density.unit} to a draw of {self._density.reference} is "
                f"not finite: the network's weights or preprocessing can't be right."
            )
        seconds = {"compile": time.monotonic() - clock, "warmup": 0.0, "sampling": 0.0}
        return Position(states, 0, 0, 0, {"warmup": 0, "sampling": 0}, seconds)

    def advance(self, position: Position, draws: int) -> tuple[Position, Kept]:
        """Moves a run on by a block, of warmup until that is done and then of draws.

        Args:
            position: where it stands; its states are used up.
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
            position.states,
            np.int32(count),
            np.int32(1 if warming else self._sampling.thin),
        )
        if self._compiled is None:
            self._compiled = self._program().lower(*arguments).compile()
            seconds["compile"] += time.monotonic() - clock
            clock = time.monotonic()
        states, kept = self._compiled(*arguments)
        jax.block_until_ready(states)
        phase = "warmup" if warming else "sampling"
        seconds[phase] += time.monotonic() - clock
        evaluated = int(np.asarray(kept.transition.n_steps, np.int64)[:, :count].sum())
        gradients = {**position.gradients, phase: position.gradients[phase] + evaluated}
        moved = replace(position, states=states, gradients=gradients, seconds=seconds)
        if warming:
            return replace(moved, warmup=position.warmup + count), kept
        return replace(moved, draws=position.draws + count, blocks=position.blocks + 1), kept

    def _program(self) -> jax.stages.Wrapped:
        chains, shared = PartitionSpec("chain"), PartitionSpec()
        block = jax.shard_map(
            self._block,
            mesh=self._mesh,
            in_specs=(shared, chains, shared, shared),
            out_specs=(chains, chains),
            check_vma=False,  # loops over a device's own chains mix them with replicated counters
        )
        return jax.jit(block, donate_argnums=1)

    def _block(self, params: Params, states: Any, count: Array, thin: Array) -> tuple[Any, Kept]:
        """Draws `count` times after `thin` transitions each; what is kept beyond is zero."""
        density = self._density

        def transition(carry: tuple[Any, Transition]) -> tuple[Any, Transition]:
            states, since = carry
            states = jax.vmap(lambda state: self._kernel.sample(state, (params,), {}))(states)
            return states, since.then(jax.vmap(Transition.of)(states))

        def keep(index: Array, carry: tuple[Any, Kept]) -> tuple[Any, Kept]:
            states, kept = carry
            since = jax.tree.map(lambda x: jnp.zeros_like(x[:, 0]), kept.transition)
            states, since = jax.lax.fori_loop(
                0, thin, lambda _, carry: transition(carry), (states, since)
            )
            image = density.reference.push(states.z[SITE])
            response = jax.vmap(partial(density.unit.score, params))(image)
            return states, Kept(
                kept.image.at[:, index].set(image),
                kept.response.at[:, index].set(response),
                jax.tree.map(
                    lambda all_, one: all_.at[:, index].set(one),
                    kept.transition,
                    since.averaged(thin),
                ),
                kept.stein + jax.vmap(tilt_gradient)(states),
            )

        states, kept = jax.lax.fori_loop(0, count, keep, (states, self._nothing(states)))
        return states, kept._replace(stein=density.reference.push(kept.stein / count))

    def _nothing(self, states: Any) -> Kept:
        """Room for a block of draws of these chains."""
        chains, shape = states.z[SITE].shape[0], self._density.unit.shape
        transition = jax.eval_shape(jax.vmap(Transition.of), states)
        return Kept(
            jnp.zeros((chains, self.block, *shape)),
            jnp.zeros((chains, self.block)),
            jax.tree.map(lambda x: jnp.zeros((chains, self.block), x.dtype), transition),
            jnp.zeros((chains, *shape)),
        )

    def save(self, position: Position, path: Path) -> None:
        """Writes where the run stands, aside and renamed."""
        leaves = jax.tree.leaves(jax.tree.map(_raw, position.states))
        counts = {name: getattr(position, name) for name in ("warmup", "draws", "blocks")}
        text = json.dumps({**counts, "gradients": position.gradients, "seconds": position.seconds})
        aside = path.with_name(f".{path.name}.partial")
        with open(aside, "wb") as file:
            np.savez(file, *(np.asarray(leaf) for leaf in leaves), position=np.asarray(text))
        aside.replace(path)

    def restore(self, path: Path) -> Position | None:
        """Where the run stood when it was stopped; None if it had not begun.

        Raises:
            InputError: the file is damaged.
        """
        if not path.exists():
            return None
        wanted, tree = jax.tree.flatten(self._states)
        split = NamedSharding(self._mesh, PartitionSpec("chain"))
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                counts = json.loads(str(file["position"]))
                leaves = [file[f"arr_{index}"] for index in range(len(wanted))]
            states = [_like(leaf, w) for leaf, w in zip(leaves, wanted, strict=True)]
            return Position(jax.device_put(jax.tree.unflatten(tree, states), split), **counts)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            raise InputError(
                f"{path} is damaged, so the run can't be continued; its draws remain readable, "
                f"and another --out starts a new one."
            ) from None


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
