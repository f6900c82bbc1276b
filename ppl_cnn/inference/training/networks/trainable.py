"""What training needs of a network, whether the package declares it or its user wrote it."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork

type Averages = dict[str, Array]
"""Name -> what the forward pass of training changes, such as a BatchNorm's running averages."""
type Inferring = Any
"""All arrays that inference needs, trained ones and averages, in the network's own structure."""


@runtime_checkable
class Trainable(Protocol):
    """A network as pure functions of its weights; hashable. Images are in pixels minus the mean."""

    @property
    def name(self) -> str:
        """The network's name."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of its images."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The mean, scale and channel order between pixels and the first layer."""

    @property
    def classes(self) -> int:
        """Number of scores."""

    @property
    def identity(self) -> dict[str, str]:
        """What a run's record says of it besides the recipe; a run is resumed with the same."""

    @property
    def multiplications(self) -> int | None:
        """Multiplications of a training step for one image, in the declared layers with weights."""

    def initial(self, key: PRNGKeyArray) -> tuple[Params, Averages]:
        """The weights and averages before the first step; weights are float32.

        Args:
            key: the run's random key.
        """

    def noise(self, key: PRNGKeyArray, n: int) -> Any:
        """What dropout takes its randomness from, as arrays with the batch along their first axis.

        Args:
            key: the step's random key.
            n: images of the global batch.
        """

    def train_scores(
        self, params: Params, averages: Averages, x: Float[Array, "k row col channel"], noise: Any
    ) -> tuple[Float[Array, "k c"], Averages]:
        """The scores of a group of images, and the averages after it, as training computes them.

        Args:
            params: weights, in the recipe's number format.
            averages: the averages before the step.
            x: the images, in the recipe's number format.
            noise: the images' part of `noise`.
        """

    def inferring(self, params: Params, averages: Averages) -> Inferring:
        """Weights and averages as `scores` takes them."""

    def scores(
        self, weights: Inferring, x: Float[Array, "n row col channel"]
    ) -> Float[Array, "n c"]:
        """The score matrix F, as inference computes it: each row is a function of its image."""

    def trained(
        self, weights: Inferring, *, alpha: Array, classes: tuple[str, ...], objective: str
    ) -> CNN | ModuleNetwork:
        """The network with trained weights.

        Args:
            weights: from `inferring`.
            alpha: class offsets.
            classes: the names of the classes.
            objective: that of the last stage.
        """
