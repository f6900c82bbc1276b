"""The step that accepts four fifths, against the image's size: split and leapfrog.

    python -m benchmarks.sampling.step_size steps.jsonl             # 13 minutes of one core
    python -m benchmarks.sampling.step_size steps.jsonl window      # one of the densities below

Needs SqueezeNet's published weights in the folder that PPL_CNN_REAL_WEIGHTS names. Adaptation stops
short of the answer where one step is a whole trajectory, which is then accepted more often than
wanted. So both integrators are measured by the same search: trajectories of round(angle/h)
steps, at least one, of size h, with the angle spread evenly over 0.5 to 1.5 quarter turns. Dual
averaging finds about where a mean of 0.8 is accepted; then chains run at that h, at 0.75 and at
1.33 times it, and h at 0.8 is read off the line through the three in log h, with its standard
error. Two densities of ImageNet's class 1 at T = 1, under white noise of 10 grey levels:

    window: the class's score of a window of 64 x 64 pixels, in images that grow: the tilt stays the
        same, and all other pixels are noise
    class: the score of the whole image, the mean over a map that grows with it, so that the tilt's
        gradient falls like 1/side. At 64 pixels the two are one density

Lines that the file holds already are not run again.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import arviz
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import add_line, command_line, missing, squeezenet
from ppl_cnn.inference.kernels.adaptation import StepSize
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import gaussian_step_size
from ppl_cnn.inference.kernels.moves.trajectory import integrate, point_at, van_der_corput
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.references.noise import WhiteNoise

TARGET = 0.8
"""Mean acceptance at which steps are compared."""
TRIED = (0.75, 1.0, 4 / 3)


class Sizes(NamedTuple):
    """How much is measured."""

    sides: tuple[int, ...]
    window: int
    chains: int
    trajectories: dict[tuple[str, str], int]
    """Trajectories of all chains at each of the three steps. Leapfrog's acceptance falls faster
    with its step, which fewer, and longer, trajectories pin down as well."""
    search: dict[str, int]
    """Trajectories of the search for the middle step."""


FULL = Sizes(
    sides=(64, 96, 128, 160, 227),
    window=64,
    chains=4,
    trajectories={
        ("window", "split"): 2000,
        ("window", "leapfrog"): 100,
        ("class", "split"): 240,
        ("class", "leapfrog"): 40,
    },
    search={"split": 40, "leapfrog": 12},
)
TOY = Sizes(
    sides=(32,),
    window=32,
    chains=2,
    trajectories={("class", "split"): 8, ("class", "leapfrog"): 8},
    search={"split": 3, "leapfrog": 3},
)


def tilted(kind, side, sizes):
    """The tilt, a function of weights and z; the weights; the shape of z."""
    seen = {"window": sizes.window, "class": side}[kind]
    unit = squeezenet(seen, toy=sizes is TOY).unit("class:1")
    density = TiltedDensity(unit, WhiteNoise(10.0), 1.0)
    return (
        lambda params, z: density.tilt(z[:seen, :seen], params),
        density.params,
        (side, side, 3),
    )


def leapfrog(tilt, point, momentum, step_size, steps):
    """NumPyro's integrator: end point and change of the energy |z|^2/2 - g(z) + |p|^2/2.

    The change is summed from products of differences: float32 has few digits of the energy itself.
    """

    def step(_, at):
        at, p = at
        p = p + step_size / 2 * (at.tilt_grad - at.z)
        at = point_at(tilt, at.z + step_size * p)
        return at, p + step_size / 2 * (at.tilt_grad - at.z)

    end, p = jax.lax.fori_loop(0, steps, step, (point, momentum))
    change = jnp.sum((p - momentum) * (p + momentum)) / 2
    change += jnp.sum((end.z - point.z) * (end.z + point.z)) / 2
    return end, change - (end.tilt - point.tilt)


def split(tilt, point, momentum, step_size, steps):
    end = integrate(tilt, point, momentum, step_size, steps)
    return end.point, end.energy_change


def transition(integrator, tilt, params, z, key, index, step_size):
    """Moves one chain; where it is then, and the probability of acceptance."""
    key_momentum, key_accept = jax.random.split(key)
    point = point_at(partial(tilt, params), z)
    angle = jnp.pi / 2 * (0.5 + van_der_corput(index))
    steps = jnp.maximum(jnp.round(angle / step_size), 1).astype(jnp.int32)
    momentum = jax.random.normal(key_momentum, z.shape)
    end, change = integrator(partial(tilt, params), point, momentum, step_size, steps)
    acceptance = jnp.exp(-jnp.maximum(jnp.nan_to_num(change, nan=jnp.inf), 0.0))
    accepted = jax.random.uniform(key_accept) < acceptance
    return jnp.where(accepted, end.z, z), acceptance


def measured(kind, side, name, sizes):
    """A line of the file."""
    tilt, params, shape = tilted(kind, side, sizes)
    integrator, first = {
        "split": (split, 0.5),
        "leapfrog": (leapfrog, gaussian_step_size(int(np.prod(shape)))),
    }[name]
    move = jax.jit(jax.vmap(partial(transition, integrator, tilt), (None, 0, 0, None, None)))
    z = jax.random.normal(jax.random.key(0), (sizes.chains, *shape))
    moves = 0

    def moved(step_size):
        nonlocal z, moves
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), moves), sizes.chains)
        z, acceptance = move(params, z, keys, jnp.asarray(moves), step_size)
        moves += 1
        return np.asarray(acceptance)

    step = StepSize.around(jnp.asarray(first))
    for _ in range(sizes.search[name]):
        acceptance = moved(jnp.exp(step.log_step)).mean()
        step = step.update(jnp.asarray(acceptance), TARGET, longest=np.pi)
    steps = np.minimum(float(jnp.exp(step.log_average)) * np.asarray(TRIED), np.pi)
    count = sizes.trajectories[kind, name] // sizes.chains
    accepted = [np.stack([moved(jnp.asarray(h)) for _ in range(count)], axis=1) for h in steps]
    means = [values.mean() for values in accepted]
    errors = [float(arviz.mcse(values.astype(np.float64))) for values in accepted]
    # The line's height at the middle has the mean's error; its slope is far better known.
    slope, height = np.polyfit(np.log(steps), means, 1)
    return {
        "density": kind,
        "integrator": name,
        "side": side,
        "step_size": round(float(np.exp((TARGET - height) / slope)), 4),
        "relative_error": round(float(np.hypot.reduce(errors) / len(errors) / abs(slope)), 4),
        "tried": {
            f"{h:.4f}": f"{mean:.3f} ± {error:.3f}"
            for h, mean, error in zip(steps, means, errors, strict=True)
        },
    }


def main():
    parser = command_line(__doc__)
    parser.add_argument("out", type=Path, help="the file of lines")
    parser.add_argument("kind", nargs="*", help="window, class; both by default")
    options = parser.parse_args()
    if unknown := sorted(set(options.kind) - {"window", "class"}):
        parser.error(f"Unknown density {unknown[0]!r}. Known: window, class.")
    sizes = TOY if options.toy else FULL
    wanted = [
        (kind, name, side)
        for kind, name in sizes.trajectories
        if not options.kind or kind in options.kind
        for side in sizes.sides
    ]
    todo = missing(
        options.out, wanted, lambda line: (line["density"], line["integrator"], line["side"])
    )
    began = time.perf_counter()
    for index, (kind, name, side) in enumerate(todo):
        line = measured(kind, side, name, sizes)
        add_line(options.out, line)
        passed = time.perf_counter() - began
        print(f"{index + 1} of {len(todo)} after {passed:.0f} s: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
