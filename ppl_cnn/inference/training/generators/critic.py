"""The critic of adversarial training: it tells real images from made ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn.models.generators.layers import (
    LayerWeights,
    Weights,
    conv,
    conv_weights,
    dense,
    dense_weights,
    leaky,
    space_to_depth,
)

GROUP = 16
"""Images whose spread the critic sees, so that a generator of few images is found out."""
_CHANNELS = (32, 64)


def critic_weights(image_shape: tuple[int, int, int], key: PRNGKeyArray) -> dict[str, Weights]:
    """The first weights.

    Args:
        image_shape: (row, col, channel); 4 divides rows and columns.
        key: random key.
    """
    rows, cols, colours = image_shape
    high, low = _CHANNELS
    keys = jax.random.split(key, 5)
    return {
        "critic.high0": conv_weights(keys[0], 3, 4 * colours, high),
        "critic.high1": conv_weights(keys[1], 3, high, high),
        "critic.low0": conv_weights(keys[2], 1, 4 * high, low),
        "critic.low1": conv_weights(keys[3], 3, low + 1, low),
        "critic.last": dense_weights(keys[4], rows // 4 * (cols // 4) * low, 1, gain=1.4),
    }


def criticized(
    params: LayerWeights, images: Float[Array, "n row col channel"]
) -> tuple[Float[Array, " n"], Float[Array, "n low_row low_col low"]]:
    """The logit that each image is real, and the features that it was told by.

    Consecutive groups of `GROUP` images see their standard deviation (Karras et al., Progressive
    growing of GANs, 2018, arXiv 1710.10196).

    Args:
        params: the weights.
        images: in 0..1; `GROUP` divides their number.
    """
    h = leaky(conv(params["critic.high0"], 2 * space_to_depth(images, 2) - 1))
    h = leaky(conv(params["critic.high1"], h))
    h = leaky(conv(params["critic.low0"], space_to_depth(h, 2)))
    groups = h.reshape(-1, GROUP, *h.shape[1:])
    spread = jnp.sqrt(groups.var(axis=1) + 1e-6).mean(axis=(1, 2, 3))
    spread = jnp.repeat(spread, GROUP, total_repeat_length=len(h))[:, None, None, None]
    spread = jnp.broadcast_to(spread, (*h.shape[:3], 1))
    features = leaky(conv(params["critic.low1"], jnp.concatenate([h, spread], axis=-1)))
    return dense(params["critic.last"], features.reshape(len(h), -1))[:, 0], features
