"""Networks of one's own by name, "package.module:factory", and their weights on disk."""

import importlib
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from ppl_cnn.errors import InputError
from ppl_cnn.models.trained.module_network import ModuleNetwork, named_leaves, one_line


def load_module(spec: str, weights: str | Path | None = None) -> ModuleNetwork:
    """Opens a network that a factory of one's own makes.

    Args:
        spec: "package.module:factory", imported as Python imports any module. The factory is
            called without arguments and returns a `ModuleNetwork`, or an `nnx.Module` with an
            attribute `image_shape` and, if it likes, `preprocessing` and `classes`.
        weights: a safetensors file, or the folder of an Orbax checkpoint of the module's state
            (`nnx.state`, or its pure dict); by default the factory's own.

    Raises:
        InputError: there is no such factory, it fails, what it returns is no such network, or
            the weights don't fit.
    """
    made = _call(spec)
    if isinstance(made, ModuleNetwork):
        network = made
    elif isinstance(made, nnx.Module) and hasattr(made, "image_shape"):
        preprocessing, classes = getattr(made, "preprocessing", None), getattr(made, "classes", ())
        network = ModuleNetwork(made, made.image_shape, preprocessing, classes)
    else:
        raise InputError(
            f"{spec} must return a ppl_cnn.ModuleNetwork or an nnx.Module with an attribute "
            f"image_shape, not {type(made).__name__}."
        )
    if weights is None:
        return network
    path = Path(weights)
    tensors = _read_checkpoint(path) if path.is_dir() else _read_safetensors(path)
    return network.with_weights(_fitting(tensors, network, path))


def _call(spec: str) -> Any:
    """What the factory returns."""
    name, _, attribute = spec.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise InputError(f"The module {name!r} can't be imported ({one_line(error)}).") from error
    try:
        factory = reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise InputError(f"The module {name} has no {attribute!r}.") from None
    if not callable(factory):
        raise InputError(f"{spec} is no function or class that makes a network.")
    try:
        return factory()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{spec} can't be called without arguments ({one_line(error)})."
        ) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing.") from None
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is no intact safetensors file ({error}).") from None


def _read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    checkpointer = ocp.PyTreeCheckpointer()
    try:
        tree = checkpointer.metadata(path.absolute()).item_metadata.tree
        # As NumPy arrays, whatever devices they were saved from.
        wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return named_leaves(checkpointer.restore(path.absolute(), restore_args=wanted))[0]
    except Exception as error:
        raise InputError(
            f"{path} is no intact Orbax checkpoint of a state ({one_line(error)})."
        ) from error


def _fitting(
    tensors: Mapping[str, np.ndarray], network: ModuleNetwork, path: Path
) -> dict[str, jax.Array]:
    """The tensors as the network's weights; its random keys are left over, if they are there."""
    if missing := network.weights.keys() - tensors.keys():
        raise InputError(f"{path} lacks {_some(missing)} of {network.name}.")
    if strange := tensors.keys() - network.weights.keys() - network.keys:
        raise InputError(
            f"{path} holds tensors that {network.name} doesn't have: {_some(strange)}."
        )
    weights = {}
    for name, wanted in network.weights.items():
        array = tensors[name]
        if array.shape != wanted.shape:
            raise InputError(
                f"{path}: {name} has the shape {array.shape}, but {network.name} needs "
                f"{wanted.shape}."
            )
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name} holds NaN or infinite values.")
        weights[name] = jnp.asarray(array, wanted.dtype)
    return weights


def _some(names: set[str]) -> str:
    """The first of them."""
    shown = ", ".join(sorted(names)[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
