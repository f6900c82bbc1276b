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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import tyro
from scipy import stats

import ppl_cnn
from benchmarks.training.pretraining_runs import (
    ARMS,
    BASELINE,
    EPOCHS,
    OF_DATA,
    PRETRAINED,
    RATES,
    TOY_DATA,
    TUNING_SEED,
    VARIED,
    Run,
    all_trained,
)
from ppl_cnn.models.trained.cnn import CNN

matplotlib.use("agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure


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


def curves(out: Path, runs: list[Run], axes: Axes) -> None:
    """Test errors along the training, the mean over seeds of each arm."""
    for arm in arms_of(runs):
        each = []
        for run in runs:
            if run.arm == arm:
                lines = (out / run.folder / "metrics.jsonl").read_text("utf-8").splitlines()
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
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(whole), squeeze=False)
    for runs, each in zip(whole, axes[0], strict=True):
        curves(out, runs, each)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(out / "curves.png", dpi=110, bbox_inches="tight")
    count = len(arms_of(whole[0]))
    figure = Figure(figsize=(10, 0.75 * count))
    axes = figure.subplots(count, 20)
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
    """One epoch of a few embedded images, two arms at one rate and two seeds, in place of all else:
    half a minute, and no results worth reading."""


def main(options: Experiment) -> None:
    arms, rates = tuple(ARMS), RATES
    if options.toy:
        options = replace(options, data=(TOY_DATA,), share=(100,), seeds=2)
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
            (options.out / "table.md").write_text("\n".join(texts), "utf-8")
            draw(options.out, experiments)


if __name__ == "__main__":
    main(tyro.cli(Experiment, description=__doc__))
