"""The tables and the picture of docs/results/samplers.md.

    python -m benchmarks.sampling.samplers_table draws.jsonl steps.jsonl samplers.png

The first two files are those that samplers.py and step_size.py have written. /dev/null for one of
them leaves out its panel.
"""

from pathlib import Path

import arviz
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.common import command_line, read_lines

COLOURS = {"split": "#c0392b", "leapfrog": "#2c6fa6"}
COLUMNS = (
    *("split", "isir", "tempered", "langevin", "pcn", "blackjax-mgrad_gaussian"),
    *("blackjax-elliptical_slice", "blackjax-mala", "blackjax-barker"),
    *("numpyro-hmc", "blackjax-hmc", "tfp-hmc", "numpyro-nuts", "blackjax-nuts", "tfp-nuts"),
)
MEASURES = {
    "ess_per_1000_gradients": "effective draws per 1,000 gradients",
    "ess_per_cpu_second": "effective draws per CPU second",
    "acceptance": "acceptance",
    "gradients": "gradients per draw",
    "compile_seconds": "seconds of compiling",
    "warmup_seconds": "seconds of warmup",
}


def three_digits(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def value_of(line, measure):
    if measure == "gradients":
        return line["gradients"] / (line["draws"] * line["chains"])
    return line[measure]


def name_of(line):
    return line["case"] + (f", seed {line['seed']}" if line["seed"] else "")


def table(lines, measure):
    """Markdown: a row for each case, a column for each kernel."""
    found = {(name_of(line), line["kernel"]): value_of(line, measure) for line in lines}
    print(f"\n| {MEASURES[measure]} | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for case in dict.fromkeys(name_of(line) for line in lines):
        values = (found.get((case, kernel)) for kernel in COLUMNS)
        cells = ("" if value is None else three_digits(value) for value in values)
        print(f"| {case} | {' | '.join(cells)} |")


def best_other(lines):
    """Markdown: what split draws, per gradient, beside the best exact kernel that isn't ours."""
    print("\n| | sd of g | split | best of the others | ratio |\n|---|---|---|---|---|")
    spreads = {name_of(line): line.get("tilt_sd") for line in lines}
    for case in dict.fromkeys(name_of(line) for line in lines):
        found = {
            line["kernel"]: line["ess_per_1000_gradients"]
            for line in lines
            if name_of(line) == case
            and line["kernel"] not in ("isir", "tempered", "langevin")
            and line["ess"]
        }
        mine = found.pop("split", None)
        if mine and found:
            best = max(found, key=found.__getitem__)
            said = f"{three_digits(found[best])} ({best})"
            ratio = three_digits(mine / found[best])
            spread = "" if spreads[case] is None else f"{spreads[case]:.2g}"
            print(f"| {case} | {spread} | {three_digits(mine)} | {said} | {ratio} |")


def yardstick(lines):
    """Markdown: what small sizes mean. As many draws of 52 quantities that are random walks, or
    independent, 20 times each: the least and the largest of their smallest sizes."""
    print("\n| chains x draws | random walks | independent draws |\n|---|---|---|")
    small = {(line["chains"], line["draws"]) for line in lines if line["ess"] and _least(line) < 15}
    for chains, draws in sorted(small):
        rng = np.random.default_rng(0)
        normal = rng.standard_normal((20, 52, chains, draws))
        cells = []
        for samples in (normal.cumsum(axis=3), normal):
            sizes = [min(map(_size, sample)) for sample in samples]
            cells.append(f"{min(sizes):.1f} to {max(sizes):.1f}")
        print(f"| {chains} x {draws} | {' | '.join(cells)} |")


def _least(line):
    return min(line["ess"].values())


def _size(values):
    tail = arviz.ess(values, method="tail", prob=(0.05, 0.95))
    return min(float(arviz.ess(values, method="bulk")), float(tail))


def step_table(steps):
    sides = sorted({line["side"] for line in steps})
    print(
        f"\n| step that accepts 0.8 | {' | '.join(map(str, sides))} |\n|---|{'---|' * len(sides)}"
    )
    for density, integrator in dict.fromkeys((s["density"], s["integrator"]) for s in steps):
        found = {
            s["side"]: f"{s['step_size']:.3f} ± {s['relative_error'] * s['step_size']:.3f}"
            for s in steps
            if (s["density"], s["integrator"]) == (density, integrator)
        }
        cells = " | ".join(found.get(side, "") for side in sides)
        print(f"| {integrator}, {density} | {cells} |")


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


def draw_kernels(lines, axes):
    cases = list(dict.fromkeys(line["case"] for line in lines if line["seed"] == 0))
    kernels = [name for name in COLUMNS if any(line["kernel"] == name for line in lines)]
    height = 0.8 / len(kernels)
    palette = [
        COLOURS["split"],
        "#d98c3f",
        "#e6a19a",
        *matplotlib.colormaps["Blues"](np.linspace(0.85, 0.35, 6)),
    ]
    for index, (kernel, colour) in enumerate(zip(COLUMNS, palette, strict=True)):
        found = {
            line["case"]: line["ess_per_1000_gradients"]
            for line in lines
            if line["kernel"] == kernel and line["seed"] == 0 and line["ess"]
        }
        at = [cases.index(case) + (index - len(kernels) / 2 + 0.5) * height for case in found]
        axes.barh(at, list(found.values()), height, color=colour, label=kernel)
    axes.set(xscale="log", xlabel="effective draws per 1,000 gradients (smallest of 52 quantities)")
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def picture(lines, steps, path):
    panels = [(drawn, of) for drawn, of in ((draw_steps, steps), (draw_kernels, lines)) if of]
    size = 5.5 * len(panels), 4.6
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(1, len(panels), squeeze=False)
    for (drawn, of), axes in zip(panels, places[0], strict=True):
        drawn(of, axes)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main():
    parser = command_line(__doc__)
    for name in ("draws", "steps", "picture"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    order = ("lenet", "squeezenet-64", "squeezenet-128", "squeezenet-227", "alexnet")
    lines = sorted(
        read_lines(options.draws),
        key=lambda line: (
            next(i for i, name in enumerate(order) if line["case"].startswith(name)),
            "/" in line["case"],
            line["seed"],
        ),
    )
    steps = read_lines(options.steps)
    best_other(lines)
    for measure in MEASURES:
        table(lines, measure)
    yardstick(lines)
    step_table(steps)
    picture(lines, steps, options.picture)


if __name__ == "__main__":
    main()
