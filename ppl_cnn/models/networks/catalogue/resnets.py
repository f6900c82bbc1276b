"""ResNets (He, Zhang, Ren, Sun, Deep residual learning for image recognition, CVPR 2016)."""

from collections.abc import Iterator, Sequence

from ppl_cnn.models.networks.catalogue.parts import modules_of, with_units
from ppl_cnn.models.networks.catalogue.pixels import TORCHVISION
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.elementwise import Elementwise
from ppl_cnn.models.networks.layers import (
    BatchNorm,
    Conv,
    Dense,
    GlobalMean,
    Layer,
    MaxPool,
    ReLU,
)


def resnet(
    name: str,
    blocks: Sequence[int],
    *,
    bottleneck: bool = False,
    channels: int = 64,
    width: int = 1,
    image_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
) -> Network:
    """A ResNet as torchvision builds it, its layers named by torchvision's modules.

    The name of a block, layer4.2, is that of its last layer, and so is that of a stage, layer4.

    Args:
        name: the network's name.
        blocks: how many blocks each stage has. Each stage but the first halves the map.
        bottleneck: whether a block is a 1x1, a 3x3 and a 1x1 convolution, the last with four times
            the channels, the stride in the 3x3 one; otherwise it is two 3x3 ones.
        channels: those of the first stage's 3x3 convolutions; they double from stage to stage.
        width: factor of the channels within bottlenecks.
        image_shape: the shape (row, col, channel) of its images.
        classes: the number of scores; 1000 are ImageNet's.

    Examples:
        >>> resnet("resnet26", (2, 2, 2, 2), bottleneck=True).layer("layer4.1.conv3").channels
        2048
    """
    layers: list[Layer] = [
        Conv("conv1", channels, kernel=7, stride=2, padding=3, has_bias=False),
        BatchNorm("bn1"),
        ReLU("relu"),
        MaxPool("maxpool", kernel=3, stride=2, padding=1),
    ]
    for stage, count in enumerate(blocks):
        own = channels * 2**stage
        sizes = (own * width, own * width, 4 * own) if bottleneck else (own, own)
        for index in range(count):
            # Where the map or its channels change, a 1x1 convolution brings the shortcut along.
            projects = not index and (bottleneck or stage > 0)
            stride = 2 if stage and not index else 1
            place, before = f"layer{stage + 1}.{index}", layers[-1].name
            layers += _block(place, sizes, stride, before=before, projects=projects)
    layers += [GlobalMean("avgpool"), Dense("fc", classes)]
    return Network(
        name,
        image_shape,
        TORCHVISION,
        layers=tuple(layers),
        aliases=modules_of(layers),
        classes="imagenet" if classes == 1000 else None,
        with_units=with_units(layers),
    )


def _block(
    name: str, sizes: Sequence[int], stride: int, *, before: str, projects: bool
) -> Iterator[Layer]:
    """The layers of a block: convolutions of these channels, and the shortcut around them."""
    kernels = (1, 3, 1) if len(sizes) == 3 else (3, 3)
    for place, (channels, kernel) in enumerate(zip(sizes, kernels, strict=True), 1):
        if place > 1:
            yield ReLU(f"{name}.relu" if place == 2 else f"{name}.relu_1")
        step = stride if place == kernels.index(3) + 1 else 1
        yield Conv(f"{name}.conv{place}", channels, kernel, step, kernel // 2, has_bias=False)
        yield BatchNorm(f"{name}.bn{place}")
    shortcut = before
    if projects:
        shortcut = f"{name}.downsample.1"
        down = f"{name}.downsample.0"
        yield Conv(down, sizes[-1], 1, stride, has_bias=False, after=(before,))
        yield BatchNorm(shortcut)
    yield Elementwise(f"{name}.Add", "add", after=(f"{name}.bn{len(sizes)}", shortcut))
    yield ReLU(name)


RESNET18 = resnet("resnet18", (2, 2, 2, 2))
"""torchvision's ResNet-18."""

RESNET34 = resnet("resnet34", (3, 4, 6, 3))
"""torchvision's ResNet-34."""

RESNET50 = resnet("resnet50", (3, 4, 6, 3), bottleneck=True)
"""torchvision's ResNet-50; also the network of the robust models of Engstrom, Ilyas, Salman,
Santurkar, Tsipras (robustness, 2019)."""

RESNET101 = resnet("resnet101", (3, 4, 23, 3), bottleneck=True)
"""torchvision's ResNet-101."""

RESNET152 = resnet("resnet152", (3, 8, 36, 3), bottleneck=True)
"""torchvision's ResNet-152."""

WIDE_RESNET50_2 = resnet("wide_resnet50_2", (3, 4, 6, 3), bottleneck=True, width=2)
"""torchvision's wide ResNet-50-2 (Zagoruyko, Komodakis, Wide residual networks, BMVC 2016)."""
