"""What a training step costs, and against what.

    python -m benchmarks.training.training_step [PART ...]
    PPL_CNN_TORCH_PYTHON=/path/to/python python -m benchmarks.training.training_step

Networks with random weights on random images; a JSON object a line. Where two things are compared,
they take their steps in turn, and the ratio is the median of that of each round, with its range.

    objectives: the generative step over the discriminative one
    torch: AlexNet's step over the same in PyTorch, on the cores that this process may use
    loader: images per second that a core reads, over what the step takes on a core: the embedded
        ones and LeNet's, and JPEGs with a short side of 256 pixels, augmented, and AlexNet's
    growth: seconds and temporary megabytes of LeNet's generative step against batch and classes
    accumulation: the same against the number of groups
    processes: LeNet's step by two processes that talk over gloo, over that by one with as many
        cores in all

`loader` and `processes` keep processes to cores, which needs Linux.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.common import command_line, in_turn, say, spread, write_photographs
from ppl_cnn.data import open_split, training_batches
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.inference.training.placement import BatchesAhead, data_mesh, put
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.step import initial_state, jitted_step, optimizer, state_shardings
from ppl_cnn.models.networks.catalogue import ALEXNET, LENET
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.layers import Dense

ROOT = Path(__file__).parents[2]


class Sizes(NamedTuple):
    """How much is measured."""

    large: Network
    """Beside LeNet."""
    batch: int
    """LeNet's."""
    large_batch: int
    rounds: int
    steps: int
    """LeNet's in a round."""
    growth: tuple[tuple[int, int], ...]
    """Batches and classes."""
    groups: tuple[int, ...]
    grouped_batch: int
    photographs: int


FULL = Sizes(
    ALEXNET,
    batch=256,
    large_batch=64,
    rounds=7,
    steps=10,
    growth=((64, 10), (256, 10), (1024, 10), (256, 100), (256, 1000), (256, 10_000)),
    groups=(4, 16),
    grouped_batch=1024,
    photographs=256,
)
TOY = Sizes(
    LENET,
    batch=16,
    large_batch=16,
    rounds=2,
    steps=1,
    growth=((16, 10),),
    groups=(2,),
    grouped_batch=16,
    photographs=16,
)


class Steps:
    """Training steps on one batch."""

    def __init__(self, network, batch, objective="generative", accumulate=1, dtype="float32"):
        self.network = network
        stages = f"{objective}:1000steps"
        self.recipe = replace(Recipe.read("lenet"), stages=stages, batch_size=batch, dtype=dtype)
        (stage,) = self.recipe.parsed_stages
        rule, mesh = optimizer(self.recipe, stage, 1000), data_mesh()
        key = jax.random.key(0)
        trainable = DeclaredTrainable(network)
        state = initial_state(trainable, self.recipe, rule=rule, key=key)
        places = state_shardings(state, mesh, False)
        self.state = put(state, places)
        share = batch // jax.process_count()
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (share, *network.image_shape), np.uint8)
        labels = random.integers(0, network.layers[-1].channels, share, np.int32)
        loader = BatchesAhead(_Same({"image": images, "label": labels}), mesh)
        self.arguments = (*next(loader), key)
        self.program = jitted_step(
            trainable,
            self.recipe,
            stage=stage,
            rule=rule,
            mesh=mesh,
            accumulate=accumulate,
            places=places,
        )
        self.seconds()

    def seconds(self, count=1):
        """The mean time of a step."""
        began = time.perf_counter()
        for _ in range(count):
            self.state, info = self.program(self.state, *self.arguments)
        jax.block_until_ready((self.state, info))
        return (time.perf_counter() - began) / count

    def megabytes(self):
        """The memory that the program takes besides its arguments and results."""
        compiled = self.program.lower(self.state, *self.arguments).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes / 2**20


class _Same:
    """A loader of one batch, again and again."""

    def __init__(self, batch):
        self.batch = batch

    def __next__(self):
        return self.batch

    def get_state(self):
        return None


def compared(times):
    """Ratio of two things that were timed in turn, its range, and the seconds of each."""
    return {**spread("ratio", times.ratios), "seconds": [round(each, 4) for each in times.medians]}


def cores():
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def objectives(sizes):
    lenet, large = (LENET, sizes.batch, sizes.steps), (sizes.large, sizes.large_batch, 1)
    for (network, batch, count), rounds in ((lenet, 4 * sizes.rounds), (large, 2 * sizes.rounds)):
        one, other = (Steps(network, batch, name) for name in ("generative", "discriminative"))
        times = in_turn(partial(one.seconds, count), partial(other.seconds, count), rounds)
        say(part="objectives", network=network.name, batch=batch, **compared(times))


def torch(sizes):
    python = os.environ.get("PPL_CNN_TORCH_PYTHON")
    if python is None:
        say(part="torch", skipped="PPL_CNN_TORCH_PYTHON names no Python that has PyTorch")
        return
    script, batch = Path(__file__).with_name("torch_step.py"), sizes.large_batch // 2
    command = [python, str(script), str(batch)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        given, told = process.stdin, process.stdout
        assert given is not None
        assert told is not None

        def theirs():
            given.write("\n")
            given.flush()
            return float(told.readline())

        theirs()
        ours = Steps(ALEXNET, batch, "discriminative")
        times = in_turn(ours.seconds, theirs, 2 * sizes.rounds + 1)
        given.close()
    say(part="torch", network="alexnet", batch=batch, cores=len(cores()), **compared(times))


def loader(sizes):
    """Runs `on_core` in a process that has one core for the loader's threads and the step."""
    script = (
        f"import os; os.sched_setaffinity(0, [{cores()[0]}])\n"
        f"from benchmarks.training import training_step as b; b.on_core(b.{name_of(sizes)})"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def name_of(sizes):
    """The name under which another process finds these sizes in this module."""
    return "TOY" if sizes is TOY else "FULL"


def on_core(sizes):
    """Reading against training, for the embedded images and for photographs."""
    small = training_batches(open_split("fashion-embedded", "train"), sizes.batch, 0)
    lenet = Steps(LENET, sizes.batch)
    _compare(small, lenet, "fashion-embedded", 4 * sizes.steps, sizes.steps, sizes.rounds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        size = write_photographs(path / "tree", sizes.photographs, (341, 256))
        photographs = training_batches(
            open_split(f"folder:{path / 'tree'}", "train", str(path / "data")),
            sizes.large_batch,
            0,
            augment="crop+flip+colour",
            image_shape=ALEXNET.image_shape,
        )
        what = f"JPEGs of 341x256 pixels and {size // 1000} KB, crop+flip+colour"
        large = Steps(sizes.large, sizes.large_batch)
        _compare(photographs, large, what, 4, 1, sizes.rounds)


def _compare(batches, steps, what, count, steps_count, rounds):
    """Reads and steps in turn; all threads of the loader share this core."""
    reading, taken = [], []
    for _ in range(rounds):
        for _ in range(5):  # what was read ahead
            read = len(next(batches)["image"])
        cpu = time.process_time()
        for _ in range(count):
            next(batches)
        reading.append((time.process_time() - cpu) / count)
        taken.append(steps.seconds(steps_count))
    say(
        part="loader",
        network=steps.network.name,
        images=what,
        loader_images_per_second=round(read / float(np.median(reading))),
        step_images_per_second=round(read / float(np.median(taken)), 1),
        ratio=round(float(np.median(taken) / np.median(reading)), 1),
    )


def growth(sizes):
    for batch, classes in sizes.growth:
        layers = (*LENET.layers[:-1], Dense("fc4", classes))
        steps = Steps(replace(LENET, layers=layers), batch)
        seconds = min(steps.seconds(3) for _ in range(sizes.rounds))
        say(
            part="growth",
            network="lenet",
            batch=batch,
            classes=classes,
            seconds=round(seconds, 4),
            temporary_megabytes=round(steps.megabytes(), 1),
        )


def accumulation(sizes):
    batch = sizes.grouped_batch
    whole = Steps(LENET, batch)
    for groups in sizes.groups:
        parts = Steps(LENET, batch, accumulate=groups)
        say(
            part="accumulation",
            network="lenet",
            batch=batch,
            groups=groups,
            temporary_megabytes=[round(steps.megabytes(), 1) for steps in (parts, whole)],
            **compared(in_turn(parts.seconds, whole.seconds, sizes.rounds)),
        )


PROCESS = """
import os, sys, time
cores = sorted(os.sched_getaffinity(0))
index, count, port = map(int, sys.argv[1:4])
os.sched_setaffinity(0, cores[index::count] or cores)
from benchmarks.training import training_step as b
sizes = getattr(b, sys.argv[4])
if count > 1:
    b.jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
steps = b.Steps(b.LENET, sizes.batch)
times = [steps.seconds(sizes.steps) for _ in range(sizes.rounds + 2)]
if index == 0:
    print(min(times))
"""


def processes(sizes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = {}
    for count in (1, 2):
        command = [sys.executable, "-c", PROCESS]
        started = [
            subprocess.Popen(
                [*command, str(index), str(count), str(port), name_of(sizes)],
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
            for index in range(count)
        ]
        said, *_ = [process.communicate()[0] for process in started]
        found[count] = float(said.splitlines()[-1])  # after what Gloo says
    say(
        part="processes",
        network="lenet",
        batch=sizes.batch,
        cores=len(cores()),
        seconds=[round(found[count], 4) for count in (2, 1)],
        ratio=round(found[2] / found[1], 3),
    )


PARTS = {
    part.__name__: part for part in (objectives, torch, loader, growth, accumulation, processes)
}


def main():
    parser = command_line(__doc__)
    parser.add_argument("part", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    for name, part in PARTS.items():
        if name in (options.part or PARTS):
            part(TOY if options.toy else FULL)


if __name__ == "__main__":
    main()
