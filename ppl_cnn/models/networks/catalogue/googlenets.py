"""GoogLeNet (Szegedy and others, Going deeper with convolutions, CVPR 2015)."""

from collections.abc import Iterator

from ppl_cnn.models.networks.catalogue.parts import modules_of, with_units
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.layers import (
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Dropout,
    GlobalMean,
    Layer,
    MaxPool,
    ReLU,
)


def _conv(
    name: str, channels: int, kernel: int, *, stride: int = 1, after: tuple[str, ...] = ()
) -> tuple[Layer, ...]:
    """A convolution, normalized and rectified; its name is that of the last of the three."""
    padding = kernel // 2
    return (
        Conv(f"{name}.conv", channels, kernel, stride, padding, has_bias=False, after=after),
        BatchNorm(f"{name}.bn", epsilon=1e-3),
        ReLU(name),
    )


def _inception(name: str, before: str, *sizes: int) -> Iterator[Layer]:
    """Four branches side by side.

    Args:
        name: the module's name.
        before: the layer that it reads.
        sizes: channels of the 1x1 branch, of the 3x3 one's reduction and convolution, of the third
            branch's, and of what follows the pooling.
    """
    one, *others, pooled = sizes
    yield from _conv(f"{name}.branch1", one, 1, after=(before,))
    for branch, (reduced, channels) in ((2, others[:2]), (3, others[2:])):
        yield from _conv(f"{name}.branch{branch}.0", reduced, 1, after=(before,))
        yield from _conv(f"{name}.branch{branch}.1", channels, 3)
    yield MaxPool(f"{name}.branch4.0", kernel=3, stride=1, padding=1, after=(before,))
    yield from _conv(f"{name}.branch4.1", pooled, 1)
    ends = ("branch1", "branch2.1", "branch3.1", "branch4.1")
    yield Concat(name, after=tuple(f"{name}.{end}" for end in ends))


def _layers() -> Iterator[Layer]:
    yield from _conv("conv1", 64, 7, stride=2)
    yield MaxPool("maxpool1", kernel=3, stride=2, ceil=True)
    yield from _conv("conv2", 64, 1)
    yield from _conv("conv3", 192, 3)
    yield MaxPool("maxpool2", kernel=3, stride=2, ceil=True)
    yield from _inception("inception3a", "maxpool2", 64, 96, 128, 16, 32, 32)
    yield from _inception("inception3b", "inception3a", 128, 128, 192, 32, 96, 64)
    yield MaxPool("maxpool3", kernel=3, stride=2, ceil=True)
    yield from _inception("inception4a", "maxpool3", 192, 96, 208, 16, 48, 64)
    yield from _inception("inception4b", "inception4a", 160, 112, 224, 24, 64, 64)
    yield from _inception("inception4c", "inception4b", 128, 128, 256, 24, 64, 64)
    yield from _inception("inception4d", "inception4c", 112, 144, 288, 32, 64, 64)
    yield from _inception("inception4e", "inception4d", 256, 160, 320, 32, 128, 128)
    yield MaxPool("maxpool4", kernel=2, stride=2, ceil=True)
    yield from _inception("inception5a", "maxpool4", 256, 160, 320, 32, 128, 128)
    yield from _inception("inception5b", "inception5a", 384, 192, 384, 48, 128, 128)
    yield from (GlobalMean("avgpool"), Dropout("dropout", 0.2), Dense("fc", 1000))


_LAYERS = tuple(_layers())

GOOGLENET = Network(
    name="googlenet",
    image_shape=(224, 224, 3),
    preprocessing=Preprocessing(
        mean=(127.5,) * 3, scale=(1 / 127.5,) * 3, order="RGB", short_side=256
    ),
    layers=_LAYERS,
    aliases=modules_of(_LAYERS),
    classes="imagenet",
    with_units=with_units(_LAYERS),
    auxiliary=("aux1", "aux2"),
)
"""torchvision's GoogLeNet: batch-normalized, and with 3x3 kernels where the paper has 5x5 ones. Its
weights see pixels from -1 to 1, to which torchvision brings them inside the network."""
