"""PyTorch's modules as networks, through PyTorch's own export to ONNX."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppl_cnn.errors import ArgumentError, one_line
from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.onnx_file import read_onnx
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.trained.onnx_network import OnnxNetwork, network_of, pixels_missing
from ppl_cnn.numeric import in_float32


@in_float32
def from_torch(
    model: Any,
    example: Any,
    *,
    pixels: Preprocessing | str | None = None,
    classes: str | Path | None = None,
) -> OnnxNetwork:
    """Opens a PyTorch module as a network, as `load` does an ONNX file of it.

    PyTorch exports the module in memory (`torch.onnx.export`, with torch.export underneath, which
    needs the package onnxscript); nothing is written, and later changes of the module don't reach
    the network. It is exported in inference mode. A module in training mode is in it for that time
    alone, and has its own modes back afterwards.

    Args:
        model: a `torch.nn.Module` that maps images (n, channel, row, col) to scores (n, class),
            also inside `torch.compile` or `torch.nn.DataParallel`.
        example: a tensor of such images, which the module can be called with: on its device, in its
            precision. Its values don't matter; the network's images have its rows and columns.
        pixels: what the network sees of pixels: "torchvision", "caffe" or others (see
            `ppl_cnn.models.trained.pixels.parse_pixels`).
        classes: the names of the scores: "imagenet", or a text file with a name a line.

    Returns:
        The network. Its layers are named by the module's paths, such as "layer4.2.conv3".

    Raises:
        ArgumentError: PyTorch isn't there, or can't export the module; `pixels` is missing; or an
            argument is of another kind.
        FileError: the names of the classes can't be read.
        MismatchError: the module isn't a network of one image; or the classes don't fit it.
    """
    torch = _torch()
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(
            f"`model` must be a torch.nn.Module, not {type(model).__name__}.", argument="model"
        )
    is_tensor = isinstance(example, torch.Tensor)
    if not is_tensor or example.ndim != 4 or example.shape[1] not in (1, 3):
        said = f"one of shape {tuple(example.shape)}" if is_tensor else type(example).__name__
        raise ArgumentError(
            f"`example` must be a tensor of images (n, channel, row, col) with 1 or 3 channels, "
            f"not {said}.",
            argument="example",
        )
    model = _unwrapped(torch, model)
    name = type(model).__name__
    if pixels is None:
        raise pixels_missing(name)
    try:
        graph = read_onnx(_exported(torch, model, example[:1]))
    except ContentError as error:
        raise ArgumentError(
            f"The export of {name} to ONNX can't be used: it {error.fault}", argument="model"
        ) from None
    return network_of(graph, name, pixels=pixels, classes=classes)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ArgumentError(
            f"`model` needs PyTorch, which can't be imported ({one_line(error)}). Install torch "
            f"and onnxscript, or export the module elsewhere and open its .onnx file.",
            argument="model",
        ) from None
    return torch


def _unwrapped(torch: Any, model: Any) -> Any:
    """The module inside those that only run it, whose names would lead all paths."""
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, parallel) else model


def _exported(torch: Any, model: Any, example: Any) -> bytes:
    """The content of an ONNX file of the module."""
    with _in_inference(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(model, (example,), dynamo=True, verbose=False)
            content: bytes = program.model_proto.SerializeToString()
        except Exception as error:  # whatever an exporter raises
            reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ArgumentError(
                f"PyTorch can't export {type(model).__name__} to ONNX ({one_line(reason)}). Mend "
                f"that, or open an .onnx file that another exporter has written.",
                argument="model",
            ) from error
    return content


@contextmanager
def _in_inference(model: Any) -> Iterator[None]:
    """The module and its parts in inference mode for a while, but for their flags untouched."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode
