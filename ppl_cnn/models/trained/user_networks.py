"""Networks that a factory of the user's makes, "package.module:factory", and their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import linen, nnx

from ppl_cnn.errors import ArgumentError, FileError, MismatchError, one_line
from ppl_cnn.models.formats.names import listed
from ppl_cnn.models.trained.captured import named_leaves
from ppl_cnn.models.trained.module_network import ModuleNetwork
from ppl_cnn.user_modules import called, named_object


def load_module(spec: str, weights: str | Path | None = None) -> ModuleNetwork:
    """Opens a network that a factory of the user's makes.

    Args:
        spec: "package.module:factory", imported as Python imports any module. The factory is
            called without arguments. It returns a `ModuleNetwork`, or an `nnx.Module` with the
            attribute `image_shape` and optionally `preprocessing` and `classes`.
        weights: a safetensors file, or the folder of an Orbax checkpoint of the module's state
            (`nnx.state`, or its pure dict); None keeps the factory's weights.

    Raises:
        ArgumentError: the module can't be imported, the factory fails or makes no such network.
        UnknownNameError: the module has no such factory.
        FileError: the weights are missing or damaged.
        MismatchError: the weights don't fit the network.
    """
    made = _call(spec)
    if isinstance(made, ModuleNetwork):
        network = made
    elif isinstance(made, nnx.Module) and hasattr(made, "image_shape"):
        preprocessing, classes = getattr(made, "preprocessing", None), getattr(made, "classes", ())
        network = ModuleNetwork(made, made.image_shape, preprocessing, classes=classes)
    else:
        hint = " Wrap it in nnx.bridge.ToNNX first." if isinstance(made, linen.Module) else ""
        raise ArgumentError(
            f"{spec} must return a ppl_cnn.ModuleNetwork or an nnx.Module with the attribute "
            f"image_shape, not {type(made).__name__}.{hint}",
            argument="model",
        )
    if weights is None:
        return network
    path = Path(weights)
    tensors = _read_checkpoint(path) if path.is_dir() else _read_safetensors(path)
    return network.with_weights(_fitting(tensors, network, path))


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


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise FileError(f"{path} is missing.", path=path) from None
    except safetensors.SafetensorError as error:
        raise FileError(f"{path} is no intact safetensors file ({error}).", path=path) from None


def _read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    checkpointer = ocp.PyTreeCheckpointer()
    try:
        tree = checkpointer.metadata(path.absolute()).item_metadata.tree
        # NumPy arrays can be restored whatever devices they were saved from.
        wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return named_leaves(checkpointer.restore(path.absolute(), restore_args=wanted))[0]
    except Exception as error:
        raise FileError(
            f"{path} is no intact Orbax checkpoint of a state ({one_line(error)}).", path=path
        ) from error


def _fitting(
    tensors: Mapping[str, np.ndarray], network: ModuleNetwork, path: Path
) -> dict[str, jax.Array]:
    """The tensors as weights of the network; its random keys among them are dropped."""
    if missing := network.weights.keys() - tensors.keys():
        raise MismatchError(f"{path} lacks {listed(sorted(missing))} of {network.name}.")
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
