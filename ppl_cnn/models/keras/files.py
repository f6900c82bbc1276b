"""Reader of Keras' files, `.keras` and `.h5`, through Keras 3, an optional extra.

Keras builds the model from the file's description and fills in the weights. What a description
names is looked at first, so that no code is run but that of Keras' own layers.
"""

import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ppl_cnn.errors import ArgumentError, FileError, MismatchError, one_line
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.onnx_file import OnnxModel
from ppl_cnn.models.keras.graph import graph_of

SUFFIXES = (".keras", ".h5", ".hdf5")

_BACKEND = "KERAS_BACKEND"
_READING = "numpy"
"""The backend that reads a file fastest, as it compiles nothing; Keras computes nothing here."""
_CODE = ("Lambda", "function")
"""Kinds of objects in a description that are code of a file's own."""


def read_keras(path: Path) -> OnnxModel:
    """The graph and the weights of a model's file, as ONNX has them.

    Args:
        path: a file that `model.save` has written, of Keras 3 or, with the suffix .h5, of Keras 2.

    Raises:
        ArgumentError: Keras isn't there.
        FileError: the file is missing, damaged, or holds weights alone; it holds code, such as a
            Lambda layer, or layers that Keras doesn't know.
        MismatchError: its images have their channels first, or it isn't made of layers.
    """
    if not path.is_file():
        raise FileError(f"{path} is missing.", path=path)
    keras = _keras(path)
    description = _description(path)
    for each in _objects(description):
        if each.get("class_name") in _CODE or not _is_own(each.get("module")):
            name = shown(f"{each.get('module') or 'keras'}.{each.get('class_name')}")
            raise FileError(
                f"{path} holds code of its own ({name}), which isn't run. Export the model to ONNX "
                f"and open that file.",
                path=path,
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old files' arguments
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras and h5py raise
        raise FileError(
            f"Keras {keras.__version__} can't open {path} ({one_line(error)}).", path=path
        ) from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise MismatchError(f"{path} holds no model that is a graph of Keras' layers.")
    if any(getattr(each, "data_format", None) == "channels_first" for each in _layers(model)):
        raise MismatchError(
            f"{path} is of images (channel, row, col). Save it with the data format channels_last."
        )
    return graph_of(keras, model)


def _keras(path: Path) -> Any:
    """The package, with NumPy as its backend unless the user has chosen another."""
    chosen = os.environ.setdefault(_BACKEND, _READING)
    try:
        import keras
    except ImportError as error:
        raise ArgumentError(
            f"`model={path}` needs Keras 3, which can't be imported with {_BACKEND}={chosen} "
            f"({one_line(error)}). Install ppl_cnn[keras].",
            argument="model",
        ) from None
    return keras


def _description(path: Path) -> Any:
    """What a file says of its model's layers, as JSON."""
    import h5py

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        with h5py.File(path) as file:
            text = file.attrs.get("model_config")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FileError(
            f"{path} is damaged or no file of a Keras model ({one_line(error)}).", path=path
        ) from None
    if text is None:
        raise FileError(
            f"{path} holds weights without their layers. Save the whole model, by model.save.",
            path=path,
        )
    try:
        return json.loads(text)
    except ValueError as error:
        raise FileError(
            f"{path} describes its layers in no JSON ({one_line(error)}).", path=path
        ) from None


def _objects(description: Any) -> Iterator[dict[str, Any]]:
    """The objects with a class that a description names, at any depth."""
    waiting = [description]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "class_name" in each:
                yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _is_own(module: Any) -> bool:
    """Whether a module is Keras' own; a description of Keras 2 names none."""
    return module is None or str(module).partition(".")[0] == "keras"


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)
