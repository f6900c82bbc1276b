"""The tilted empirical density: images of a data set, weighted by a unit's score."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, UInt8

from ppl_cnn.models.density import DensityParams
from ppl_cnn.models.references.empirical import Empirical
from ppl_cnn.models.trained.cnn import preprocess
from ppl_cnn.models.units.score_function import Scored
from ppl_cnn.numeric import plain_fields, positive


@dataclass(frozen=True)
class EmpiricalDensity:
    """The images x_1 .. x_N of a data set, tilted by a unit's score f.

        p = sum_i W_i delta(x_i),    W_i = exp(f(x_i)/T) / sum_j exp(f(x_j)/T)
        Z = 1/N sum_i exp(f(x_i)/T)

    It is what the generative gradient learns, with q the images that it trains on: Z is a finite
    mean, and draws are images of the data set. Sample it by resampling; it has no latent.

    Source: Dai, Lu, Wu, Generative modeling of convolutional neural networks, ICLR 2015.

    Args:
        unit: a unit of a network, or a `ScoreFunction`.
        reference: q, the images.
        temperature: T > 0; 1 is the published model.

    Raises:
        ArgumentError: T is not positive and finite.

    Examples:
        >>> import ppl_cnn
        >>> bag = ppl_cnn.load("alexnet-fashion").unit("class:Bag")
        >>> density = EmpiricalDensity(bag, Empirical("fashion-embedded", "test[:40]"))
        >>> draws = ppl_cnn.draw(density, chains=2, draws=4, progress=False)
        >>> draws["posterior/image"].shape
        (2, 4, 28, 28, 1)
    """

    unit: Scored
    reference: Empirical
    temperature: float = 1.0

    def __post_init__(self) -> None:
        plain_fields(self)
        positive("temperature", self.temperature)

    @property
    def params(self) -> DensityParams:
        """The weights of the unit, which compiled programs take as an argument."""
        return DensityParams(self.unit.params, {})

    def seen(
        self, pixels: UInt8[Array | np.ndarray, "n image_row image_col colour"]
    ) -> Float[Array, "n row col channel"]:
        """The unit's images of photographs: brought to the network's image, and cropped.

        Args:
            pixels: RGB (3 channels) or grey (1), 0..255, as `ppl_cnn.data.batches` reads them.

        Returns:
            Images of the unit's shape, in pixel units minus the mean.
        """
        return seen_by(self.unit, pixels)


def seen_by(
    unit: Scored, pixels: UInt8[Array | np.ndarray, "n image_row image_col colour"]
) -> Float[Array, "n row col channel"]:
    """A unit's images of photographs; see `EmpiricalDensity.seen`."""
    images = preprocess(pixels, unit.preprocessing, unit.image_shape)
    rows, cols = unit.rows, unit.cols
    return images[:, rows.start : rows.stop, cols.start : cols.stop]
