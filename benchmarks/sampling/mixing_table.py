"""The table and the picture of mixing.py."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ppl_cnn.inference.diagnostics.thresholds import RHAT_POOR


def interval(shares):
    """Mean of the chains' shares (class, chain), and half its 95 % interval.

    The error is from the spread of a class's chains, so that it is 0 if all draws are right.
    """
    shares = np.asarray(shares)
    errors = shares.var(axis=1, ddof=1) / shares.shape[1]
    return shares.mean(), 1.96 * np.sqrt(errors.sum()) / len(shares)


def table(lines):
    """A row for each case, in Markdown."""
    rows = [
        "| network | reference | target | kernel | T | chains, warmup, draws "
        "| R-hat: worst, median class | classes that agree | recognised | named by itself "
        "| mean f, sides | gradients | restarts |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        rhat = np.asarray(line["rhat"])
        share, half = interval(line["recognised"])
        low, high = line["response"]
        restarts = f"{line['restarts']:g}" if line["kernel"].startswith("tempered") else ""
        rows.append(
            f"| {line['network']} | `{line['reference']}` | {line['target']} | {line['kernel']} "
            f"| {_temperature(line)} | {line['chains']}, {line['warmup']}, {line['draws']} "
            f"| {rhat.max():.3f}, {np.median(rhat):.3f} "
            f"| {(rhat <= RHAT_POOR).sum()} | {100 * share:.1f} ± {100 * half:.1f} % "
            f"| {100 * np.mean(line['named']):.1f} % | {low:.2f}, {high:.2f} "
            f"| {line['gradients']:,} | {restarts} |"
        )
    return "\n".join(rows) + "\n"


def picture(folder, lines, scale=2, margin=185):
    """A labelled row for each case; of each class the last draw of a chain of either side."""
    font = ImageFont.load_default(13)
    rows = []
    for line in lines:
        with np.load(folder / f"{line['name']}.npz") as file:
            images = file["images"]
        shown = images[:, [0, images.shape[1] // 2]]
        shown = np.pad(shown, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0)
        shown = np.pad(shown, ((0, 0), (0, 0), (0, 4), (0, 0)), constant_values=128)
        row = np.concatenate([np.concatenate(list(pair), axis=1) for pair in shown], axis=1)
        row = np.clip(row, 0, 255).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
        label = Image.new("L", (margin, len(row)), 255)
        first = f"{line['network']}, T = {_temperature(line)}, {line['kernel']}"
        text = f"{first}\n{line['target']}\n{line['reference']}"
        ImageDraw.Draw(label).multiline_text((8, 3), text, fill=0, font=font, spacing=3)
        rows.append(np.concatenate([np.asarray(label), row], axis=1))
    Image.fromarray(np.concatenate(rows)).save(folder / "mixing.png", optimize=True)


def _temperature(line):
    return "1" if line["strength"] == 1 else f"1/{line['strength']:g}"
