"""The door to networks with weights: `load`."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppl_cnn.errors import ArgumentError, FileError
from ppl_cnn.models.formats.names import listed, shown
from ppl_cnn.models.formats.weights_file import open_weights
from ppl_cnn.models.networks.catalogue import network_named
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.graph import shapes
from ppl_cnn.models.trained.checkpoints.batch_norms import normalized
from ppl_cnn.models.trained.checkpoints.caffe_networks import check_network, check_pixels
from ppl_cnn.models.trained.checkpoints.entries import entry_of
from ppl_cnn.models.trained.checkpoints.normalizers import warn_of_other_pixels
from ppl_cnn.models.trained.checkpoints.reparametrized import folded
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.importing import (
    Flattening,
    as_wide_as,
    kernels_over_maps,
    names_in_files,
    params_from,
    with_score_layer,
)
from ppl_cnn.models.trained.model_folder import (
    ONNX_FILE,
    Labels,
    declaration_of,
    model_folder,
    preprocessing_of,
    read_description,
    read_weights,
)
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork
from ppl_cnn.models.trained.modules.user_networks import load_module
from ppl_cnn.models.trained.onnx_network import SUFFIXES, OnnxNetwork, open_onnx
from ppl_cnn.models.trained.pixels import parse_pixels
from ppl_cnn.models.trained.published import fetch
from ppl_cnn.models.trained.suited_target import last_objective
from ppl_cnn.models.units.class_names import class_names, named_classes
from ppl_cnn.numeric import in_float32


@in_float32
def load(
    model: str | Path,
    weights: str | Path | None = None,
    *,
    entry: str | None = None,
    pixels: Preprocessing | str | None = None,
    classes: str | Path | None = None,
    flatten: Flattening | None = None,
) -> CNN | ModuleNetwork:
    """Opens a network with weights.

    Args:
        model: one of
            - the name of a network that comes with the package, such as "alexnet-fashion";
            - the folder of a run of `python -m ppl_cnn.pretrain` or of an import;
            - the name of a declared network, such as "resnet50", together with `weights`
              (`python -m ppl_cnn.models` lists them);
            - an ONNX file, "resnet50.onnx", together with `pixels`;
            - a file of a Keras model, "net.keras" or "net.h5", together with `pixels`; it needs the
              extra ppl_cnn[keras], and lambdas in it are refused;
            - "package.module:factory", a function that makes a network of yours (see
              `ppl_cnn.models.trained.modules.user_networks.load_module`).
        weights: a file of weights (PyTorch, Caffe, safetensors, npy, npz or pickled arrays, or the
            index of one in several parts), or "auto" to fetch the declared network's published
            weights. For a network of yours, such a file with the module's own names, the folder of
            an Orbax checkpoint or of its manager, or that of a run of `python -m ppl_cnn.pretrain`
            that has trained it.
        entry: where the file holds the network more than once, the one to take, such as
            "model_ema". By default it is the weights themselves, not their average; the log says
            so.
        pixels: what the network sees of pixels: "torchvision", "caffe" or others (see
            `ppl_cnn.models.trained.pixels.parse_pixels`). A network's file needs it; one of weights
            does where that differs from the declaration.
        classes: the names of the scores of a network's file, a file of weights or a network of
            yours: "imagenet", or a text file with a name a line.
        flatten: in which order the dense layers of a file of weights read maps: "channels-first"
            (channel, row, col), or "channels-last" (row, col, channel). By default the file's names
            tell, as `params_from` has it; the log says so where files differ in it.

    Returns:
        The network; `CNN` and `ModuleNetwork` share the interface `TrainedNetwork`.

    Raises:
        UnknownNameError: there is no such model.
        ArgumentError: the declared network needs `weights` or a network's file `pixels`; Keras
            isn't installed; your factory fails, the file has no such entry, or an argument is given
            without a file that it is about.
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
    if Path(model).suffix.lower() in SUFFIXES:
        _refuse_given(f"{model} has its own", weights=weights, entry=entry, flatten=flatten)
        return open_onnx(Path(model), pixels=pixels, classes=classes)
    is_module = ":" in str(model) and not Path(model).is_dir()
    if weights is None:
        about = f"{model} has no file of `weights` here that it could be about"
        own = {} if is_module else {"classes": classes}
        _refuse_given(about, entry=entry, pixels=pixels, flatten=flatten, **own)
    if is_module:
        _refuse_given("a network of yours says that itself", pixels=pixels, flatten=flatten)
        return load_module(str(model), weights, entry=entry, classes=classes)
    if weights is not None:
        network = network_named(str(model))
        # All published weights are of classifiers that were trained by their logistic loss.
        objective = "discriminative" if str(weights) == "auto" else None
        path = weights_file(network, weights)
        return read_published(
            path,
            network,
            objective,
            entry=entry,
            pixels=pixels,
            classes=classes,
            flatten=flatten,
        )
    return _of_folder(model_folder(model))


def _of_folder(folder: Path) -> CNN:
    """The network of a run's or an import's folder."""
    description = read_description(folder)
    if (folder / ONNX_FILE).is_file():
        return _imported_onnx(folder, description)
    network, params = read_weights(
        folder / "weights.safetensors", declaration_of(description, folder)
    )
    labels = Labels.of(description, _count(network), folder)
    reference = description.get("reference")
    if not isinstance(reference, str | None):
        path = folder / "model.json"
        raise FileError(f"{path} must give a reference's text, not {reference!r}.", path=path)
    return CNN(
        network,
        params,
        labels.alpha,
        classes=labels.classes,
        objective=last_objective(description),
        reference=reference,
    )


def _imported_onnx(folder: Path, description: Mapping[str, Any]) -> OnnxNetwork:
    """The network of an ONNX file that was imported to a folder."""
    given = description["preprocessing"]
    mean = given.get("mean") if isinstance(given, dict) else None
    channels = len(mean) if isinstance(mean, list) else 0
    preprocessing = preprocessing_of(description, channels, folder)
    network = open_onnx(folder / ONNX_FILE, pixels=preprocessing, name=str(description["network"]))
    network.classes = Labels.of(description, network.alpha.shape[0], folder).classes
    return network


@in_float32
def read_published(
    path: Path,
    network: Network,
    objective: str | None = None,
    *,
    entry: str | None = None,
    pixels: Preprocessing | str | None = None,
    classes: str | Path | None = None,
    flatten: Flattening | None = None,
) -> CNN:
    """A declared network with the weights of a file, and with its classes' names.

    Its last layer is as wide as the file's, whose classes have no names if that is another width.

    Args:
        path: the file.
        network: the declaration.
        objective: what the network's training minimised; None if it is unknown.
        entry: the entry of the file that holds the weights, if there are several; see `load`.
        pixels: what the network sees of pixels; None for what is declared.
        classes: the names of its scores, as in `load`; None for those that are declared.
        flatten: the order in which dense layers read maps, as in `load`.

    Raises:
        InputError: the file can't be read (see `read_tensors`), or holds other weights.
    """
    if pixels is not None:
        network = _seeing(network, pixels)
    stored, layers = open_weights(path)
    check_network(layers, network, path)
    wanted = [*names_in_files(network).values()]
    tensors = entry_of(folded(stored, path), wanted, source=path, entry=entry)
    tensors = with_score_layer(tensors, network, path)
    network = as_wide_as(tensors, network)
    if flatten is None and (over_maps := kernels_over_maps(tensors, network)):
        logging.getLogger("ppl_cnn").warning(
            "%s: took %s to read maps as (row, col, channel), channels last (flatten).",
            *(path, listed(map(shown, over_maps))),
        )
    params = params_from(normalized(tensors, network, path), network, path, flatten=flatten)
    if pixels is None:
        check_pixels(layers, network, path)
        warn_of_other_pixels(stored, network, path)
    names = class_names(network) if classes is None else named_classes(classes, _count(network))
    return CNN(network, params, classes=names, objective=objective)


def _count(network: Network) -> int:
    """The number of a network's scores."""
    return shapes(network)[network.layers[-1].name][-1]


def _seeing(network: Network, pixels: Preprocessing | str) -> Network:
    """The network with these pixels, of photographs scaled as for the declared ones."""
    if isinstance(pixels, Preprocessing):
        return replace(network, preprocessing=pixels)
    seen = parse_pixels(pixels, channels=network.image_shape[-1])
    side = network.preprocessing.short_side
    return replace(network, preprocessing=replace(seen, short_side=side))


def _refuse_given(reason: str, **arguments: object) -> None:
    """Refuses arguments that aren't None, for a reason that is a clause."""
    for name, value in arguments.items():
        if value is not None:
            raise ArgumentError(
                f"`{name}={value}` can't be used: {reason}. Leave it out.", argument=name
            )


def weights_file(network: Network, weights: str | Path) -> Path:
    """The path of a file of weights; "auto" fetches the network's published file.

    Raises:
        InputError: the published file is unknown or can't be fetched (see `fetch`).
    """
    return fetch(network.name) if str(weights) == "auto" else Path(weights)
