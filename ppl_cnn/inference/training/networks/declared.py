"""A declared network in training."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ppl_cnn.inference.training.networks.trainable import Averages
from ppl_cnn.models.networks.declaration import IMAGE, Network, Preprocessing
from ppl_cnn.models.networks.forward import dropout_masks, scores
from ppl_cnn.models.networks.graph import Params, shapes
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.trained.cnn import CNN


@dataclass(frozen=True)
class DeclaredTrainable:
    """A declared network as a `Trainable`: He-normal weights, and no averages."""

    declaration: Network

    @property
    def name(self) -> str:
        """The network's name."""
        return self.declaration.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of its images."""
        return self.declaration.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The mean, scale and channel order between pixels and the first layer."""
        return self.declaration.preprocessing

    @property
    def classes(self) -> int:
        """Number of scores."""
        return shapes(self.declaration)[self.declaration.layers[-1].name][-1]

    @property
    def identity(self) -> dict[str, str]:
        """Nothing: the recipe names it."""
        return {}

    @property
    def multiplications(self) -> int:
        """Multiplications of a training step for one image, in the layers with weights.

        A layer takes as many for the pass forward, for its weights' gradient, and for the gradient
        of what it reads, unless that is the image.
        """
        steps = Slab.whole(self.declaration).steps
        first = sum(
            step.multiplications
            for step in steps
            if any(reading.name == IMAGE for reading in step.readings)
        )
        return 3 * sum(step.multiplications for step in steps) - first

    def initial(self, key: PRNGKeyArray) -> tuple[Params, Averages]:
        """Random weights (`he_normal`)."""
        return he_normal(self.declaration, key), {}

    def noise(self, key: PRNGKeyArray, n: int) -> dict[str, Bool[Array, "n ..."]]:
        """The values that each dropout layer keeps: the same however the batch is divided."""
        return dropout_masks(self.declaration, key, n)

    def train_scores(
        self, params: Params, averages: Averages, x: Float[Array, "k row col channel"], noise: Any
    ) -> tuple[Float[Array, "k c"], Averages]:
        """The scores with dropout."""
        return scores(self.declaration, params, x, keep=noise), averages

    def inferring(self, params: Params, averages: Averages) -> Params:
        """The weights."""
        return params

    def scores(self, weights: Params, x: Float[Array, "n row col channel"]) -> Float[Array, "n c"]:
        """The score matrix F, without dropout."""
        return scores(self.declaration, weights, x)

    def trained(
        self, weights: Params, *, alpha: Array, classes: tuple[str, ...], objective: str
    ) -> CNN:
        """The network with trained weights."""
        return CNN(self.declaration, weights, alpha, classes=classes, objective=objective)
