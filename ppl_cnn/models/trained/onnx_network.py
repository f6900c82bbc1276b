"""ONNX files as networks with weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self, override

from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.models.formats.onnx_file import open_model
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.graph import shapes
from ppl_cnn.models.onnx.network import Imported, declared
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.pixels import FORMS, parse_pixels
from ppl_cnn.models.units.class_names import named_classes

SUFFIX = ".onnx"


class OnnxNetwork(CNN):
    """A network from an ONNX file; `open_onnx` makes it.

    Its layers are those of the file's graph, named by the modules that it was exported from.

    Attributes:
        head: the operator at the end of the graph, such as "Softmax", that was left out so that
            scores are logits; None if the file ends in them.
    """

    def __init__(
        self,
        imported: Imported,
        reopened: Callable[[int], Imported],
        *,
        classes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(imported.network, imported.params, classes=classes)
        self.head = imported.head
        self._reopened = reopened

    @override
    def resized(self, size: int) -> Self:
        if self.image_shape[:2] == (size, size):
            return self
        before, after = self.declaration, self._reopened(size)
        if after.network.end != before.end:
            raise ArgumentError(
                f"{self.name} can't be computed on images of {size}x{size}. Leave out `size`, or "
                f"export it at that size.",
                argument="size",
            )
        return type(self)(after, self._reopened, classes=self.classes)


def open_onnx(
    path: Path,
    *,
    pixels: Preprocessing | str | None,
    classes: str | Path | None = None,
    name: str | None = None,
) -> OnnxNetwork:
    """The network of an ONNX file.

    Args:
        path: the file.
        pixels: what its first layer sees of pixels, as in `parse_pixels`. The file doesn't tell.
        classes: the names of its scores, as in `named_classes`; None if they have none.
        name: the network's name; by default that of the file.

    Raises:
        ArgumentError: `pixels` is missing, or doesn't fit the network.
        FileError: the file is missing, damaged or no ONNX file.
        MismatchError: the graph isn't that of a network of one image; or the classes don't fit it.
    """
    if pixels is None:
        raise ArgumentError(
            f"`pixels` is missing: {path.name} doesn't tell what its first layer sees of pixels. "
            f"Give {FORMS}.",
            argument="pixels",
        )
    model = open_model(path)
    preprocess, own_name = partial(_preprocessing, pixels), name or path.stem

    def reopened(size: int) -> Imported:
        return declared(model, own_name, preprocess, side=size)

    imported = declared(model, own_name, preprocess)
    network = imported.network
    named: tuple[str, ...] = ()
    if classes is not None:
        if network.end is not None:
            raise MismatchError(network.end)
        named = named_classes(classes, shapes(network)[network.layers[-1].name][-1])
    return OnnxNetwork(imported, reopened, classes=named)


def _preprocessing(pixels: Preprocessing | str, channels: int) -> Preprocessing:
    return pixels if isinstance(pixels, Preprocessing) else parse_pixels(pixels, channels=channels)
