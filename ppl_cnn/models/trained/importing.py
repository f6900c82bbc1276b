"""Converts the tensors of a file to the weights of a declared network."""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.formats.names import listed, shown
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.graph import Params, input_shape, weight_shapes
from ppl_cnn.models.networks.window import Shape

type Flattening = Literal["channels-first", "channels-last"]
"""The order in which a dense layer reads maps: (channel, row, col) or (row, col, channel)."""

_BESIDE = re.compile(
    r"(.*\.)?(total_ops|total_params|n_averaged"
    r"|(\w*normali[sz]\w*|\w*preprocess\w*)\.(new_)?(mean|std)|(pixel|image|img|input)_(mean|std))"
)
"""Names of what modules, averages of modules and profilers keep beside weights."""
_PUBLISHED = {"kernel": ("weight",), "scale": ("weight",), "shift": ("bias",)}
"""Our name of a weight -> its name in PyTorch and Caffe, or of the first that it is made of."""


def params_from(
    tensors: Mapping[str, np.ndarray],
    network: Network,
    source: Path,
    *,
    flatten: Flattening | None = None,
) -> Params:
    """The weights of a network, as float32, from the tensors of a file.

    The tensors of a layer X are X.kernel and X.bias in this package's layout, or X.weight and
    X.bias in that of PyTorch and Caffe; X is the layer's name or one of `Network.aliases`.

        convolution            (out, in/groups, row, col)            -> (row, col, in/groups, out)
        dense                  (out, in)                             -> (in, out)
        dense that reads maps  (out, in), in = (channel, row, col)   -> in = (row, col, channel)

    A batch normalization has X.scale and X.shift (see
    `ppl_cnn.models.trained.checkpoints.batch_norms`).
    Shapes filled up to four axes with leading ones, as in old caffemodels, are accepted.

    Args:
        tensors: name -> array, as `formats.read_tensors` gives them.
        network: the network's declaration.
        source: the file, for error messages.
        flatten: the order of maps in dense layers; None for what the names say, as above.

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
            arranged = _ours(array) if theirs else array
            if arranged.ndim == 2 and (flatten or _usual(name)) == "channels-first":
                arranged = _channels_last(arranged, input_shape(network, network.layer(layer)))
            params[layer][key] = jnp.asarray(finite(arranged, name, source))
    strange = _strange(left, tensors, network)
    _check_complete(missing, strange, wrong, network, source)
    return params


def _strange(
    left: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], network: Network
) -> list[str]:
    """The names of the tensors left over that belong to another network than this one.

    Counts of a profiler, a module's constants for normalising its images, modules that act in
    training alone, and other names of used tensors don't. The pixels of the network are its
    declaration's all the same.
    """
    known = {name for names in names_in_files(network).values() for name in names}
    used = [array for name, array in tensors.items() if name not in left]
    auxiliary = tuple(f"{module}." for module in network.auxiliary)
    return sorted(
        name
        for name, array in left.items()
        if not _BESIDE.fullmatch(name) and not name.startswith(auxiliary)
        if name in known or not any(_is_tied(array, other) for other in used)
    )


def _is_tied(array: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tensors hold the same numbers, as those that share them do."""
    return array.shape == other.shape and array.ndim > 1 and np.array_equal(array, other)


def names_in_files(network: Network) -> dict[tuple[str, str], list[str]]:
    """(layer, one of its weights, such as "kernel") -> the names that it may have in a file."""
    return {
        (layer, key): [
            f"{name}.{each}" for each in (key, *_PUBLISHED.get(key, ())) for name in names
        ]
        for layer, weights in weight_shapes(network).items()
        for names in [layer_names(network, layer)]
        for key in weights
    }


def layer_names(network: Network, layer: str) -> list[str]:
    """The names that a layer has in files: its own, and its aliases."""
    return [layer, *(published for published, own in network.aliases if own == layer)]


def as_wide_as(tensors: Mapping[str, np.ndarray], network: Network) -> Network:
    """The network with as many classes as the tensors of a file have, by its last weights.

    Itself where these tensors are missing or don't fit each other, which `params_from` reports.

    Args:
        tensors: name -> array, as for `params_from`.
        network: the network's declaration.
    """
    layer = network.score_layer.name
    kernel, bias = (_name_in_file(tensors, network, layer, key) for key in ("kernel", "bias"))
    if kernel is None or bias is None:
        return network
    count, inputs = tensors[bias].size, math.prod(weight_shapes(network)[layer]["kernel"][:-1])
    return network.with_classes(count) if tensors[kernel].size == count * inputs > 0 else network


def with_score_layer(
    tensors: dict[str, np.ndarray], network: Network, source: Path
) -> dict[str, np.ndarray]:
    """The tensors with the last layer's under its own name, if fine-tuning gave it another.

    Caffe asks for another name (fc8_flickr), and a head that is put into a module gets one (fc.1).
    The file must lack that layer alone, and hold one other layer that reads as many inputs; the log
    says which.

    Args:
        tensors: name -> array, as for `params_from`.
        network: the network's declaration.
        source: the file, for the log.
    """
    named = names_in_files(network)
    lacking = {slot for slot, names in named.items() if not any(name in tensors for name in names)}
    layer = network.score_layer.name
    if lacking != {(layer, "kernel"), (layer, "bias")}:
        return tensors
    inputs = math.prod(weight_shapes(network)[layer]["kernel"][:-1])
    heads = [
        name
        for name, array in tensors.items()
        for stem, _, key in [name.rpartition(".")]
        if key in ("weight", "kernel")
        and not any(name in names for names in named.values())
        and array.size == inputs * tensors.get(f"{stem}.bias", np.empty(0)).size > 0
    ]
    if len(heads) != 1:
        return tensors
    stem = heads[0].rpartition(".")[0]
    logging.getLogger("ppl_cnn").warning("%s: took %s as %s.", source, shown(stem), layer)
    return {
        f"{layer}{name.removeprefix(stem)}" if name.rpartition(".")[0] == stem else name: array
        for name, array in tensors.items()
    }


def kernels_over_maps(tensors: Mapping[str, np.ndarray], network: Network) -> list[str]:
    """The kernels in this package's layout of dense layers that read maps of several places.

    Files of others have such names too, and the shapes don't tell in which order maps are read.

    Args:
        tensors: name -> array, as for `params_from`.
        network: the network's declaration.
    """
    over_maps = [
        layer
        for layer, wanted in weight_shapes(network).items()
        if len(wanted.get("kernel", ())) == 2
        and math.prod(input_shape(network, network.layer(layer))[:-1]) > 1
    ]
    names = (_name_in_file(tensors, network, layer, "kernel") for layer in over_maps)
    return [name for name in names if name is not None and _usual(name) == "channels-last"]


def _name_in_file(
    tensors: Mapping[str, np.ndarray], network: Network, layer: str, key: str
) -> str | None:
    """The name that the file uses for a layer's kernel or bias; None if it has none."""
    candidates = names_in_files(network)[layer, key]
    return next((name for name in candidates if name in tensors), None)


def _published_shape(shape: Shape) -> Shape:
    """The shape that a kernel has in PyTorch and Caffe, given its shape here."""
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _ours(weight: np.ndarray) -> np.ndarray:
    """The kernel (row, col, in, out) or (in, out) of one in PyTorch's and Caffe's layout."""
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T


def _usual(name: str) -> Flattening:
    """The order of maps in files that have such names of kernels."""
    return "channels-first" if name.endswith(".weight") else "channels-last"


def _channels_last(kernel: np.ndarray, maps: Shape) -> np.ndarray:
    """The kernel (in, out) of a layer that read its input as (channel, row, col).

    Args:
        kernel: the kernel.
        maps: the shape of what the layer reads.
    """
    if len(maps) != 3:
        return kernel
    rows, cols, channels = maps
    by_map = kernel.reshape(channels, rows, cols, -1)
    return by_map.transpose(1, 2, 0, 3).reshape(kernel.shape)


def finite(array: np.ndarray, name: str, source: Path) -> np.ndarray:
    """The array as float32.

    Args:
        array: what the file holds.
        name: its name there.
        source: the file.

    Raises:
        FileError: the array holds other than finite real numbers.
    """
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
