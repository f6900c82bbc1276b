"""At which temperatures chains of class images from two starts still mix, and are recognised.

    python -m benchmarks.recognition.temperatures FOLDER
    python -m benchmarks.recognition.temperatures FOLDER --size 96 --gradients 2000 --warps 4

SqueezeNet's classes (the first of those for tuning) with vivid's target under a reference of
32x32x3 waves, at T = 1, 1/4, 1/8, 1/30, 1/100 and 1/1000. class_images.py says which variables of
the environment it needs. Half of a class's chains start at draws of the reference, half at optima
of T = 1/1000, and all move by `split`, adapted in the first 20 transitions. results.jsonl gets a
line for each temperature and class, which isn't made again:

    rhat: of one side against the other over the last half of the transitions, rank-normalised: of
        the response, and the largest of 50 random projections of the image
    response: mean of each side, and of the first draws of each
    correlation: of the last latents with the first, mean of each side
    judged: of each side's last images, how many the judge names first and among five
    gradients: of the network for each chain, with those of warmup; step_size, acceptance
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import arviz
import jax
import numpy as np

from benchmarks.common import (
    TUNING,
    add_line,
    command_line,
    correlation,
    missing,
    say,
    squeezenet,
)
from benchmarks.recognition.arms import shown
from benchmarks.recognition.judging import judged, rank_of
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.sampling.starts.optimum import randomize_then_optimize
from ppl_cnn.models.density import DensityParams, TiltedDensity
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.units.views import averaged
from ppl_cnn.options.presets import PRESETS

COLDNESS = (1, 4, 8, 30, 100, 1000)
"""1/T."""
FIRST_STEP, FIRST_ANGLE, WARMUP = 0.05, 0.5, 20
"""Where adaptation starts, the step for T = 1, and how many transitions it takes."""
PROJECTIONS = 50


class Chains:
    """Chains of one target, compiled once for all classes and temperatures."""

    def __init__(self, size, warps, reference, count, *, toy=False):
        self._toy = toy
        network = squeezenet(size, toy=toy)
        units = network.units("class:0-999", target=PRESETS["vivid"].target)
        self._units, self.warps = [averaged(unit, warps) for unit in units], max(warps, 1)
        q: Any = parse_reference(reference)
        density = TiltedDensity(self._units[0], q, 1 / max(COLDNESS))
        glimpsed = TiltedDensity(averaged(units[0], 2), density.reference, density.temperature)
        self._views = averaged(units[0], 2).params
        self._shape, self._count = density.latent_shape, count
        self._ascend = jax.jit(jax.vmap(partial(randomize_then_optimize, glimpsed), (None, 0)))
        self._response = lambda z, params: density.unit.score(params.unit, density.push(z, params))
        self._weights = density.reference.params
        self._push = jax.jit(density.push)

    def starts(self, index):
        """Half at draws of the reference, half at optima."""
        keys = jax.random.split(jax.random.key(index), self._count)
        z = jax.vmap(partial(jax.random.normal, shape=self._shape))(keys)
        half = self._count // 2
        own = {**self._views, "unit": self._units[index].params["unit"]}
        params = DensityParams(own, self._weights)
        return z.at[half:].set(self._ascend(params, z[half:]))

    def line(self, index, cold, gradients, starts):
        """What became of the chains."""
        params = DensityParams(self._units[index].params, self._weights)
        kernel = Split(
            lambda z, params: cold * self._response(z, params),
            step_size=FIRST_STEP / math.sqrt(cold),
            angle=FIRST_ANGLE,
        )
        sample = jax.jit(lambda state, params: kernel.sample(state, (params,), {}))
        keys = jax.random.split(jax.random.key(cold), self._count)
        state = jax.jit(lambda keys, z, params: kernel.init(keys, WARMUP, z, (params,), {}))(
            keys, starts, params
        )
        directions = jax.random.normal(jax.random.key(99), (starts[0].size, PROJECTIONS))
        found, spent = [], self.warps
        while spent < gradients:
            state = sample(state, params)
            spent += int(state.num_steps.max()) * self.warps
            flat = state.z.reshape(self._count, -1)
            found.append((state.tilt / cold, flat @ directions, state.accept_prob))
        responses, projections, acceptance = (np.asarray(each) for each in zip(*found, strict=True))
        late = len(found) // 2
        images = shown(self._push(state.z), self._units[index].preprocessing)
        answers = judged({"images": images}, "efficientnet-lite0", toy=self._toy)["images"]
        ranks = np.split(rank_of(answers, index), 2)
        pairs = zip(starts, state.z, strict=True)
        similar = np.asarray([correlation(a, z) for a, z in pairs])
        worst = max(_rhat(projections[late:, :, each]) for each in range(PROJECTIONS))
        return images, {
            "transitions": len(found),
            "gradients": spent,
            "rhat": {"response": round(_rhat(responses[late:]), 3), "projections": round(worst, 3)},
            "response": _sides(responses[late:].mean(axis=0)),
            "response_first": _sides(responses[0]),
            "correlation": _sides(similar),
            "judged": [[int((side < most).sum()) for most in (1, 5)] for side in ranks],
            "step_size": round(float(state.adapt_state.step_size[0]), 4),
            "acceptance": round(float(acceptance[late:].mean()), 3),
        }


def _sides(values):
    return [round(float(side.mean()), 3) for side in np.split(values, 2)]


def _rhat(values):
    """R-hat of values (draw, chain): a side's chains one after another, as if they were one."""
    sides = np.split(np.asarray(values, float).T, 2)
    return float(arviz.rhat(np.stack([side.ravel() for side in sides])))


def main():
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--warps", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--gradients", type=int, default=1500, help="of the network, for one warp")
    parser.add_argument("--reference", default="bounded:band:32@18")
    parser.add_argument("--cold", type=int, nargs="+", default=COLDNESS, help="1/T")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    results = options.folder / "results.jsonl"
    classes = [int(index) for index in TUNING[: options.classes]]
    wanted = [(w, c, cold) for w in options.warps for c in classes for cold in options.cold]
    todo = missing(results, wanted, lambda line: (line["warps"], line["class"], line["cold"]))
    for warps in dict.fromkeys(warps for warps, _, _ in todo):
        chains = Chains(options.size, warps, options.reference, options.chains, toy=options.toy)
        for index in dict.fromkeys(index for each, index, _ in todo if each == warps):
            starts = chains.starts(index)
            for cold in [cold for *each, cold in todo if each == [warps, index]]:
                images, found = chains.line(index, cold, options.gradients * warps, starts)
                line = {"warps": warps, "class": index, "cold": cold, **found}
                np.savez(options.folder / f"images-{warps}-{index}-{cold}.npz", images=images)
                add_line(results, line)
                say(**line)


if __name__ == "__main__":
    main()
