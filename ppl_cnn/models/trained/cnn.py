"""A declared network with weights, as a Flax NNX module, and the preprocessing of photographs."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from ppl_cnn.errors import ArgumentError, printable
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.graph import Params, shapes, weight_shapes
from ppl_cnn.models.networks.initialization import he_normal
from ppl_cnn.models.networks.window import Shape
from ppl_cnn.models.trained.suited_target import suited_target
from ppl_cnn.models.units.activity import activity
from ppl_cnn.models.units.listing import LayerUnits, unit_layers
from ppl_cnn.models.units.names import UnitName
from ppl_cnn.models.units.targets import TargetChoice
from ppl_cnn.models.units.unit import Side, Unit, find_units, only
from ppl_cnn.numeric import whole


class CNN(nnx.Module):
    """A declared network with weights; a `TrainedNetwork`.

    Attributes:
        declaration: the network as data, without weights.
        params: layer name -> weight name -> `nnx.Param`.
        classes: names of the last layer's channels, or () if they have none.
        alpha: (class,) offsets alpha_c = log rho_c - log Z_c from scores to the classifier's
            logits. They are zeros unless the network was trained generatively.
        objective: what the last stage of its training minimised, such as "generative"; None if it
            is unknown.
        reference: the text of the reference q that it is sampled under unless another is asked
            for, such as "generator:fashion"; None if it has no own.

    Args:
        declaration: the network as data.
        params: layer name -> weight name -> array.
        alpha: the offsets; None stands for zeros.
        classes: names of the classes, or ().
        objective: generative, hybrid:LAMBDA, discriminative, or None.
        reference: as `parse_reference` takes it, or None.

    Examples:
        >>> from ppl_cnn.models.networks.layers import Dense
        >>> grey = Preprocessing(mean=(50.0,), scale=(0.1,), order="grey")
        >>> net = CNN.random(Network("tiny", (2, 3, 1), grey, layers=(Dense("fc", 4),)))
        >>> net.name, net.image_shape
        ('tiny', (2, 3, 1))
        >>> net(jnp.zeros((5, 2, 3, 1))).shape
        (5, 4)
    """

    def __init__(
        self,
        declaration: Network,
        params: Params,
        alpha: Array | np.ndarray | None = None,
        *,
        classes: tuple[str, ...] = (),
        objective: str | None = None,
        reference: str | None = None,
    ) -> None:
        self.declaration = declaration
        self.classes = tuple(map(printable, classes))
        self.objective = objective
        self.reference = reference
        self.params = nnx.data(
            {
                name: {
                    key: nnx.Param(jnp.asarray(array, jnp.float32))
                    for key, array in weights.items()
                }
                for name, weights in params.items()
            }
        )
        count = shapes(declaration)[declaration.layers[-1].name][-1]
        self.alpha = nnx.Variable(
            jnp.zeros(count, jnp.float32) if alpha is None else jnp.asarray(alpha, jnp.float32)
        )

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

    @classmethod
    def random(cls, declaration: Network, seed: int = 0) -> Self:
        """A network with random weights (He's normal initialisation)."""
        return cls(declaration, he_normal(declaration, jax.random.key(seed)))

    def arrays(self) -> dict[str, dict[str, Array]]:
        """The weights as plain arrays: layer name -> weight name -> array."""
        return {
            name: {key: param[...] for key, param in weights.items()}
            for name, weights in self.params.items()
        }

    def tensors(self) -> dict[str, Array]:
        """The weights as a file has them: "conv1.kernel" -> array."""
        return {
            f"{layer}.{name}": array
            for layer, weights in self.arrays().items()
            for name, array in weights.items()
        }

    def resized(self, size: int) -> Self:
        """The same network on square images of another size; itself if they have that size.

        Args:
            size: pixels a side.

        Raises:
            ArgumentError: a layer's weights, as a dense layer's, fit one size alone, or the images
                are too small for the layers.
        """
        before, network, size = self.image_shape, self.declaration, whole("size", size)
        if before[:2] == (size, size):
            return self
        network = replace(
            network,
            image_shape=(size, size, before[2]),
            preprocessing=network.preprocessing.resized(min(before[:2]), size),
            is_resized=True,
        )
        small = [name for name, shape in shapes(network).items() if min(shape) < 1]
        if small:
            raise ArgumentError(
                f"Images of {size}x{size} are too small for {self.name}: layer {small[0]} would be "
                f"empty. Give a larger `size`.",
                argument="size",
            )
        own = weight_shapes(self.declaration)
        tied = [name for name, wanted in weight_shapes(network).items() if wanted != own[name]]
        if tied:
            raise ArgumentError(
                f"The weights of {tied[0]} of {self.name} fit images of {before[0]}x{before[1]} "
                f"alone. Leave out `size`, or use a network that takes any, such as "
                f"squeezenet1.1 or resnet18.",
                argument="size",
            )
        return type(self)(
            network,
            self.arrays(),
            self.alpha[...],
            classes=self.classes,
            objective=self.objective,
            reference=self.reference,
        )

    def __call__(self, x: Float[Array, "n row col channel"]) -> Float[Array, "n c"]:
        """The score matrix F of images in pixel units minus the mean; alpha is not added."""
        return scores(self.declaration, self.arrays(), x)

    def logits(self, pixels: UInt8[np.ndarray, "n row col channel"]) -> Float[Array, "n c"]:
        """The classifier's logits F + alpha of uint8 photographs, RGB or grey, of any size.

        Raises:
            ArgumentError: the pixels are no such photographs.
        """
        x = preprocess(np.asarray(pixels), self.preprocessing, self.image_shape)
        return self(x) + self.alpha[...][None, :]

    def unit(self, text: str, response: Side = "pre", target: TargetChoice = "logit") -> Unit:
        """The unit that a text such as "conv5:12", "conv5:12@0,3" or "class:Trouser" names.

        Args:
            text: a unit as in `ppl_cnn.models.units.names.parse_units`.
            response: "post" for the response after the nonlinearity that follows the layer.
            target: what is scored of a class, as in `ppl_cnn.models.units.targets.parse_target`;
                auto goes by `ppl_cnn.models.trained.suited_target.suited_target`.

        Raises:
            InputError: there is no such unit, response or target, or the text names several units.

        Examples:
            >>> import ppl_cnn
            >>> unit = ppl_cnn.load("alexnet-fashion").unit("conv2:3")
            >>> str(unit), unit.shape
            ('conv2:3@7,7', (15, 15, 1))
        """
        return only(self.units(text, response, target), text)

    def units(
        self, text: str, response: Side = "pre", target: TargetChoice = "logit"
    ) -> list[Unit]:
        """The units that a text such as "conv5:0-15,conv5:40" names, in its order; see `unit`."""
        return find_units(
            text,
            self.declaration,
            self.arrays(),
            alpha=self.alpha[...],
            classes=self.classes,
            response=response,
            target=target,
            suited=suited_target(self.objective).target,
        )

    def unit_layers(self) -> tuple[LayerUnits, ...]:
        """The layers whose channels are units, in the network's order; the last has the classes."""
        return unit_layers(self.declaration)

    def activity(
        self, batches: Iterable[Float[Array, "_ row col channel"]]
    ) -> dict[str, Float[np.ndarray, " _"]]:
        """Layer name -> each channel's share of non-zero responses after the nonlinearity.

        Args:
            batches: at least one image, in pixel units minus the mean.
        """
        return activity(self.declaration, self.arrays(), batches)

    def is_class(self, unit: UnitName) -> bool:
        """Whether a unit is a class, a channel of the last layer."""
        return unit.layer == self.declaration.scores

    def class_of(self, unit: UnitName) -> str | None:
        """The name of the class that a unit is; None for a filter or a class without a name."""
        return self.classes[unit.channel] if self.is_class(unit) and self.classes else None


def preprocess(
    pixels: UInt8[Array | np.ndarray, "n row col channel"],
    preprocessing: Preprocessing,
    shape: Shape,
) -> Float[Array, "n row_out col_out channel_out"]:
    """Brings photographs to a network's images, in pixel units minus the mean.

    Grey becomes RGB, or RGB becomes grey (ITU-R 601 luma), and the channels take the network's
    order. If the size differs, the image is scaled and its centre cropped: the short side to
    `preprocessing.short_side` or, without one, so that the network's image is just filled.

    Args:
        pixels: RGB (3 channels) or grey (1), 0..255.
        preprocessing: the network's mean, channel order and short side; its scale isn't applied.
        shape: (row, col, channel) of the network's image.

    Raises:
        ArgumentError: the pixels aren't uint8 of four axes with 1 or 3 channels.
    """
    channels = pixels.shape[-1] if pixels.ndim == 4 and pixels.size else 0
    if channels not in (1, 3) or pixels.dtype != np.uint8:
        raise ArgumentError(
            f"`pixels` must be uint8 of shape (n, row, col, channel) with 1 or 3 channels, "
            f"not {pixels.dtype} of shape {pixels.shape}.",
            argument="pixels",
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
