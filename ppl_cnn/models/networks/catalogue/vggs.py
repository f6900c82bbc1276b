"""VGG16, of two publishers and with batch normalization."""

from dataclasses import replace

from ppl_cnn.models.networks.catalogue.parts import classifier, in_order, with_units
from ppl_cnn.models.networks.catalogue.pixels import TORCHVISION
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.layers import BatchNorm, Conv, Layer, MaxPool, ReLU


def _features(*, normalized: bool) -> tuple[Layer, ...]:
    """Five blocks of 3x3 convolutions with their nonlinearities, each with a pooling."""
    layers: list[Layer] = []
    for block, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for place in (f"{block}_{index}" for index in range(1, count + 1)):
            layers.append(Conv(f"conv{place}", channels, kernel=3, padding=1))
            if normalized:
                layers.append(BatchNorm(f"bn{place}"))
            layers.append(ReLU(f"relu{place}"))
        layers.append(MaxPool(f"pool{block}", kernel=2, stride=2))
    return tuple(layers)


_PLAIN, _NORMALIZED = _features(normalized=False), _features(normalized=True)

VGG16 = Network(
    name="vgg16",
    image_shape=(224, 224, 3),
    preprocessing=TORCHVISION,
    layers=(*_PLAIN, *classifier()),
    aliases=(*in_order("features", _PLAIN), *in_order("classifier", classifier())),
    classes="imagenet",
)
"""torchvision's VGG16 (Simonyan, Zisserman, Very deep convolutional networks for large-scale image
recognition, ICLR 2015, configuration D)."""


VGG16_BN = replace(
    VGG16,
    name="vgg16_bn",
    layers=(*_NORMALIZED, *classifier()),
    aliases=(*in_order("features", _NORMALIZED), *in_order("classifier", classifier())),
    with_units=with_units((*_NORMALIZED, *classifier())),
)
"""torchvision's VGG16 with a batch normalization after each convolution."""


VGG16_CAFFE = replace(
    VGG16,
    name="vgg16-caffe",
    preprocessing=Preprocessing(
        mean=(103.939, 116.779, 123.68), scale=(1.0, 1.0, 1.0), order="BGR", short_side=256
    ),
    aliases=(),
)
"""The authors' own VGG16 (VGG_ILSVRC_16_layers.caffemodel): the same layers, other pixels."""
