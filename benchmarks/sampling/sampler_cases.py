"""The cases of samplers.py: which density, by which kernels, and for how many gradients."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import ppl_cnn
from benchmarks.common import real, squeezenet
from benchmarks.sampling.kernels import BLACKJAX, NUMPYRO, TFP
from benchmarks.sampling.self_tuned import SELF_TUNED
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.catalogue import ALEXNET, LENET
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.references.reference import Reference
from ppl_cnn.models.trained.cnn import CNN

LENET_FOLDER = Path("runs/samplers-lenet")
"""The trained LeNet's; made at the first use (a minute of two cores)."""
GAUSSIAN = ("split", "pcn", "blackjax-mgrad_gaussian", "blackjax-elliptical_slice")
"""The kernels that know the Gaussian."""
KEY = (*GAUSSIAN, "langevin", "numpyro-hmc", "blackjax-adjusted_mclmc", "blackjax-mclmc")
"""Those that make the largest images dear, and tell most."""
LEARNED = ("split", "isir", *KEY[1:])
ALL = tuple(dict.fromkeys((*KEY, "tempered", *NUMPYRO, *BLACKJAX, *SELF_TUNED, *TFP)))
STRONG = tuple(name for name in ALL if name != "tempered")
"""Where the tilt is strong, a transition of a ladder takes up to 16,000 gradients."""


def shipped(name: str | Path) -> CNN:
    """A network of the package, or of a folder of a run."""
    loaded = ppl_cnn.load(name)
    assert isinstance(loaded, CNN)
    return loaded


@cache
def trained_lenet() -> CNN:
    """LeNet as `python -m ppl_cnn.pretrain` trains it, by the generative gradient first."""
    command = [sys.executable, "-m", "ppl_cnn.pretrain", "--config", "lenet"]
    subprocess.run([*command, "--out", str(LENET_FOLDER)], check=True, stdout=sys.stderr)
    return shipped(LENET_FOLDER)


def tilted(
    network: Callable[[], CNN],
    unit: str,
    temperature: float,
    reference: str | Callable[[], str] = "white:10",
    target: str = "logit",
) -> TiltedDensity:
    """A density of a unit; what is given as a function needs files, and is called here."""
    q = parse_reference(reference if isinstance(reference, str) else reference())
    assert isinstance(q, Reference)
    return TiltedDensity(network().unit(unit, target=target), q, temperature)


def faces() -> str:
    """The text of the DCGAN of faces."""
    (weights,) = real("gan_face_generate/**/weights.tar")
    return f"generator:{weights}@dcgan64"


@dataclass(frozen=True)
class Case:
    """What is sampled, by whom, and for how many gradients."""

    name: str
    density: Callable[[], TiltedDensity]
    chains: int
    gradients: int
    """While drawing, of all chains together."""
    block: int
    """Transitions between two looks at the budget."""
    gradient_seconds: float
    """About how long a gradient of one image takes, to estimate the time left."""
    kernels: tuple[str, ...] = ALL
    seeds: tuple[int, ...] = (0, 1)

    @property
    def cost(self) -> float:
        """Seconds of a kernel, about."""
        return self.gradients * self.gradient_seconds


random_lenet = partial(tilted, partial(CNN.random, LENET), "fc4:3")
lenet = partial(tilted, trained_lenet, "fc4:3")
alexnet_fashion = partial(shipped, "alexnet-fashion")
boot = partial(tilted, alexnet_fashion, "fc8:9")


def of_squeezenet(side: int, **more: str) -> Callable[[], TiltedDensity]:
    """Class 1 of SqueezeNet on images of that side, at T = 1."""
    return partial(tilted, partial(squeezenet, side), "class:1", 1.0, **more)


CASES = (
    Case("lenet-random-T1", partial(random_lenet, 1.0), 4, 20_000, 50, 4e-4),
    Case("lenet-random-T1/30", partial(random_lenet, 1 / 30), 4, 20_000, 50, 4e-4),
    Case("lenet-T1", partial(lenet, 1.0), 4, 20_000, 50, 4e-4),
    Case("lenet-T1/30", partial(lenet, 1 / 30), 4, 20_000, 10, 4e-4, STRONG),
    Case("lenet-T1/100", partial(lenet, 1 / 100), 4, 40_000, 10, 4e-4, STRONG),
    Case("fashion-T1/10", partial(boot, 1 / 10), 4, 16_000, 10, 1e-3, STRONG),
    Case("fashion-T1/50", partial(boot, 1 / 50), 4, 16_000, 10, 1e-3, KEY),
    Case(
        "fashion-learned-T1",
        partial(tilted, alexnet_fashion, "class:Bag", 1.0, "generator:fashion", "log-prob"),
        4,
        8_000,
        20,
        1.5e-3,
        LEARNED,
    ),
    Case(
        "faces-T1",
        partial(tilted, partial(squeezenet, 128), "class:836", 1.0, faces, "log-prob"),
        4,
        8_000,
        10,
        0.02,
        LEARNED,
    ),
    Case("squeezenet-64-T1", of_squeezenet(64), 4, 6_000, 20, 2e-3, STRONG),
    Case("squeezenet-64-band", of_squeezenet(64, reference="band:16"), 4, 6_000, 20, 2e-3, KEY),
    Case("squeezenet-128-T1", of_squeezenet(128), 4, 6_000, 10, 8e-3, KEY),
    Case("squeezenet-227-T1", of_squeezenet(227), 2, 2_400, 8, 0.03, KEY),
    Case(
        "alexnet-conv5-T1",
        partial(tilted, partial(CNN.random, ALEXNET), "conv5:12", 1.0),
        2,
        1_500,
        8,
        0.012,
        KEY,
    ),
)
TOYS = ("split", "langevin", "pcn", *SELF_TUNED)
TOY = (
    Case(
        "lenet-random-T1",
        # Filters of five by five pixels, so that programs compile in no time.
        partial(tilted, partial(CNN.random, LENET), "conv1:3", 1.0),
        2,
        60,
        5,
        1e-4,
        TOYS,
        (0,),
    ),
)
