"""What a leapfrog costs: in the driver, bare, and in plain NumPyro with ordinary convolutions.

    python benchmarks/leapfrog.py

For AlexNet with random weights, a JSON object a line:

    driver_over_gradient: the driver's time per leapfrog of its longest chain, everything that a
        draw takes included (momenta, response, statistics), over that of one jitted and batched
        value_and_grad of the same potential; median of rounds timed in turn, with its range
    numpyro_over_driver: the time per leapfrog of `numpyro.infer.MCMC` on the same model, with
        `lax.conv_general_dilated` differentiated by JAX, over the driver's
"""

import json
import math
import time

import jax
import numpy as np
from jax import lax
from numpyro.infer import HMC, MCMC

import ppl_cnn.models.networks.layers as layers
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET
from ppl_cnn.models.references.noise import WhiteNoise
from ppl_cnn.models.trained.cnn import CNN

ROUNDS = 5
DRAWS = 1
"""Per round."""
WARMUP = 10
STEPS = 4
"""Leapfrogs per draw of the plain program."""


def seconds(function, *arguments):
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def driver_and_gradient(density, chains):
    """Seconds per leapfrog in the driver and per bare gradient, in turn; leapfrogs per draw."""
    program = Program([density], Sampling("hmc", chains, warmup=WARMUP))
    position = program.begin()
    while position.warmup < WARMUP:
        position, _ = program.advance(position, 1)
    gradient = jax.jit(jax.vmap(jax.value_and_grad(density.potential), in_axes=(0, None)))
    z = jax.random.normal(jax.random.key(1), (chains, *density.unit.shape))
    seconds(gradient, z, density.unit.params)
    inside, bare, leapfrogs_per_draw = [], [], []
    for _ in range(ROUNDS):
        before = position.seconds["sampling"]
        position, kept = program.advance(position, position.draws + DRAWS)
        leapfrogs = int(np.max(kept.transition.n_steps, axis=0).sum())
        leapfrogs_per_draw.append(leapfrogs / DRAWS)
        inside.append((position.seconds["sampling"] - before) / leapfrogs)
        bare.append(np.mean([seconds(gradient, z, density.unit.params) for _ in range(6)]))
    return np.asarray(inside), np.asarray(bare), np.mean(leapfrogs_per_draw)


def plain_numpyro(density, chains):
    """Seconds per leapfrog of `MCMC`: compilation cancels between a short and a longer run.

    `MCMC.run` compiles at every call, for a time that varies by seconds; the longer run is long
    enough to drown that.
    """
    values = chains * math.prod(density.unit.shape)
    extra = max(3, 6_400_000 // values)

    def run(draws):
        kernel = HMC(
            density.whitened,
            step_size=0.1,
            num_steps=STEPS,
            trajectory_length=None,
            adapt_step_size=False,
            adapt_mass_matrix=False,
        )
        mcmc = MCMC(
            kernel,
            num_warmup=0,
            num_samples=draws,
            num_chains=chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        began = time.perf_counter()
        mcmc.run(jax.random.key(0), density.unit.params)
        jax.block_until_ready(mcmc.get_samples())
        return time.perf_counter() - began

    ours = layers.convolve
    layers.convolve = lambda x, kernel, *, stride, padding: lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    try:
        short, long = run(1), run(1 + extra)
    finally:
        layers.convolve = ours
    return (long - short) / (extra * STEPS)


def main():
    network = CNN.random(ALEXNET)
    for unit in ("conv5:12", "fc8:0"):
        for chains in (2, 8):
            density = TiltedDensity(network.unit(unit), WhiteNoise(10.0))
            inside, bare, leapfrogs = driver_and_gradient(density, chains)
            ratios = inside / bare
            plain = plain_numpyro(density, chains)
            line = {
                "model": "alexnet",
                "unit": unit,
                "chains": chains,
                "driver_over_gradient": round(float(np.median(ratios)), 3),
                "driver_over_gradient_range": [
                    round(float(r), 3) for r in np.sort(ratios)[[0, -1]]
                ],
                "numpyro_over_driver": round(float(plain / np.median(inside)), 2),
                "leapfrogs_per_draw": round(float(leapfrogs), 1),
                "driver_seconds_per_leapfrog": round(float(np.median(inside)), 4),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
