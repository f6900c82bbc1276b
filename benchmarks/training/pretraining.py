"""Whether generative pre-training helps: LeNet on MNIST and Fashion-MNIST, with error bars.

    python -m ppl_cnn.data prepare fashion_mnist
    python -m ppl_cnn.data prepare mnist --manual-dir FOLDER
    python -m benchmarks.training.pretraining                   # resumes where it was stopped
    python -m benchmarks.training.pretraining --data mnist --share 100

Four arms of equal total epochs: the discriminative gradient alone, the generative one alone (its
classifier has the offsets alpha), the generative and then the discriminative one (in the paper's
proportion, 16 of 25 epochs), and the mean of both losses. Each has the same effort of tuning: the
rates of one grid, by the error on images held out of the training ones, with a seed of its own.
At the best rate each is trained on all training images with further seeds, and tested on the test
images; an arm of which a seed diverges goes to the next lower rate with all of them. With a share
of the training images, seed s has the s-th such part of them, the same in all arms, so that
differences between arms are paired. With few images, variants of the generative and then
discriminative arm follow, at its rate.

Runs are processes of one thread, `--jobs` of them side by side, each in a folder below --out. Every
step of the road is that of `python -m ppl_cnn.pretrain`. It writes table.md there, and the pictures
curves.png and filters.png.
"""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tyro
from scipy import stats
from tqdm import tqdm

import ppl_cnn
from ppl_cnn.models.trained.cnn import CNN

matplotlib.use("agg")
from matplotlib import pyplot

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
    "ended by ESS under 5 %": lambda rate: {"switch": "ess:0.05"},
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
HELD_OUT = 20
"""Per cent of the training images, for the choice of the rate."""
EPOCHS = {
    ("mnist", 100): 12,
    ("mnist", 10): 60,
    ("mnist", 1): 400,
    ("fashion_mnist", 100): 4,
    ("fashion_mnist", 10): 10,
    ("fashion_mnist", 1): 40,
    ("fashion-embedded", 100): 1,
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
    """What a run has come to; trains it if it hasn't, or goes on where it was stopped."""
    folder = out / run.folder
    described, diverged = folder / "model.json", folder / "diverged"
    if not (described.is_file() or diverged.is_file()):
        folder.parent.mkdir(parents=True, exist_ok=True)
        recipe = folder.with_suffix(folder.suffix + ".toml")
        recipe.write_text(run.recipe())
        one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        environment = {
            **os.environ,
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {one_thread}",
            "OMP_NUM_THREADS": "1",
            # Arms and seeds differ in data and rates, but hardly in programs.
            "JAX_COMPILATION_CACHE_DIR": str((out / "programs").absolute()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [sys.executable, "-m", "ppl_cnn.pretrain", "--config", str(recipe)]
        command += ["--out", str(folder), "--evaluate-every", str(max(1, run.epochs // TESTS))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            # A rate that is too large for an arm is a finding, not a failure.
            if "a lower rate is needed" not in done.stderr:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            diverged.touch()
    return {"test_error": math.nan} if diverged.is_file() else json.loads(described.read_text())


def all_trained(out: Path, runs: list[Run], jobs: int, what: str) -> dict[Run, dict[str, float]]:
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(lambda run: trained(out, run), runs)
        return dict(zip(runs, tqdm(results, what, len(runs), unit="run"), strict=True))


def arms_of(runs: Iterable[Run]) -> list[str]:
    """The runs' arms, in their order."""
    return list(dict.fromkeys(run.arm for run in runs))


def tuned(
    out: Path, data: str, share: int, jobs: int, arms: Sequence[str], rates: Sequence[float]
) -> dict[str, float]:
    """Each arm's best rate."""
    runs = [Run(data, share, arm, rate, TUNING_SEED, True) for arm in arms for rate in rates]
    if len(rates) == 1:
        return dict.fromkeys(arms, rates[0])
    results = all_trained(out, runs, jobs, f"{data}, {share} %: rates")

    def error(run: Run) -> float:
        return float(np.nan_to_num(results[run]["test_error"], nan=1.0))

    return {arm: min((run for run in runs if run.arm == arm), key=error).rate for arm in arms}


def final(
    out: Path, data: str, share: int, rates: dict[str, float], seeds: int, jobs: int
) -> dict[Run, dict[str, float]]:
    """The runs that the table is of, at these rates or, where one diverges, at lower ones."""
    runs = [
        Run(data, share, arm, rate, seed) for arm, rate in rates.items() for seed in range(seeds)
    ]
    results = all_trained(out, runs, jobs, f"{data}, {share} %: seeds")
    diverged = {run.arm for run in runs if math.isnan(results[run]["test_error"])}
    if not diverged:
        return results
    lower = {arm: max(rate for rate in RATES if rate < rates[arm]) for arm in diverged}
    return final(out, data, share, rates | lower, seeds, jobs)


def varied(data: str, share: int, rates: dict[str, float], seeds: int) -> list[Run]:
    """The runs of the variants, of the arm PRETRAINED and, where that has them, of the baseline."""
    return [
        Run(data, share, arm, rates[arm], seed, variant=variant)
        for variant in VARIED.get((data, share), ())
        for arm in ((PRETRAINED, BASELINE) if variant in OF_DATA else (PRETRAINED,))
        for seed in range(seeds)
    ]


def interval(values: np.ndarray) -> str:
    """Mean and half width of Student's 95 % interval, in per cent."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return f"{100 * values.mean():+.2f} ± {100 * half:.2f}"


def table(runs: list[Run], best: dict[str, float], errors: dict[str, np.ndarray]) -> str:
    """Markdown: each arm's error, and its paired difference to the baseline's."""
    data, share = runs[0].data, runs[0].share
    epochs, seeds = EPOCHS[data, share], len(errors[BASELINE])
    lines = [
        f"### {data}, {share} % of the training images, {epochs} epochs, {seeds} seeds",
        "",
        "| arm | rate | test error, % | − discriminative, paired, 95 % | without alpha, % |",
        "|---|---|---|---|---|",
    ]
    for arm, rate in {run.arm: run.rate for run in runs}.items():
        own = errors[arm]
        told = f"{rate:g}" if rate == best[arm] else f"{rate:g} ({best[arm]:g} diverged)"
        difference = "" if arm == BASELINE else interval(own[:, 0] - errors[BASELINE][:, 0])
        mean, without = 100 * own.mean(axis=0)
        spread = 100 * own[:, 0].std(ddof=1)
        lines.append(
            f"| {arm} | {told} | {mean:.2f} (sd {spread:.2f}) | {difference} | {without:.2f} |"
        )
    return "\n".join(lines) + "\n"


def variants_table(errors: dict[str, np.ndarray], results: dict[Run, dict[str, float]]) -> str:
    """Markdown: each variant's error, and its paired differences."""
    lines = [
        f"| {PRETRAINED}: variant | test error, % | − the arm as above "
        "| discriminative, % | − discriminative |",
        "|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(run.variant for run in results))
    of_arm = {
        arm: errors_of({run: found for run, found in results.items() if run.arm == arm}, names)
        for arm in (PRETRAINED, BASELINE)
    }
    for variant in names:
        own = of_arm[PRETRAINED][variant]
        if count := int(np.isnan(own[:, 0]).sum()):
            lines.append(f"| {variant} | {count} of {len(own)} seeds diverged | | | |")
            continue
        others = of_arm[BASELINE][variant] if variant in OF_DATA else errors[BASELINE]
        arm, baseline = (interval((own - other)[:, 0]) for other in (errors[PRETRAINED], others))
        spread = 100 * own[:, 0].std(ddof=1)
        mean, other = 100 * own[:, 0].mean(), 100 * others[:, 0].mean()
        lines.append(
            f"| {variant} | {mean:.2f} (sd {spread:.2f}) | {arm} | {other:.2f} | {baseline} |"
        )
    return "\n".join(lines) + "\n"


def errors_of(results: dict[Run, dict[str, float]], names: list[str]) -> dict[str, np.ndarray]:
    """(seed, with and without alpha) of each arm or variant.

    Args:
        results: of runs of one data set and share.
        names: of arms or variants.
    """
    with_and_without = ("test_error", "test_error_without_alpha")
    return {
        name: np.array(
            [
                [result.get(key, math.nan) for key in with_and_without]
                for run, result in results.items()
                if name in (run.arm, run.variant)
            ]
        )
        for name in names
    }


def curves(out: Path, runs: list[Run], axes: pyplot.Axes) -> None:
    """Test errors along the training, the mean over seeds of each arm."""
    for arm in arms_of(runs):
        each = []
        for run in runs:
            if run.arm == arm:
                lines = (out / run.folder / "metrics.jsonl").read_text().splitlines()
                tests = [line for line in map(json.loads, lines) if "test_error" in line]
                each.append({line["step"]: 100 * line["test_error"] for line in tests})
        steps = sorted(set.intersection(*(set(one) for one in each)))
        axes.plot(
            steps, np.mean([[one[step] for step in steps] for one in each], axis=0), label=arm
        )
    axes.set(xlabel="step", ylabel="test error, %", title=runs[0].data)


def filters(out: Path, runs: list[Run], axes: np.ndarray) -> None:
    """conv1 of each arm's first seed, a row an arm."""
    for row, arm in zip(axes, arms_of(runs), strict=True):
        run = next(run for run in runs if run.arm == arm)
        network = ppl_cnn.load(str(out / run.folder))
        assert isinstance(network, CNN)
        kernels = np.asarray(network.arrays()["conv1"]["kernel"])
        scale = np.abs(kernels).max()
        for index, place in enumerate(row):
            place.imshow(kernels[..., 0, index], cmap="gray", vmin=-scale, vmax=scale)
            place.axis("off")
        row[0].set_title(arm, loc="left", fontsize=8)


def draw(out: Path, experiments: list[list[Run]]) -> None:
    whole = [runs for runs in experiments if runs[0].share == 100]
    if not whole:
        return
    size = 6 * len(whole), 4
    figure, axes = pyplot.subplots(1, len(whole), figsize=size, squeeze=False, layout="constrained")
    for runs, each in zip(whole, axes[0], strict=True):
        curves(out, runs, each)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(out / "curves.png", dpi=110, bbox_inches="tight")
    count = len(arms_of(whole[0]))
    figure, axes = pyplot.subplots(count, 20, figsize=(10, 0.75 * count))
    filters(out, whole[0], axes)
    figure.savefig(out / "filters.png", dpi=110, bbox_inches="tight")


@dataclass(frozen=True)
class Experiment:
    """The command's options."""

    data: tuple[str, ...] = ("mnist", "fashion_mnist")
    """Data sets."""
    share: tuple[int, ...] = (100, 10, 1)
    """Per cent of the training images, in turn."""
    seeds: int = 5
    """Runs of each arm."""
    jobs: int = 2
    """Runs side by side."""
    out: Path = Path("runs/pretraining")
    """The folder."""
    toy: bool = False
    """One epoch of the embedded images, two arms at one rate and two seeds, in place of all else:
    a minute, and no results worth reading."""


def main(options: Experiment) -> None:
    arms, rates = tuple(ARMS), RATES
    if options.toy:
        options = replace(options, data=("fashion-embedded",), share=(100,), seeds=2)
        arms, rates = (BASELINE, PRETRAINED), RATES[:1]
    texts, experiments = [], []
    for data in options.data:
        for share in options.share:
            best = tuned(options.out, data, share, options.jobs, arms, rates)
            results = final(options.out, data, share, best, options.seeds, options.jobs)
            runs, errors = list(results), errors_of(results, arms_of(results))
            texts.append(table(runs, best, errors))
            if others := varied(data, share, {run.arm: run.rate for run in runs}, options.seeds):
                what = f"{data}, {share} %: variants"
                results = all_trained(options.out, others, options.jobs, what)
                texts[-1] += "\n" + variants_table(errors, results)
            experiments.append(runs)
            print(texts[-1], flush=True)
            (options.out / "table.md").write_text("\n".join(texts))
            draw(options.out, experiments)


if __name__ == "__main__":
    main(tyro.cli(Experiment, description=__doc__))
