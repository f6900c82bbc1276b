"""Class samples by Langevin moves in the space of pixels, as those of JEM.

    x' = x + (a/2) grad f(x) + noise of standard deviation 0.01,   a/2 = 1

from uniform noise, x in [-1, 1], with f the logit of the class: there is no reference, and no
Metropolis step.

Source: Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky, Your classifier is secretly an energy
based model and you should treat it like one, ICLR 2020, arXiv 1912.03263: appendix A, step size 1,
noise 0.01. Networks there are trained with these moves; ours are not.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.references.likeness import MOST, as_seen
from benchmarks.references.study import Study
from benchmarks.references.ten_classes import CLASSES

STEP, NOISE = 1.0, 0.01


@dataclass(frozen=True)
class Langevin:
    """Whose classes are sampled, and for how long."""

    network: str
    steps: int
    """Gradients of a chain; draws are kept from the second half."""
    clipped: bool = False
    """Whether x is clipped to [-1, 1] after each move. As published it is not."""
    chains: int = 8

    @property
    def name(self):
        """The name of its line."""
        return f"langevin-{self.network}-{self.steps}" + ("-clipped" if self.clipped else "")

    def measured(self, study: Study):
        """Its line; the draws go to the study's folder.

        response: mean f at the start, and of the draws
        recognised and the rest: of 1,000 draws of each class (`likeness.Real`)
        """
        units = study.units(self.network, "logit")
        kept = max(1, min(MOST // self.chains, self.steps // 2))
        images, responses = self._run(units[0], self.steps // 2, kept)
        images = as_seen(np.asarray(images)).reshape(CLASSES, -1, *units[0].shape)
        np.savez_compressed(study.folder / f"{self.name}.npz", images=images)
        return {
            **asdict(self),
            "method": "langevin",
            "response": [round(float(each), 2) for each in responses],
            **study.real.of_classes(images),
        }

    def _run(self, unit, warmup, kept):
        """Pixels (class, chain, draw, row, col, channel), and mean f at the start and later."""
        members = jnp.repeat(jnp.arange(CLASSES), self.chains)
        mean = jnp.asarray(unit.preprocessing.mean)[None, None]

        def score(x, params, channel):
            own = {**params, "unit": {"channel": channel}}
            return unit.score(own, 127.5 * (x + 1) - mean)

        @jax.jit
        def run(params, key):
            responses = jax.vmap(score, (0, None, 0))
            gradients = jax.vmap(jax.grad(score), (0, None, 0))
            key_start, key_moves = jax.random.split(key)
            start = jax.random.uniform(key_start, (len(members), *unit.shape), minval=-1.0)

            def move(index, x):
                noise = jax.random.normal(jax.random.fold_in(key_moves, index), x.shape)
                x = x + STEP * gradients(x, params, members) + NOISE * noise
                return jnp.clip(x, -1.0, 1.0) if self.clipped else x

            def draw(x, number):
                first = warmup + number * (warmup // kept)
                x = jax.lax.fori_loop(first, first + warmup // kept, move, x)
                return x, (127.5 * (x + 1), responses(x, params, members))

            x = jax.lax.fori_loop(0, warmup, move, start)
            _, (pixels, found) = jax.lax.scan(draw, x, jnp.arange(kept))
            return pixels, jnp.stack([responses(start, params, members).mean(), found.mean()])

        pixels, responses = run(unit.params, jax.random.key(0))
        pixels = pixels.reshape(kept, CLASSES, self.chains, *unit.shape)
        return jnp.moveaxis(pixels, 0, 2), responses


def all_cases() -> Iterator[Langevin]:
    """The table's, in its order."""
    for network in ("discriminative", "generative"):
        for clipped in (False, True):
            yield Langevin(network, 2000, clipped)


def toy_cases() -> Iterator[Langevin]:
    """A short one."""
    yield Langevin("discriminative", 8, chains=2)
