"""The tables and the picture of class_samples.py."""

import numpy as np
from PIL import Image

from benchmarks.references.ten_classes import CLASSES
from ppl_cnn.inference.diagnostics.thresholds import RHAT_POOR
from ppl_cnn.inference.sampling.resampling.run import FEWEST_EFFECTIVE

_LIKENESS = "recognised | Fréchet | precision | recall | diversity"
_COLUMNS = {
    "weights": (
        "network | target | reference | T | ESS: median, worst class | log Z - expected, mean "
        f"| {_LIKENESS}"
    ),
    "chains": (
        "network | target | reference | kernel | T | R-hat: worst, median class | classes that "
        "agree | effective draws per 1,000: median, worst class | work of a chain | mean f, sides "
        f"| {_LIKENESS}"
    ),
    "langevin": f"network | x clipped | gradients of a chain | mean f: start, draws | {_LIKENESS}",
}


def tables(lines):
    """A table for each way of sampling that has lines, in Markdown; real images end each."""
    real = next(line for line in lines if line["name"] == "real")
    parts = [f"The judge errs on {100 * real['error']:.2f} % of the unseen images.\n"]
    for method, columns in _COLUMNS.items():
        own = [line for line in lines if line.get("method") == method]
        if not own:
            continue
        width = columns.count("|") + 1
        rows = [_weighed, _chained, _moved][list(_COLUMNS).index(method)]
        shown = [[*rows(line), *_likeness(line)] for line in own]
        shown.append(["real images", *[""] * (width - 6), *_likeness(real)])
        head = f"| {columns} |\n|{'---|' * width}\n"
        parts.append(head + "".join(f"| {' | '.join(row)} |\n" for row in shown))
    return "\n".join(parts)


def _weighed(line):
    ess, difference = np.asarray(line["ess"]), ""
    known = line["reference"] == "data" or ess.min() >= FEWEST_EFFECTIVE
    if "expected" in line and known:
        difference = f"{np.abs(np.subtract(line['log_z'], line['expected'])).mean():.3f}"
    worth = f"{np.median(ess):,.0f}, {ess.min():,.0f} of {line['proposals']:,}"
    return [*_named(line), _temperature(line), worth, difference]


def _chained(line):
    rhat, effective = np.asarray(line["rhat"]), line["effective_per_1000"]
    low, high = line["response"]
    return [
        *_named(line),
        line["kernel"],
        _temperature(line),
        f"{rhat.max():.3f}, {np.median(rhat):.3f}",
        str((rhat <= RHAT_POOR).sum()),
        f"{np.median(effective):.0f}, {min(effective):.0f}",
        f"{line['work']:,}",
        f"{low:.2f}, {high:.2f}",
    ]


def _moved(line):
    start, end = line["response"]
    clipped = "yes" if line["clipped"] else "no"
    return [line["network"], clipped, f"{line['steps']:,}", f"{start:.1f}, {end:.1f}"]


def _named(line):
    return [line["network"], line["target"], f"`{line['reference']}`"]


def _temperature(line):
    return {1.0: "1", 3.0: "1/3", 1 / 3: "3"}[line["strength"]]


def _likeness(line):
    """Means over the classes that have figures, whose number is told if it isn't all of them."""
    known = [value is not None for value in line.get("recognised", [])]
    if not any(known):
        return ["", "", "", "", ""]

    def mean(name):
        return np.mean([value for value in line[name] if value is not None])

    some = "" if all(known) else f" ({sum(known)} classes)"
    return [
        f"{100 * mean('recognised'):.1f} %{some}",
        f"{mean('frechet'):.2f}",
        *(f"{mean(name):.2f}" for name in ("precision", "recall", "diversity")),
    ]


def picture(study, names, draws=12, scale=2):
    """A row for each class: draws of the first case that is there, and real images beside them.

    Args:
        study: its folder has the draws, and gets class_samples.png.
        names: of the cases, the preferred first.
        draws: of each kind.
        scale: pixels of the picture for one of an image.
    """
    found = [path for name in names if (path := study.folder / f"{name}.npz").exists()]
    if not found:
        return
    with np.load(found[0]) as file:
        samples = file["images"]
    unseen, rng = study.data.read(study.data.unseen), np.random.default_rng(0)
    rows = []
    for number in range(CLASSES):
        kinds = samples[number], unseen.of_class(number)
        parts = [rng.permutation(each)[:draws, :, :, 0] for each in kinds]
        shown = [_beside(part, gap=1) for part in parts]
        rows.append(_beside(shown, gap=8))
    large = np.vstack(rows).repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(large).save(study.folder / "class_samples.png", optimize=True)


def _beside(images, gap):
    """Images in a row, with white between them."""
    return np.hstack([np.pad(each, ((0, 1), (0, gap)), constant_values=255) for each in images])
