"""The step that accepts four fifths, against the image's size: split and leapfrog.

    python benchmarks/step_size.py steps.jsonl             # 13 minutes of one core
    python benchmarks/step_size.py steps.jsonl window      # one of the two densities below

Needs SqueezeNet's published weights in the folder that PPL_CNN_REAL_WEIGHTS names. Adaptation stops
short of the answer where one step is a whole trajectory: it is then accepted more often than
wanted. So both integrators are measured alike here, by a search: trajectories of round(angle/h)
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

import json
import sys
import time
from functools import partial
from pathlib import Path

import arviz
import jax
import jax.numpy as jnp
import numpy as np
from samplers import TARGET, squeezenet

from ppl_cnn.inference.kernels.adaptation import StepSize
from ppl_cnn.inference.kernels.kernel import gaussian_step_size
from ppl_cnn.inference.kernels.split import integrate, point_at, van_der_corput

SIDES = (64, 96, 128, 160, 227)
WINDOW = 64
CHAINS = 4
TRIED = (0.75, 1.0, 4 / 3)
TRAJECTORIES = {
    ("window", "split"): 2000,
    ("window", "leapfrog"): 100,
    ("class", "split"): 240,
    ("class", "leapfrog"): 40,
}
"""Of all chains at each of the three steps. Leapfrog's acceptance falls faster with its step, which
fewer, and longer, trajectories pin down as well."""


def tilted(kind, side):
    """The tilt, of weights and z; the weights; the shape of z."""
    seen = {"window": WINDOW, "class": side}[kind]
    density = squeezenet(seen, 1.0)
    return (
        lambda params, z: density.tilt(z[:seen, :seen], params),
        density.unit.params,
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
    """Of one chain: where it is then, and the probability of acceptance."""
    key_momentum, key_accept = jax.random.split(key)
    point = point_at(partial(tilt, params), z)
    angle = jnp.pi / 2 * (0.5 + van_der_corput(index))
    steps = jnp.maximum(jnp.round(angle / step_size), 1).astype(jnp.int32)
    momentum = jax.random.normal(key_momentum, z.shape)
    end, change = integrator(partial(tilt, params), point, momentum, step_size, steps)
    acceptance = jnp.exp(-jnp.maximum(jnp.nan_to_num(change, nan=jnp.inf), 0.0))
    accepted = jax.random.uniform(key_accept) < acceptance
    return jnp.where(accepted, end.z, z), acceptance


def measured(kind, side, name):
    """A line of the file."""
    tilt, params, shape = tilted(kind, side)
    integrator, first, search = {
        "split": (split, 0.5, 40),
        "leapfrog": (leapfrog, gaussian_step_size(int(np.prod(shape))), 12),
    }[name]
    move = jax.jit(jax.vmap(partial(transition, integrator, tilt), (None, 0, 0, None, None)))
    z = jax.random.normal(jax.random.key(0), (CHAINS, *shape))
    moves = 0

    def moved(step_size):
        nonlocal z, moves
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), moves), CHAINS)
        z, acceptance = move(params, z, keys, jnp.asarray(moves), step_size)
        moves += 1
        return np.asarray(acceptance)

    step = StepSize.around(jnp.asarray(first))
    for _ in range(search):
        acceptance = moved(jnp.exp(step.log_step)).mean()
        step = step.update(jnp.asarray(acceptance), TARGET, longest=np.pi)
    sizes = np.minimum(float(jnp.exp(step.log_average)) * np.asarray(TRIED), np.pi)
    count = TRAJECTORIES[kind, name] // CHAINS
    accepted = [np.stack([moved(jnp.asarray(h)) for _ in range(count)], axis=1) for h in sizes]
    means = [values.mean() for values in accepted]
    errors = [float(arviz.mcse(values.astype(np.float64))) for values in accepted]
    # The line's height at the middle has the mean's error; its slope is far better known.
    slope, height = np.polyfit(np.log(sizes), means, 1)
    return {
        "density": kind,
        "integrator": name,
        "side": side,
        "step_size": round(float(np.exp((TARGET - height) / slope)), 4),
        "relative_error": round(float(np.hypot.reduce(errors) / len(errors) / abs(slope)), 4),
        "tried": {
            f"{h:.4f}": f"{mean:.3f} ± {error:.3f}"
            for h, mean, error in zip(sizes, means, errors, strict=True)
        },
    }


def main(out, *kinds):
    if unknown := sorted(set(kinds) - {kind for kind, _ in TRAJECTORIES}):
        sys.exit(f"There is no density {unknown[0]}; there are window and class.")
    path = Path(out)
    lines = path.read_text().splitlines() if path.exists() else []
    names = ("density", "integrator", "side")
    done = {tuple(json.loads(line)[name] for name in names) for line in lines}
    wanted = [
        (kind, name, side)
        for kind, name in TRAJECTORIES
        if not kinds or kind in kinds
        for side in SIDES
    ]
    todo = [each for each in wanted if each not in done]
    began = time.perf_counter()
    for index, (kind, name, side) in enumerate(todo):
        line = measured(kind, side, name)
        with path.open("a") as file:
            print(json.dumps(line), file=file)
        passed = time.perf_counter() - began
        print(f"{index + 1} of {len(todo)} after {passed:.0f} s: {line}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
