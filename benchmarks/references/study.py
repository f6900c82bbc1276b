"""What all cases of class_samples.py share: the judge, the networks, the references."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import ppl_cnn
from benchmarks.references.clothes import (
    COMPARED,
    GENERATOR,
    JUDGE,
    NETWORKS,
    UNSEEN,
    clothes,
    empirical,
)
from benchmarks.references.judge import judge
from benchmarks.references.likeness import MOST, Real
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.loop import train
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.trained.cnn import CNN

STAGES = {
    "generative": "generative:8",
    "hybrid": "hybrid:0.5:8",
    "discriminative": "discriminative:8",
}
"""LeNet by its name here -> its stages of training, epochs."""
EPOCHS = 6
"""The judge's."""


@dataclass(frozen=True, eq=False)
class Study:
    """A folder of results, and what makes them.

    Args:
        folder: gets the judge, the networks and the results.
        generator: the text of a generator, as after "generator:".
        toy: everything is small, and networks are a layer or two of random weights.
    """

    folder: Path
    generator: str
    toy: bool

    def clothes(self, part):
        """A part of Fashion-MNIST."""
        return clothes(part, toy=self.toy)

    @cached_property
    def real(self):
        """The real images, with the judge that looks at samples."""
        path = self.folder / "judge.npz"
        look = judge(path, self.clothes(JUDGE), epochs=1 if self.toy else EPOCHS)
        return Real(look, self.clothes(COMPARED))

    def units(self, name, target):
        """The ten classes of a network, by one of `STAGES` or the name of an embedded one."""
        network = _network(self, name)
        return network.units(f"{network.declaration.layers[-1].name}:0-9", target=target)

    def alpha(self, name):
        """The network's class offsets."""
        return _network(self, name).alpha[...]

    def reference(self, name):
        """A reference by its name here: generator, gaussian, data, or what it is itself."""
        if name == "generator":
            return parse_reference(f"generator:{self.generator}")
        if name == "data":
            return parse_reference(empirical(UNSEEN, toy=self.toy))
        if name == "gaussian":
            images = self.clothes(GENERATOR).images
            return ppl_cnn.Bounded(ppl_cnn.Gaussian.fit(images, self.folder / "gaussian.npz"))
        return parse_reference(name)

    def real_line(self):
        """The figures of real images that nothing here is trained on: what samples can reach."""
        unseen = self.clothes(UNSEEN)
        samples = [unseen.of_class(number)[:MOST] for number in range(10)]
        error = self.real.look(unseen.images).logits.argmax(axis=1) != unseen.labels
        return {"error": float(error.mean()), **self.real.of_classes(samples)}


@cache
def _network(study, name):
    """A network with its weights; a LeNet is trained if the study's folder lacks it."""
    if study.toy:
        return CNN.random(replace(LENET, layers=(*LENET.layers[:2], LENET.layers[-1])))
    if name not in STAGES:
        return ppl_cnn.load(name)
    folder = study.folder / "networks" / name
    if not (folder / "weights.safetensors").exists():
        recipe = Recipe.read("lenet", data="fashion_mnist", train=NETWORKS, stages=STAGES[name])
        train(recipe, out=folder, execution=Execution())
    return ppl_cnn.load(folder)
