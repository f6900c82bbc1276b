"""The parts of gpu_check, each run by it in a process of its own."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import command_line, say, seconds, write_photographs

TESTS = (
    "tests/models/networks/test_convolution.py",
    "tests/inference/kernels/test_split.py",
    "tests/inference/training/test_losses.py",
)


def density(unit="conv5:12", *, toy):
    import ppl_cnn
    from ppl_cnn.models.networks.catalogue import ALEXNET, ALEXNET_FASHION
    from ppl_cnn.models.trained.cnn import CNN

    network = CNN.random(ALEXNET_FASHION if toy else ALEXNET)
    return ppl_cnn.TiltedDensity(network.unit(unit), ppl_cnn.WhiteNoise(10.0))


def devices(out, *, toy):
    """What JAX finds: the GPU and its memory."""
    import jax

    first = jax.devices()[0]
    memory = (first.memory_stats() or {}).get("bytes_limit")
    say(
        part="devices",
        kind=first.device_kind,
        jax=jax.__version__,
        memory=memory,
        passed=toy or first.platform == "gpu",
    )


def accuracy(out, *, toy):
    """The score and its gradient against the CPU's, by precision."""
    import jax
    import numpy as np

    from ppl_cnn.machines.arithmetic import Precision, products

    tilted = density(toy=toy)
    z = jax.random.normal(jax.random.key(0), (4, *tilted.latent_shape))
    places: dict[str, tuple[Any, Precision]] = {
        "cpu": (jax.devices("cpu")[0], "highest"),
        "default": (jax.devices()[0], "default"),
        "highest": (jax.devices()[0], "highest"),
    }
    found = {}
    for name, (device, precision) in places.items():
        with jax.default_device(device), products(precision, device.platform):
            gradient = jax.jit(jax.vmap(jax.value_and_grad(tilted.tilt), in_axes=(0, None)))
            arguments = jax.device_put((z, tilted.params), device)
            found[name] = [np.asarray(each, np.float64) for each in gradient(*arguments)]
    value, slope = found["cpu"]
    for name, most in (("default", 0.1), ("highest", 1e-3)):
        error = float(np.linalg.norm(found[name][1] - slope) / np.linalg.norm(slope))
        say(
            part="accuracy",
            precision=name,
            score_error=float(np.abs(found[name][0] - value).max()),
            gradient_error=error,
            passed=error < most,
        )


DRAW = """
import sys, pathlib
from ppl_cnn.machines.arithmetic import keep_programs, repeatable
deterministic, toy, out, *draws = sys.argv[1:]
if deterministic == "True":
    repeatable()
    keep_programs(pathlib.Path(out).parent / "programs")
from benchmarks.gpu_parts import density
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.settings import Sampling
for count in draws:
    sample_to([density(toy=toy == "True")], Sampling(chains=4, warmup=20), pathlib.Path(out),
              draws=int(count), progress=False)
"""


def bits(out, *, toy):
    """The same run twice, and in two sittings: by default, and with --deterministic."""
    import numpy as np

    from ppl_cnn.inference.runs.store import open_draws

    for deterministic in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for name, draws in (("one", ["20"]), ("other", ["20"]), ("halves", ["7", "20"])):
                run = Path(folder) / name
                arguments = [str(deterministic), str(toy), str(run), *draws]
                subprocess.run([sys.executable, "-c", DRAW, *arguments], check=True)
                images = np.asarray(open_draws(run / "draws.zarr")["posterior/image"])
                found.append(hashlib.sha256(images.tobytes()).hexdigest()[:12])
        repeats, resumes = found[0] == found[1], found[0] == found[2]
        promised = deterministic or toy
        say(
            part="bits",
            deterministic=deterministic,
            repeats=repeats,
            resumes=resumes,
            passed=not promised or (repeats and resumes),
        )


def leapfrog(out, *, toy):
    """A leapfrog in the driver over a bare gradient."""
    import numpy as np

    from benchmarks.speed.leapfrog import FULL, TOY, driver_and_gradient

    sizes = TOY if toy else FULL
    for unit, chains in (("conv5:12", 8), ("conv5:12", 64), ("fc8:0", 64))[: 1 if toy else 3]:
        inside, bare, steps = driver_and_gradient(density(unit, toy=toy), chains, sizes)
        say(
            part="leapfrog",
            unit=unit,
            chains=chains,
            milliseconds=1e3 * float(np.median(inside)),
            ratio=float(np.median(inside / bare)),
            leapfrogs_per_draw=float(steps),
        )


def busy(out, *, toy):
    """The share of the time in which the GPU draws, with the disk that is there."""
    from benchmarks.speed.busy import FULL, TOY, measured

    # As many draws as a GPU makes in some seconds.
    line = measured(TOY if toy else FULL._replace(draws=400), disk=None)
    say(part="busy", **line, passed=toy or line["share"] > 0.8)


def step(out, *, toy):
    """AlexNet's training step, by number format, and PyTorch's where it is installed."""
    import jax

    from benchmarks.training.training_step import Steps
    from ppl_cnn.models.networks.catalogue import ALEXNET, LENET

    network, batch = (LENET, 16) if toy else (ALEXNET, 256)
    ours = {}
    for dtype in ("float32", "bfloat16"):
        steps = Steps(network, batch, dtype=dtype)
        steps.seconds(3)
        took = ours[dtype] = min(steps.seconds(1 if toy else 10) for _ in range(3))
        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
        say(
            part="step",
            dtype=dtype,
            milliseconds=1e3 * took,
            images_per_second=batch / took,
            peak_mib=peak / 2**20,
        )
    if not toy:
        _torch_steps(batch, ours)


def _torch_steps(batch, ours):
    """PyTorch's steps, with the products of JAX's default: TF32 where float32 is asked for.

    Args:
        batch: images.
        ours: seconds of our step by number format.
    """
    try:
        import torch
    except ImportError:
        say(part="step", torch="not installed")
        return
    from benchmarks.training.torch_step import alexnet

    torch.set_float32_matmul_precision("high")
    model = alexnet().train().cuda().to(memory_format=torch.channels_last)
    rule = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randint(0, 256, (batch, 3, 227, 227), device="cuda").float()
    labels = torch.randint(0, 1000, (batch,), device="cuda")
    for dtype in ("float32", "bfloat16"):
        for count in (5, 30):
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(count):
                rule.zero_grad()
                with torch.autocast("cuda", torch.bfloat16, enabled=dtype == "bfloat16"):
                    loss = torch.nn.functional.cross_entropy(model(images - 117), labels)
                loss.backward()
                rule.step()
            torch.cuda.synchronize()
            took = (time.perf_counter() - began) / count
        say(
            part="step",
            torch=dtype,
            milliseconds=1e3 * took,
            images_per_second=batch / took,
            ours_over_torch=ours[dtype] / took,
        )


def loader(out, *, toy):
    """Photographs a second that all cores read, by threads of this process or of others."""
    from ppl_cnn.data import open_split, training_batches

    count, side, batch = (16, 32, 4) if toy else (512, 227, 64)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "tree", count, (80, 60) if toy else (500, 375))
        split = open_split(f"folder:{folder}/tree", "train", f"{folder}/data")
        for readers, threads in ((0, 2), (1, 2)) if toy else ((0, 1), (0, 8), (1, 8), (2, 8)):
            batches = training_batches(
                split, batch, 0, augment="crop+flip+colour", image_shape=(side, side, 3),
                short_side=side + 20, threads=threads, readers=readers,
            )  # fmt: skip
            for _ in range(5):  # what was read ahead
                next(batches)
            took = seconds(lambda batches=batches: next(batches)["image"], calls=2 * threads)
            batches.close()
            say(part="loader", readers=readers, threads=threads, images_per_second=batch / took)


def tests(out, *, toy):
    """Tests of what differs most between platforms."""
    wanted = TESTS[-1:] if toy else TESTS
    environment = {**os.environ, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default"]
    done = subprocess.run([*command, *wanted], env=environment, text=True, capture_output=True)
    say(part="tests", passed=not done.returncode, last=done.stdout.strip().splitlines()[-1:])


def trace(out, *, toy):
    """A profile of two calls of the sampler, in the folder, for TensorBoard or Perfetto."""
    import jax

    from ppl_cnn.inference.sampling.program import Program
    from ppl_cnn.inference.sampling.settings import Sampling

    program = Program([density(toy=toy)], Sampling(chains=8, warmup=2))
    position = program.begin()
    for _ in range(2):
        position, _ = program.advance(position, position.draws + 2)
    with jax.profiler.trace(str(out / "profile")):
        for _ in range(2):
            position, _ = program.advance(position, position.draws + 2)
    files = [path.name for path in (out / "profile").rglob("*.xplane.pb")]
    say(part="trace", files=files, passed=bool(files))


PARTS = (devices, accuracy, bits, leapfrog, busy, step, loader, tests, trace)


def main():
    parser = command_line(__doc__)
    parser.add_argument("part", choices=[part.__name__ for part in PARTS])
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    {part.__name__: part for part in PARTS}[options.part](options.out, toy=options.toy)


if __name__ == "__main__":
    main()
