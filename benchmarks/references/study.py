"""What all cases of class_samples.py share: the judge, the networks, the references."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import ppl_cnn
from benchmarks.references.judge import judge
from benchmarks.references.likeness import MOST, Real
from benchmarks.references.ten_classes import DataSet
from benchmarks.references.unrefined import UNREFINED, unrefined
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.loop import train
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.trained.cnn import CNN

OBJECTIVES = {
    "generative": "generative",
    "hybrid": "hybrid:0.5",
    "discriminative": "discriminative",
}
"""LeNet by its name here -> what its training minimises."""
EPOCHS, JUDGE_EPOCHS = 8, 6
"""How often the LeNets and the judge see each image of Fashion-MNIST."""


@dataclass(frozen=True, eq=False)
class Study:
    """A folder of results, and what makes them.

    Args:
        folder: gets the judge, the networks and the results.
        data: the data set.
        generator: the text of a generator, as after "generator:".
        toy: everything is small, and networks are a layer or two of random weights.
    """

    folder: Path
    data: DataSet
    generator: str
    toy: bool

    @cached_property
    def real(self):
        """The real images, with the judge that looks at samples."""
        path = self.folder / "judge.npz"
        look = judge(
            path,
            self.data.read(self.data.judge),
            epochs=1 if self.toy else round(JUDGE_EPOCHS * self.data.epochs),
            mirrored=self.data.mirrored,
        )
        return Real(look, self.data.read(self.data.compared))

    def units(self, name, target):
        """The ten classes of a network, by one of `OBJECTIVES` or the name of an embedded one."""
        network = _network(self, name)
        return network.units(f"{network.declaration.layers[-1].name}:0-9", target=target)

    def alpha(self, name):
        """The network's class offsets."""
        return _network(self, name).alpha[...]

    def reference(self, name):
        """A reference by its name here, in `UNREFINED` or one of these, or what it is itself."""
        if name == "generator":
            return parse_reference(f"generator:{self.generator}")
        if name in UNREFINED:
            return unrefined(name, self.generator)
        if name == "data":
            return parse_reference(self.data.empirical(self.data.unseen))
        if name == "gaussian":
            images = self.data.read(self.data.generator).images
            return ppl_cnn.Bounded(ppl_cnn.Gaussian.fit(images, self.folder / "gaussian.npz"))
        return parse_reference(name)

    def real_line(self):
        """The figures of real images that nothing here is trained on: what samples can reach."""
        unseen = self.data.read(self.data.unseen)
        samples = [unseen.of_class(number)[:MOST] for number in range(10)]
        error = self.real.look(unseen.images).logits.argmax(axis=1) != unseen.labels
        return {"error": float(error.mean()), **self.real.of_classes(samples)}


@cache
def _network(study, name):
    """A network with its weights; a LeNet is trained if the study's folder lacks it."""
    if study.toy:
        return CNN.random(replace(LENET, layers=(*LENET.layers[:2], LENET.layers[-1])))
    if name not in OBJECTIVES:
        return ppl_cnn.load(name)
    folder = study.folder / "networks" / name
    if not (folder / "weights.safetensors").exists():
        stages = f"{OBJECTIVES[name]}:{round(EPOCHS * study.data.epochs)}"
        recipe = Recipe.read(
            "lenet", data=study.data.name, train=study.data.networks, stages=stages
        )
        train(recipe, out=folder, execution=Execution())
    return ppl_cnn.load(folder)
