"""The forward pass of a declared network: scaling, scores and dropout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.graph import Params, input_shape
from ppl_cnn.models.networks.layers import Dropout
from ppl_cnn.models.networks.slab import Masks, Slab
from ppl_cnn.numeric import single


def scores(
    network: Network,
    params: Params,
    x: Float[Array, "n row col channel"],
    *,
    keep: Masks | None = None,
) -> Float[Array, "n c"]:
    """The score matrix F (image, class) of a batch of images.

    Args:
        network: the declaration.
        params: all weights of the network.
        x: images in pixel units (0..255) minus the mean.
        keep: the values that dropout keeps in training (see `dropout_masks`); None otherwise.
    """
    whole = Slab.whole(network)
    return whole.respond(params, scaled(network.preprocessing, whole.crop(x)), keep)


def dropout_masks(network: Network, key: PRNGKeyArray, n: int) -> dict[str, Bool[Array, "..."]]:
    """The values that each dropout layer keeps of a batch; {} without dropout layers.

    Masks are drawn for the whole batch, and each part of the batch takes its part of them. So
    training in parts, or on several devices, drops the same values as training in one.

    Args:
        network: the declaration.
        key: the random key of the step.
        n: the number of images in the batch.
    """
    return {
        step.layer.name: jax.random.bernoulli(
            jax.random.fold_in(key, index),
            1 - step.layer.rate,
            (n, *input_shape(network, step.layer)),
        )
        for index, step in enumerate(Slab.whole(network).steps)
        if isinstance(step.layer, Dropout)
    }


def scaled(
    preprocessing: Preprocessing, x: Float[Array, "n row col channel"]
) -> Float[Array, "n row col channel"]:
    """Images as the first layer sees them, from images in pixel units minus the mean.

    Networks are float32: a sampler may work in float64, and training in bfloat16.
    """
    x = single(x)
    if set(preprocessing.scale) == {1.0}:
        return x
    return x * jnp.asarray(preprocessing.scale, x.dtype)[None, None, None, :]
