"""A network with weights, as a Flax NNX module, and the way from photographs to its images."""

from dataclasses import replace
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.graph import Params, shapes, weight_shapes
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.networks.layers import Shape
from ppl_cnn.models.units.names import UnitName
from ppl_cnn.models.units.targets import Target
from ppl_cnn.models.units.unit import Side, Unit, find_units, only


class CNN(nnx.Module):
    """A network with weights.

    Attributes:
        network: its declaration.
        classes: names of the last layer's channels, or ().
        alpha: (class,) the offsets alpha_c = log rho_c - log Z_c that turn scores into logits
            of a classifier; zeros unless it was trained generatively.
    """

    def __init__(
        self,
        network: Network,
        params: Params,
        alpha: Array | np.ndarray | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self.network = network
        self.classes = classes
        self.params = nnx.data(
            {
                name: {key: nnx.Param(array) for key, array in weights.items()}
                for name, weights in params.items()
            }
        )
        count = shapes(network)[network.layers[-1].name][-1]
        self.alpha = nnx.Variable(jnp.zeros(count) if alpha is None else jnp.asarray(alpha))

    @classmethod
    def random(cls, network: Network, seed: int = 0) -> Self:
        """A network with random weights."""
        return cls(network, he_normal(network, jax.random.key(seed)))

    def arrays(self) -> dict[str, dict[str, Array]]:
        """The weights as plain arrays: layer name -> weight name -> array."""
        return {
            name: {key: param[...] for key, param in weights.items()}
            for name, weights in self.params.items()
        }

    def resized(self, side: int) -> Self:
        """The same network on square images of another size; itself if they are of that size.

        Raises:
            InputError: its weights are those of one size, as a dense layer's are, or the images
                are too small for its layers.
        """
        before, network = self.network.image_shape, self.network
        if before[:2] == (side, side):
            return self
        network = replace(
            network,
            image_shape=(side, side, before[2]),
            preprocessing=network.preprocessing.resized(min(before[:2]), side),
            is_resized=True,
        )
        small = [name for name, shape in shapes(network).items() if min(shape) < 1]
        if small:
            raise InputError(
                f"Images of {side}x{side} are too small for {network.name}: nothing of them is "
                f"left at {small[0]}."
            )
        own = weight_shapes(self.network)
        tied = [name for name, wanted in weight_shapes(network).items() if wanted != own[name]]
        if tied:
            raise InputError(
                f"The weights of {tied[0]} of {network.name} are for images of "
                f"{before[0]}x{before[1]}: another --size is for networks without such layers, "
                f"for example squeezenet1.1."
            )
        return type(self)(network, self.arrays(), self.alpha[...], self.classes)

    def __call__(self, x: Float[Array, "n row col channel"]) -> Float[Array, "n c"]:
        """The score matrix F of images in pixel units minus the mean, without alpha."""
        return scores(self.network, self.arrays(), x)

    def logits(self, pixels: UInt8[np.ndarray, "n row col channel"]) -> Float[Array, "n c"]:
        """The classifier's logits F + alpha of uint8 photographs, RGB or grey, of any size."""
        shape = self.network.image_shape
        x = preprocess(np.asarray(pixels), self.network.preprocessing, shape)
        return self(x) + self.alpha[...][None, :]

    def unit(self, text: str, response: Side = "pre", target: Target | str = "logit") -> Unit:
        """The unit that a text such as "conv5:12", "conv5:12@0,3" or "class:Trouser" names.

        Args:
            text: see `ppl_cnn.models.units.names.parse_units`.
            response: "post" for the response after the nonlinearity.
            target: of a class, see `ppl_cnn.models.units.targets.parse_target`.

        Raises:
            InputError: there is no such unit, or the text names several.
        """
        return only(self.units(text, response, target), text)

    def class_of(self, unit: UnitName) -> str | None:
        """The name of the class that the unit is; None if it is another or has no name."""
        scores = unit.layer == self.network.layers[-1].name
        return self.classes[unit.channel] if scores and self.classes else None

    def units(
        self, text: str, response: Side = "pre", target: Target | str = "logit"
    ) -> list[Unit]:
        """The units that a text such as "conv5:0-15,conv5:40" names; see `unit`."""
        return find_units(
            text,
            self.network,
            self.arrays(),
            alpha=self.alpha[...],
            classes=self.classes,
            response=response,
            target=target,
        )


def preprocess(
    pixels: UInt8[Array | np.ndarray, "n row col channel"],
    preprocessing: Preprocessing,
    shape: Shape,
) -> Float[Array, "n row_out col_out channel_out"]:
    """Brings photographs to a network's images: pixel units minus the mean, before the scale.

    Grey becomes RGB, or RGB grey (ITU-R 601 luma); channels are put in the network's order;
    if the size differs, the short side is scaled as the network wants it and the centre cropped.

    Args:
        pixels: RGB (3 channels) or grey (1), 0..255.
        preprocessing: the network's.
        shape: (row, col, channel) of the network's image.
    """
    channels = pixels.shape[-1] if pixels.ndim == 4 and pixels.size else 0
    if channels not in (1, 3) or pixels.dtype != np.uint8:
        raise InputError(
            f"Images must be uint8 of shape (n, row, col, channel) with 1 or 3 channels, "
            f"not {pixels.dtype} of shape {pixels.shape}."
        )
    x = jnp.asarray(pixels, jnp.float32)
    if x.shape[-1] == 3 and shape[-1] == 1:
        x = x @ jnp.asarray([[0.299], [0.587], [0.114]], jnp.float32)
    elif x.shape[-1] == 1 and shape[-1] == 3:
        x = jnp.repeat(x, 3, axis=-1)
    if preprocessing.order == "BGR":
        x = x[..., ::-1]
    n, rows, cols, channels = x.shape
    if (rows, cols) != shape[:2]:
        short = preprocessing.short_side
        factor = short / min(rows, cols) if short else max(shape[0] / rows, shape[1] / cols)
        size = (max(round(rows * factor), shape[0]), max(round(cols * factor), shape[1]))
        x = jax.image.resize(x, (n, *size, channels), "linear", antialias=True)
        top, left = (size[0] - shape[0]) // 2, (size[1] - shape[1]) // 2
        x = x[:, top : top + shape[0], left : left + shape[1], :]
    return x - jnp.asarray(preprocessing.mean, jnp.float32)[None, None, None, :]
