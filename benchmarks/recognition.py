"""Whether an independent network recognises class images: SqueezeNet's, and EfficientNet-Lite0.

    python benchmarks/recognition.py FOLDER                    # every arm, 30 classes x 4 chains
    python benchmarks/recognition.py FOLDER --classes 5 --arms vivid published
    python benchmarks/recognition.py FOLDER --report           # of what FOLDER holds already

PPL_CNN_REAL_WEIGHTS names the folder that tests/fetch_real_inputs.py makes; PPL_CNN_JUDGE_PYTHON
is a Python for benchmarks/judge.py, which says what it needs. FOLDER holds the images of each
class and arm, two chains in images/ARM-CLASS-PAIR.npz, and results.jsonl with a line for each; the
same command goes on where it was stopped. It ends in table.md and grid.png.

Arms, each with as many chains for each class:

    published       the paper's density (--recipe published: the score, white noise, T = 1), `split`
    start           vivid's starts alone: randomize-then-optimize
    vivid           --recipe vivid: from those starts, `split` until the gradients are spent
    lucid           activation maximisation after Olah, Mordvintsev, Schubert, Feature
                    visualization, Distill 2017: the score of the class under random shifts, scales
                    and turns, an image parametrised by its Fourier coefficients and decorrelated
                    colours, Adam at 0.05. Written from that description, with no code of theirs
    lucid-target    the same with vivid's target in place of the score

Classes are those of a permutation of the 1,000 by a fixed seed: the first 30 for reporting, the
ten after them for tuning, on which all settings here and in vivid were chosen. Gradients are those
of the network, one for each view of an image: a leapfrog over K warps costs K. Intervals are of a
bootstrap over classes, since the chains of a class are not independent. They run in pairs, which
share their step size.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image
from tqdm import tqdm

import ppl_cnn
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.sampling.starts import ASCENT, randomize_then_optimize
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.references.named import parse_reference
from ppl_cnn.models.references.spectral import Spectral
from ppl_cnn.models.references.transforms import WHITE
from ppl_cnn.models.units.views import averaged
from ppl_cnn.options.densities import RECIPES

PERMUTATION = np.random.default_rng(4).permutation(1000)
REPORTING, TUNING = PERMUTATION[:30], PERMUTATION[30:40]
ARMS = ("published", "start", "vivid", "lucid", "lucid-target")
GRADIENTS = {"published": 40, "vivid": 1000, "lucid": 1000}
"""Of the network, a chain, at most; vivid's with those of its starts."""
FIRST_STEP, ANGLE, WARMUP = 0.006, 0.15, 3
"""Where vivid's adaptation starts, in radians, and how many transitions it takes."""
JITTER, GROWTH, TURN = 0.06, (0.9, 1.1), 10.0
"""Lucid's transforms: shift as a part of the side, scales, degrees."""


class Sampled(NamedTuple):
    """A pair of chains of a class."""

    images: np.ndarray
    """(chain, row, col, 3), uint8, RGB."""
    gradients: int
    """Of the network, for each chain."""
    more: dict
    """What else the record should say."""


def keys_of(seed, pair):
    """Of the two chains of a pair."""
    return jax.random.split(jax.random.key(seed), 2 * pair + 2)[2 * pair :]


def shown(x, preprocessing):
    """Images in pixel units minus the mean as uint8 RGB."""
    pixels = np.asarray(x) + np.asarray(preprocessing.mean, np.float32)
    if preprocessing.order == "BGR":
        pixels = pixels[..., ::-1]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


class Recipe:
    """A recipe's density, compiled once for all classes, and the split kernel in it."""

    def __init__(self, network, name):
        values = RECIPES[name]
        network = network if values["size"] is None else network.resized(values["size"])
        self.views = max(values["warps"], 1)
        self._reference = parse_reference(values["reference"])
        self._temperature = values["temperature"]
        units = network.units("class:0-999", target=values["target"])
        self._units = [averaged(unit, values["warps"], values["smooth"]) for unit in units]
        density = self._density(0)
        self.shape, self._preprocessing = density.latent_shape, density.unit.preprocessing
        self._push, self._tilt = jax.jit(density.push), jax.jit(jax.vmap(density.tilt, (0, None)))
        self._ascend = jax.jit(jax.vmap(partial(randomize_then_optimize, density), (None, 0)))
        self._of_tilt = density.tilt

    def _density(self, index):
        return TiltedDensity(self._units[index], self._reference, self._temperature)

    def noise(self, index, pair):
        """A draw of the reference for each chain."""
        return jax.vmap(partial(jax.random.normal, shape=self.shape))(keys_of(index, pair))

    def images(self, z):
        return shown(self._push(z), self._preprocessing)

    def started(self, index, pair):
        """The latents of vivid's starts."""
        return self._ascend(self._units[index].params, self.noise(index, pair))

    def moved(self, index, pair, z, gradients, warmup, **first):
        """The chains after at most so many gradients of the network, and what became of them."""
        params = self._units[index].params
        kernel = self._kernel(warmup, **first)
        state = kernel["init"](keys_of(index + 1000, pair), z, params)
        spent, acceptance, responses = self.views, [], [state.tilt]
        while spent + self.views * _most_steps(state) <= gradients:
            state = kernel["sample"](state, params)
            spent += int(state.num_steps.max()) * self.views
            acceptance.append(state.accept_prob)
            responses.append(state.tilt)
        settled = np.asarray(acceptance[warmup:] or acceptance[-1:])
        similar = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(z, state.z, strict=True)]
        response = self._temperature * np.mean(np.asarray(responses), axis=1)
        more = {
            "transitions": len(acceptance),
            "acceptance": round(float(settled.mean()), 3),
            "step_size": round(float(state.adapt_state.step_size[0]), 5),
            "correlation_with_start": round(float(np.mean(similar)), 3),
            "response": [round(float(each), 2) for each in response],
        }
        return state.z, spent, more

    def _kernel(self, warmup, **first):
        if not hasattr(self, "_compiled"):
            kernel = Split(self._of_tilt, **first)

            def init(keys, z, params):
                return kernel.init(keys, warmup, z, (params,), {})

            self._compiled = {
                "init": jax.jit(init),
                "sample": jax.jit(lambda state, params: kernel.sample(state, (params,), {})),
            }
        return self._compiled


def _most_steps(state):
    """That the next trajectory of any chain may have: its angle is jittered up to half as long."""
    tuned = state.adapt_state
    return int(np.ceil(np.max(1.5 * np.asarray(tuned.angle) / np.asarray(tuned.step_size))))


class Lucid:
    """Activation maximisation as Lucid does it."""

    def __init__(self, network, target, size):
        self._unit = network.resized(size).unit("class:0", target=target)
        self._units = network.resized(size).units("class:0-999", target=target)
        self._size = size
        frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
        self._scale = (1 / np.maximum(frequencies, 1 / size))[..., None].astype(np.float32)
        covariance = np.asarray(Spectral().covariance)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(values)
        self._colours = (root / np.linalg.norm(root, axis=0).max()).astype(np.float32)
        self._ascend = jax.jit(jax.vmap(self._ascent, (None, 0)))

    def _pixels(self, coefficients):
        """(row, col, channel) of the network, minus its mean."""
        spectrum = (coefficients[0] + 1j * coefficients[1]) * self._scale
        image = jnp.fft.irfft2(spectrum, (self._size, self._size), axes=(0, 1), norm="ortho")
        rgb = jax.nn.sigmoid(image @ self._colours.T / 4) * WHITE  # their code has this 4
        unit = self._unit.preprocessing
        ordered = rgb[..., ::-1] if unit.order == "BGR" else rgb
        return ordered - jnp.asarray(unit.mean)[None, None]

    def _transformed(self, x, key):
        """Under a random shift, scale and turn; what lies beyond the border is the mean."""
        side = self._size
        shift, scale, turn = jax.random.split(key, 3)
        away = jax.random.uniform(shift, (2,), minval=-JITTER, maxval=JITTER) * side
        angle = jnp.deg2rad(jax.random.uniform(turn, minval=-TURN, maxval=TURN))
        growth = jax.random.uniform(scale, minval=GROWTH[0], maxval=GROWTH[1])
        row, col = (jnp.arange(side) - (side - 1) / 2 - each for each in away)
        row, col = row[:, None], col[None, :]
        cos, sin = jnp.cos(angle) / growth, jnp.sin(angle) / growth
        places = [cos * row - sin * col, sin * row + cos * col]
        places = [place + (side - 1) / 2 for place in places]
        sample = partial(jax.scipy.ndimage.map_coordinates, order=1, mode="constant")
        return jnp.stack([sample(channel, places) for channel in jnp.unstack(x, axis=2)], axis=2)

    def _ascent(self, params, key):
        first, steps = jax.random.split(key)
        shape = (2, self._size, self._size // 2 + 1, 3)
        coefficients = 0.01 * jax.random.normal(first, shape)
        rule = optax.adam(0.05)

        def loss(coefficients, key):
            view = self._transformed(self._pixels(coefficients), key)
            return -self._unit.score(params, view)

        def step(index, carry):
            coefficients, state = carry
            gradient = jax.grad(loss)(coefficients, jax.random.fold_in(steps, index))
            change, state = rule.update(gradient, state)
            return optax.apply_updates(coefficients, change), state

        begun = coefficients, rule.init(coefficients)
        return self._pixels(jax.lax.fori_loop(0, GRADIENTS["lucid"], step, begun)[0])

    def sampled(self, index, pair):
        images = self._ascend(self._units[index].params, keys_of(index, pair))
        return Sampled(shown(images, self._unit.preprocessing), GRADIENTS["lucid"], {})


class Bench:
    """The arms, each made when it is first asked for."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "images").mkdir(parents=True, exist_ok=True)
        wanted, path = json.loads(json.dumps(settings())), folder / "settings.json"
        if path.exists() and json.loads(path.read_text()) != wanted:
            sys.exit(f"{folder} holds images of other settings: give another folder.")
        path.write_text(json.dumps(wanted, indent=2))
        (weights,) = real("ndf/**/squeezenet_weights.pkl")
        self.network = ppl_cnn.load("squeezenet1.1", weights=weights)
        self._made = {}

    def _once(self, name, make):
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _recipe(self, name):
        return self._once(name, lambda: Recipe(self.network, name))

    def sampled(self, arm, index, pair):
        """A pair of chains of a class."""
        latents = self.folder / "images" / f"start-{index}-{pair}-z.npy"
        if arm == "published":
            recipe = self._recipe("published")
            z = recipe.noise(index, pair)
            z, spent, more = recipe.moved(index, pair, z, GRADIENTS[arm], 5, step_size=0.8)
            return Sampled(recipe.images(z), spent, more)
        if arm == "start":
            recipe = self._recipe("vivid")
            z = recipe.started(index, pair)
            np.save(latents, np.asarray(z))
            return Sampled(recipe.images(z), ASCENT, {})
        if arm == "vivid":
            recipe = self._recipe("vivid")
            z = jnp.asarray(np.load(latents))
            spent = GRADIENTS[arm] - ASCENT
            first = {"step_size": FIRST_STEP, "angle": ANGLE}
            z, spent, more = recipe.moved(index, pair, z, spent, WARMUP, **first)
            return Sampled(recipe.images(z), ASCENT + spent, more)
        target = RECIPES["vivid"]["target"] if arm == "lucid-target" else "logit"
        size = RECIPES["vivid"]["size"]
        lucid = self._once(arm, lambda: Lucid(self.network, target, size))
        return lucid.sampled(index, pair)

    def run(self, arms, classes, chains):
        """Samples what isn't there yet, pair by pair and class by class."""
        results = self.folder / "results.jsonl"
        done = {(line["arm"], line["class"], line["pair"]) for line in lines(results)}
        if "vivid" in arms:
            arms = {"start", *arms}
        wanted = product(
            range(chains // 2), map(int, classes), [arm for arm in ARMS if arm in arms]
        )
        todo = [(arm, c, pair) for pair, c, arm in wanted if (arm, c, pair) not in done]
        for arm, index, pair in tqdm(todo, unit="arm of a class"):
            begun = time.monotonic(), time.process_time()
            sampled = self.sampled(arm, index, pair)
            clock, work = time.monotonic() - begun[0], time.process_time() - begun[1]
            np.savez(images_of(self.folder, arm, index, pair), images=sampled.images)
            line = {"arm": arm, "class": index, "pair": pair, "name": self.network.classes[index]}
            line |= {"gradients": sampled.gradients, **sampled.more}
            line |= {"seconds": round(clock / 2, 2), "work": round(work / 2, 2)}
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")


def real(pattern):
    """The files of that pattern in the folder of fetched packages."""
    folder = os.environ.get("PPL_CNN_REAL_WEIGHTS")
    found = sorted(Path(folder).glob(pattern)) if folder else []
    if not found:
        sys.exit(
            f"PPL_CNN_REAL_WEIGHTS must name a folder of tests/fetch_real_inputs.py: {pattern}"
        )
    return found


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def images_of(folder, arm, index, pair):
    return folder / "images" / f"{arm}-{index}-{pair}.npz"


def judged(images):
    """The judge's log-probabilities of several arrays of images, by their names."""
    python = os.environ.get("PPL_CNN_JUDGE_PYTHON")
    if not python:
        sys.exit("PPL_CNN_JUDGE_PYTHON must name a Python for benchmarks/judge.py.")
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder) / "images.npz", Path(folder) / "answers.npz"
        np.savez(given, **images)
        judge = Path(__file__).with_name("judge.py")
        subprocess.run([python, judge, given, answers], check=True, stdout=subprocess.DEVNULL)
        with np.load(answers) as found:
            return {name: found[name] for name in found.files}


def check_judge():
    """How many of foolbox's 20 photographs the judge knows, first and among five."""
    photographs = real("foolbox/**/imagenet_*.jpg")
    images = {path.stem: np.asarray(Image.open(path).convert("RGB"))[None] for path in photographs}
    ranks = [
        rank_of(answer, int(name.rpartition("_")[2]))[0] for name, answer in judged(images).items()
    ]
    return sum(rank == 0 for rank in ranks), sum(rank < 5 for rank in ranks)


def rank_of(answer, index):
    """Of each image, how many classes the judge finds likelier than that one."""
    return (answer > answer[:, index : index + 1]).sum(axis=1)


class Findings(NamedTuple):
    """What a folder holds, of the classes that all its arms have."""

    arms: list
    classes: list
    lines: dict
    """(arm, class) -> its pairs' lines of results.jsonl, in their order."""
    images: dict
    """(arm, class) -> its images."""
    answers: dict
    """(arm, class) -> the judge's log-probabilities (chain, class)."""

    @classmethod
    def of(cls, folder):
        known = defaultdict(dict)
        for line in lines(folder / "results.jsonl"):
            known[line["arm"], line["class"]][line["pair"]] = line
        arms = [arm for arm in ARMS if any(arm == each for each, _ in known)]
        pairs = max(map(len, known.values()))
        classes = [
            c for c in map(int, PERMUTATION) if all(len(known[arm, c]) == pairs for arm in arms)
        ]
        if not classes:
            sys.exit(f"{folder} holds no class that all of its arms have: run the command again.")
        keys = [(arm, c) for arm in arms for c in classes]
        images = {
            key: np.concatenate(
                [np.load(images_of(folder, *key, pair))["images"] for pair in range(pairs)]
            )
            for key in keys
        }
        found = {key: [known[key][pair] for pair in range(pairs)] for key in keys}
        answers = judged({f"{arm}-{c}": images[arm, c] for arm, c in keys})
        named = {(arm, c): answers[f"{arm}-{c}"] for arm, c in keys}
        return cls(arms, classes, found, images, named)

    def each(self, arm, function):
        """Of each class, the mean over its chains of a function of the judge's answers."""
        return np.asarray([function(self.answers[arm, c], c).mean() for c in self.classes])

    def first(self, arm):
        """The share of each class's images that the judge finds likeliest to be it."""
        return self.each(arm, lambda answer, c: rank_of(answer, c) == 0)

    def five(self, arm):
        """Or among the five likeliest."""
        return self.each(arm, lambda answer, c: rank_of(answer, c) < 5)

    def of_lines(self, arm, name):
        """What the lines say, of each class and pair."""
        return np.asarray([[line[name] for line in self.lines[arm, c]] for c in self.classes])


def diversity(images):
    """Root mean square difference of two chains' images of 16x16 cells, in grey levels."""
    low = [Image.fromarray(image).resize((16, 16), Image.Resampling.BOX) for image in images]
    low = np.asarray([np.asarray(image, float) for image in low])
    pairs = [np.mean((low[a] - low[b]) ** 2) for a in range(len(low)) for b in range(a)]
    return np.sqrt(np.mean(pairs)) if pairs else np.nan


def percent(values):
    """Their mean, with 95 % of a bootstrap over classes."""
    draw = np.random.default_rng(0).integers(len(values), size=(10_000, len(values)))
    low, high = np.percentile(values[draw].mean(axis=1), [2.5, 97.5])
    return f"{100 * values.mean():.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def table(found):
    """In Markdown."""
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
    """The arms' in sentences, class by class, and what the chains did."""
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


def report(folder):
    """Writes table.md and grid.png, and prints the table."""
    first, five = check_judge()
    found = Findings.of(folder)
    rows = [f"Of 20 photographs the judge knows {first}, and {five} among five.", *table(found)]
    rows += ["", *differences(found)]
    (folder / "table.md").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))
    draw_grid(folder / "grid.png", found)


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


def settings():
    """All that determines a folder's images, beside arm, class and pair."""
    steps = {"first_step": FIRST_STEP, "angle": ANGLE, "warmup": WARMUP, "ascent": ASCENT}
    return {"gradients": GRADIENTS, **steps, "recipes": dict(RECIPES)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--classes", type=int, default=len(REPORTING), help="this many")
    parser.add_argument("--first", type=int, default=0, help="leaves out so many before them")
    parser.add_argument("--chains", type=int, choices=range(2, 11, 2), default=4)
    parser.add_argument("--tuning", action="store_true", help="the classes for tuning")
    parser.add_argument("--report", action="store_true", help="of what is there; samples nothing")
    options = parser.parse_args()
    classes = (TUNING if options.tuning else REPORTING)[options.first :][: options.classes]
    if not options.report:
        Bench(options.folder).run(options.arms, classes, options.chains)
    report(options.folder)


if __name__ == "__main__":
    main()
