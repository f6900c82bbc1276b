"""From a file's tensors to a network's weights."""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import InputError
from ppl_cnn.models.formats.names import listed, shown
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.graph import Params, input_shape, weight_shapes
from ppl_cnn.models.networks.layers import Shape


def params_from(tensors: Mapping[str, np.ndarray], network: Network, source: Path) -> Params:
    """The weights of a network, float32, from the tensors of a file.

    Of a layer X, or of a name that `Network.aliases` gives for it, the file has X.kernel and
    X.bias in our layout, or X.weight and X.bias in that of PyTorch and Caffe:

        convolution   (out, in/groups, row, col)              -> (row, col, in/groups, out)
        dense         (out, in)                               -> (in, out)
        dense, map    (out, in), in = (channel, row, col)     -> in = (row, col, channel)

    Shapes that are filled up to four axes with leading ones, as in old caffemodels, will do.

    Args:
        tensors: by names, as `formats.read_tensors` gives them.
        network: its declaration.
        source: the file, for the error's sentence.

    Raises:
        InputError: a tensor is missing, left over, of a wrong shape or type, or not finite.
    """
    left = dict(tensors)
    params: dict[str, dict[str, Array]] = {}
    missing: list[str] = []
    wrong: list[str] = []
    for layer, wanted in weight_shapes(network).items():
        params[layer] = {}
        for key, shape in wanted.items():
            name = _name_in_file(left, network, layer, key)
            if name is None:
                missing.append(f"{layer}.{key}")
                continue
            array = left.pop(name)
            theirs = name.endswith(".weight")
            expected = _published_shape(shape) if theirs else shape
            # But no kernel of ours: with leading ones it would be a 1x1 convolution's.
            filled = (1,) * (4 - len(expected)) + expected
            if name.endswith((".weight", ".bias")) and array.shape == filled:
                array = array.reshape(expected)
            if array.shape != expected:
                wrong.append(f"{shown(name)} has the shape {array.shape}, not {expected}")
                continue
            maps = input_shape(network, network.layer(layer))
            arranged = _arranged(array, maps) if theirs else array
            params[layer][key] = jnp.asarray(_finite(arranged, name, source))
    _check_complete(missing, sorted(left), wrong, network, source)
    return params


def _name_in_file(
    tensors: Mapping[str, np.ndarray], network: Network, layer: str, key: str
) -> str | None:
    names = [layer, *(published for published, own in network.aliases if own == layer)]
    keys = ("kernel", "weight") if key == "kernel" else (key,)
    candidates = (f"{name}.{key}" for key in keys for name in names)
    return next((name for name in candidates if name in tensors), None)


def _published_shape(shape: Shape) -> Shape:
    """The shape that PyTorch and Caffe give a kernel of ours."""
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _arranged(weight: np.ndarray, maps: Shape) -> np.ndarray:
    """Our kernel of a weight as PyTorch and Caffe have it.

    Args:
        weight: (out, in, row, col), or (out, in).
        maps: the shape of what the layer reads.
    """
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    if len(maps) == 3:
        rows, cols, channels = maps
        by_map = weight.reshape(-1, channels, rows, cols)
        return by_map.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
    return weight.T


def _finite(array: np.ndarray, name: str, source: Path) -> np.ndarray:
    """The array as float32."""
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{source}: {shown(name)} is of the type {array.dtype}, no real numbers.")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise InputError(f"{source}: {shown(name)} holds NaN or infinite values.")
    return array


def _check_complete(
    missing: list[str], left: list[str], wrong: list[str], network: Network, source: Path
) -> None:
    faults = []
    if missing:
        plural = "s" if len(missing) > 1 else ""
        faults.append(f"it lacks the tensor{plural} {listed(missing)}")
    if left:
        faults.append(f"it has {listed(map(shown, left))}, which {network.name} doesn't have")
    if wrong:
        faults.append(listed(wrong, few=3))
    if faults:
        raise InputError(
            f"{source} doesn't hold the weights of {network.name}: {'; '.join(faults)}."
        )
