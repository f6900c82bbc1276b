"""The tables and the picture of docs/results/samplers.md.

    python -m benchmarks.sampling.samplers_table draws.jsonl steps.jsonl step-size.png

The first two files are those that samplers.py and step_size.py have written; /dev/null for one of
them leaves its tables out. Figures of two seeds are joined by a comma. In the tables of kernels a
dash stands for what was not run, and a question mark for fewer than 10 draws a chain.

A biased kernel's bias is the largest difference of a mean, in standard deviations, and of the log
of a standard deviation, over 52 quantities. It is measured against the case's exact kernels, each
weighted by its precision, of which draws with an ESS of 100 count. An error follows each figure. If
there is no bias at all, the largest of 52 is about 2.5 errors.
"""

from pathlib import Path

import arviz
import numpy as np
from matplotlib.figure import Figure

from benchmarks.common import command_line, read_lines
from benchmarks.sampling.kernels import BIASED, OURS
from benchmarks.sampling.sampler_cases import ALL, CASES, LEARNED

COLOURS = {"split": "#c0392b", "leapfrog": "#2c6fa6"}
KERNELS = tuple(dict.fromkeys((*LEARNED, *ALL)))
FAMILIES = ("lenet", "fashion", "faces", "squeezenet", "alexnet")
"""How the names of cases begin; each has tables of its own."""
FEW = 500
"""Draws of a chain, below which a small size may be one of too few draws."""
RELIABLE = 100
"""Smallest ESS of an exact kernel's draws that others are compared with."""
MEASURES = {
    "ess_per_1000_gradients": "effective draws per 1,000 gradients",
    "ess_per_cpu_second": "effective draws per CPU second",
    "acceptance": "acceptance",
    "step_size": "step",
    "gradients": "gradients per draw",
    "warmup_gradients": "gradients of the warm-up",
}


def three_digits(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def rows(head, cells):
    """A Markdown table, below an empty line."""
    yield ""
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(row)} |" for row in cells)


def value_of(line, measure):
    if measure == "gradients":
        return line["gradients"] / (line["draws"] * line["chains"])
    return line[measure]


def said(values):
    """The seeds' values."""
    return ", ".join("?" if value is None else three_digits(value) for value in values)


def seeds_of(lines, measure="ess_per_1000_gradients"):
    """(Case, kernel) -> the values of its seeds, in their order."""
    found: dict[tuple[str, str], list[float | None]] = {}
    for line in sorted(lines, key=lambda line: line["seed"]):
        found.setdefault((line["case"], line["kernel"]), []).append(value_of(line, measure))
    return found


def cases_of(lines):
    """The cases that have lines, in the benchmark's order."""
    order = [case.name for case in CASES]
    return sorted({line["case"] for line in lines}, key=order.index)


def best_peers(lines):
    """Each case: split beside the best exact kernel that isn't ours, by the mean over seeds."""
    found = {pair: values for pair, values in seeds_of(lines).items() if None not in values}
    spreads = {line["case"]: line["tilt_sd"] for line in lines}
    ratios = []
    for case in cases_of(lines):
        peers = {
            kernel: np.mean(values)
            for (name, kernel), values in found.items()
            if name == case and kernel not in OURS + BIASED
        }
        if (case, "split") in found and peers:
            best = max(peers, key=peers.__getitem__)
            mine = np.mean(found[case, "split"])
            ratios.append(mine / peers[best])
            cells = [case, f"{spreads[case]:.2g}"]
            for kernel, mean in (("split", mine), (best, peers[best])):
                cells.append(f"{three_digits(mean)} ({said(found[case, kernel])})")
            yield [*cells, best, three_digits(ratios[-1])]
    if ratios:
        yield ["median", "", "", "", "", three_digits(np.median(ratios))]


def kernel_table(lines, measure):
    """A row for each kernel, a column for each case."""
    found, cases = seeds_of(lines, measure), cases_of(lines)
    for kernel in KERNELS:
        values = [found.get((case, kernel)) for case in cases]
        if any(values):
            yield [kernel, *("-" if each is None else said(each) for each in values)]


def pooled(lines):
    """What exact kernels say of a case: mean, its error, sd, its error, each of 52 quantities."""
    exact = [
        line
        for line in lines
        if line["kernel"] not in BIASED and line["ess"] and min(line["ess"].values()) >= RELIABLE
    ]
    if not exact:
        return None
    both = []
    for name in ("mean", "sd"):
        values, errors = (
            np.asarray([line[key] for line in exact]) for key in (name, f"{name}_error")
        )
        precision = 1 / errors**2
        both += [
            (precision * values).sum(axis=0) / precision.sum(axis=0),
            precision.sum(axis=0) ** -0.5,
        ]
    return both


def biases(lines):
    """Each biased kernel's draws: how many are effective, and how far off they are."""
    for case in cases_of(lines):
        own = [line for line in lines if line["case"] == case]
        truth = pooled(own)
        for line in own:
            if line["kernel"] in BIASED and line["ess"]:
                cells = ["-", "-"] if truth is None else largest_differences(line, truth)
                label = f"{line['kernel']}, seed {line['seed']}"
                yield [case, label, three_digits(line["ess_per_1000_gradients"]), *cells]


def largest_differences(line, truth):
    """The largest of means, in standard deviations, and of log standard deviations; with errors."""
    mean, mean_error, sd, sd_error = truth
    own = {key: np.asarray(line[key]) for key in ("mean", "mean_error", "sd", "sd_error")}
    pairs = [
        ((own["mean"] - mean) / sd, np.hypot(own["mean_error"], mean_error) / sd),
        (np.log(own["sd"] / sd), np.hypot(own["sd_error"] / own["sd"], sd_error / sd)),
    ]
    at = [np.abs(difference).argmax() for difference, _ in pairs]
    return [
        f"{difference[i]:+.2f} ± {error[i]:.2f}"
        for (difference, error), i in zip(pairs, at, strict=True)
    ]


def yardstick(lines):
    """What small sizes of few draws mean: as many draws of 52 quantities that are random walks, or
    independent, 20 times each; the least and the largest of their smallest sizes."""
    small = {
        (line["chains"], line["draws"])
        for line in lines
        if line["ess"] and min(line["ess"].values()) < 15 and line["draws"] < FEW
    }
    for chains, draws in sorted(small):
        normal = np.random.default_rng(0).standard_normal((20, 52, chains, draws))
        cells = []
        for samples in (normal.cumsum(axis=3), normal):
            sizes = [min(map(_size, sample)) for sample in samples]
            cells.append(f"{min(sizes):.1f} to {max(sizes):.1f}")
        yield [f"{chains} x {draws}", *cells]


def _size(values):
    tail = arviz.ess(values, method="tail", prob=(0.05, 0.95))
    return min(float(arviz.ess(values, method="bulk")), float(tail))


def all_tables(lines):
    """Every table of the kernels, line by line."""
    head = ["", "sd of g", "split", "best exact peer", "which", "ratio"]
    yield from rows(head, best_peers(lines))
    for measure, label in MEASURES.items():
        for family in FAMILIES:
            own = [line for line in lines if line["case"].startswith(family)]
            if own:
                yield from rows([label, *cases_of(own)], kernel_table(own, measure))
    head = [
        "",
        "kernel",
        "effective draws per 1,000 gradients",
        "bias of a mean, sd",
        "of a log sd",
    ]
    yield from rows(head, biases(lines))
    yield from rows(["chains x draws", "random walks", "independent draws"], yardstick(lines))


def step_table(steps):
    """A row for each density and integrator, a column for each side."""
    sides = sorted({line["side"] for line in steps})
    cells = []
    for density, integrator in dict.fromkeys((s["density"], s["integrator"]) for s in steps):
        found = {
            s["side"]: f"{s['step_size']:.3f} ± {s['relative_error'] * s['step_size']:.3f}"
            for s in steps
            if (s["density"], s["integrator"]) == (density, integrator)
        }
        cells.append([f"{integrator}, {density}", *(found.get(side, "") for side in sides)])
    return rows(["step that accepts 0.8", *map(str, sides)], cells)


def draw_steps(steps, axes):
    for density, style in (("window", "-"), ("class", "--")):
        for integrator, colour in COLOURS.items():
            found = [s for s in steps if (s["density"], s["integrator"]) == (density, integrator)]
            sides, sizes, errors = (
                np.asarray([s[name] for s in found])
                for name in ("side", "step_size", "relative_error")
            )
            axes.errorbar(
                sides,
                sizes,
                sizes * errors,
                fmt=f"o{style}",
                color=colour,
                markersize=4,
                capsize=2,
                label=f"{integrator}, {density}",
            )
    axes.set(xlabel="image's side in pixels", ylabel="step that accepts 0.8", yscale="log")
    axes.set_xticks(sorted({s["side"] for s in steps}))
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("SqueezeNet, white noise of 10 grey levels", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def picture(steps, path):
    """The steps against the image's side."""
    figure = Figure(figsize=(5.5, 4.6), layout="constrained")
    draw_steps(steps, figure.subplots())
    figure.savefig(path, dpi=110)


def main():
    parser = command_line(__doc__)
    for name in ("draws", "steps", "picture"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    lines, steps = read_lines(options.draws), read_lines(options.steps)
    if lines:
        print(*all_tables(lines), sep="\n")
    if steps:
        print(*step_table(steps), sep="\n")
        picture(steps, options.picture)


if __name__ == "__main__":
    main()
