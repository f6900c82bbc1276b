"""What a training step costs, and against what.

    python benchmarks/training_step.py [PART ...]
    PPL_CNN_TORCH_PYTHON=/path/to/python python benchmarks/training_step.py

Networks with random weights on random images; a JSON object a line. Where two things are compared,
they take their steps in turn, and the ratio is the median of that of each round, with its range.

    objectives: the generative step over the discriminative one
    torch: AlexNet's step over the same in PyTorch, on the cores that this process may use
    loader: images per second that a core reads, over what the step takes on a core: the embedded
        ones and LeNet's, and JPEGs with a short side of 256 pixels, augmented, and AlexNet's
    growth: seconds and temporary megabytes of LeNet's generative step against batch and classes
    accumulation: likewise against groups
    processes: LeNet's step by two processes that talk over gloo, over that by one with as many
        cores in all
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from ppl_cnn.data import open_split, training_batches
from ppl_cnn.inference.training.placement import BatchesAhead, data_mesh, put
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.step import initial_state, jitted_step, optimizer, state_shardings
from ppl_cnn.models.networks.catalogue import ALEXNET, LENET
from ppl_cnn.models.networks.layers import Dense

ROUNDS = 7


class Steps:
    """Training steps on one batch."""

    def __init__(self, network, batch, objective="generative", accumulate=1):
        self.network = network
        self.recipe = replace(
            Recipe.read("lenet"), stages=f"{objective}:1000steps", batch_size=batch
        )
        (stage,) = self.recipe.parsed_stages
        rule, mesh = optimizer(self.recipe, stage, 1000), data_mesh()
        key = jax.random.key(0)
        state = initial_state(network, self.recipe, rule=rule, key=key)
        places = state_shardings(state, mesh, False)
        self.state = put(state, places)
        share = batch // jax.process_count()
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (share, *network.image_shape), np.uint8)
        labels = random.integers(0, network.layers[-1].channels, share, np.int32)
        loader = BatchesAhead(_Same({"image": images, "label": labels}), mesh)
        self.arguments = (*next(loader), key)
        self.program = jitted_step(
            network,
            self.recipe,
            stage=stage,
            rule=rule,
            mesh=mesh,
            accumulate=accumulate,
            places=places,
        )
        self.seconds()

    def seconds(self, count=1):
        """Of a step, on average."""
        began = time.perf_counter()
        for _ in range(count):
            self.state, info = self.program(self.state, *self.arguments)
        jax.block_until_ready((self.state, info))
        return (time.perf_counter() - began) / count

    def megabytes(self):
        """That the program takes besides its arguments and results."""
        compiled = self.program.lower(self.state, *self.arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20


class _Same:
    """A loader of one batch, again and again."""

    def __init__(self, batch):
        self.batch = batch

    def __next__(self):
        return self.batch

    def get_state(self):
        return None


def in_turn(one, other, rounds=ROUNDS):
    """Seconds of each in `rounds` rounds, the order of the two changing."""
    taken = np.asarray(
        [(one(), other()) if i % 2 else (other(), one())[::-1] for i in range(rounds)]
    )
    ratios = np.sort(taken[:, 0] / taken[:, 1])
    return {
        "ratio": round(float(np.median(ratios)), 3),
        "range": [round(float(ratio), 3) for ratio in ratios[[0, -1]]],
        "seconds": [round(float(value), 4) for value in np.median(taken, axis=0)],
    }


def say(part, **line):
    print(json.dumps({"part": part, **line}), flush=True)


def objectives():
    for network, batch, count, rounds in ((LENET, 256, 10, 31), (ALEXNET, 64, 1, 15)):
        sides = [Steps(network, batch, name) for name in ("generative", "discriminative")]
        times = in_turn(*(partial(side.seconds, count) for side in sides), rounds)
        say("objectives", network=network.name, batch=batch, **times)


def torch():
    python = os.environ.get("PPL_CNN_TORCH_PYTHON")
    if python is None:
        say("torch", skipped="PPL_CNN_TORCH_PYTHON names no Python that has PyTorch")
        return
    script, batch = Path(__file__).with_name("torch_step.py"), 32
    command = [python, str(script), str(batch)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def theirs():
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        theirs()
        ours = Steps(ALEXNET, batch, "discriminative")
        times = in_turn(ours.seconds, theirs)
        process.stdin.close()
    say("torch", network="alexnet", batch=batch, cores=len(os.sched_getaffinity(0)), **times)


def loader():
    """On one core: neither the loader's thread nor the step has another."""
    core = min(os.sched_getaffinity(0))
    script = f"import os; os.sched_setaffinity(0, [{core}]); import training_step as b; b.on_core()"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent)


def on_core():
    small = training_batches(open_split("fashion-embedded", "train"), 256, 0)
    _compare(small, Steps(LENET, 256), "fashion-embedded", 40, 10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        size = _write_photographs(path / "tree", 256)
        photographs = training_batches(
            open_split(f"folder:{path / 'tree'}", "train", str(path / "data")),
            64,
            0,
            augment="crop+flip+colour",
            image_shape=ALEXNET.image_shape,
        )
        what = f"JPEGs of 341x256 pixels and {size // 1000} KB, crop+flip+colour"
        _compare(photographs, Steps(ALEXNET, 64), what, 4, 1)


def _write_photographs(folder, count):
    """Smooth fields with noise, about as large as photographs of their size; the mean file size."""
    random, sizes = np.random.default_rng(0), []
    for index in range(count + 2):
        coarse = random.integers(0, 256, (16, 21, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((341, 256), Image.Resampling.BICUBIC))
        noisy = smooth + random.normal(0, 6, smooth.shape)
        split, label = ("val", index) if index < 2 else ("train", index % 2)
        path = folder / split / f"class{label}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=90)
        sizes.append(path.stat().st_size)
    return round(np.mean(sizes))


def _compare(batches, steps, what, count, steps_count):
    """Reads and steps in turn; all threads of the loader share this core."""
    reading, taken = [], []
    for _ in range(ROUNDS):
        for _ in range(5):  # what was read ahead
            read = len(next(batches)["image"])
        cpu = time.process_time()
        for _ in range(count):
            next(batches)
        reading.append((time.process_time() - cpu) / count)
        taken.append(steps.seconds(steps_count))
    say(
        "loader",
        network=steps.network.name,
        images=what,
        loader_images_per_second=round(read / float(np.median(reading))),
        step_images_per_second=round(read / float(np.median(taken)), 1),
        ratio=round(float(np.median(taken) / np.median(reading)), 1),
    )


def growth():
    for batch, classes in ((64, 10), (256, 10), (1024, 10), (256, 100), (256, 1000), (256, 10_000)):
        layers = (*LENET.layers[:-1], Dense("fc4", classes))
        steps = Steps(replace(LENET, layers=layers), batch)
        seconds = min(steps.seconds(3) for _ in range(ROUNDS))
        say(
            "growth",
            network="lenet",
            batch=batch,
            classes=classes,
            seconds=round(seconds, 4),
            temporary_megabytes=round(steps.megabytes(), 1),
        )


def accumulation():
    whole = Steps(LENET, 1024)
    for groups in (4, 16):
        parts = Steps(LENET, 1024, accumulate=groups)
        say(
            "accumulation",
            network="lenet",
            batch=1024,
            groups=groups,
            temporary_megabytes=[round(steps.megabytes(), 1) for steps in (parts, whole)],
            **in_turn(parts.seconds, whole.seconds),
        )


PROCESS = """
import os, sys, time
cores = sorted(os.sched_getaffinity(0))
index, count, port = map(int, sys.argv[1:])
os.sched_setaffinity(0, cores[index::count] or cores)
import training_step as b
if count > 1:
    b.jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
steps = b.Steps(b.LENET, 256)
times = [steps.seconds(10) for _ in range(9)]
if index == 0:
    print(min(times), sorted(times)[4])
"""


def processes():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = {}
    for count in (1, 2):
        command = [sys.executable, "-c", PROCESS]
        started = [
            subprocess.Popen(
                [*command, str(index), str(count), str(port)],
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parent,
            )
            for index in range(count)
        ]
        told = started[0].communicate()[0].splitlines()[-1]  # after what Gloo says
        found[count] = float(told.split()[0])
        for process in started[1:]:
            process.wait()
    say(
        "processes",
        network="lenet",
        batch=256,
        cores=len(os.sched_getaffinity(0)),
        seconds=[round(found[count], 4) for count in (2, 1)],
        ratio=round(found[2] / found[1], 3),
    )


PARTS = (objectives, torch, loader, growth, accumulation, processes)


def main():
    parser = argparse.ArgumentParser(description="What a training step costs.")
    names = [part.__name__ for part in PARTS]
    parser.add_argument("part", nargs="*", metavar="PART", help=", ".join(names))
    chosen = parser.parse_args().part or names
    for part in PARTS:
        if part.__name__ in chosen:
            part()


if __name__ == "__main__":
    main()
