"""The generator that `python -m ppl_cnn.generator` trains: a flow, a decoder and a refiner.

The flow turns 32 normal numbers into the latent of an autoencoder, whose decoder gives a smooth
image; the refiner, a small convolutional network, adds what is sharp, with normal noise of its own
for what the latent leaves open. All convolutions work at a quarter and at half of the image's
size, where they are quick.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.generators.flow import Flow
from ppl_cnn.models.generators.layers import (
    LayerWeights,
    Weights,
    conv,
    conv_weights,
    dense,
    dense_weights,
    depth_to_space,
    leaky,
    mlp,
    mlp_weights,
    space_to_depth,
)

_LARGEST_COARSE = 32
"""Most rows of the decoder's image; that of a larger image is enlarged by the refiner's input."""
_GRID = 16
"""Channels of the map that latent and noise give the refiner."""


@dataclass(frozen=True, kw_only=True)
class RefinedFlow:
    """The sizes of such a generator.

    Args:
        image_shape: (row, col, channel); 4 divides rows and columns.
        latent: length of the autoencoder's latent, an even number.
        noise: length of the refiner's own noise.
        hidden: lengths of the decoder's hidden layers.
        couplings: number of the flow's couplings.
        coupling_width: length of their hidden layers.
        channels: of the refiner's maps at a quarter and at half of the image's size.

    Raises:
        ArgumentError: 4 doesn't divide the image's rows and columns.
    """

    image_shape: tuple[int, int, int]
    latent: int = 32
    noise: int = 32
    hidden: tuple[int, ...] = (256, 448)
    couplings: int = 12
    coupling_width: int = 160
    channels: tuple[int, int] = (64, 32)

    def __post_init__(self) -> None:
        rows, cols, _ = self.image_shape
        if rows % 4 or cols % 4:
            raise ArgumentError(
                f"A generator's image must have rows and columns that 4 divides, not {rows} and "
                f"{cols}. Give another `size`.",
                argument="size",
            )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The sizes that `record` gave.

        Args:
            record: name -> value, as JSON has it.

        Raises:
            TypeError: a name or a value is of no such generator.
        """
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        return cls(**fields)

    def record(self) -> dict[str, Any]:
        """The sizes as JSON."""
        return asdict(self)

    @property
    def latent_shape(self) -> tuple[int]:
        """The shape of z: the flow's noise and the refiner's."""
        return (self.latent + self.noise,)

    @property
    def flow(self) -> Flow:
        """The flow of the latent."""
        return Flow(self.latent, self.couplings, self.coupling_width)

    @property
    def coarse_shape(self) -> tuple[int, int, int]:
        """The shape of the decoder's image: the image's, or a half, a quarter, ... of it."""
        rows, cols, channels = self.image_shape
        while max(rows, cols) > _LARGEST_COARSE and not (rows % 2 or cols % 2):
            rows, cols = rows // 2, cols // 2
        return rows, cols, channels

    def decoder_weights(self, key: PRNGKeyArray) -> dict[str, Weights]:
        """The decoder's first weights.

        Args:
            key: random key.
        """
        rows, cols, channels = self.coarse_shape
        return mlp_weights(key, "decoder", (self.latent, *self.hidden, rows * cols * channels))

    def refiner_weights(self, key: PRNGKeyArray) -> dict[str, Weights]:
        """The refiner's first weights; what it adds is nearly zero.

        Args:
            key: random key.
        """
        rows, cols, colours = self.image_shape
        low, high = self.channels
        keys = jax.random.split(key, 6)
        grid = rows // 4 * (cols // 4) * _GRID
        return {
            "refiner.noise": dense_weights(keys[0], self.noise, self.hidden[0], gain=0.3),
            "refiner.grid": dense_weights(keys[1], self.latent + self.noise, grid),
            "refiner.low": conv_weights(keys[2], 3, 16 * colours + _GRID, low),
            "refiner.high0": conv_weights(keys[3], 3, low // 4 + 4 * colours, high),
            "refiner.high1": conv_weights(keys[4], 3, high, high),
            "refiner.last": conv_weights(keys[5], 3, high, 4 * colours, gain=0.02),
        }

    def smooth(
        self,
        params: LayerWeights,
        u: Float[Array, "n latent"],
        noise: Float[Array, "n hidden"] | None = None,
    ) -> Float[Array, "n row col channel"]:
        """The decoder's image, as logits of grey levels in 0..1, of `coarse_shape`.

        Args:
            params: the weights.
            u: latents of the autoencoder.
            noise: what is added before the first rectifier.
        """
        h = dense(params["decoder.0"], u)
        h = jax.nn.gelu(h if noise is None else h + noise)
        for index in range(1, len(self.hidden)):
            h = jax.nn.gelu(dense(params[f"decoder.{index}"], h))
        return dense(params[f"decoder.{len(self.hidden)}"], h).reshape(-1, *self.coarse_shape)

    def refined(
        self,
        params: LayerWeights,
        u: Float[Array, "n latent"],
        noise: Float[Array, "n noise"],
    ) -> Float[Array, "n row col channel"]:
        """The image of a latent, in 0..1.

        Args:
            params: the weights.
            u: latents of the autoencoder.
            noise: the refiner's, of N(0, I).
        """
        rows, cols, _ = self.image_shape
        smooth = self.smooth(params, u, dense(params["refiner.noise"], noise))
        if smooth.shape[1] < rows:
            smooth = jax.image.resize(smooth, (len(u), *self.image_shape), "linear")
        grid = dense(params["refiner.grid"], jnp.concatenate([u, noise], axis=-1))
        grid = grid.reshape(-1, rows // 4, cols // 4, _GRID)
        seen = 2 * jnp.tanh(smooth / 4)  # logits have no bound, and the refiner's input needs one
        low = jnp.concatenate([space_to_depth(seen, 4), grid], axis=-1)
        low = leaky(conv(params["refiner.low"], low))
        high = jnp.concatenate([depth_to_space(low, 2), space_to_depth(seen, 2)], axis=-1)
        high = leaky(conv(params["refiner.high0"], high))
        high = leaky(conv(params["refiner.high1"], high))
        return jax.nn.sigmoid(smooth + depth_to_space(conv(params["refiner.last"], high), 2))

    def apply(
        self, params: LayerWeights, z: Float[Array, "*batch dim"]
    ) -> Float[Array, "*batch row col channel"]:
        """G(z): pixels in 0..255.

        Args:
            params: the weights of flow, decoder and refiner.
            z: of N(0, I).
        """
        flat = z.reshape(-1, self.latent + self.noise)
        u = self.flow.to_data(params, flat[:, : self.latent])
        image = 255.0 * self.refined(params, u, flat[:, self.latent :])
        return image.reshape(*z.shape[:-1], *self.image_shape)


def encoder_weights(sizes: RefinedFlow, key: PRNGKeyArray) -> dict[str, Weights]:
    """The first weights of the encoder, which training needs and the generator doesn't.

    Args:
        sizes: the generator's.
        key: random key.
    """
    rows, cols, channels = sizes.coarse_shape
    inner = tuple(reversed(sizes.hidden))
    lengths = (rows * cols * channels, *inner, 2 * sizes.latent)
    return mlp_weights(key, "encoder", lengths)


def encode(
    sizes: RefinedFlow, params: LayerWeights, images: Float[Array, "n row col channel"]
) -> tuple[Float[Array, "n latent"], Float[Array, "n latent"]]:
    """Mean and log variance of the latents of images.

    Args:
        sizes: the generator's.
        params: the encoder's weights.
        images: in 0..1, of `coarse_shape`.
    """
    flat = 3 * images.reshape(len(images), -1) - 1
    both = mlp(params, "encoder", flat, layers=len(sizes.hidden) + 1)
    mean, log_variance = jnp.split(both, 2, axis=-1)
    return mean, jnp.clip(log_variance, -10.0, 3.0)
