"""Converts the tensors of a file to the weights of a declared network."""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.formats.names import listed, shown
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.graph import Params, input_shape, weight_shapes
from ppl_cnn.models.networks.window import Shape


def params_from(tensors: Mapping[str, np.ndarray], network: Network, source: Path) -> Params:
    """The weights of a network, as float32, from the tensors of a file.

    The tensors of a layer X are X.kernel and X.bias in this package's layout, or X.weight and
    X.bias in that of PyTorch and Caffe; X is the layer's name or one of `Network.aliases`.

        convolution            (out, in/groups, row, col)            -> (row, col, in/groups, out)
        dense                  (out, in)                             -> (in, out)
        dense that reads maps  (out, in), in = (channel, row, col)   -> in = (row, col, channel)

    Shapes filled up to four axes with leading ones, as in old caffemodels, are accepted.

    Args:
        tensors: name -> array, as `formats.read_tensors` gives them.
        network: the network's declaration.
        source: the file, for error messages.

    Raises:
        MismatchError: a tensor is missing, left over or of a wrong shape.
        FileError: a tensor isn't of finite real numbers.
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
            # Kernels in our layout aren't reshaped: with leading ones, one is a 1x1 convolution's.
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
    """The name that the file uses for a layer's kernel or bias; None if it has none."""
    names = [layer, *(published for published, own in network.aliases if own == layer)]
    keys = ("kernel", "weight") if key == "kernel" else (key,)
    candidates = (f"{name}.{key}" for key in keys for name in names)
    return next((name for name in candidates if name in tensors), None)


def _published_shape(shape: Shape) -> Shape:
    """The shape that a kernel has in PyTorch and Caffe, given its shape here."""
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _arranged(weight: np.ndarray, maps: Shape) -> np.ndarray:
    """The kernel in this package's layout.

    Args:
        weight: the kernel in PyTorch's and Caffe's layout, (out, in, row, col) or (out, in).
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
    """The array as float32; refused unless it holds finite real numbers."""
    if not np.issubdtype(array.dtype, np.floating):
        raise FileError(
            f"{source}: {shown(name)} holds {array.dtype}, not real numbers.", path=source
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise FileError(f"{source}: {shown(name)} holds NaN or infinite values.", path=source)
    return array


def _check_complete(
    missing: list[str], left: list[str], wrong: list[str], network: Network, source: Path
) -> None:
    faults = []
    if missing:
        faults.append(f"it lacks {listed(missing)}")
    if left:
        faults.append(f"it holds {listed(map(shown, left))}, which {network.name} doesn't have")
    if wrong:
        faults.append(listed(wrong, few=3))
    if faults:
        raise MismatchError(
            f"{source} doesn't hold the weights of {network.name}: {'; '.join(faults)}."
        )
