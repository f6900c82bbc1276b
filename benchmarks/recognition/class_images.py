"""Whether other networks recognise the class images of SqueezeNet, or of an ONNX file's network.

    python -m benchmarks.recognition.class_images FOLDER           # all arms, 30 classes x 4 chains
    python -m benchmarks.recognition.class_images FOLDER --classes 5 --arms vivid published
    python -m benchmarks.recognition.class_images FOLDER --report  # from what FOLDER holds already
    python -m benchmarks.recognition.class_images FOLDER --model net.onnx --pixels inception

The judges are EfficientNet-Lite0 and SqueezeNet 1.1, without the network that made the images.

PPL_CNN_REAL_WEIGHTS names the folder that tests/fetch_real_inputs.py makes. FOLDER gets the images
of each class and arm, two chains in images/ARM-CLASS-PAIR.npz, and results.jsonl with a line for
each; the same command resumes where it was stopped. At the end it writes table.md and grid.png.

Arms, each with as many chains for each class:

    published       the paper's density (--preset published: the score, white noise, T = 1), `split`
    start           vivid's starts alone: randomize-then-optimize
    vivid           --preset vivid: from those starts by its kernel, until the gradients are spent
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

import json
import sys
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ppl_cnn
from benchmarks.common import REPORTING, TUNING, add_line, command_line, missing, squeezenet
from benchmarks.recognition.arms import Lucid, PresetDensity, Sampled
from benchmarks.recognition.findings import ARMS, images_of, report
from ppl_cnn.inference.sampling.starts.optimum import STEPS as ASCENT
from ppl_cnn.models.trained.network import TrainedNetwork
from ppl_cnn.options.presets import PRESETS, Preset


class Sizes(NamedTuple):
    """What is sampled, and for how long."""

    presets: dict[str, Preset]
    gradients: dict[str, int]
    """Arm -> the most gradients of the network for a chain; vivid's include those of its starts."""


PUBLISHED = PRESETS["published"]._replace(kernel="split(moves=trajectories, step_size=0.8)")
VIVID = PRESETS["vivid"]
FULL = Sizes(
    {"published": PUBLISHED._replace(warmup=5), "vivid": VIVID},
    {"published": 40, "vivid": 1000, "lucid": 1000},
)
TOY = Sizes(
    {
        "published": PUBLISHED._replace(warmup=1, size=32),
        "vivid": VIVID._replace(size=32, warps=2),
    },
    {"published": 8, "vivid": ASCENT + 200, "lucid": 3},
)


class Bench:
    """The arms, each made when it is first asked for."""

    def __init__(self, folder, network, *, toy=False):
        self.folder, self.network, self.sizes = folder, network, TOY if toy else FULL
        (folder / "images").mkdir(parents=True, exist_ok=True)
        described = {"network": network.name, **settings(self.sizes)}
        wanted, path = json.loads(json.dumps(described)), folder / "settings.json"
        if path.exists() and json.loads(path.read_text("utf-8")) != wanted:
            sys.exit(f"{folder} holds images of other settings. Give another folder.")
        path.write_text(json.dumps(wanted, indent=2), "utf-8")
        self._made = {}

    def _once(self, name, make):
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _density(self, name):
        return self._once(name, lambda: PresetDensity(self.network, self.sizes.presets[name]))

    def sampled(self, arm, index, pair):
        """A pair of chains of a class."""
        latents = self.folder / "images" / f"start-{index}-{pair}-z.npy"
        gradients, vivid = self.sizes.gradients, self.sizes.presets["vivid"]
        if arm == "published":
            density = self._density(arm)
            z, spent = density.noise(index, pair), gradients[arm]
            z, spent, more = density.moved(index, pair, z, spent)
            return Sampled(density.images(z), spent, more)
        if arm == "start":
            density = self._density("vivid")
            z = density.started(index, pair)
            np.save(latents, np.asarray(z))
            return Sampled(density.images(z), ASCENT, {})
        if arm == "vivid":
            density = self._density(arm)
            z, spent = jnp.asarray(np.load(latents)), gradients[arm] - ASCENT
            z, spent, more = density.moved(index, pair, z, spent)
            return Sampled(density.images(z), ASCENT + spent, more)
        target = vivid.target if arm == "lucid-target" else "logit"
        steps = gradients["lucid"]
        lucid = self._once(arm, lambda: Lucid(self.network, target, vivid.size, steps))
        return lucid.sampled(index, pair)

    def run(self, arms, classes, chains):
        """Samples the images that are missing, pair by pair and class by class."""
        results = self.folder / "results.jsonl"
        if "vivid" in arms:
            arms = {"start", *arms}
        wanted = product(
            range(chains // 2), map(int, classes), [arm for arm in ARMS if arm in arms]
        )
        todo = missing(results, wanted, lambda line: (line["pair"], line["class"], line["arm"]))
        for pair, index, arm in tqdm(todo, unit="arm of a class"):
            begun = time.monotonic(), time.process_time()
            sampled = self.sampled(arm, index, pair)
            clock, work = time.monotonic() - begun[0], time.process_time() - begun[1]
            np.savez(images_of(self.folder, arm, index, pair), images=sampled.images)
            line = {"arm": arm, "class": index, "pair": pair, "name": self.network.classes[index]}
            line |= {"gradients": sampled.gradients, **sampled.more}
            line |= {"seconds": round(clock / 2, 2), "work": round(work / 2, 2)}
            add_line(results, line)


def settings(sizes):
    """Everything that determines a folder's images, beside arm, class and pair."""
    presets = {name: preset._asdict() for name, preset in sizes.presets.items()}
    return {"gradients": sizes.gradients, "ascent": ASCENT, "recipes": presets}


def main():
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="an ONNX file of ImageNet's classes; by default SqueezeNet")
    parser.add_argument("--pixels", help="what the ONNX file's network sees of pixels")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--classes", type=int, default=len(REPORTING), help="how many classes")
    parser.add_argument("--first", type=int, default=0, help="how many classes to skip before them")
    parser.add_argument("--chains", type=int, choices=range(2, 11, 2), default=4)
    parser.add_argument("--tuning", action="store_true", help="take the classes for tuning")
    parser.add_argument(
        "--report", action="store_true", help="report what is there, and sample nothing"
    )
    options = parser.parse_args()
    classes = (TUNING if options.tuning else REPORTING)[options.first :][: options.classes]
    network: TrainedNetwork
    if options.model is None:
        network = squeezenet(toy=options.toy)
    else:
        network = ppl_cnn.load(options.model, pixels=options.pixels, classes="imagenet")
    if not options.report:
        Bench(options.folder, network, toy=options.toy).run(options.arms, classes, options.chains)
    report(options.folder, network.name, toy=options.toy)


if __name__ == "__main__":
    main()
