"""Whether memory grows with the number of draws: AlexNet's fc8 (random weights), 8 chains.

    python -m benchmarks.speed.memory

A JSON object with the resident memory, in MB, after 2 and after 20 blocks of draws, with every
block written to its store, and their ratio.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.common import command_line, say
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import HMC
from ppl_cnn.inference.runs.store import DrawStore
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.state import save_state
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET, ALEXNET_FASHION
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.references.noise import WhiteNoise
from ppl_cnn.models.trained.cnn import CNN


class Sizes(NamedTuple):
    """How much is measured."""

    network: Network
    unit: str
    chains: int
    warmup: int
    blocks: int
    """Blocks of draws until the last look at the memory; the first look is after 2."""


FULL = Sizes(ALEXNET, "fc8:0", chains=8, warmup=10, blocks=20)
TOY = Sizes(ALEXNET_FASHION, "conv2:3", chains=2, warmup=2, blocks=4)


def main():
    sizes = TOY if command_line(__doc__).parse_args().toy else FULL
    # Trajectories of a few leapfrogs: their length takes time, but no memory.
    kernel = HMC(trajectory_length=0.1)
    sampling = Sampling(kernel=kernel, chains=sizes.chains, warmup=sizes.warmup)
    density = TiltedDensity(CNN.random(sizes.network).unit(sizes.unit), WhiteNoise(10.0))
    program = Program([density], sampling)
    types = {name: kind.dtype for name, kind in program.kernel.statistics.items()}
    with tempfile.TemporaryDirectory() as folder:
        store = DrawStore(Path(folder) / "draws.zarr", program.block)
        coordinates = {"chain": range(sizes.chains), "channel": range(density.unit.shape[2])}
        coordinates |= {"row": density.unit.rows, "col": density.unit.cols}
        store.create(coordinates, types, {})
        position = program.begin()
        resident = {}
        while position.blocks < sizes.blocks:
            before = position
            position, kept = program.advance(before, 10**6)
            if count := position.draws - before.draws:
                variables = kept.variables(count, types)
                store.write(before.written, before.blocks, variables)
            save_state(position, Path(folder) / "state.npz")
            resident[position.blocks] = psutil.Process().memory_info().rss / 2**20
    say(
        model=sizes.network.name,
        unit=sizes.unit,
        chains=sizes.chains,
        draws_per_block=program.block,
        resident_mb_after_2=round(resident[2]),
        **{f"resident_mb_after_{sizes.blocks}": round(resident[sizes.blocks])},
        ratio=round(resident[sizes.blocks] / resident[2], 4),
    )


if __name__ == "__main__":
    main()
