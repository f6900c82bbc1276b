"""A generator from an ONNX file, as `torch.onnx.export` writes one."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.errors import MismatchError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.onnx_file import Input, Node, OnnxModel, open_model
from ppl_cnn.models.generators.generator import Generator, digest_of
from ppl_cnn.models.networks.declaration import IMAGE, Network, Preprocessing
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.onnx.forms import Form
from ppl_cnn.models.onnx.lowering import Lowering
from ppl_cnn.models.onnx.names import node_names
from ppl_cnn.models.onnx.operation import Operation, Read
from ppl_cnn.models.onnx.site import Signal

SUFFIX = ".onnx"
_RANGES = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0)}
"""The operator at the end -> the values that stand for black and white."""
_MOVING = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


class Latent(NamedTuple):
    """What a graph reads: a vector, (n, d), or a vector as a map of one place, (n, d, 1, 1)."""

    name: str
    size: int
    is_map: bool


def open_onnx_generator(path: Path, *, name: str) -> Generator:
    """Opens a generator.

    Its one input is a batch of latents, (n, d) or (n, d, 1, 1), and its one output a batch of
    images, (n, channel, row, col) or (n, row, col, channel). The operator at the end tells what
    black and white are: -1 and 1 after a Tanh, 0 and 1 after a Sigmoid, the bounds of a Clip.

    Args:
        path: the file.
        name: the generator's name.

    Raises:
        FileError: the file is missing, damaged or no ONNX file.
        MismatchError: the graph is no such generator, or an operator isn't supported.
    """
    model = open_model(path)
    latent = _latent(model, path)
    names = node_names(model.nodes)
    lowering = Lowering(model, names, Form((1, latent.size, 1, 1), "NCHW"))
    if not latent.is_map:
        lowering.values[latent.name] = _as_vector(lowering, latent.size)
    for index, node in enumerate(model.nodes):
        lowering.take(index, node)
    image = lowering.values.get(model.outputs[0])
    if model.outputs[0] in lowering.broken:
        raise MismatchError(f"{path}: {lowering.broken[model.outputs[0]]}")
    if not isinstance(image, Signal) or image.layer == IMAGE:
        raise MismatchError(f"{path}: the images don't depend on the latent.")
    black, white = _range(lowering, model, path)
    shape = _image_shape(image.form, path)
    whole = Slab.whole(_network(lowering, latent.size))

    def apply(params: Any, z: Float[Array, "..."]) -> Float[Array, "*batch row col channel"]:
        flat = z.reshape(-1, 1, 1, latent.size).astype(jnp.float32)
        values = whole.responses(params, flat)[image.layer]
        pixels = 255 * (values - black) / (white - black)
        return pixels.reshape(*z.shape[:-1], *shape)

    params = jax.tree.map(jnp.asarray, lowering.params)
    graph = hashlib.sha256(path.read_bytes()).hexdigest()
    return Generator(
        name=name,
        latent_shape=(latent.size,),
        image_shape=shape,
        apply=apply,
        params=params,
        digest=digest_of((), {"architecture": "onnx", "file": graph}),
    )


def _latent(model: OnnxModel, path: Path) -> Latent:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise MismatchError(
            f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs. Export a "
            f"generator that makes one image of one latent vector."
        )
    given: Input = model.inputs[0]
    size, *places = given.sizes[1:] or (None,)
    if size is None or places not in ([], [1, 1]):
        sizes = ", ".join("?" if each is None else str(each) for each in given.sizes)
        raise MismatchError(
            f"{path}: the input {shown(given.name)} has the shape ({sizes}), which is no batch of "
            f"latent vectors. It must be (n, d) or (n, d, 1, 1) with a d that the file tells."
        )
    return Latent(given.name, size, bool(places))


def _as_vector(lowering: Lowering, size: int) -> Signal:
    """The latent as a vector."""
    form, name = Form((1, size)), "latent"
    while name in lowering.names.of:
        name += "_"
    read = (Read(0, Form((1, size, 1, 1), "NCHW")),)
    layer = Operation(name, "Flatten", (("axis", 1),), 13, read, form, after=(IMAGE,))
    return lowering.add(layer, form, {})


def _range(lowering: Lowering, model: OnnxModel, path: Path) -> tuple[float, float]:
    """The values that stand for black and white."""
    node: Node | None = lowering.maker(model.outputs[0])
    while node is not None and node.operator in _MOVING:
        node = lowering.maker(node.inputs[0])
    operator = "" if node is None else node.operator
    if operator in _RANGES:
        return _RANGES[operator]
    if node is not None and operator == "Clip":
        known = [node.attributes.get(name) for name in ("min", "max")]
        read = [lowering.value(name) for name in node.inputs[1:3]]
        bounds = [float(each) for each in read or known if isinstance(each, float | np.ndarray)]
        if len(bounds) == 2 and bounds[0] < bounds[1]:
            return bounds[0], bounds[1]
    raise MismatchError(
        f"{path} ends in {operator or 'nothing'}, so that it doesn't tell what black and white "
        f"are. Export it with a Tanh (-1 to 1), a Sigmoid (0 to 1) or a Clip at its end."
    )


def _image_shape(form: Form, path: Path) -> tuple[int, int, int]:
    rows, cols, channels = form.stored if len(form.stored) == 3 else (0, 0, 0)
    if channels not in (1, 3):
        raise MismatchError(
            f"{path} makes arrays of the shape {form.shape}, which are no images. They must be "
            f"(n, channel, row, col) or (n, row, col, channel) with 1 or 3 channels."
        )
    return rows, cols, channels


def _network(lowering: Lowering, size: int) -> Network:
    """The graph as a declared network, whose image is the latent."""
    unscaled = Preprocessing((0.0,) * size, (1.0,) * size, "grey")
    return Network("generator", (1, 1, size), unscaled, layers=tuple(lowering.layers))
