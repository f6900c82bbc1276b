"""An ONNX file as a declared network: its image, what ends it, and its layers.

    model = read_onnx(content)                                    # formats/onnx_file.py
    imported = declared(model, "resnet50", preprocessing)         # a Network and its weights

Everything else about the network follows from the declaration: `ppl_cnn.models.networks`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ppl_cnn.errors import MismatchError
from ppl_cnn.models.formats.names import listed, shown
from ppl_cnn.models.formats.onnx_file import Input, Node, OnnxModel
from ppl_cnn.models.networks.declaration import IMAGE, Network, Preprocessing
from ppl_cnn.models.networks.elementwise import NONLINEARITIES, Elementwise
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.networks.layers import Layer
from ppl_cnn.models.onnx.forms import Form, Layout
from ppl_cnn.models.onnx.lowering import Lowering
from ppl_cnn.models.onnx.names import node_names
from ppl_cnn.models.onnx.operation import Operation, Read
from ppl_cnn.models.onnx.site import Signal

SIDE = 224
"""The rows and columns of an image whose size the file leaves open."""

LONGEST_SIDE = 65_535
"""The most rows or columns that an image may have; larger ones are damage, and take memory."""

_HEADS = ("Softmax", "LogSoftmax", "Sigmoid")
_MOVING = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout")
_WITH_UNITS = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization"),
    *("GroupNormalization", "LayerNormalization", "LRN", "MaxPool", "AveragePool", "Concat"),
    *("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Add", "Sum", "Relu", "Clip"),
    *("LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "HardSwish", "Swish", "Gelu", "Mish"),
    *("Softplus", "ThresholdedRelu", "Tanh", "Sigmoid", "HardSigmoid"),
}
"""Operators whose responses have units, where they are maps or vectors."""


@dataclass(frozen=True)
class Imported:
    """A network from an ONNX file."""

    network: Network
    params: Params
    head: str | None
    """The operator at the end that was left out, so that scores are logits; None if none was."""


def declared(
    model: OnnxModel,
    name: str,
    preprocess: Callable[[int], Preprocessing],
    *,
    side: int | None = None,
) -> Imported:
    """The network that a file describes, and its weights.

    Args:
        model: the file's graph.
        name: the network's name.
        preprocess: the preprocessing of images of that many channels.
        side: the rows and columns of its images; by default those of the file.

    Raises:
        MismatchError: the graph isn't a function of one image, or none of its layers can be used.
    """
    image = _image(model, side)
    rows, cols, channels = image.stored
    needed = _needed(model)
    skipped, head = _head(model)
    names = node_names(model.nodes)
    lowering = Lowering(model, names, image)
    for index, node in enumerate(model.nodes):
        if index in needed:
            lowering.take(index, node, as_is=index in skipped)
    end = lowering.broken.get(model.outputs[0])
    last = lowering.values.get(model.outputs[0])
    if end is None and not (isinstance(last, Signal) and last.layer != IMAGE):
        raise MismatchError(f"{name}: the scores don't depend on the image.")
    if isinstance(last, Signal):
        _flatten(lowering, last)
    if not lowering.layers:
        raise MismatchError(f"{name}: {end}")
    layers = lowering.layers if end else _used(lowering.layers)
    kept = {layer.name for layer in layers}
    with_units = _with_units(model, lowering, layers)
    aliases = tuple(
        (alias, lowering.layer_of[index])
        for alias, index in names.aliases.items()
        if lowering.layer_of.get(index) in kept
    )
    network = Network(
        name,
        (rows, cols, channels),
        preprocess(channels),
        layers=tuple(layers),
        aliases=aliases,
        with_units=with_units,
        is_resized=side is not None,
        end=end,
    )
    params = {name: weights for name, weights in lowering.params.items() if name in kept}
    return Imported(network, params, head)


def _image(model: OnnxModel, side: int | None) -> Form:
    """The form of the image."""
    if not model.outputs:
        raise MismatchError("The network has no outputs.")
    if len(model.inputs) != 1:
        names = listed(shown(each.name) for each in model.inputs) or "none"
        raise MismatchError(
            f"The network has {len(model.inputs)} inputs ({names}). Export one whose one "
            f"input is an image."
        )
    sizes = model.inputs[0].sizes
    if len(sizes) != 4:
        raise _no_image(model.inputs[0])
    layout: Layout = "NHWC" if sizes[1] not in (1, 3) and sizes[3] in (1, 3) else "NCHW"
    row, col, channel = (2, 3, 1) if layout == "NCHW" else (1, 2, 3)
    channels = 3 if sizes[channel] is None else sizes[channel]
    if channels not in (1, 3):
        raise _no_image(model.inputs[0])
    shape = [1, 0, 0, 0]
    shape[row], shape[col] = side or sizes[row] or SIDE, side or sizes[col] or SIDE
    shape[channel] = channels
    if max(shape) > LONGEST_SIDE:
        raise _no_image(model.inputs[0])
    return Form(tuple(shape), layout)


def _no_image(given: Input) -> MismatchError:
    sizes = ", ".join("?" if size is None else str(size) for size in given.sizes)
    return MismatchError(
        f"The network's input {shown(given.name)} has the shape ({sizes}), which is no batch of "
        f"images. It must be (n, channel, row, col) or (n, row, col, channel) with 1 or 3 channels "
        f"and sides of at most {LONGEST_SIDE:,}."
    )


def _needed(model: OnnxModel) -> frozenset[int]:
    """The nodes that the first output depends on."""
    wanted, needed = {model.outputs[0]}, set()
    for index in range(len(model.nodes) - 1, -1, -1):
        if wanted & {*model.nodes[index].outputs}:
            needed.add(index)
            wanted |= {*model.nodes[index].inputs}
    return frozenset(needed)


def _head(model: OnnxModel) -> tuple[frozenset[int], str | None]:
    """The node that makes probabilities of the scores at the end, and its operator."""
    makers = {name: index for index, node in enumerate(model.nodes) for name in node.outputs}
    name = model.outputs[0]
    for _ in model.nodes:
        index = makers.get(name)
        node: Node | None = None if index is None else model.nodes[index]
        if node is None or index is None or not node.inputs:
            break
        if node.operator in _HEADS:
            return frozenset([index]), node.operator
        if node.operator not in _MOVING:
            break
        name = node.inputs[0]
    return frozenset(), None


def _flatten(lowering: Lowering, last: Signal) -> None:
    """Adds a layer that makes a vector of scores, if they have more axes but are no map."""
    count = int(np.prod(last.form.shape))
    if last.form.stored == (count,) or count != max(last.form.shape):
        return
    operands = (Read(0, last.form),)
    name = "scores_flat" if "scores" in lowering.names.of else "scores"
    layer = Operation(
        name, "Flatten", (("axis", 1),), 1, operands, Form((1, count)), after=(last.layer,)
    )
    lowering.add(layer, Form((1, count)), {})


def _used(layers: list[Layer]) -> list[Layer]:
    """The layers that the last one depends on."""
    wanted = {layers[-1].name}
    kept = []
    for layer in reversed(layers):
        if layer.name in wanted:
            kept.append(layer)
            wanted |= {*layer.after}
    return kept[::-1]


def _with_units(model: OnnxModel, lowering: Lowering, layers: list[Layer]) -> tuple[str, ...]:
    """The layers whose channels are units, in the network's order."""
    made = {name: model.nodes[index] for index, name in lowering.layer_of.items()}
    found = []
    for layer in layers:
        node = made.get(layer.name)
        is_gate = isinstance(layer, Elementwise) and layer.function in NONLINEARITIES
        if node is not None and (node.operator in _WITH_UNITS or is_gate):
            found.append(layer.name)
    return tuple(found)
