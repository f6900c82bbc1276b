"""The runs of pretraining.py: what each trains, and its process."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ppl_cnn.inference.training.monitoring.metrics import read_lines

ARMS = {
    "discriminative": "discriminative:100%",
    "generative": "generative:100%",
    "generative, then discriminative": "generative:64%,discriminative:36%",
    "hybrid": "hybrid:0.5:100%",
}
BASELINE, PRETRAINED = "discriminative", "generative, then discriminative"
VARIANTS: dict[str, Callable[[float], dict[str, Any]]] = {
    "batch of 256": lambda rate: {"batch_size": 256},
    "bank of 512 rows": lambda rate: {"reference_bank": 512},
    "ended by ESS near separation's": lambda rate: {"switch": "ess:1.5"},
    "generative rate a third": lambda rate: {
        "stages": f"generative:64%@{rate / 3:.4g},discriminative:36%"
    },
    "discriminative rate a tenth": lambda rate: {
        "stages": f"generative:64%,discriminative:36%@{rate / 10:.4g}"
    },
    "generative for a fifth": lambda rate: {"stages": "generative:20%,discriminative:80%"},
    "random crops": lambda rate: {"augment": "crop"},
}
"""Variants of the arm PRETRAINED: what its recipe has instead, given the arm's rate."""
OF_DATA = ("random crops",)
"""Variants of the images, which the baseline has too, at its own rate."""
VARIED = {
    ("mnist", 10): tuple(name for name in VARIANTS if name not in OF_DATA),
    ("mnist", 1): OF_DATA,
    ("fashion_mnist", 1): OF_DATA,
}
"""Data set and share of its training images in per cent: the variants that are tried with them."""
RATES: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2)
TUNING_SEED = 1000
TOY_DATA = "fashion-embedded"
"""The data set of a toy, which trains and tests on a twentieth of its images."""
HELD_OUT = 20
"""Per cent of the training images, for the choice of the rate."""
EPOCHS = {
    ("mnist", 100): 12,
    ("mnist", 10): 60,
    ("mnist", 1): 400,
    ("fashion_mnist", 100): 4,
    ("fashion_mnist", 10): 10,
    ("fashion_mnist", 1): 40,
    (TOY_DATA, 100): 1,
}
"""By data set and share of its training images in per cent: fewer images are seen more often."""
TESTS = 4
"""Within a run: what the curves are drawn through."""
BATCH = 64


@dataclass(frozen=True)
class Run:
    """A training run."""

    data: str
    share: int
    """Per cent of the training images."""
    arm: str
    rate: float
    seed: int
    tuning: bool = False
    variant: str = ""
    """One of VARIANTS, or none."""

    @property
    def folder(self) -> str:
        """The folder of its files, below that of the experiment."""
        kind = "tuning" if self.tuning else "final"
        arm = re.sub("[^a-z0-9]+", "-", f"{self.arm} {self.variant}".strip().lower())
        data = self.data.replace("/", "-")
        return f"{data}-{self.share}/{arm}/{kind}-rate{self.rate:g}-seed{self.seed}"

    def parts(self) -> tuple[str, str]:
        """The images trained on, and those that it is tested on, in TFDS's notation."""
        if self.data == TOY_DATA:
            return "train[:5%]", "test[:5%]"
        held_out = f"train[{100 - HELD_OUT}%:]"
        if self.share == 100:
            return (f"train[:{100 - HELD_OUT}%]", held_out) if self.tuning else ("train", "test")
        number = 0 if self.tuning else self.seed % (100 // self.share)
        part = f"train[{number * self.share}%:{(number + 1) * self.share}%]"
        # A share's rates are chosen on images that are no part of any seed's.
        return part, held_out if self.tuning else "test"

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return EPOCHS[self.data, self.share]

    def recipe(self) -> str:
        """The recipe as TOML."""
        train, test = self.parts()
        values = {
            "network": "lenet",
            "data": self.data,
            "train": train,
            "test": test,
            "stages": ARMS[self.arm],
            "total": str(self.epochs),
            "batch_size": BATCH,
            "rate": self.rate,
            "schedule": "cosine",
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "seed": self.seed,
        }
        if self.variant:
            values |= VARIANTS[self.variant](self.rate)
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def trained(out: Path, run: Run) -> dict[str, float]:
    """A run's results, NaN if it diverged; trains it first, or resumes it, if need be."""
    folder = out / run.folder
    described, diverged = folder / "model.json", folder / "diverged"
    if not (described.is_file() or diverged.is_file()):
        folder.parent.mkdir(parents=True, exist_ok=True)
        recipe = folder.with_suffix(folder.suffix + ".toml")
        recipe.write_text(run.recipe(), "utf-8")
        one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment = {
            # Arms and seeds differ in data and rates, but hardly in programs.
            "JAX_COMPILATION_CACHE_DIR": str((out / "programs").absolute()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **os.environ,
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {one_thread}",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "ppl_cnn.pretrain", "--config", str(recipe)]
        command += ["--out", str(folder), "--evaluate-every", str(max(1, run.epochs // TESTS))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            # A rate that is too large for an arm is a finding, not a failure.
            if not has_diverged(folder):
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            diverged.touch()
    return (
        {"test_error": math.nan} if diverged.is_file() else json.loads(described.read_text("utf-8"))
    )


def has_diverged(folder: Path) -> bool:
    """Whether a run stopped because its loss or its gradient was no longer finite.

    Args:
        folder: the run's.
    """
    steps = (line for line in read_lines(folder / "metrics.jsonl") if "loss" in line)
    return any(
        not math.isfinite(line[name]) for line in steps for name in ("loss", "gradient_norm")
    )


def all_trained(out: Path, runs: list[Run], jobs: int, what: str) -> dict[Run, dict[str, float]]:
    """The results of several runs.

    Args:
        out: the experiment's folder.
        runs: what is trained.
        jobs: how many side by side.
        what: the progress bar's label.
    """
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda run: trained(out, run), runs)
        return dict(zip(runs, tqdm(results, what, len(runs), unit="run"), strict=True))
