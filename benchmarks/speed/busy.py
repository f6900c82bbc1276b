"""The share of a run's time in which the devices draw, with a slow disk: AlexNet's fc8, 8 chains.

    python -m benchmarks.speed.busy

The images have 227 x 227 pixels, and random weights score them. All that the run writes, draws and
states, takes the time that a disk of 50 MB/s would, without compression. A JSON object with

    share: seconds in the compiled program over all seconds, from the first draw after compilation
        to the last state on the disk
    draws_per_second: of all chains
    megabytes_per_second: of what was written
"""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import ppl_cnn.inference.sampling.group as group
from benchmarks.common import command_line, say
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import HMC
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.store import DrawStore
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.progress import Progress
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.state import save_state
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET, ALEXNET_FASHION
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.references.noise import WhiteNoise
from ppl_cnn.models.trained.cnn import CNN

DISK = 50e6
"""Bytes a second."""


class Sizes(NamedTuple):
    """How much is measured."""

    network: Network
    unit: str
    chains: int
    warmup: int
    draws: int


FULL = Sizes(ALEXNET, "fc8:0", chains=8, warmup=5, draws=120)
TOY = Sizes(ALEXNET_FASHION, "conv2:3", chains=2, warmup=2, draws=20)


class Disk:
    """Delays what is written.

    Args:
        speed: bytes a second; None doesn't delay.
    """

    def __init__(self, speed: float | None) -> None:
        self.written, self._speed = 0, speed

    def write(self, count: int) -> None:
        self.written += count
        if self._speed:
            time.sleep(count / self._speed)

    def store(self, original):
        def write(store, draws, blocks, variables, **chain):
            self.write(sum(values.nbytes for values in variables.values()))
            original(store, draws, blocks, variables, **chain)

        return write

    def state(self, original):
        def save(position, path):
            original(position, path)
            self.write(path.stat().st_size)

        return save


def measured(sizes: Sizes, disk: float | None) -> dict[str, Any]:
    """The figures of a run.

    Args:
        sizes: of what.
        disk: bytes a second; None for the disk that is there.
    """
    # Short trajectories, so that there is much to write for a second of drawing.
    sampling = Sampling(kernel=HMC(trajectory_length=0.1), chains=sizes.chains, warmup=sizes.warmup)
    density = TiltedDensity(CNN.random(sizes.network).unit(sizes.unit), WhiteNoise(10.0))
    program, slow = Program([density], sampling), Disk(disk)
    with ExitStack() as context:
        out = Path(context.enter_context(tempfile.TemporaryDirectory()))
        patch = mock.patch.object
        write_chunks = slow.store(DrawStore.write_chunks)
        context.enter_context(patch(DrawStore, "write_chunks", write_chunks))
        context.enter_context(patch(group, "save_state", slow.state(save_state)))
        folder = context.enter_context(RunFolder.claim(out / "run", {}, "busy"))
        run = group.Group(folder, program, sampling, None)
        bar = context.enter_context(Progress(sampling, draws=sizes.draws, units=1, shown=False))
        run.sample(2, bar)
        drawn, slow.written = folder.record["seconds"]["sampling"], 0
        began = time.monotonic()
        run.sample(sizes.draws, bar)
        took = time.monotonic() - began
        drawn = folder.record["seconds"]["sampling"] - drawn
    return {
        "model": sizes.network.name,
        "unit": sizes.unit,
        "chains": sizes.chains,
        "share": round(drawn / took, 4),
        "draws_per_second": round(sizes.chains * (sizes.draws - 2) / took, 2),
        "megabytes_per_second": round(slow.written / 1e6 / took, 2),
    }


def main():
    say(**measured(TOY if command_line(__doc__).parse_args().toy else FULL, DISK))


if __name__ == "__main__":
    main()
