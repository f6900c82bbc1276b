"""What a folder of class_images.py holds: the table and the grid of images."""

import sys
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.common import JUDGE_CLASSES, read_lines
from benchmarks.recognition.judging import JUDGES, judged, known_photographs, rank_of

ARMS = ("published", "start", "vivid", "lucid", "lucid-target")


def images_of(folder, arm, index, pair):
    return folder / "images" / f"{arm}-{index}-{pair}.npz"


class Findings(NamedTuple):
    """The contents of a folder, for the classes that all its arms have."""

    arms: list
    classes: list
    lines: dict
    """(arm, class) -> its pairs' lines of results.jsonl, in their order."""
    images: dict
    """(arm, class) -> its images."""
    answers: dict
    """(arm, class) -> a judge's log-probabilities (chain, class)."""

    @classmethod
    def of(cls, folder, judge, *, toy=False):
        known: dict[tuple[str, int], dict[int, dict]] = defaultdict(dict)
        for line in read_lines(folder / "results.jsonl"):
            known[line["arm"], line["class"]][line["pair"]] = line
        arms = [arm for arm in ARMS if any(arm == each for each, _ in known)]
        pairs = max(map(len, known.values()))
        classes = [
            c for c in map(int, JUDGE_CLASSES) if all(len(known[arm, c]) == pairs for arm in arms)
        ]
        if not classes:
            sys.exit(
                f"{folder} holds no class that all arms have. Run the command without --report."
            )
        keys = [(arm, c) for arm in arms for c in classes]
        images = {
            key: np.concatenate(
                [np.load(images_of(folder, *key, pair))["images"] for pair in range(pairs)]
            )
            for key in keys
        }
        found = {key: [known[key][pair] for pair in range(pairs)] for key in keys}
        answers = judged({f"{arm}-{c}": images[arm, c] for arm, c in keys}, judge, toy=toy)
        named = {(arm, c): answers[f"{arm}-{c}"] for arm, c in keys}
        return cls(arms, classes, found, images, named)

    def each(self, arm, function):
        """For each class, the mean over its chains of a function of the judge's answers."""
        return np.asarray([function(self.answers[arm, c], c).mean() for c in self.classes])

    def first(self, arm):
        """The share of each class's images that the judge finds likeliest to be it."""
        return self.each(arm, lambda answer, c: rank_of(answer, c) == 0)

    def five(self, arm):
        """The share that the judge finds among the five likeliest."""
        return self.each(arm, lambda answer, c: rank_of(answer, c) < 5)

    def of_lines(self, arm, name):
        """The lines' values of one name, for each class and pair."""
        return np.asarray([[line[name] for line in self.lines[arm, c]] for c in self.classes])


def diversity(images):
    """Root mean square difference of two chains' images of 16x16 cells, in grey levels."""
    small = [Image.fromarray(image).resize((16, 16), Image.Resampling.BOX) for image in images]
    low = np.asarray([np.asarray(image, float) for image in small])
    pairs = [np.mean((low[a] - low[b]) ** 2) for a in range(len(low)) for b in range(a)]
    return np.sqrt(np.mean(pairs)) if pairs else np.nan


def percent(values):
    """The mean of shares in per cent, with 95 % of a bootstrap over classes."""
    draw = np.random.default_rng(0).integers(len(values), size=(10_000, len(values)))
    low, high = np.percentile(values[draw].mean(axis=1), [2.5, 97.5])
    return f"{100 * values.mean():.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def table(found):
    """The arms' shares, in Markdown."""
    chains = len(found.images[found.arms[0], found.classes[0]])
    rows = [
        f"{len(found.classes)} classes x {chains} chains, 95 % of a bootstrap over classes.",
        "",
        "| arm | first, % | among five, % | mean probability | diversity | gradients a chain "
        "| CPU seconds a chain |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in found.arms:
        spread = np.nanmean([diversity(found.images[arm, c]) for c in found.classes])
        seconds = np.median(found.of_lines(arm, "work"))
        if arm == "vivid":
            seconds += np.median(found.of_lines("start", "work"))
        cells = [f"`{arm}`", percent(found.first(arm)), percent(found.five(arm))]
        cells.append(f"{found.each(arm, lambda answer, c: np.exp(answer[:, c])).mean():.3f}")
        cells += [f"{spread:.1f}", f"{found.of_lines(arm, 'gradients').mean():.0f}"]
        rows.append("| " + " | ".join([*cells, f"{seconds:.1f}"]) + " |")
    return rows


def differences(found):
    """Differences between arms, class by class, and what the chains did, in sentences."""
    pairs = [("vivid", "lucid"), ("vivid", "start"), ("start", "lucid-target")]
    rows = [
        f"First, `{one}` less `{other}`: {percent(found.first(one) - found.first(other))} points."
        for one, other in pairs
        if one in found.arms and other in found.arms
    ]
    if "vivid" in found.arms:
        responses = [line["response"] for c in found.classes for line in found.lines["vivid", c]]
        before, after = (np.mean([each[end] for each in responses]) for end in (0, -1))
        acceptance, similar = (
            np.percentile(found.of_lines("vivid", name), [0, 50, 100])
            for name in ("acceptance", "correlation_with_start")
        )
        rows.append(
            "Chains of `vivid`, by pair (least, median, largest): acceptance {:.2f}, {:.2f}, "
            "{:.2f}; correlation of the last z with the start {:.2f}, {:.2f}, {:.2f}; ".format(
                *acceptance, *similar
            )
            + f"mean response {before:.2f} at the start and {after:.2f} at the end."
        )
    return rows


def report(folder, network, *, toy=False):
    """Writes table.md, and grid-JUDGE.png for each judge, and prints the table.

    Args:
        folder: of class_images.py.
        network: the name of the network that made the images; the others are the judges.
        toy: whether they are toys.
    """
    rows = []
    for judge in sorted(JUDGES.keys() - {network}):
        first, five = known_photographs(judge, toy=toy)
        found = Findings.of(folder, judge, toy=toy)
        rows += [f"Of 20 photographs {judge} knows {first}, and {five} among five.", *table(found)]
        rows += ["", *differences(found), ""]
        draw_grid(folder / f"grid-{judge}.png", found)
    (folder / "table.md").write_text("\n".join(rows), "utf-8")
    print("\n".join(rows))


def draw_grid(path, found, columns=10, side=104):
    """A row for each arm, a column for each class: its first chain, framed by its rank.

    Green if the judge finds the class likeliest, yellow if among five.
    """
    classes = found.classes[:columns]
    grid = Image.new("RGB", (len(classes) * (side + 6), len(found.arms) * (side + 6)), "white")
    for row, arm in enumerate(found.arms):
        for column, c in enumerate(classes):
            rank = rank_of(found.answers[arm, c], c)[0]
            frame = (0, 140, 0) if rank == 0 else (230, 170, 0) if rank < 5 else (255, 255, 255)
            tile = Image.new("RGB", (side + 4, side + 4), frame)
            image = Image.fromarray(found.images[arm, c][0])
            tile.paste(image.resize((side, side), Image.Resampling.LANCZOS), (2, 2))
            grid.paste(tile, (column * (side + 6) + 1, row * (side + 6) + 1))
    grid.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
