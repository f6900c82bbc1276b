"""Class samples by chains from two sides, one class after the other."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import cpu_seconds, in_turn
from benchmarks.references.likeness import MOST, as_seen
from benchmarks.references.study import Study
from benchmarks.references.ten_classes import CLASSES
from benchmarks.sampling.two_sided import Kept, from_two_sides
from ppl_cnn.inference.diagnostics.mixing.two_sides import two_sides
from ppl_cnn.inference.diagnostics.summary import quiet
from ppl_cnn.inference.kernels.choice import LEAST_WARMUP
from ppl_cnn.inference.sampling.starts.optimum import STEPS
from ppl_cnn.models.density import TiltedDensity


@dataclass(frozen=True)
class Chains:
    """What is sampled, and for how long."""

    network: str
    target: str
    reference: str
    kernel: str
    strength: float = 1.0
    """1/T."""
    chains: int = 8
    warmup: int = LEAST_WARMUP
    draws: int = 250
    ascent: int = STEPS
    """Steps to an optimum, where half of the chains start."""

    @property
    def name(self):
        """The name of its line."""
        parts = ("chains", self.reference, self.network, self.target, self.kernel)
        return "-".join([*parts, f"{self.strength:g}", str(self.draws)]).replace(":", "_")

    def measured(self, study: Study):
        """Its line, a value for each class.

            rhat: of one side against the other, largest of response and 50 projections
            ess: bulk ESS of all chains' draws, smallest of the same
            effective_per_1000: ess for 1,000 gradients' worth of work after the warmup
            forward_cost: of a forward pass f(G(z)), in gradients of it, as timed here
            work: of a chain, in gradients, with start and warmup
            recognised and the rest: of 1,000 draws (`likeness.Real`)

        Draws go to the study's folder.
        """
        units = study.units(self.network, self.target)
        density = TiltedDensity(units[0], study.reference(self.reference))
        began = time.perf_counter()
        kept = self._kept(density, study.folder / self.name)
        taken = time.perf_counter() - began
        cost = forward_cost(density, self.chains)
        work = kept.gradients + cost * kept.forward_passes
        warmup_work = work[:, :, : self.warmup].sum(axis=2).mean()
        after = Kept(*(leaf[:, :, self.warmup :] for leaf in kept))
        each: Any = list(zip(after.response, after.projections, strict=True))
        sides = [two_sides(*quantities) for quantities in each]
        ess = np.asarray([smallest_ess(*quantities) for quantities in each])
        spent = work[:, :, self.warmup :].sum(axis=(1, 2))
        images = _images(density, after.z)
        np.savez_compressed(study.folder / f"{self.name}.npz", images=images)
        return {
            **asdict(self),
            "method": "chains",
            "rhat": [round(side.rhat.value, 4) for side in sides],
            "rhat_of": [side.rhat.of for side in sides],
            "ess": ess.round(1).tolist(),
            "effective_per_1000": (1000 * ess / spent).round(2).tolist(),
            "gradients": after.gradients.mean(axis=(1, 2)).round(2).tolist(),
            "forward_passes": float(after.forward_passes.mean()),
            "forward_cost": round(cost, 3),
            "work": round(float(warmup_work + spent.mean() / self.chains + self.ascent / 2)),
            "response": np.mean([side.response for side in sides], axis=0).round(3).tolist(),
            "acceptance": round(float(after.acceptance.mean()), 3),
            "step_size": round(float(after.step_size.mean()), 4),
            "seconds": round(taken, 1),
            **study.real.of_classes(images),
        }

    def _kept(self, density, folder):
        """The draws of all classes, with the warmup: leaves (class, chain, draw, ...).

        A class whose draws are in the folder is not sampled again.
        """
        folder.mkdir(exist_ok=True)
        run = from_two_sides(
            density,
            self.kernel,
            classes=1,
            chains=self.chains,
            warmup=self.warmup,
            draws=self.draws,
            ascent=self.ascent,
        )
        found = []
        for number in range(CLASSES):
            path = folder / f"class{number}.npz"
            if not path.exists():
                given = jnp.float32(self.strength), jax.random.key(number), jnp.asarray([number])
                kept = run(density.params, *given)._asdict()
                leaves: Any = {name: np.asarray(leaf) for name, leaf in kept.items()}
                np.savez(path, **leaves)
                print(f"{self.name}: class {number}", file=sys.stderr, flush=True)
            with np.load(path) as file:
                found.append(Kept(**file))
        joined: Any = [np.swapaxes(np.stack(each), 1, 2) for each in zip(*found, strict=True)]
        return Kept(*joined)


def smallest_ess(response, projections):
    """The smallest bulk ESS of the response (chain, draw) and the projections (.., projection)."""
    import arviz

    with quiet():
        quantities = [response, *np.moveaxis(projections, 2, 0)]
        return min(float(arviz.ess(values)) for values in quantities)


def forward_cost(density, count, rounds=9):
    """CPU time of a forward pass of so many latents over that of their gradients; timed in turn.

    Args:
        density: gives f and the reference.
        count: number of latents.
        rounds: how often either is timed.
    """
    z = jax.random.normal(jax.random.key(0), (count, *density.latent_shape))
    forward = jax.jit(jax.vmap(density.tilt, (0, None)))
    gradient = jax.jit(jax.vmap(jax.value_and_grad(density.tilt), (0, None)))
    for function in (forward, gradient):
        cpu_seconds(function, z, density.params)
    timed = in_turn(
        lambda: cpu_seconds(forward, z, density.params, calls=4),
        lambda: cpu_seconds(gradient, z, density.params, calls=4),
        rounds,
    )
    return float(np.median(timed.ratios))


def _images(density, z):
    """Evenly spaced draws of all chains of each class: (class, draw, 28, 28, 1), uint8."""
    every = max(1, z.shape[1] * z.shape[2] // MOST)
    z = z[:, :, every - 1 :: every]
    mean = np.asarray(density.unit.preprocessing.mean, np.float32)
    push = jax.jit(density.push)
    made = [push(each.reshape(-1, *z.shape[3:]), density.params) for each in z]
    return np.stack([as_seen(np.asarray(each) + mean) for each in made])


def all_cases() -> Iterator[Chains]:
    """The table's, in its order."""
    for kernel in ("isir", "split"):
        yield Chains("generative", "logit", "generator", kernel)
        yield Chains("alexnet-fashion", "log-prob", "generator", kernel, draws=260)
    yield Chains("discriminative", "log-prob", "generator", "isir")
    yield Chains("generative", "logit", "generator", "isir", strength=3.0)
    yield Chains("generative", "logit", "gaussian", "split")


def toy_cases() -> Iterator[Chains]:
    """Short ones."""
    # A shorter warm-up of split would choose no moves.
    for kernel, warmup in (("isir:2", 2), ("split", LEAST_WARMUP)):
        yield Chains("generative", "logit", "white:10", kernel, 1.0, 2, warmup, 8, 4)
