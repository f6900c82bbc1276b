"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2, CVPR 2018)."""

from collections.abc import Iterator

from ppl_cnn.models.networks.catalogue.parts import modules_of, with_units
from ppl_cnn.models.networks.catalogue.pixels import TORCHVISION
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.elementwise import Elementwise
from ppl_cnn.models.networks.layers import BatchNorm, Conv, Dense, Dropout, GlobalMean, Layer

_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, number of blocks, and the first one's stride."""


def _conv(
    name: str, channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> tuple[Layer, ...]:
    """A convolution, normalized and clipped from 0 to 6."""
    return (
        Conv(f"{name}.0", channels, kernel, stride, kernel // 2, groups, has_bias=False),
        BatchNorm(f"{name}.1"),
        Elementwise(f"{name}.2", "clip", (0.0, 6.0)),
    )


def _block(
    name: str, before: str, sizes: tuple[int, int], *, expansion: int, stride: int
) -> Iterator[Layer]:
    """An inverted residual block; it adds what it reads where it keeps the map's shape.

    Args:
        name: the block's name.
        before: the layer that it reads.
        sizes: the channels that it reads and makes.
        expansion: factor of the channels within.
        stride: that of its depthwise convolution.
    """
    inside, place = sizes[0] * expansion, 0
    if expansion > 1:
        yield from _conv(f"{name}.conv.0", inside, 1)
        place = 1
    yield from _conv(f"{name}.conv.{place}", inside, 3, stride=stride, groups=inside)
    yield Conv(f"{name}.conv.{place + 1}", sizes[1], 1, has_bias=False)
    yield BatchNorm(f"{name}.conv.{place + 2}")
    if stride == 1 and sizes[0] == sizes[1]:
        yield Elementwise(name, "add", after=(before, f"{name}.conv.{place + 2}"))


def _layers() -> list[Layer]:
    layers: list[Layer] = [*_conv("features.0", 32, 3, stride=2)]
    channels, number = 32, 1
    for expansion, own, count, first_stride in _BLOCKS:
        for stride in (first_stride, *[1] * (count - 1)):
            name, before, sizes = f"features.{number}", layers[-1].name, (channels, own)
            layers += _block(name, before, sizes, expansion=expansion, stride=stride)
            channels, number = own, number + 1
    layers += _conv(f"features.{number}", 1280, 1)
    layers += [GlobalMean("avgpool"), Dropout("classifier.0", 0.2), Dense("classifier.1", 1000)]
    return layers


_LAYERS = _layers()

MOBILENET_V2 = Network(
    name="mobilenet_v2",
    image_shape=(224, 224, 3),
    preprocessing=TORCHVISION,
    layers=tuple(_LAYERS),
    aliases=modules_of(_LAYERS),
    classes="imagenet",
    with_units=with_units(_LAYERS),
)
"""torchvision's MobileNetV2."""
