"""The door to networks with weights: `load`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppl_cnn.errors import ArgumentError, FileError
from ppl_cnn.models.formats import read_tensors
from ppl_cnn.models.networks.catalogue import network_named
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.graph import shapes
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.importing import params_from
from ppl_cnn.models.trained.model_folder import (
    ONNX_FILE,
    declaration_of,
    model_folder,
    numbers,
    preprocessing_of,
    read_description,
    read_weights,
)
from ppl_cnn.models.trained.module_network import ModuleNetwork
from ppl_cnn.models.trained.onnx_network import SUFFIX, OnnxNetwork, open_onnx
from ppl_cnn.models.trained.published import fetch
from ppl_cnn.models.trained.suited_target import last_objective
from ppl_cnn.models.trained.user_networks import load_module
from ppl_cnn.models.units.class_names import class_names


def load(
    model: str | Path,
    weights: str | Path | None = None,
    *,
    pixels: Preprocessing | str | None = None,
    classes: str | None = None,
) -> CNN | ModuleNetwork:
    """Opens a network with weights.

    Args:
        model: one of
            - the name of a network that comes with the package, such as "alexnet-fashion";
            - the folder of a run of `python -m ppl_cnn.pretrain` or of an import;
            - the name of a declared network, such as "squeezenet1.1", together with `weights`;
            - an ONNX file, "resnet50.onnx", together with `pixels`;
            - "package.module:factory", a function that makes a network of yours (see
              `ppl_cnn.models.trained.user_networks.load_module`).
        weights: a file of weights (PyTorch, Caffe, safetensors, npz or pickled arrays), or "auto"
            to fetch the declared network's published weights. For a network of yours, a
            safetensors file or the folder of an Orbax checkpoint.
        pixels: what an ONNX file's first layer sees of pixels, such as "torchvision"; see
            `ppl_cnn.models.trained.pixels.parse_pixels`.
        classes: the names of an ONNX file's scores: "imagenet", or a text file with a name a line.

    Returns:
        The network; `CNN` and `ModuleNetwork` share the interface `TrainedNetwork`.

    Raises:
        UnknownNameError: there is no such model.
        ArgumentError: the declared network needs `weights`, an ONNX file needs `pixels`, or your
            factory fails.
        FileError: a file is missing or damaged, or can't be fetched.
        MismatchError: the weights don't fit the network.

    Examples:
        >>> import ppl_cnn
        >>> net = ppl_cnn.load("alexnet-fashion")
        >>> net.image_shape, len(net.classes)
        ((28, 28, 1), 10)
        >>> net.class_of(net.unit("class:Bag").name)
        'Bag'
    """
    if Path(model).suffix.lower() == SUFFIX:
        return _from_onnx(Path(model), weights, pixels, classes)
    for name, value in (("pixels", pixels), ("classes", classes)):
        if value is not None:
            raise ArgumentError(
                f"`{name}` belongs to an {SUFFIX} file, and {model} is none. Leave it out.",
                argument=name,
            )
    if ":" in str(model) and not Path(model).is_dir():
        return load_module(str(model), weights)
    if weights is not None:
        network = network_named(str(model))
        # All published weights are of classifiers that were trained by their logistic loss.
        objective = "discriminative" if str(weights) == "auto" else None
        return read_published(weights_file(network, weights), network, objective)
    folder = model_folder(model)
    description = read_description(folder)
    if (folder / ONNX_FILE).is_file():
        return _imported_onnx(folder, description)
    network = declaration_of(description, folder)
    params = read_weights(folder / "weights.safetensors", network)
    count = shapes(network)[network.layers[-1].name][-1]
    alpha, classes = numbers(description["alpha"]), description["classes"]
    reference = description.get("reference")
    if not isinstance(reference, str | None):
        path = folder / "model.json"
        raise FileError(f"{path} must give a reference's text, not {reference!r}.", path=path)
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if alpha.shape != (count,) or not named or len(classes) not in (0, count):
        path = folder / "model.json"
        raise FileError(
            f"{path} must give {count} finite alpha, and {count} classes or none.", path=path
        )
    return CNN(
        network,
        params,
        alpha.astype(np.float32),
        classes=tuple(classes),
        objective=last_objective(description),
        reference=reference,
    )


def _from_onnx(
    path: Path,
    weights: str | Path | None,
    pixels: Preprocessing | str | None,
    classes: str | None,
) -> OnnxNetwork:
    if weights is not None:
        raise ArgumentError(
            f"`weights={weights}` can't be used with {path.name}, which has its own. Leave it out.",
            argument="weights",
        )
    return open_onnx(path, pixels=pixels, classes=classes)


def _imported_onnx(folder: Path, description: Mapping[str, Any]) -> OnnxNetwork:
    """The network of an ONNX file that was imported to a folder."""
    path = folder / "model.json"
    given = description["preprocessing"]
    mean = given.get("mean") if isinstance(given, dict) else None
    channels = len(mean) if isinstance(mean, list) else 0
    preprocessing = preprocessing_of(description, channels, path)
    network = open_onnx(folder / ONNX_FILE, pixels=preprocessing, name=str(description["network"]))
    classes = description["classes"]
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not named or len(classes) not in (0, network.alpha.shape[0]):
        raise FileError(f"{path} must give {network.alpha.shape[0]} classes or none.", path=path)
    network.classes = tuple(classes)
    return network


def read_published(path: Path, network: Network, objective: str | None = None) -> CNN:
    """A declared network with the weights of a published file, and with its classes' names.

    Args:
        path: the file.
        network: the declaration.
        objective: what the network's training minimised; None if it is unknown.

    Raises:
        InputError: the file can't be read (see `read_tensors`), or holds other weights.
    """
    params = params_from(read_tensors(path), network, path)
    return CNN(network, params, classes=class_names(network), objective=objective)


def weights_file(network: Network, weights: str | Path) -> Path:
    """The path of a file of weights; "auto" fetches the network's published file.

    Raises:
        InputError: the published file is unknown or can't be fetched (see `fetch`).
    """
    return fetch(network.name) if str(weights) == "auto" else Path(weights)
