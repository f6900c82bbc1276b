"""Whether memory grows with the number of draws: AlexNet's fc8 (random weights), 8 chains.

    python benchmarks/memory.py

A JSON object with the resident memory, in MB, after 2 and after 20 blocks of draws, with every
block written to its store, and their ratio.
"""

import json
import tempfile
from pathlib import Path

import psutil

from ppl_cnn.inference.kernels.numpyro_kernels import HMC
from ppl_cnn.inference.runs.store import DrawStore
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.state import save_state
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET
from ppl_cnn.models.references.noise import WhiteNoise
from ppl_cnn.models.trained.cnn import CNN


def main():
    # Trajectories of a few leapfrogs: their length takes time, but no memory.
    sampling = Sampling(kernel=HMC(trajectory_length=0.1), chains=8, warmup=10)
    density = TiltedDensity(CNN.random(ALEXNET).unit("fc8:0"), WhiteNoise(10.0))
    program = Program([density], sampling)
    types = {name: kind.dtype for name, kind in program.kernel.statistics.items()}
    with tempfile.TemporaryDirectory() as folder:
        store = DrawStore(Path(folder) / "draws.zarr", program.block)
        sizes = {"chain": range(8), "channel": range(3)}
        sizes |= {"row": density.unit.rows, "col": density.unit.cols}
        store.create(sizes, types, {})
        position = program.begin()
        resident = {}
        while position.blocks < 20:
            before = position
            position, kept = program.advance(before, 10**6)
            if count := position.draws - before.draws:
                variables = kept.variables(count, types)
                store.write(before.draws, before.blocks, variables)
            save_state(position, Path(folder) / "state.npz")
            resident[position.blocks] = psutil.Process().memory_info().rss / 2**20
    line = {
        "model": "alexnet",
        "unit": "fc8:0",
        "chains": 8,
        "draws_per_block": program.block,
        "resident_mb_after_2": round(resident[2]),
        "resident_mb_after_20": round(resident[20]),
        "ratio": round(resident[20] / resident[2], 4),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
