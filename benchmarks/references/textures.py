"""Filters of SqueezeNet's early layers under a generator of photographs' patches.

    export PPL_CNN_REAL_WEIGHTS=real                  # which tests/fetch_real_inputs.py fetches
    python -m benchmarks.references.textures runs/textures photographs/

Windows of 32x32 pixels are cut out of photographs at several scales: those for training from the
left three quarters of each, those for testing from the rest. A generator is trained on the former.
Then 10,000 draws of each reference are weighted by exp(f/T) for filters of SqueezeNet with images
of 32x32 pixels; T is the standard deviation of the filter's response to test patches. What a
reference should give is known: it is what the test patches give.

    log_z: the mean absolute difference of log Z from that under test patches
    response: Wasserstein's distance of the response's distributions, in units of T
    tilted: the difference of the mean response under p from that under test patches, in units of T
    ess: the effective share of the draws, the median over filters

A rerun resumes the training, and measures no row of results.jsonl again; the folder gets table.md
and textures.png.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

import ppl_cnn
from benchmarks.common import add_line, command_line, missing, read_lines, say, squeezenet
from benchmarks.recognition.arms import shown
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.sampling.resampling.run import proposals_of
from ppl_cnn.inference.sampling.resampling.scorer import Scorer
from ppl_cnn.inference.sampling.resampling.settings import Resample, Resampling
from ppl_cnn.inference.training.generators.figures import first_images
from ppl_cnn.inference.training.generators.loop import train_generator
from ppl_cnn.inference.training.generators.recipe import GeneratorRecipe
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.empirical_density import EmpiricalDensity
from ppl_cnn.models.references.empirical import Empirical
from ppl_cnn.models.references.parsing import parse_reference

SIDE = 32
SCALES = (SIDE * 2, SIDE * 4, SIDE * 8)
"""Short sides in pixels that photographs are reduced to before they are cut."""
TRAIN_SHARE = 0.75
"""The part of a photograph's width from which training patches are cut."""
LAYERS = ("conv1", "fire2/expand3x3", "fire3/expand3x3", "fire4/expand3x3")
TOY_LAYERS = ("conv1",)
FILTERS = 8
PICTURED = 3
"""Filters of a layer in the picture."""


@dataclass(frozen=True)
class Sizes:
    """How many patches of each photograph, and draws; and the generator's training."""

    train: int
    test: int
    draws: int
    layers: tuple[str, ...]
    stages: dict[str, Any]


FULL = Sizes(400, 250, 10_000, LAYERS, {"autoencoder": "15", "flow": "25", "adversarial": "6"})
TOY = Sizes(
    32, 32, 64, TOY_LAYERS, {"autoencoder": "2steps", "flow": "2steps", "adversarial": "2steps"}
)


def photographs(given: Iterable[Path]):
    """Names and images of files, or of folders' files."""
    for path in given:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            with Image.open(file) as opened:
                yield file.stem, ImageOps.exif_transpose(opened).convert("RGB")


def toy_photographs():
    """Two fields of noise."""
    for name in ("one", "other"):
        noise = np.random.default_rng(len(name)).integers(0, 256, (80, 120, 3), np.uint8)
        yield name, Image.fromarray(noise)


def cut(named, folder, sizes):
    """Writes the patches of named photographs, a class folder for each."""
    for number, (name, whole) in enumerate(named):
        rng = np.random.default_rng(number)
        for split, count in (("train", sizes.train), ("test", sizes.test)):
            target = folder / split / name
            target.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                patch = window(whole, SCALES[index % len(SCALES)], split, rng)
                patch.save(target / f"{index:04d}.png")


def window(whole, short, split, rng):
    """A random window of a split's part of a photograph that is reduced to a short side."""
    factor = short / min(whole.size)
    width, height = (round(side * factor) for side in whole.size)
    border = round(TRAIN_SHARE * width)
    first, last = (0, border - SIDE) if split == "train" else (min(border, width - SIDE), width)
    left = rng.integers(first, max(min(last, width - SIDE), first) + 1)
    top = rng.integers(0, height - SIDE + 1)
    corners = (left, top, left + SIDE, top + SIDE)
    box = tuple(min(x / factor, edge) for x, edge in zip(corners, 2 * whole.size, strict=True))
    return whole.resize((SIDE, SIDE), Image.Resampling.BOX, box, reducing_gap=3.0)


@dataclass(frozen=True, eq=False)
class Textures:
    """A folder of patches, generator and results."""

    folder: Path
    sizes: Sizes
    toy: bool

    @cached_property
    def network(self):
        """SqueezeNet for images of patches' size."""
        return squeezenet(SIDE, toy=self.toy)

    def file(self, name, suffix):
        """The file that holds what is named so, as text of layers and references."""
        return self.folder / f"{re.sub('[ :/]', '_', name)}.{suffix}"

    def reference(self, name):
        """A reference by its name in the table."""
        if name in ("train patches", "test patches"):
            return Empirical(f"folder:{self.folder / 'patches'}", name.split()[0])
        if name == "generator":
            return parse_reference(f"generator:{self.folder / 'generator'}")
        if name == "gaussian":
            patches = self.reference("train patches").images
            images = first_images(patches, len(patches), (SIDE, SIDE, 3))
            fitted = ppl_cnn.Gaussian.fit(images, self.folder / "gaussian.npz")
            return ppl_cnn.Bounded(fitted)
        return parse_reference(name)

    def weighed(self, layer, name):
        """(filter, draw) responses to draws of a reference, and what makes the draws' images."""
        reference = self.reference(name)
        kind = EmpiricalDensity if isinstance(reference, Empirical) else TiltedDensity
        units = self.network.units(f"{layer}:0-{FILTERS - 1}", target="logit")
        densities = [kind(unit, reference) for unit in units]
        proposals = proposals_of(densities[0], Resampling(kernel=Resample(self.sizes.draws)))
        scorer = Scorer(densities, proposals)
        return scorer.weighed(progress=True).tilts, scorer


REFERENCES = (
    "test patches",
    "train patches",
    "generator",
    "gaussian",
    "spectral",
    "bounded:spectral",
    "white:40",
)
"""The first is what the others are compared with."""


def measured(study, name):
    """A line for each layer: how a reference's responses and tilts differ from test patches'."""
    rng = np.random.default_rng(0)
    for layer in study.sizes.layers:
        stored = study.file(layer, "npz")
        responses, scorer = study.weighed(layer, name)
        if name == REFERENCES[0]:
            np.savez(stored, responses=responses)
        with np.load(stored) as file:
            real = file["responses"]
        units = [unit_figures(*pair) for pair in zip(responses, real, strict=True)]
        figures = {key: [unit[key] for unit in units] for key in units[0]}
        save_pictures(study, layer, name, responses / real.std(axis=1)[:, None], scorer, rng)
        yield {
            "part": name,
            "layer": layer,
            "draws": responses.shape[1],
            "ess": float(np.median(figures.pop("ess"))),
            **{key: float(np.mean(values)) for key, values in figures.items()},
        }


def unit_figures(responses, real):
    """A filter's figures."""
    temperature = real.std()
    ours, theirs = Weights(responses / temperature), Weights(real / temperature)
    means = [float(each.shares @ each.tilts) for each in (ours, theirs)]
    quantiles = (np.arange(1000) + 0.5) / 1000
    between = np.quantile(ours.tilts, quantiles) - np.quantile(theirs.tilts, quantiles)
    return {
        "log_z": abs(ours.log_z.value - theirs.log_z.value),
        "response": float(np.abs(between).mean()),
        "tilted": abs(means[0] - means[1]),
        "ess": ours.effective / len(responses),
    }


def save_pictures(study, layer, name, tilts, scorer, rng):
    """Keeps draws of p for the picture."""
    images = [
        shown(scorer.images(Weights(each).resampled(rng.random(10))), study.network.preprocessing)
        for each in tilts[:PICTURED]
    ]
    np.save(study.file(f"{layer}-{name}", "npy"), images)


def table(lines):
    """The lines in Markdown."""
    head = ("reference", "layer", "log Z", "response", "tilted mean", "ESS")
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in lines:
        numbers = [f"{line[key]:.2f}" for key in ("log_z", "response", "tilted")]
        cells = [line["part"], line["layer"], *numbers, f"{100 * line['ess']:.0f} %"]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


PICTURED_REFERENCES = ("test patches", "generator", "spectral")


def picture(study, tile=40, label=150):
    """Draws of p for some filters, under test patches, the generator and the spectral field."""
    layers = study.sizes.layers
    columns = [label + index * (10 * tile + 12) for index in range(len(PICTURED_REFERENCES))]
    rows = len(layers) * PICTURED
    sheet = Image.new("RGB", (columns[-1] + 10 * tile, 24 + rows * tile), "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in zip(columns, PICTURED_REFERENCES, strict=True):
        pen.text((column, 4), name, "black", font_size=14)
        for number, layer in enumerate(layers):
            images = np.load(study.file(f"{layer}-{name}", "npy"))
            for index, row in enumerate(images):
                top = 24 + (number * PICTURED + index) * tile
                pen.text((4, top + 12), f"{layer}:{index}", "black", font_size=12)
                for place, image in enumerate(row):
                    shrunk = Image.fromarray(image).resize((tile - 2, tile - 2))
                    sheet.paste(shrunk, (column + place * tile, top))
    sheet.save(study.folder / "textures.png", optimize=True)


def main():
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("photographs", type=Path, nargs="*", help="files, or folders of them")
    options = parser.parse_args()
    sizes, patches = TOY if options.toy else FULL, options.folder / "patches"
    if not patches.is_dir():
        named = toy_photographs() if options.toy else photographs(options.photographs)
        cut(named, options.folder / "cutting", sizes)
        (options.folder / "cutting").rename(patches)
    study = Textures(options.folder, sizes, options.toy)
    recipe = GeneratorRecipe(
        data=f"folder:{patches}", size=SIDE, batch_size=32 if options.toy else 64, **sizes.stages
    )
    train_generator(recipe, out=study.folder / "generator")
    results = study.folder / "results.jsonl"
    for name in missing(results, REFERENCES, lambda line: line["part"]):
        for line in list(measured(study, name)):
            add_line(results, line)
            say(**line)
    (study.folder / "table.md").write_text(table(read_lines(results)))
    picture(study)


if __name__ == "__main__":
    main()
