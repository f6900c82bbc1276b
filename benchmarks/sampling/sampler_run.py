"""Chains of a case under a kernel: what they draw, and what that costs."""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.sampling.kernels import Kernel
from benchmarks.sampling.sampler_cases import Case
from ppl_cnn.models.density import TiltedDensity

PROJECTIONS = 50


class Draw(NamedTuple):
    """What is kept of a transition of one chain."""

    response: jax.Array
    lp: jax.Array
    projections: jax.Array
    gradients: jax.Array
    acceptance: jax.Array
    step_size: jax.Array


class Spent(NamedTuple):
    """What transitions have given and taken."""

    draws: Any
    """`Draw` of NumPy arrays (chain, draw)."""
    seconds: float
    """By the clock."""
    cpu_seconds: float
    """This process's."""


def _without_weak_type(leaf):
    return leaf.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.number) else leaf


class Run:
    """Chains of a case under a kernel, in blocks of transitions, compiled once for all seeds."""

    def __init__(self, case: Case, density: TiltedDensity, kernel: Kernel) -> None:
        self.case, self.density, self.kernel = case, density, kernel
        size = int(np.prod(density.unit.shape))
        self.directions = jax.random.normal(jax.random.key(99), (size, PROJECTIONS)) / np.sqrt(size)
        self.compile_seconds = 0.0
        self._compiled: dict[Any, Any] = {}

    def begin(self, z, seed: int):
        """States at these points, and where their adaptation begins."""
        keys = jax.random.split(jax.random.key(1 + seed), len(z))
        states = jax.jit(jax.vmap(self.kernel.begin, (None, 0, 0)))(self.density.params, keys, z)
        return states, self._tuning(states)

    def warmed(self, z, seed: int):
        """The carry after the warm-up from these points, the gradients and the seconds it took."""
        if self.kernel.warm is None:
            budget = self.case.gradients // 4
            least = self.kernel.least_warmup
            carry, spent = self.spend(self.begin(z, seed), budget, adapting=True, least=least)
            return self.settled(carry), spent.draws.gradients.sum(), spent.seconds
        program = partial(self.kernel.warm, budget=self.case.gradients // 2)
        arguments = self.density.params, jax.random.key(1 + seed), z
        warm = self._program("warm", program, arguments)
        began = time.perf_counter()
        states, count = jax.block_until_ready(warm(*arguments))
        return (states, self._tuning(states)), count, time.perf_counter() - began

    def spend(self, carry, gradients: int, *, adapting: bool = False, least: int = 0):
        """Runs transitions until that many gradients and at least so many transitions are done.

        Returns:
            The carry, and what was `Spent`.
        """
        carry = jax.tree.map(_without_weak_type, carry)
        params = self.density.params
        block = self._program(adapting, partial(self._block, adapting), (params, carry))
        blocks: list[Draw] = []
        clock, cpu = time.perf_counter(), time.process_time()
        with tqdm(
            total=gradients, desc="warmup" if adapting else "draws", unit="gradient", leave=False
        ) as progress:
            while progress.n < gradients or len(blocks) * self.case.block < least:
                carry, draws = block(params, carry)
                blocks.append(jax.tree.map(np.asarray, draws))
                progress.update(int(blocks[-1].gradients.sum()))
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
        whole = jax.tree.map(lambda *each: np.swapaxes(np.concatenate(each), 0, 1), *blocks)
        return carry, Spent(whole, clock, cpu)

    def settled(self, carry):
        """The carry, moving from now on with the averages of the adaptation."""
        states, tuning = carry
        return self._tuned(states, tuning, settled=True), tuning

    def points(self, carry):
        """Where the chains are."""
        return jax.vmap(self.kernel.told)(carry[0]).z

    def _program(self, name, function, arguments):
        """A function, compiled for such arguments when it is first asked for."""
        if name not in self._compiled:
            began = time.perf_counter()
            self._compiled[name] = jax.jit(function).lower(*arguments).compile()
            self.compile_seconds += time.perf_counter() - began
        return self._compiled[name]

    def _tuning(self, states):
        return self.kernel.tuning(jax.tree.map(lambda leaf: leaf[0], states))

    def _block(self, adapting, params, carry):
        def transition(carry, _):
            states, tuning = carry
            states = jax.vmap(self.kernel.move, (None, 0))(params, states)
            if adapting:
                feedback = jax.vmap(self.kernel.feedback)(states)
                tuning = tuning.update(
                    jax.tree.map(lambda leaf: leaf.mean(axis=0), feedback), self.kernel.target
                )
                states = self._tuned(states, tuning, settled=False)
            return (states, tuning), jax.vmap(self._report, (None, 0))(params, states)

        return jax.lax.scan(transition, carry, length=self.case.block)

    def _tuned(self, states, tuning, settled):
        found = tuning.current(jnp.asarray(settled))
        return jax.vmap(self.kernel.tuned, (0, None))(states, found)

    def _report(self, params, state):
        told, density = self.kernel.told(state), self.density
        image = density.push(told.z, params)
        response = density.unit.score(params.unit, image)
        lp = response / density.temperature - jnp.sum(told.z * told.z) / 2
        return Draw(response, lp, image.ravel() @ self.directions, *told[1:])
