"""A model's folder on disk, with `weights.safetensors` and `model.json`: written and read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import safetensors.numpy
from jaxtyping import Float

from ppl_cnn.errors import ArgumentError, FileError, InputError, UnknownNameError
from ppl_cnn.files import write_aside
from ppl_cnn.models.formats.arrays import read_safetensors
from ppl_cnn.models.networks.catalogue import NETWORKS
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.importing import as_wide_as, params_from
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork
from ppl_cnn.user_modules import names_an_object

ONNX_FILE = "network.onnx"
"""The file of a folder whose network was imported from ONNX; its weights are in it."""

EMBEDDED = Path(__file__).parents[1] / "embedded"
"""The folder of the networks that come with the package; each has a folder in it."""


def model_folder(model: str | Path) -> Path:
    """The folder of a model.

    Args:
        model: the name of an embedded network, or a folder.

    Raises:
        UnknownNameError: there is no such network, nor a folder with a `model.json`.
        ArgumentError: the declared network of this name comes without weights.
    """
    folder = EMBEDDED / str(model)
    if str(model) not in embedded_names():
        folder = Path(model)
    if (folder / "model.json").is_file():
        return folder
    if str(model) in NETWORKS:
        raise ArgumentError(
            f"Network {model} comes without weights. Give a file of `weights`, or the folder of a "
            f"run that has trained it.",
            argument="weights",
        )
    raise UnknownNameError(
        f"Unknown model {str(model)!r}. Give one of {', '.join(embedded_names())}, or a folder "
        f"that holds model.json and weights.safetensors.",
        name=str(model),
        known=embedded_names(),
    )


def embedded_names() -> list[str]:
    """The names of the networks that come with the package, sorted."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/model.json"))


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a model's `model.json`, with the fields that `load` needs.

    Raises:
        FileError: the file is no JSON object, or lacks one of these fields.
    """
    path = folder / "model.json"
    try:
        description = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise FileError(f"{path} isn't JSON ({error}).", path=path) from None
    if not isinstance(description, dict):
        raise FileError(f"{path} must hold a JSON object that describes a model.", path=path)
    if missing := {"network", "preprocessing", "alpha", "classes"} - set(description):
        raise FileError(f"{path} lacks {', '.join(sorted(missing))}.", path=path)
    return description


def declaration_of(description: Mapping[str, Any], folder: Path) -> Network:
    """The declared network that a model's description names, with the description's preprocessing.

    Args:
        description: from `read_description`.
        folder: the model's folder, for error messages.

    Raises:
        ArgumentError: the network is a module of the user's.
        FileError: the network is unknown, or the preprocessing doesn't fit it.
    """
    path = folder / "model.json"
    name = description["network"]
    if isinstance(name, str) and names_an_object(name):
        # A folder may come from elsewhere: what code is run is the user's to say.
        raise ArgumentError(
            f"{folder} holds weights of {name}, a module that only you can have imported. Give "
            f"`model={name}` and `weights={folder}`.",
            argument="model",
        )
    if not isinstance(name, str) or name not in NETWORKS:
        raise FileError(
            f"{path} names the unknown network {name!r}. Known: {', '.join(NETWORKS)}.", path=path
        )
    preprocessing = preprocessing_of(description, NETWORKS[name].image_shape[-1], folder)
    return replace(NETWORKS[name], preprocessing=preprocessing)


def preprocessing_of(description: Mapping[str, Any], channels: int, folder: Path) -> Preprocessing:
    """The preprocessing that a model's description gives.

    Args:
        description: from `read_description`.
        channels: those of the network's image.
        folder: the model's folder, for error messages.

    Raises:
        FileError: it doesn't fit the channels.
    """
    path = folder / "model.json"
    orders = ("grey",) if channels == 1 else ("RGB", "BGR")
    given = description["preprocessing"]
    given = given if isinstance(given, dict) else {}
    mean, scale = numbers(given.get("mean")), numbers(given.get("scale"))
    side = given.get("short_side")
    sized = side is None or (type(side) is int and side > 0)
    if not mean.shape == scale.shape == (channels,) or given.get("order") not in orders:
        raise FileError(
            f"{path} must give a preprocessing with a mean and a scale of {channels} numbers each "
            f"and an order ({' or '.join(orders)}).",
            path=path,
        )
    if not sized:
        raise FileError(
            f"{path} must give a short_side of positive whole pixels or null, not {side!r}.",
            path=path,
        )
    means, scales = tuple(mean.tolist()), tuple(scale.tolist())
    return Preprocessing(means, scales, given["order"], short_side=side)


class Labels(NamedTuple):
    """What a model's description says of its classes."""

    alpha: Float[np.ndarray, " class"]
    """Class offsets."""
    classes: tuple[str, ...]
    """The classes' names, or () if they have none."""

    @classmethod
    def of(cls, description: Mapping[str, Any], count: int, folder: Path) -> Self:
        """Those of a network with `count` scores.

        Args:
            description: from `read_description`.
            count: number of scores.
            folder: the model's folder, for error messages.

        Raises:
            FileError: their number is another, or they are no numbers and names.
        """
        alpha, classes = numbers(description["alpha"]), description["classes"]
        named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if alpha.shape != (count,) or not named or len(classes) not in (0, count):
            path = folder / "model.json"
            raise FileError(
                f"{path} must give {count} finite alpha, and {count} classes or none.", path=path
            )
        return cls(alpha.astype(np.float32), tuple(classes))


def numbers(value: Any) -> np.ndarray:
    """The numbers in a JSON value as float64; an empty array if they aren't finite numbers."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return np.empty(0)
    return array if np.isfinite(array).all() else np.empty(0)


def read_weights(path: Path, network: Network) -> tuple[Network, Params]:
    """Reads the safetensors file of a network's weights, as float32.

    Returns:
        The network with as many classes as the weights have, and the weights.

    Raises:
        FileError: the file is missing or damaged, or holds numbers that aren't finite.
        MismatchError: a tensor is missing, left over or of a wrong shape.
    """
    try:
        tensors = read_safetensors(path.read_bytes())
    except FileNotFoundError:
        raise FileError(f"{path} is missing.", path=path) from None
    except InputError as error:
        raise FileError(f"{path}: {error}", path=path) from None
    network = as_wide_as(tensors, network)
    return network, params_from(tensors, network, path)


def save(
    folder: Path,
    network: CNN | ModuleNetwork,
    description: Mapping[str, Any],
    *,
    name: str | None = None,
) -> None:
    """Writes a model's folder; each file is written aside and then renamed.

    Args:
        folder: an existing folder.
        network: the network.
        description: what else `model.json` holds, besides network, preprocessing, alpha and
            classes.
        name: what the network is called there, such as "package.module:factory"; by default its
            own name.
    """
    tensors = {key: np.asarray(array) for key, array in network.tensors().items()}
    write_aside(folder / "weights.safetensors", safetensors.numpy.save(tensors))
    describe(folder, network, description, name=name)


def save_onnx(folder: Path, cnn: CNN, description: Mapping[str, Any], *, content: bytes) -> None:
    """Writes the folder of a network from an ONNX file; the other arguments are those of `save`.

    Args:
        folder: an existing folder.
        cnn: the network.
        description: what else `model.json` holds.
        content: the file's content.
    """
    write_aside(folder / ONNX_FILE, content)
    describe(folder, cnn, description)


def describe(
    folder: Path,
    network: CNN | ModuleNetwork,
    description: Mapping[str, Any],
    *,
    name: str | None = None,
) -> None:
    """Writes a model's `model.json`; the arguments are those of `save`."""
    own = {
        "network": name or network.name,
        "preprocessing": asdict(network.preprocessing),
        "classes": list(network.classes),
        "alpha": np.asarray(network.alpha[...]).tolist(),
    }
    write_aside(folder / "model.json", json.dumps({**description, **own}, indent=2).encode())
