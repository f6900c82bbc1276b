"""Effective draws per gradient and per second of the kernels, ours and others'.

    python benchmarks/samplers.py                 # all cases, some 40 minutes on two cores
    python benchmarks/samplers.py lenet           # those whose names begin so

Needs the extra `test`, for blackjax. With PPL_CNN_REAL_WEIGHTS, a folder that holds squeezenet.pkl
(tests/fetch_real_inputs.py makes it), SqueezeNet is the trained one, otherwise its weights are
random. All kernels sample the same potential in z, with our convolutions, all chains in one batch,
in turn in one run: split with its own adaptation; NumPyro's HMC (trajectories of a quarter turn,
jittered as ppl_cnn has them) and NUTS, blackjax's HMC (as many leapfrogs as make a quarter turn at
the step that suits the Gaussian) and NUTS, these with the step found by dual averaging towards the
same acceptance and the identity as mass matrix. For every case and kernel a JSON object:

    ess: smallest effective sample size of response, lp and 50 random projections of the image; bulk
        and tail, over all chains
    ess_per_1000_gradients, ess_per_second: of the smaller of the two, without warmup and compiling
    gradients: of all chains together while drawing; warmup_gradients: before
    step_size, acceptance: after the warmup
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import arviz
import blackjax
import jax
import jax.numpy as jnp
import numpy as np

import ppl_cnn
from ppl_cnn.inference.adaptation import Evidence, Tuning
from ppl_cnn.inference.kernels import (
    SITE,
    evidence_of,
    first_tuning,
    gaussian_step_size,
    make_kernel,
    retuned,
    start,
)
from ppl_cnn.models.cnn import CNN
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks import ALEXNET, LENET, SQUEEZENET
from ppl_cnn.models.references import WhiteNoise

TARGET = 0.8
PROJECTIONS = 50


@dataclass(frozen=True)
class Case:
    """What is sampled, and for how long."""

    name: str
    density: Callable[[], TiltedDensity]
    chains: int
    warmup: int
    draws: int


class Draw(NamedTuple):
    """What is kept of a transition of one chain."""

    response: jax.Array
    lp: jax.Array
    projections: jax.Array
    gradients: jax.Array
    acceptance: jax.Array
    step_size: jax.Array


def squeezenet(side, temperature):
    """The score of ImageNet's class 1 on images of that side."""
    network = replace(SQUEEZENET, image_shape=(side, side, 3))
    folder = os.environ.get("PPL_CNN_REAL_WEIGHTS")
    if folder:
        trained = ppl_cnn.load("squeezenet1.1", Path(folder) / "squeezenet.pkl")
        cnn = CNN(network, trained.arrays())
    else:
        cnn = CNN.random(network)
    return TiltedDensity(cnn.unit("class:1"), WhiteNoise(10.0), temperature)


def random_unit(network, unit, temperature):
    return TiltedDensity(CNN.random(network).unit(unit), WhiteNoise(10.0), temperature)


CASES = (
    Case("lenet-class-T1", partial(random_unit, LENET, "fc4:3", 1.0), 4, 300, 1000),
    Case("lenet-class-T1/30", partial(random_unit, LENET, "fc4:3", 1 / 30), 4, 300, 1000),
    Case("squeezenet-64-T1", partial(squeezenet, 64, 1.0), 4, 100, 300),
    Case("squeezenet-64-T1/30", partial(squeezenet, 64, 1 / 30), 4, 100, 300),
    Case("squeezenet-128-T1", partial(squeezenet, 128, 1.0), 4, 60, 150),
    Case("squeezenet-227-T1", partial(squeezenet, 227, 1.0), 2, 60, 150),
    Case("squeezenet-227-T1/30", partial(squeezenet, 227, 1 / 30), 2, 60, 150),
    Case("alexnet-conv5-T1", partial(random_unit, ALEXNET, "conv5:12", 1.0), 2, 60, 150),
)


def ours(name, density):
    """Kernels of the chain driver, adapted as it does."""
    kernel = make_kernel(name, density)

    def begin(params, key):
        return start(kernel, density, params, key)

    def move(params, state):
        return kernel.sample(state, (params,), {})

    def told(params, state):
        return state.z[SITE], state.num_steps, state.accept_prob, state.adapt_state.step_size

    return begin, move, told, first_tuning, evidence_of, retuned


def blackjaxes(name, density):
    """blackjax's HMC or NUTS, with the driver's pooled dual averaging for their steps."""
    first = gaussian_step_size(int(np.prod(density.latent_shape)))
    steps = max(1, round(np.pi / 2 / first))
    options = {"num_integration_steps": steps} if name == "hmc" else {}
    mass = jnp.ones(int(np.prod(density.latent_shape)))
    build = blackjax.hmc.build_kernel() if name == "hmc" else blackjax.nuts.build_kernel()

    def log_density(params, flat):
        return -density.potential(flat.reshape(density.latent_shape), params)

    def begin(params, key):
        flat = jax.random.normal(key, mass.shape)
        init = blackjax.hmc.init if name == "hmc" else blackjax.nuts.init
        state = init(flat, partial(log_density, params))
        return state, key, jnp.asarray(first), jnp.zeros(()), jnp.zeros((), jnp.int32)

    def move(params, carry):
        state, key, step, _, _ = carry
        key, now = jax.random.split(key)
        target = partial(log_density, params)
        state, info = build(now, state, target, step, mass, **options)
        count = jnp.asarray(getattr(info, "num_integration_steps", steps), jnp.int32)
        return state, key, step, info.acceptance_rate, count

    def told(params, carry):
        state, _, step, acceptance, count = carry
        return state.position.reshape(density.latent_shape), count, acceptance, step

    def first_of(carry):
        return Tuning.around(carry[2], None)

    def evidence(carry):
        return Evidence(carry[3])

    def tuned(carry, step, angle):
        return (*carry[:2], step, *carry[3:])

    return begin, move, told, first_of, evidence, tuned


def run(case, density, kernel):
    """Samples, and returns the draws (chain, draw), the warmup's gradients, and seconds."""
    begin, move, told, first_of, evidence, tuned = kernel
    params = density.unit.params
    size = int(np.prod(density.unit.shape))
    directions = jax.random.normal(jax.random.key(99), (size, PROJECTIONS)) / np.sqrt(size)

    def report(params, state):
        z, gradients, acceptance, step = told(params, state)
        image = density.push(z)
        response = density.unit.score(params, image)
        lp = response / density.temperature - jnp.sum(z * z) / 2
        return Draw(response, lp, image.ravel() @ directions, gradients, acceptance, step)

    def transition(params, carry, adapting):
        states, tuning = carry
        states = jax.vmap(move, (None, 0))(params, states)
        if adapting:
            pooled = jax.tree.map(lambda leaf: leaf.mean(axis=0), jax.vmap(evidence)(states))
            tuning = tuning.update(pooled, TARGET)
            step, angle = tuning.current(tuning.step.transitions >= case.warmup)
            every = partial(jnp.broadcast_to, shape=(case.chains,))
            states = tuned(states, every(step), None if angle is None else every(angle))
        return (states, tuning), jax.vmap(report, (None, 0))(params, states)

    def begun(params, keys):
        states = jax.vmap(begin, (None, 0))(params, keys)
        return states, first_of(jax.tree.map(lambda leaf: leaf[0], states))

    def block(adapting, count):
        return jax.jit(
            lambda params, carry: jax.lax.scan(
                lambda carry, _: transition(params, carry, adapting), carry, length=count
            )
        )

    keys = jax.random.split(jax.random.key(0), case.chains)
    carry, warm = block(True, case.warmup)(params, jax.jit(begun)(params, keys))
    draw = block(False, case.draws).lower(params, carry).compile()
    began = time.perf_counter()
    _, draws = jax.block_until_ready(draw(params, carry))
    seconds = time.perf_counter() - began
    draws = jax.tree.map(lambda leaf: np.swapaxes(np.asarray(leaf), 0, 1), draws)
    return draws, int(np.sum(warm.gradients)), seconds


def smallest_ess(draws):
    """Bulk and tail (5 and 95 %), over the quantities."""
    quantities = [draws.response, draws.lp, *np.moveaxis(draws.projections, 2, 0)]
    options = {"bulk": {}, "tail": {"prob": (0.05, 0.95)}}
    return {
        method: min(
            float(arviz.ess(values.astype(np.float64), method=method, **more))
            for values in quantities
        )
        for method, more in options.items()
    }


def main(wanted):
    for case in CASES:
        if wanted and not any(case.name.startswith(name) for name in wanted):
            continue
        density = case.density()
        kernels = {
            "split": ours("split", density),
            "numpyro-hmc": ours("hmc", density),
            "numpyro-nuts": ours("nuts", density),
            "blackjax-hmc": blackjaxes("hmc", density),
            "blackjax-nuts": blackjaxes("nuts", density),
        }
        for name, kernel in kernels.items():
            draws, warmup_gradients, seconds = run(case, density, kernel)
            ess, gradients = smallest_ess(draws), int(draws.gradients.sum())
            line = {
                "case": case.name,
                "kernel": name,
                "chains": case.chains,
                "draws": case.draws,
                "ess": {method: round(value, 1) for method, value in ess.items()},
                "ess_per_1000_gradients": round(1000 * min(ess.values()) / gradients, 2),
                "ess_per_second": round(min(ess.values()) / seconds, 3),
                "gradients": gradients,
                "warmup_gradients": warmup_gradients,
                "step_size": round(float(draws.step_size.mean()), 4),
                "acceptance": round(float(draws.acceptance.mean()), 3),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
