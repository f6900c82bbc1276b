"""Whether units sampled side by side take less time than one by one: AlexNet, random weights.

    python benchmarks/side_by_side.py

The first 64 channels of conv5, 2 chains each. In every round all units draw together, then some of
them draw the same number by themselves, each in a program of its own. A JSON object with

    ratio: the time per draw of the units together over that of 64 units one by one (that of those
        timed, scaled up); median of the rounds, with its range
    seconds_per_leapfrog: of one chain, in both; and leapfrogs, the mean of all chains
    compile_seconds: of the program for all, and of one for a single unit; not in the ratio, like
        warmup and writing
"""

import json
import time

import numpy as np

from ppl_cnn.inference.kernels.numpyro_kernels import HMC
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET
from ppl_cnn.models.references.noise import WhiteNoise
from ppl_cnn.models.trained.cnn import CNN

UNITS, CHAINS, WARMUP, ROUNDS = 64, 2, 2, 2
SINGLES = (0, 21, 42, 63)
"""Units that are timed by themselves."""


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
    units = CNN.random(ALEXNET).units(f"conv5:0-{UNITS - 1}")
    densities = [TiltedDensity(unit, WhiteNoise(10.0)) for unit in units]
    together = begun(densities)
    single = {index: begun([densities[index]]) for index in SINGLES}
    compiled = [together[1].seconds["compile"], single[0][1].seconds["compile"]]
    ratios, costs, leapfrogs = [], [], []
    for _ in range(ROUNDS):
        position, all_seconds, all_steps = drawn(*together)
        together = together[0], position
        one_seconds, one_steps = 0.0, 0
        for index, (program, before) in single.items():
            position, seconds, steps = drawn(program, before)
            single[index] = program, position
            one_seconds, one_steps = one_seconds + seconds, one_steps + steps.sum()
        ratios.append(all_seconds / (one_seconds * UNITS / len(SINGLES)))
        costs.append((all_seconds / all_steps.sum(), one_seconds / one_steps))
        leapfrogs.append((all_steps.mean(), one_steps / len(SINGLES) / CHAINS))
    line = {
        "model": "alexnet",
        "units": UNITS,
        "chains": CHAINS,
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_range": [round(float(ratio), 3) for ratio in np.sort(ratios)[[0, -1]]],
        "seconds_per_leapfrog": np.median(costs, axis=0).round(4).tolist(),
        "leapfrogs": np.mean(leapfrogs, axis=0).round(1).tolist(),
        "compile_seconds": np.round(compiled, 1).tolist(),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
