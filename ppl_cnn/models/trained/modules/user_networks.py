"""Networks that a factory of the user's makes, "package.module:factory", and their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from ppl_cnn.errors import ArgumentError, FileError, MismatchError
from ppl_cnn.models.formats.names import listed, shown
from ppl_cnn.models.formats.weights_file import read_tensors
from ppl_cnn.models.trained.checkpoints.entries import entry_of
from ppl_cnn.models.trained.checkpoints.orbax_folders import read_orbax
from ppl_cnn.models.trained.model_folder import Labels, preprocessing_of, read_description
from ppl_cnn.models.trained.modules.captured import OUTPUT
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork
from ppl_cnn.models.trained.suited_target import last_objective
from ppl_cnn.models.units.class_names import named_classes
from ppl_cnn.user_modules import called, named_object


def load_module(
    spec: str,
    weights: str | Path | None = None,
    *,
    entry: str | None = None,
    classes: str | Path | None = None,
) -> ModuleNetwork:
    """Opens a network that a factory of the user's makes.

    Args:
        spec: "package.module:factory", imported as Python imports any module. The factory is
            called without arguments. It returns a `ModuleNetwork`, or an `nnx.Module` with the
            attribute `image_shape` and optionally `preprocessing` and `classes`.
        weights: a file of any format that `ppl_cnn.models.formats.read_tensors` reads, with the
            module's names and layouts; the folder of an Orbax checkpoint of its state (`nnx.state`,
            or its pure dict), of a checkpoint manager, or of one of its steps; or the folder of a
            run that has trained the module, which also says its classes, their offsets and its
            preprocessing. None keeps the factory's weights.
        entry: the entry that holds them, where there are several, such as "model_ema".
        classes: the names of its scores, as in `ppl_cnn.models.units.class_names.named_classes`;
            None for those of the run or of the factory.

    Raises:
        ArgumentError: the module can't be imported, the factory fails or makes no such network.
        UnknownNameError: the module has no such factory.
        FileError: the weights or the names are missing or damaged.
        MismatchError: the weights or the names don't fit the network.
    """
    network = _made(spec)
    if weights is not None:
        network = _weighted(network, Path(weights), entry)
    if classes is None:
        return network
    return network.with_classes(named_classes(classes, network.layers[OUTPUT][-1]))


def _made(spec: str) -> ModuleNetwork:
    """The network that the factory returns, or that of the module that it returns."""
    made = _call(spec)
    if isinstance(made, ModuleNetwork):
        return made
    if isinstance(made, nnx.Module) and hasattr(made, "image_shape"):
        preprocessing, classes = getattr(made, "preprocessing", None), getattr(made, "classes", ())
        return ModuleNetwork(made, made.image_shape, preprocessing, classes=classes)
    hint = " Wrap it in nnx.bridge.ToNNX first." if isinstance(made, linen.Module) else ""
    raise ArgumentError(
        f"{spec} must return a ppl_cnn.ModuleNetwork or an nnx.Module with the attribute "
        f"image_shape, not {type(made).__name__}.{hint}",
        argument="model",
    )


def _weighted(network: ModuleNetwork, path: Path, entry: str | None) -> ModuleNetwork:
    """The network with the weights of a file or folder."""
    if (path / "model.json").is_file():
        return _with_run(network, path)
    tensors = read_orbax(path) if path.is_dir() else read_tensors(path)
    wanted = [[name] for name in network.weights]
    found = entry_of(tensors, wanted, source=path, entry=entry)
    return network.with_weights(_fitting(found, network, path))


def _with_run(network: ModuleNetwork, folder: Path) -> ModuleNetwork:
    """The network as the run in that folder has trained it."""
    description = read_description(folder)
    path = folder / "weights.safetensors"
    labels = Labels.of(description, network.layers[OUTPUT][-1], folder)
    return network.trained(
        _fitting(read_tensors(path), network, path),
        alpha=jnp.asarray(labels.alpha),
        classes=labels.classes,
        objective=last_objective(description),
        preprocessing=preprocessing_of(description, network.image_shape[-1], folder),
    )


def _call(spec: str) -> Any:
    """The return value of the factory."""
    factory = named_object(spec, argument="model")
    if not callable(factory):
        raise ArgumentError(
            f"{spec} must be a function or class that makes a network, not "
            f"{type(factory).__name__}.",
            argument="model",
        )
    return called(factory, spec, argument="model")


def _fitting(
    tensors: Mapping[str, np.ndarray], network: ModuleNetwork, path: Path
) -> dict[str, jax.Array]:
    """The tensors as weights of the network; its random keys among them are dropped."""
    if missing := network.weights.keys() - tensors.keys():
        held = f" It holds {listed(map(shown, tensors), few=3)}." if tensors else ""
        raise MismatchError(f"{path} lacks {listed(sorted(missing))} of {network.name}.{held}")
    if strange := tensors.keys() - network.weights.keys() - network.keys:
        raise MismatchError(
            f"{path} holds {listed(sorted(strange))}, which {network.name} doesn't have."
        )
    weights = {}
    for name, wanted in network.weights.items():
        array = tensors[name]
        if array.shape != wanted.shape:
            raise MismatchError(
                f"{path}: {name} has the shape {array.shape}, but {network.name} needs "
                f"{wanted.shape}."
            )
        if not np.isfinite(array).all():
            raise FileError(f"{path}: {name} holds NaN or infinite values.", path=path)
        weights[name] = jnp.asarray(array, wanted.dtype)
    return weights
