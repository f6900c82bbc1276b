"""Batch normalizations as PyTorch stores them, put together as they act after training."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.formats.names import listed, shown
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.layers import BatchNorm
from ppl_cnn.models.trained.importing import finite, layer_names

_PARTS = ("weight", "bias", "running_mean", "running_var")


def normalized(
    tensors: Mapping[str, np.ndarray], network: Network, source: Path
) -> dict[str, np.ndarray]:
    """The tensors with a scale and a shift for each of the network's batch normalizations.

        scale = weight / sqrt(running_var + epsilon)        shift = bias - running_mean * scale

    These take the place of the four; all other tensors stay as they are, but for the number of
    batches that the averages were taken over, which is left out.

    Args:
        tensors: name -> array.
        network: the network's declaration.
        source: the file, for error messages.

    Raises:
        MismatchError: a normalization has some of the four, but lacks others, or their shapes
            differ.
        FileError: they aren't finite real numbers, or a variance is negative.
    """
    left = dict(tensors)
    missing: list[str] = []
    for layer in network.layers:
        if not isinstance(layer, BatchNorm):
            continue
        for name in layer_names(network, layer.name):
            left.pop(f"{name}.num_batches_tracked", None)
            names = [f"{name}.{part}" for part in _PARTS]
            stored = {own: left.pop(own) for own in names if own in left}
            if len(stored) == len(names):
                scale, shift = _affine(stored, layer.epsilon, source)
                left |= {f"{name}.scale": scale, f"{name}.shift": shift}
            elif stored:
                missing += [own for own in names if own not in stored]
    if missing:
        raise MismatchError(
            f"{source} doesn't hold the weights of {network.name}: it lacks {listed(missing)}, "
            f"without which a batch normalization can't be computed."
        )
    return left


def _affine(
    stored: Mapping[str, np.ndarray], epsilon: float, source: Path
) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the shift of a normalization, from its four tensors in order."""
    if len({array.shape for array in stored.values()}) > 1:
        sizes = (f"{shown(name)} of the shape {array.shape}" for name, array in stored.items())
        raise MismatchError(f"{source} has tensors that don't fit each other: {listed(sizes)}.")
    weight, bias, mean, variance = (
        finite(array, name, source).astype(np.float64) for name, array in stored.items()
    )
    if (variance < 0).any():
        raise FileError(f"{source}: {shown([*stored][-1])} holds negative variances.", path=source)
    scale = weight / np.sqrt(variance + epsilon)
    return scale, bias - mean * scale
