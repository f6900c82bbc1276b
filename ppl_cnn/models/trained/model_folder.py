"""A trained network on disk: a folder with `weights.safetensors` and `model.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.models.formats import read_tensors
from ppl_cnn.models.formats.arrays import read_safetensors
from ppl_cnn.models.networks.catalogue import NETWORKS, network_named
from ppl_cnn.models.networks.class_names import class_names
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.graph import Params, shapes
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.importing import params_from
from ppl_cnn.models.trained.module_network import ModuleNetwork
from ppl_cnn.models.trained.own_networks import load_module
from ppl_cnn.models.trained.published import fetch

EMBEDDED = Path(__file__).parents[1] / "embedded"
"""The networks that come with the package, a folder each."""


def load(model: str | Path, weights: str | Path | None = None) -> CNN | ModuleNetwork:
    """Opens a trained network.

    Args:
        model: the name of an embedded network; the folder of a run of `ppl_cnn.pretrain` or of an
            import; with `weights`, the name of a declared network; or "package.module:factory"
            for a network of one's own.
        weights: a file of published weights (see `ppl_cnn.models.formats`), or "auto", which
            fetches the network's own. For a network of one's own, see
            `ppl_cnn.models.trained.own_networks.load_module`.

    Raises:
        InputError: there is no such model, or its files are damaged or don't fit.
    """
    if ":" in str(model) and not Path(model).is_dir():
        return load_module(str(model), weights)
    if weights is not None:
        network = network_named(str(model))
        return read_published(weights_file(network, weights), network)
    folder = model_folder(model)
    description = read_description(folder)
    network = _network(description, folder)
    params = read_weights(folder / "weights.safetensors", network)
    count = shapes(network)[network.layers[-1].name][-1]
    alpha, classes = _numbers(description["alpha"]), description["classes"]
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if alpha.shape != (count,) or not named or len(classes) not in (0, count):
        raise InputError(
            f"{folder / 'model.json'} must give {count} finite alpha and {count} classes, or none."
        )
    return CNN(network, params, alpha.astype(np.float32), tuple(classes))


def read_published(path: Path, network: Network) -> CNN:
    """A declared network with the weights of a file, and the names of its classes.

    Raises:
        InputError: the file can't be read (see `read_tensors`) or isn't the network's.
    """
    params = params_from(read_tensors(path), network, path)
    return CNN(network, params, classes=class_names(network))


def weights_file(network: Network, weights: str | Path) -> Path:
    """The file that `weights` names: itself, or for "auto" the network's published one."""
    return fetch(network.name) if str(weights) == "auto" else Path(weights)


def model_folder(model: str | Path) -> Path:
    """The folder of an embedded network or of a run."""
    folder = EMBEDDED / str(model)
    if str(model) not in embedded_names():
        folder = Path(model)
    if (folder / "model.json").is_file():
        return folder
    if str(model) in NETWORKS:
        raise InputError(
            f"The network {model} comes without weights: give a file of them with --weights, or "
            f"train it with `python -m ppl_cnn.pretrain --network {model}` and give the run's "
            f"folder."
        )
    raise InputError(
        f"There is no model {str(model)!r}: give one of {', '.join(embedded_names())} "
        f"or a run's folder, one that holds model.json and weights.safetensors."
    )


def embedded_names() -> list[str]:
    """The networks that come with the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/model.json"))


def read_description(folder: Path) -> dict[str, Any]:
    """`model.json` of a model's folder, with the fields that `load` needs."""
    path = folder / "model.json"
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is no JSON file ({error}).") from None
    if not isinstance(description, dict):
        raise InputError(f"{path} is no JSON object that describes a model.")
    if missing := {"network", "preprocessing", "alpha", "classes"} - set(description):
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}.")
    return description


def _network(description: Mapping[str, Any], folder: Path) -> Network:
    name = description["network"]
    if not isinstance(name, str) or name not in NETWORKS:
        raise InputError(
            f"{folder / 'model.json'} names the network {name!r}; known are {', '.join(NETWORKS)}."
        )
    channels = NETWORKS[name].image_shape[-1]
    orders = ("grey",) if channels == 1 else ("RGB", "BGR")
    given = description["preprocessing"]
    given = given if isinstance(given, dict) else {}
    mean, scale = _numbers(given.get("mean")), _numbers(given.get("scale"))
    side = given.get("short_side")
    sized = side is None or (type(side) is int and side > 0)
    if not mean.shape == scale.shape == (channels,) or given.get("order") not in orders:
        raise InputError(
            f"{folder / 'model.json'} must give preprocessing as a mean and a scale of {channels} "
            f"numbers each and an order, {' or '.join(orders)}."
        )
    if not sized:
        raise InputError(
            f"{folder / 'model.json'} must give a short_side of whole pixels or null, not {side!r}."
        )
    preprocessing = Preprocessing(tuple(mean.tolist()), tuple(scale.tolist()), given["order"], side)
    return replace(NETWORKS[name], preprocessing=preprocessing)


def _numbers(value: Any) -> np.ndarray:
    """The finite numbers of a JSON value; an empty array if it is something else."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return np.empty(0)
    return array if np.isfinite(array).all() else np.empty(0)


def read_weights(path: Path, network: Network) -> Params:
    """Reads a safetensors file of a network's weights, as float32.

    Raises:
        InputError: the file is missing or damaged, or a tensor is missing, left over, of a
            wrong shape or not finite.
    """
    try:
        tensors = read_safetensors(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing.") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return params_from(tensors, network, path)


def save(folder: Path, cnn: CNN, description: Mapping[str, Any]) -> None:
    """Writes a model's folder; each file is written aside and renamed.

    Args:
        folder: an existing folder.
        cnn: the network.
        description: what `model.json` says besides network, preprocessing, alpha and classes.
    """
    tensors = {
        f"{layer}.{name}": np.asarray(array)
        for layer, weights in cnn.arrays().items()
        for name, array in weights.items()
    }
    own = {
        "network": cnn.network.name,
        "preprocessing": asdict(cnn.network.preprocessing),
        "classes": list(cnn.classes),
        "alpha": np.asarray(cnn.alpha[...]).tolist(),
    }
    write_aside(folder / "weights.safetensors", safetensors.numpy.save(tensors))
    write_aside(folder / "model.json", json.dumps({**description, **own}, indent=2).encode())
