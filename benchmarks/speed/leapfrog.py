"""What a leapfrog costs: in the driver, bare, and in plain NumPyro with ordinary convolutions.

    python -m benchmarks.speed.leapfrog

For AlexNet with random weights, a JSON object a line:

    driver_over_gradient: the driver's time per leapfrog of its longest chain, everything that a
        draw takes included (momenta, response, statistics), over that of one jitted and batched
        value_and_grad of the same potential; median of rounds timed in turn, with its range
    numpyro_over_driver: the time per leapfrog of `numpyro.infer.MCMC` on the same model, with
        `lax.conv_general_dilated` differentiated by JAX, over the driver's
"""

import math
import time
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
from numpyro.infer import HMC, MCMC

import ppl_cnn.inference.kernels.libraries.numpyro_kernels as kernels
import ppl_cnn.models.networks.layers as layers
from benchmarks.common import command_line, say, seconds, spread
from benchmarks.speed.loops import plain
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET, ALEXNET_FASHION
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.references.noise import WhiteNoise
from ppl_cnn.models.trained.cnn import CNN


class Sizes(NamedTuple):
    """How much is measured."""

    network: Network
    units: tuple[str, ...]
    chains: tuple[int, ...]
    rounds: int
    warmup: int
    values: int
    """Chains, pixels and draws multiplied: the length of NumPyro's longer run."""


FULL = Sizes(ALEXNET, ("conv5:12", "fc8:0"), (2, 8), rounds=5, warmup=10, values=6_400_000)
TOY = Sizes(ALEXNET_FASHION, ("conv2:3",), (2,), rounds=2, warmup=2, values=1)
DRAWS = 1
"""In each round."""
STEPS = 4
"""Leapfrogs in each draw of the plain program."""


def driver_and_gradient(density, chains, sizes):
    """Seconds per leapfrog in the driver and per bare gradient, in turn; leapfrogs per draw."""
    sampling = Sampling(kernel=kernels.HMC(), chains=chains, warmup=sizes.warmup)
    program = Program([density], sampling)
    position = program.begin()
    while position.warmup < sizes.warmup:
        position, _ = program.advance(position, 1)
    gradient = jax.jit(jax.vmap(jax.value_and_grad(density.potential), in_axes=(0, None)))
    z = jax.random.normal(jax.random.key(1), (chains, *density.unit.shape))
    seconds(gradient, z, density.params)
    inside, bare, leapfrogs_per_draw = [], [], []
    for _ in range(sizes.rounds):
        before = position.seconds["sampling"]
        position, kept = program.advance(position, position.draws + DRAWS)
        leapfrogs = int(np.max(kept.transition["n_steps"], axis=0).sum())
        leapfrogs_per_draw.append(leapfrogs / DRAWS)
        inside.append((position.seconds["sampling"] - before) / leapfrogs)
        bare.append(seconds(gradient, z, density.params, calls=6))
    return np.asarray(inside), np.asarray(bare), np.mean(leapfrogs_per_draw)


def plain_numpyro(density, chains, total):
    """Seconds per leapfrog of `MCMC`: compilation cancels between a short and a longer run.

    `MCMC.run` compiles at every call, for a time that varies by seconds; the longer run is long
    enough to drown that.
    """
    values = chains * math.prod(density.unit.shape)
    extra = max(3, total // values)

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
        mcmc.run(jax.random.key(0), density.params)
        jax.block_until_ready(mcmc.get_samples())
        return time.perf_counter() - began

    with mock.patch.object(layers, "convolve", plain):
        short, long = run(1), run(1 + extra)
    return (long - short) / (extra * STEPS)


def main():
    sizes = TOY if command_line(__doc__).parse_args().toy else FULL
    network = CNN.random(sizes.network)
    for unit in sizes.units:
        for chains in sizes.chains:
            density = TiltedDensity(network.unit(unit), WhiteNoise(10.0))
            inside, bare, leapfrogs = driver_and_gradient(density, chains, sizes)
            plain = plain_numpyro(density, chains, sizes.values)
            say(
                model=sizes.network.name,
                unit=unit,
                chains=chains,
                **spread("driver_over_gradient", inside / bare),
                numpyro_over_driver=round(float(plain / np.median(inside)), 2),
                leapfrogs_per_draw=round(float(leapfrogs), 1),
                driver_seconds_per_leapfrog=round(float(np.median(inside)), 4),
            )


if __name__ == "__main__":
    main()
