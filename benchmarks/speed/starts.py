"""Whether chains find their starts sooner side by side: alexnet-fashion, 8 chains.

    python -m benchmarks.speed.starts

A JSON object a line for each kind of start and unit:

    ratio: the time that all chains take at once over that of one after the other, the median of
        rounds timed in turn, with its range
    same_bits: whether each chain's latent is the same either way
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ppl_cnn
from benchmarks.common import command_line, in_turn, say, seconds, spread
from ppl_cnn.inference.sampling.evidence.annealing import AnnealingSchedule, climb
from ppl_cnn.inference.sampling.starts.optimum import randomize_then_optimize


class Sizes(NamedTuple):
    """How much is measured."""

    units: tuple[str, ...]
    chains: int
    steps: int
    """Adam's."""
    strengths: int
    rounds: int


FULL = Sizes(("conv5:12", "fc8:8"), chains=8, steps=30, strengths=1, rounds=9)
TOY = Sizes(("conv1:0",), chains=2, steps=2, strengths=1, rounds=2)


def searches(density, sizes):
    """Name -> the starts of all chains at once, and one after the other, without arguments."""
    params, keys = density.params, jax.random.split(jax.random.key(0), sizes.chains)
    drawn = jax.vmap(partial(jax.random.normal, shape=density.latent_shape))(keys)
    search = partial(randomize_then_optimize, density, steps=sizes.steps)
    alone, together = jax.jit(search), jax.jit(jax.vmap(search, in_axes=(None, 0)))
    yield (
        "rto",
        lambda: together(params, drawn),
        lambda: jnp.stack([alone(params, z).block_until_ready() for z in drawn]),
    )
    particles = jax.vmap(partial(jax.random.split, num=16))(keys)
    lengths = np.full(sizes.strengths, 0.2), np.full(sizes.strengths, 1.5)
    schedule = AnnealingSchedule(np.linspace(0, 1, sizes.strengths + 1), *lengths)

    def climbed(keys):
        return climb(density, params, keys, schedule)[0].points.z

    yield (
        "anneal",
        lambda: climbed(particles),
        lambda: jnp.stack([climbed(own).block_until_ready() for own in particles]),
    )


def main():
    sizes = TOY if command_line(__doc__).parse_args().toy else FULL
    network = ppl_cnn.load("alexnet-fashion")
    for unit in sizes.units:
        density = ppl_cnn.TiltedDensity(network.unit(unit), ppl_cnn.WhiteNoise(10.0))
        for start, at_once, one_by_one in searches(density, sizes):
            same = bool(np.array_equal(at_once(), one_by_one()))
            times = in_turn(partial(seconds, at_once), partial(seconds, one_by_one), sizes.rounds)
            say(start=start, unit=unit, **spread("ratio", times.ratios), same_bits=same)


if __name__ == "__main__":
    main()
