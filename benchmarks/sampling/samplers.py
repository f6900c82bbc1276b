"""Effective draws per gradient and per second of the kernels, ours and others'.

    python -m benchmarks.sampling.samplers draws.jsonl         # all: about five hours of a core
    python -m benchmarks.sampling.samplers draws.jsonl lenet-T1 squeezenet-64-T1:tempered  # some
    python -m benchmarks.sampling.samplers_table draws.jsonl ...               # tables, picture

Needs the extra `test`, for blackjax; TensorFlow Probability's kernels take part where it can be
imported (tfp-nightly 0.26.0.dev20261027 can under JAX 0.12, release 0.25.0 can't). SqueezeNet has
its published weights, from the folder that PPL_CNN_REAL_WEIGHTS names (tests/fetch_real_inputs.py
makes it). Lines that the file holds already are not run again.

All kernels sample the same potential in z, with our convolutions, a case's chains in one batch, in
turn in one process, and are given the same number of gradients: half of it is first spent by split,
whose last points are where all of them start; a quarter on each one's own adaptation; then it is
spent on draws. NumPyro's HMC has trajectories of a quarter turn, jittered as ppl_cnn has them; HMC
of blackjax and TFP as many leapfrogs as make a quarter turn at the step that suits the Gaussian.
Steps are found by pooled dual averaging towards the acceptance that each kernel's authors advise,
and the mass matrix is the identity. split, mgrad_gaussian, pcn and elliptical_slice know that the
reference is Gaussian. langevin is approximate: its chains all take the whole step here, its bias
isn't measured, and its figures don't compare with an exact kernel's. For every case, kernel and
seed a JSON object:

    ess: smallest effective sample size of response, lp and 50 random projections of the image; bulk
        and tail, over all chains; null for fewer than 10 draws a chain, which are too few
    ess_per_1000_gradients, ess_per_cpu_second: of the smaller of the two, while drawing
    gradients: of all chains together while drawing; warmup_gradients: in its own adaptation. A
        forward pass without a gradient, which isir, pcn and elliptical_slice make, counts as
        FORWARD_COST, 0.45 of one; elliptical_slice takes a gradient too, for the Stein mean
    tilt_sd: standard deviation of g = f/T over 200 draws of the reference; where it is far below 1
        the density is nearly the reference, and the case is easy
    seconds, cpu_seconds: of drawing, by the clock and of this process; warmup_, compile_seconds
    step_size, acceptance: after the warmup; split's step is an upper bound, as it divides angles
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import arviz
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.common import add_line, command_line, missing, squeezenet
from benchmarks.sampling.kernels import BLACKJAX, NUMPYRO, OURS, TFP, Kernel, kernel_of, ours
from ppl_cnn.inference.diagnostics.thresholds import ESS_DRAWS
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET, LENET
from ppl_cnn.models.references.noise import WhiteNoise
from ppl_cnn.models.trained.cnn import CNN

REFERENCE_DRAWS = 200
"""Draws of the reference by which `tilt_sd` is estimated."""
PROJECTIONS = 50
LEAST_WARMUP = 24
"""Transitions; a tree of NUTS may cost so much that few fit into the budget."""


def of_squeezenet(side: int, temperature: float) -> TiltedDensity:
    """Class 1 of SqueezeNet on images of that side, under white noise of 10 grey levels."""
    return TiltedDensity(squeezenet(side).unit("class:1"), WhiteNoise(10.0), temperature)


def random_unit(network, unit, temperature):
    return TiltedDensity(CNN.random(network).unit(unit), WhiteNoise(10.0), temperature)


@dataclass(frozen=True)
class Case:
    """What is sampled, by whom, and for how many gradients."""

    name: str
    density: Callable[[], TiltedDensity]
    chains: int
    gradients: int
    block: int
    """Transitions between two looks at the budget."""
    gradient_seconds: float
    """About how long a gradient of one image takes, to estimate the time left."""
    kernels: tuple[str, ...] = (*OURS, "pcn", *NUMPYRO, *BLACKJAX, *TFP)
    seed: int = 0

    @property
    def kernels_by_name(self) -> dict[str, str]:
        """CASE:KERNEL, as the command line has it, to the kernel."""
        return {f"{self.name}:{kernel}": kernel for kernel in self.kernels}

    @property
    def cost(self) -> float:
        return self.gradients * self.gradient_seconds


LENETS = partial(random_unit, LENET, "fc4:3")
ALEXNETS = partial(random_unit, ALEXNET, "conv5:12")
OTHERS = ("split", "langevin", "pcn", *NUMPYRO, *BLACKJAX, *TFP)
"""All but `tempered`: where the tilt is strong, a transition of one of its ladders takes up to
16,000 gradients, and two ladders have a case of their own."""
LARGE = Case("squeezenet-227-T1", partial(of_squeezenet, 227, 1.0), 2, 3_000, 8, 0.03)
STRONG = (
    Case("squeezenet-64-T1/30", partial(of_squeezenet, 64, 1 / 30), 4, 10_000, 20, 2e-3, OTHERS),
    Case("squeezenet-128-T1/30", partial(of_squeezenet, 128, 1 / 30), 4, 4_000, 10, 8e-3, OTHERS),
)
CASES = (
    LARGE,
    Case("lenet-T1", partial(LENETS, 1.0), 4, 40_000, 50, 3e-4),
    Case("lenet-T1/30", partial(LENETS, 1 / 30), 4, 40_000, 50, 3e-4),
    Case("squeezenet-64-T1", partial(of_squeezenet, 64, 1.0), 4, 10_000, 20, 2e-3),
    Case("squeezenet-128-T1", partial(of_squeezenet, 128, 1.0), 4, 4_000, 10, 8e-3),
    Case("alexnet-conv5-T1", partial(ALEXNETS, 1.0), 2, 3_000, 8, 0.012),
    replace(LARGE, seed=1, kernels=("split", "numpyro-hmc", "blackjax-hmc")),
    Case("squeezenet-227-T1/30", partial(of_squeezenet, 227, 1 / 30), 2, 2_000, 8, 0.03),
    *STRONG,
    *(replace(case, chains=2, block=8, kernels=("tempered",)) for case in STRONG),
)
TOY = (
    Case(
        "lenet-T1",
        partial(LENETS, 1.0),
        2,
        60,
        2,
        3e-4,
        ("split", "isir", "pcn", "numpyro-hmc", "blackjax-mala"),
    ),
)


class Draw(NamedTuple):
    """What is kept of a transition of one chain."""

    response: jax.Array
    lp: jax.Array
    projections: jax.Array
    gradients: jax.Array
    acceptance: jax.Array
    step_size: jax.Array


def _without_weak_type(leaf):
    return leaf.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.number) else leaf


class Run:
    """Chains of a case under a kernel, in blocks of transitions, and what they cost."""

    def __init__(self, case: Case, density: TiltedDensity, kernel: Kernel) -> None:
        self.case, self.density, self.kernel = case, density, kernel
        size = int(np.prod(density.unit.shape))
        self.directions = jax.random.normal(jax.random.key(99), (size, PROJECTIONS)) / np.sqrt(size)
        self.compile_seconds = 0.0

    def begin(self, z):
        """States at these points, and where their adaptation begins."""
        keys = jax.random.split(jax.random.key(1 + self.case.seed), len(z))
        states = jax.jit(jax.vmap(self.kernel.begin, (None, 0, 0)))(self.density.params, keys, z)
        return states, self.kernel.tuning(jax.tree.map(lambda leaf: leaf[0], states))

    def spend(self, carry, gradients: int, adapting: bool, least: int = 0):
        """Runs transitions until that many gradients and at least so many transitions are done.

        Returns:
            The carry, the draws (chain, draw) as NumPy arrays, seconds by the clock and of this
            process.
        """
        carry = jax.tree.map(_without_weak_type, carry)
        params, began = self.density.params, time.perf_counter()
        block = jax.jit(partial(self._block, adapting)).lower(params, carry).compile()
        self.compile_seconds += time.perf_counter() - began
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
        return carry, whole, clock, cpu

    def settled(self, carry):
        """The carry, moving from now on with the averages of the adaptation."""
        states, tuning = carry
        return self._tuned(states, tuning, settled=True), tuning

    def points(self, carry):
        return jax.vmap(self.kernel.told)(carry[0]).z

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


def smallest_ess(draws):
    """The quantities' smallest ESS, bulk and tail (5 and 95 %); None if draws are too few."""
    if draws.response.shape[1] < ESS_DRAWS:
        return None
    quantities = [draws.response, draws.lp, *np.moveaxis(draws.projections, 2, 0)]
    options = {"bulk": {}, "tail": {"prob": (0.05, 0.95)}}
    return {
        method: min(
            float(arviz.ess(values.astype(np.float64), method=method, **more))
            for values in quantities
        )
        for method, more in options.items()
    }


def burnt_in(case, density):
    """Points near which the density's mass is: where split has come to from the reference."""
    shape = (case.chains, *density.latent_shape)
    run = Run(case, density, ours("split", density))
    carry = run.begin(jax.random.normal(jax.random.key(100 + case.seed), shape))
    carry, *_ = run.spend(carry, case.gradients // 2, adapting=True)
    return run.points(carry)


def tilt_sd(density):
    """The standard deviation of g under the reference."""
    keys = jax.random.split(jax.random.key(7), REFERENCE_DRAWS)

    @jax.jit
    def tilts(params, keys):
        def one(key):
            return density.tilt(jax.random.normal(key, density.latent_shape), params)

        return jax.lax.map(one, keys)

    return float(tilts(density.params, keys).std())


def measured(case, density, name, z):
    """Runs a kernel on a case from these points; its line."""
    run = Run(case, density, kernel_of(name, density))
    carry, warm, warm_clock, _ = run.spend(
        run.begin(z), case.gradients // 4, adapting=True, least=LEAST_WARMUP
    )
    _, draws, clock, cpu = run.spend(run.settled(carry), case.gradients, adapting=False)
    ess, gradients = smallest_ess(draws), int(draws.gradients.sum())
    smaller = min(ess.values()) if ess else None
    return {
        "case": case.name,
        "kernel": name,
        "seed": case.seed,
        "chains": case.chains,
        "draws": draws.response.shape[1],
        "ess": ess and {method: round(value, 1) for method, value in ess.items()},
        "ess_per_1000_gradients": smaller and round(1000 * smaller / gradients, 2),
        "ess_per_cpu_second": smaller and round(smaller / cpu, 3),
        "gradients": gradients,
        "warmup_gradients": int(warm.gradients.sum()),
        "seconds": round(clock, 1),
        "cpu_seconds": round(cpu, 1),
        "warmup_seconds": round(warm_clock, 1),
        "compile_seconds": round(run.compile_seconds, 1),
        "step_size": round(float(draws.step_size.mean()), 4),
        "acceptance": round(float(draws.acceptance.mean()), 3),
    }


def chosen(cases, wanted):
    """The cases and kernels that the command line names, all by default.

    Args:
        cases: a tuple of `Case`.
        wanted: CASE or CASE:KERNEL.
    """
    known = {name for case in cases for name in (case.name, *case.kernels_by_name)}
    if unknown := sorted(set(wanted) - known):
        names = ", ".join(dict.fromkeys(case.name for case in cases))
        sys.exit(f"Unknown case {unknown[0]!r}. Known: {names}, and CASE:KERNEL of those it has.")
    return [
        (case, kernel)
        for case in cases
        for name, kernel in case.kernels_by_name.items()
        if not wanted or {case.name, name} & set(wanted)
    ]


def main():
    parser = command_line(__doc__)
    parser.add_argument("out", type=Path, help="the file of lines")
    parser.add_argument("wanted", nargs="*", metavar="CASE[:KERNEL]", help="all by default")
    options = parser.parse_args()
    pairs = {
        (case.name, kernel, case.seed): (case, kernel)
        for case, kernel in chosen(TOY if options.toy else CASES, options.wanted)
    }
    names = missing(options.out, pairs, lambda line: (line["case"], line["kernel"], line["seed"]))
    todo = [pairs[name] for name in names]
    began, spent = time.perf_counter(), 0.0
    whole = sum(case.cost for case, _ in todo)
    for case in dict.fromkeys(case for case, _ in todo):
        density = case.density()
        z, spread = burnt_in(case, density), tilt_sd(density)
        print(f"{case.name}: sd of g under the reference {spread:.3g}", file=sys.stderr)
        for kernel in [kernel for each, kernel in todo if each == case]:
            line = measured(case, density, kernel, z)
            add_line(options.out, {**line, "tilt_sd": float(f"{spread:.3g}")})
            spent += case.cost
            passed = time.perf_counter() - began
            left = passed / spent * (whole - spent)
            print(f"{case.name} {kernel}: {passed:.0f} s, {left:.0f} s to go", file=sys.stderr)


if __name__ == "__main__":
    main()
