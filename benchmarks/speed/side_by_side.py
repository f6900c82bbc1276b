"""Whether units sampled side by side take less time than one by one: AlexNet, random weights.

    python -m benchmarks.speed.side_by_side

The first 64 channels of conv5, 2 chains each. In every round all units draw together, then some of
them draw the same number by themselves, each in a program of its own. A JSON object with

    ratio: the time per draw of the units together over that of 64 units one by one (that of those
        timed, scaled up); median of the rounds, with its range
    seconds_per_leapfrog: of one chain, in both; and leapfrogs, the mean of all chains
    compile_seconds: of the program for all, and of one for a single unit; not in the ratio, like
        warmup and writing
"""

import time
from typing import NamedTuple

import numpy as np

from benchmarks.common import command_line, say, spread
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import HMC
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
    layer: str
    units: int
    singles: tuple[int, ...]
    """Units that are timed by themselves."""
    rounds: int


FULL = Sizes(ALEXNET, "conv5", 64, (0, 21, 42, 63), rounds=2)
TOY = Sizes(ALEXNET_FASHION, "conv2", 3, (0, 2), rounds=2)
CHAINS, WARMUP = 2, 2


def begun(densities):
    """A program and its position after the warmup."""
    program = Program(densities, Sampling(kernel=HMC(), chains=CHAINS, warmup=WARMUP))
    position = program.begin()
    while position.warmup < WARMUP:
        position, _ = program.advance(position, 1)
    return program, position


def drawn(program, position):
    """One draw more: position, seconds, and leapfrogs of each chain."""
    began = time.perf_counter()
    position, kept = program.advance(position, position.draws + 1)
    seconds = time.perf_counter() - began
    return position, seconds, np.asarray(kept.transition["n_steps"])[:, 0]


def main():
    sizes = TOY if command_line(__doc__).parse_args().toy else FULL
    units = CNN.random(sizes.network).units(f"{sizes.layer}:0-{sizes.units - 1}")
    densities = [TiltedDensity(unit, WhiteNoise(10.0)) for unit in units]
    together = begun(densities)
    single = {index: begun([densities[index]]) for index in sizes.singles}
    compiled = [together[1].seconds["compile"], single[0][1].seconds["compile"]]
    ratios, costs, leapfrogs = [], [], []
    for _ in range(sizes.rounds):
        position, all_seconds, all_steps = drawn(*together)
        together = together[0], position
        one_seconds, one_steps = 0.0, 0
        for index, (program, before) in single.items():
            position, seconds, steps = drawn(program, before)
            single[index] = program, position
            one_seconds, one_steps = one_seconds + seconds, one_steps + steps.sum()
        ratios.append(all_seconds / (one_seconds * sizes.units / len(sizes.singles)))
        costs.append((all_seconds / all_steps.sum(), one_seconds / one_steps))
        leapfrogs.append((all_steps.mean(), one_steps / len(sizes.singles) / CHAINS))
    say(
        model=sizes.network.name,
        units=sizes.units,
        chains=CHAINS,
        **spread("ratio", ratios),
        seconds_per_leapfrog=np.median(costs, axis=0).round(4).tolist(),
        leapfrogs=np.mean(leapfrogs, axis=0).round(1).tolist(),
        compile_seconds=np.round(compiled, 1).tolist(),
    )


if __name__ == "__main__":
    main()
