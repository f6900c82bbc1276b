"""What is checked of a module when it is opened: that scores are each image's own, and logits."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import MismatchError
from ppl_cnn.models.networks.receptive_field import Images, Weights

INFERENCE = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
    "inference": True,
}
"""A parameter of a module's call -> its value in inference, under the names that modules use."""

_TOLERANCE = 1e-2
"""The change that counts, relative to the layer's largest response: above bfloat16's rounding."""


def inference_arguments(module: object) -> dict[str, bool]:
    """The keyword arguments that put a module's call into inference mode, such as `train=False`.

    Args:
        module: the module, of NNX or of Linen.
    """
    if not callable(module):
        return {}
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        each.name: INFERENCE[each.name]
        for each in inspect.signature(type(module).__call__).parameters.values()
        if each.name in INFERENCE and each.kind in named
    }


def check_responses(
    respond: Callable[[Weights, Images], Mapping[str, Array]],
    weights: Weights,
    *,
    image_shape: tuple[int, int, int],
    layers: Sequence[str],
    name: str,
) -> None:
    """Refuses a network that isn't in inference mode, or whose scores are probabilities.

    An image is put into two batches, at another place and beside another image. Statistics of
    the batch and noise that is drawn for it give it other responses there. Scores that are
    positive and sum to one for every image are taken for a softmax's.

    Args:
        respond: the responses to a batch of images in pixel units minus the mean.
        weights: the weights to pass to it.
        image_shape: (row, col, channel).
        layers: the names of the layers to compare; the last has the scores.
        name: the network's name, for the error.

    Raises:
        MismatchError: with the layer that responds otherwise, or the word for such scores.
    """
    random = np.random.default_rng(0)
    image, beside, other = (
        np.asarray(scale * random.standard_normal(image_shape) + shift, np.float32)
        for scale, shift in ((30.0, 0.0), (3.0, 60.0), (90.0, -40.0))
    )
    compiled = jax.jit(respond)
    before = compiled(weights, jnp.asarray(np.stack([image, beside])))
    after = compiled(weights, jnp.asarray(np.stack([other, image])))
    for layer in layers:
        one, two = (np.asarray(each, np.float64) for each in (before[layer][0], after[layer][1]))
        change, size = np.abs(one - two), np.abs(one)
        if np.nanmax(change, initial=0.0) > _TOLERANCE * np.nanmax(size, initial=0.0):
            raise MismatchError(
                f"{name} isn't in inference mode: at layer {layer}, an image's responses change by "
                f"up to {np.nanmax(change):.3g} with the other images of its batch. Let it use "
                f"running averages and no dropout, for example by a parameter `train=False` of its "
                f"call."
            )
    scores = np.concatenate([before[layers[-1]], after[layers[-1]]]).astype(np.float64)
    if scores.shape[1] > 1 and (scores >= 0).all() and np.allclose(scores.sum(1), 1, 0, _TOLERANCE):
        raise MismatchError(
            f"{name} returns probabilities: its {scores.shape[1]} scores are positive and sum to "
            f"1. Let it return the logits, which are what its softmax is taken of."
        )
