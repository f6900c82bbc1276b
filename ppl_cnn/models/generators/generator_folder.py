"""A trained generator's folder, with `weights.safetensors` and `generator.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from ppl_cnn.errors import ArgumentError, FileError, MismatchError
from ppl_cnn.files import write_aside
from ppl_cnn.models.formats.weights_file import read_tensors
from ppl_cnn.models.generators.generator import Generator, digest_of
from ppl_cnn.models.generators.layers import Weights
from ppl_cnn.models.generators.refined_flow import RefinedFlow

ARCHITECTURE = "refined-flow"
_TRAINING = ("data", "training_images")
"""Fields of `generator.json` that a generator carries along."""


def save_generator(
    folder: Path,
    sizes: RefinedFlow,
    params: Mapping[str, Mapping[str, Any]],
    description: Mapping[str, Any],
) -> None:
    """Writes a generator's folder; each file is written aside and then renamed.

    Weights are stored as float16, at half the size; see `rounded`.

    Args:
        folder: an existing folder.
        sizes: the generator's.
        params: its weights.
        description: what else `generator.json` holds.
    """
    tensors = {
        f"{layer}.{name}": np.asarray(array).astype(np.float16)
        for layer, weights in params.items()
        for name, array in weights.items()
    }
    own = {"architecture": ARCHITECTURE, "sizes": sizes.record()}
    write_aside(folder / "weights.safetensors", safetensors.numpy.save(tensors))
    write_aside(folder / "generator.json", json.dumps({**description, **own}, indent=2).encode())


def rounded(params: Mapping[str, Mapping[str, Any]]) -> dict[str, Weights]:
    """Weights as they will be read from the file that `save_generator` writes.

    Args:
        params: layer name -> array name -> array.
    """
    return {
        layer: {
            name: jnp.asarray(array).astype(jnp.float16).astype(jnp.float32)
            for name, array in weights.items()
        }
        for layer, weights in params.items()
    }


def open_generator(folder: Path, name: str) -> Generator:
    """Opens a generator's folder.

    Args:
        folder: with `weights.safetensors` and `generator.json`.
        name: the text that named it.

    Raises:
        FileError: a file is missing or damaged.
        MismatchError: a tensor is missing, left over or of a wrong shape.
    """
    description = _description(folder)
    sizes = _sizes(description, folder)
    path = folder / "weights.safetensors"
    tensors = read_tensors(path)
    wanted = _shapes(sizes)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != wanted:
        wrong = sorted(key for key in {**found, **wanted} if found.get(key) != wanted.get(key))
        raise MismatchError(
            f"{path} doesn't fit {folder / 'generator.json'}: {wrong[0]} has the shape "
            f"{found.get(wrong[0])}, not {wanted.get(wrong[0])}. Restore both files."
        )
    if broken := [key for key, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise FileError(f"{path} holds numbers in {broken[0]} that aren't finite.", path=path)
    params: dict[str, Weights] = {}
    for key, tensor in tensors.items():
        layer, _, kind = key.rpartition(".")
        params.setdefault(layer, {})[kind] = jnp.asarray(tensor, jnp.float32)
    return Generator(
        name=name,
        latent_shape=sizes.latent_shape,
        image_shape=sizes.image_shape,
        apply=sizes.apply,
        params=params,
        digest=digest_of(params, {"architecture": ARCHITECTURE, **sizes.record()}),
        training={name: description[name] for name in _TRAINING if name in description},
    )


def _description(folder: Path) -> dict[str, Any]:
    """The content of a folder's `generator.json`."""
    path = folder / "generator.json"
    try:
        description = json.loads(path.read_text("utf-8"))
        if not isinstance(description, dict):
            raise TypeError("no JSON object")
    except FileNotFoundError:
        raise FileError(f"{path} is missing.", path=path) from None
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from None
    return description


def _sizes(description: Mapping[str, Any], folder: Path) -> RefinedFlow:
    try:
        if description["architecture"] != ARCHITECTURE:
            raise ValueError(f"unknown architecture {description['architecture']!r}")
        return RefinedFlow.from_record(description["sizes"])
    except (ValueError, KeyError, TypeError, ArgumentError) as error:
        raise _damaged(folder / "generator.json", error) from None


def _damaged(path: Path, error: Exception) -> FileError:
    return FileError(
        f"{path} describes no generator of this package ({error}). Restore it.", path=path
    )


def _shapes(sizes: RefinedFlow) -> dict[str, tuple[int, ...]]:
    """The shapes of a generator's tensors, by their names in the file."""
    import jax

    def made() -> dict[str, Weights]:
        key = jax.random.key(0)
        return {
            **sizes.flow.weights(key),
            **sizes.decoder_weights(key),
            **sizes.refiner_weights(key),
        }

    return {
        f"{layer}.{name}": array.shape
        for layer, weights in jax.eval_shape(made).items()
        for name, array in weights.items()
    }
