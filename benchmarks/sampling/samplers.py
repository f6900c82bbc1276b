"""Effective draws per gradient and per second of the kernels, ours and others'.

    python -m benchmarks.sampling.samplers draws.jsonl                    # all: hours of a core
    python -m benchmarks.sampling.samplers draws.jsonl --cases lenet-T1 --kernels split pcn
    python -m benchmarks.sampling.samplers_table draws.jsonl ...                 # tables, picture

Needs the extra `test`, for blackjax; TensorFlow Probability's kernels take part where it can be
imported (tfp-nightly 0.26.0.dev20261027 can under JAX 0.12, release 0.25.0 can't). SqueezeNet and
the faces have published weights, from the folder that PPL_CNN_REAL_WEIGHTS names
(tests/fetch_real_inputs.py makes it); a LeNet is trained in runs/samplers-lenet at its first use.
Lines that the file holds already are not run again.

All kernels sample the same potential in z, with our convolutions, a case's chains in one batch, in
turn in one process, and draw for the same number of gradients. Before, split takes half of it, and
its last points are where all of them start. Then each has a warm-up. Where the step alone is
adapted, pooled dual averaging does it here, for a quarter of the gradients, towards the acceptance
that the kernel's authors advise; the mass matrix is the identity. Kernels that their library tunes
(self_tuned.py) take what its warm-up needs.

NumPyro's HMC has trajectories of a quarter turn, jittered as ppl_cnn has them; HMC of blackjax and
TFP as many leapfrogs as make a quarter turn at the step that suits the Gaussian. split, isir,
mgrad_gaussian, pcn and elliptical_slice know that the reference is Gaussian. langevin (all chains
take the whole step here) and mclmc never reject: their draws are biased.

For every case, kernel and seed a JSON object:

    ess: smallest effective sample size of response, lp and 50 random projections of the image; bulk
        and tail, over all chains; null for fewer than 10 draws a chain, which are too few
    ess_per_1000_gradients, ess_per_cpu_second: of the smaller of the two, while drawing
    gradients: of all chains together while drawing; warmup_gradients: in its own warm-up. A
        forward pass without a gradient counts as FORWARD_COST, 0.45 of one
    tilt_sd: standard deviation of g = f/T over 200 draws of the reference; where it is far below 1
        the density is nearly the reference, and the case is easy
    mean, sd, mean_error, sd_error: of the 52 quantities, with Monte Carlo standard errors
    seconds, cpu_seconds: of drawing, by the clock and of this process; warmup_, compile_seconds
    step_size, acceptance: after the warmup; split's step is an upper bound, as it divides angles
"""

import sys
import time
from pathlib import Path

import arviz
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import add_line, command_line, missing
from benchmarks.sampling.kernels import kernel_of
from benchmarks.sampling.sampler_cases import CASES, TOY
from benchmarks.sampling.sampler_run import Run
from benchmarks.sampling.self_tuned import SELF_TUNED
from ppl_cnn.inference.diagnostics.thresholds import ESS_DRAWS

REFERENCE_DRAWS = 200
"""Draws of the reference by which `tilt_sd` is estimated."""


def quantities_of(draws):
    """Response, lp and projections, each (chain, draw)."""
    each = [draws.response, draws.lp, *np.moveaxis(draws.projections, 2, 0)]
    return [values.astype(np.float64) for values in each]


def smallest_ess(quantities):
    """The quantities' smallest ESS, bulk and tail (5 and 95 %); None if draws are too few."""
    if quantities[0].shape[1] < ESS_DRAWS:
        return None
    options = {"bulk": {}, "tail": {"prob": (0.05, 0.95)}}
    return {
        method: min(float(arviz.ess(values, method=method, **more)) for values in quantities)
        for method, more in options.items()
    }


def moments(quantities):
    """Mean and standard deviation of each quantity, with their Monte Carlo errors."""
    with np.errstate(invalid="ignore"):  # A handful of draws may have no error of their sd.
        found = {
            "mean": [values.mean() for values in quantities],
            "sd": [values.std() for values in quantities],
            "mean_error": [arviz.mcse(values, method="mean") for values in quantities],
            "sd_error": [arviz.mcse(values, method="sd") for values in quantities],
        }
    return {name: [float(f"{value:.5g}") for value in values] for name, values in found.items()}


def burnt_in(run, seed, count):
    """Points near which the density's mass is: where split has come to from the reference.

    Args:
        run: of split.
        seed: of its noise.
        count: how many points; where there are fewer chains, each gives several in turn.
    """
    chains, budget = run.case.chains, run.case.gradients // 4
    key = jax.random.key(100 + seed)
    carry = run.begin(jax.random.normal(key, (chains, *run.density.latent_shape)), seed)
    carry, _ = run.spend(carry, budget, adapting=True)
    rounds, points = -(-count // chains), []
    for _ in range(rounds):
        carry, _ = run.spend(carry, budget // rounds, adapting=True, least=1)
        points.append(run.points(carry))
    return jnp.concatenate(points)


def tilt_sd(density):
    """The standard deviation of g under the reference."""
    keys = jax.random.split(jax.random.key(7), REFERENCE_DRAWS)

    @jax.jit
    def tilts(params, keys):
        def one(key):
            return density.tilt(jax.random.normal(key, density.latent_shape), params)

        return jax.lax.map(one, keys)

    return float(tilts(density.params, keys).std())


def measured(run, z, seed):
    """Draws by a kernel from these points; the line's numbers."""
    carry, warmup_gradients, warmup_seconds = run.warmed(z, seed)
    _, (draws, clock, cpu) = run.spend(carry, run.case.gradients)
    quantities, gradients = quantities_of(draws), int(draws.gradients.sum())
    ess = smallest_ess(quantities)
    smaller = min(ess.values()) if ess else None
    return {
        "chains": len(z),
        "draws": draws.response.shape[1],
        "ess": ess and {method: round(value, 1) for method, value in ess.items()},
        "ess_per_1000_gradients": smaller and round(1000 * smaller / gradients, 2),
        "ess_per_cpu_second": smaller and round(smaller / cpu, 3),
        "gradients": gradients,
        "warmup_gradients": int(warmup_gradients),
        "seconds": round(clock, 1),
        "cpu_seconds": round(cpu, 1),
        "warmup_seconds": round(warmup_seconds, 1),
        "compile_seconds": round(run.compile_seconds, 1),
        "step_size": round(float(draws.step_size.mean()), 4),
        "acceptance": round(float(draws.acceptance.mean()), 3),
        **(moments(quantities) if ess else {}),
    }


def chains_of(case, kernel):
    """How many chains a kernel has in a case."""
    return (kernel in SELF_TUNED and SELF_TUNED[kernel].chains) or case.chains


def lines_of(case, todo):
    """The lines of a case, as they come.

    Args:
        case: the case.
        todo: pairs of a kernel and a seed.
    """
    density = case.density()
    spread = float(f"{tilt_sd(density):.3g}")
    print(f"{case.name}: sd of g under the reference {spread}", file=sys.stderr)
    most = max(chains_of(case, kernel) for kernel, _ in todo)
    burning = Run(case, density, kernel_of("split", density))
    points = {seed: burnt_in(burning, seed, most) for seed in {seed for _, seed in todo}}
    for kernel in dict.fromkeys(kernel for kernel, _ in todo):
        run = burning if kernel == "split" else Run(case, density, kernel_of(kernel, density))
        for seed in [seed for name, seed in todo if name == kernel]:
            z = points[seed][-chains_of(case, kernel) :]
            line = {"case": case.name, "kernel": kernel, "seed": seed, "tilt_sd": spread}
            yield {**line, **measured(run, z, seed)}


def checked(parser, wanted, known):
    """The wanted names, all known ones by default; refuses others."""
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return wanted or known


def main():
    parser = command_line(__doc__)
    parser.add_argument("out", type=Path, help="the file of lines")
    parser.add_argument("--cases", nargs="*", default=[], help="all by default")
    parser.add_argument("--kernels", nargs="*", default=[], help="all by default")
    options = parser.parse_args()
    cases = {case.name: case for case in (TOY if options.toy else CASES)}
    names = checked(parser, options.cases, list(cases))
    all_kernels = dict.fromkeys(kernel for case in cases.values() for kernel in case.kernels)
    kernels = checked(parser, options.kernels, list(all_kernels))
    wanted = [
        (name, kernel, seed)
        for name in names
        for kernel in cases[name].kernels
        if kernel in kernels
        for seed in cases[name].seeds
    ]
    todo = missing(options.out, wanted, lambda line: (line["case"], line["kernel"], line["seed"]))
    began, spent = time.perf_counter(), 0.0
    whole = sum(cases[name].cost for name, _, _ in todo)
    for name in dict.fromkeys(name for name, _, _ in todo):
        own = [(kernel, seed) for case, kernel, seed in todo if case == name]
        for line in lines_of(cases[name], own):
            add_line(options.out, line)
            spent += cases[name].cost
            passed = time.perf_counter() - began
            left = passed / spent * (whole - spent)
            told = f"{name} {line['kernel']}, seed {line['seed']}"
            print(f"{told}: {passed:.0f} s, {left:.0f} s to go", file=sys.stderr)


if __name__ == "__main__":
    main()
