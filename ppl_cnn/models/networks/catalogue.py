"""The networks that the package declares, each once."""

from dataclasses import replace

from ppl_cnn.errors import unknown
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.layers import (
    LRN,
    Concat,
    Conv,
    Dense,
    Dropout,
    GlobalMean,
    Layer,
    MaxPool,
    ReLU,
)

LENET = Network(
    name="lenet",
    image_shape=(28, 28, 1),
    preprocessing=Preprocessing(mean=(0.0,), scale=(1 / 256,), order="grey"),
    layers=(
        Conv("conv1", 20, kernel=5),
        MaxPool("pool1", kernel=2, stride=2),
        Conv("conv2", 50, kernel=5),
        MaxPool("pool2", kernel=2, stride=2),
        Dense("fc3", 500),
        ReLU("relu3"),
        Dense("fc4", 10),
    ),
    aliases=(("ip1", "fc3"), ("ip2", "fc4")),
)
"""Caffe's LeNet for MNIST (BVLC/caffe, examples/mnist/lenet.prototxt)."""


LENET_ADVERTORCH = Network(
    name="lenet-advertorch",
    image_shape=(28, 28, 1),
    preprocessing=Preprocessing(mean=(0.0,), scale=(1 / 255,), order="grey"),
    layers=(
        Conv("conv1", 32, kernel=3, padding=1),
        ReLU("relu1"),
        MaxPool("pool1", kernel=2, stride=2),
        Conv("conv2", 64, kernel=3, padding=1),
        ReLU("relu2"),
        MaxPool("pool2", kernel=2, stride=2),
        Dense("fc3", 200),
        ReLU("relu3"),
        Dense("fc4", 10),
    ),
    aliases=(("linear1", "fc3"), ("linear2", "fc4")),
)
"""The LeNet for MNIST of advertorch (BorealisAI), trained plainly and adversarially."""


_BVLC = Preprocessing(
    mean=(104.00699, 116.66877, 122.67892), scale=(1.0, 1.0, 1.0), order="BGR", short_side=256
)
"""The preprocessing of Caffe's own ImageNet models: the means of the mean image, ilsvrc_2012_mean.

Caffe squeezed whole photographs to 256x256 before it cropped; here they keep their proportions.
"""


_TORCHVISION = Preprocessing(
    mean=(123.675, 116.28, 103.53),
    scale=(1 / 58.395, 1 / 57.12, 1 / 57.375),
    order="RGB",
    short_side=256,
)
"""The preprocessing of torchvision's models, with photographs' short side scaled to 256:
(pixels/255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)."""


def _classifier() -> tuple[Layer, ...]:
    """The fully connected layers of AlexNet: 4096, 4096 and 1000 channels."""
    return (
        Dense("fc6", 4096),
        ReLU("relu6"),
        Dropout("drop6"),
        Dense("fc7", 4096),
        ReLU("relu7"),
        Dropout("drop7"),
        Dense("fc8", 1000),
    )


ALEXNET = Network(
    name="alexnet",
    image_shape=(227, 227, 3),
    preprocessing=_BVLC,
    layers=(
        Conv("conv1", 96, kernel=11, stride=4),
        ReLU("relu1"),
        LRN("norm1"),
        MaxPool("pool1", kernel=3, stride=2, ceil=True),
        Conv("conv2", 256, kernel=5, padding=2, groups=2),
        ReLU("relu2"),
        LRN("norm2"),
        MaxPool("pool2", kernel=3, stride=2, ceil=True),
        Conv("conv3", 384, kernel=3, padding=1),
        ReLU("relu3"),
        Conv("conv4", 384, kernel=3, padding=1, groups=2),
        ReLU("relu4"),
        Conv("conv5", 256, kernel=3, padding=1, groups=2),
        ReLU("relu5"),
        MaxPool("pool5", kernel=3, stride=2, ceil=True),
        *_classifier(),
    ),
    classes="imagenet",
)
"""BVLC's AlexNet (BVLC/caffe, models/bvlc_alexnet): normalization before pooling."""


CAFFENET = Network(
    name="caffenet",
    image_shape=(227, 227, 3),
    preprocessing=_BVLC,
    layers=(
        Conv("conv1", 96, kernel=11, stride=4),
        ReLU("relu1"),
        MaxPool("pool1", kernel=3, stride=2, ceil=True),
        LRN("norm1"),
        Conv("conv2", 256, kernel=5, padding=2, groups=2),
        ReLU("relu2"),
        MaxPool("pool2", kernel=3, stride=2, ceil=True),
        LRN("norm2"),
        *ALEXNET.layers[8:],
    ),
    classes="imagenet",
)
"""BVLC's CaffeNet (BVLC/caffe, models/bvlc_reference_caffenet): pooling before normalization."""


ALEXNET_TORCHVISION = Network(
    name="alexnet-torchvision",
    image_shape=(224, 224, 3),
    preprocessing=_TORCHVISION,
    layers=(
        Conv("conv1", 64, kernel=11, stride=4, padding=2),
        ReLU("relu1"),
        MaxPool("pool1", kernel=3, stride=2),
        Conv("conv2", 192, kernel=5, padding=2),
        ReLU("relu2"),
        MaxPool("pool2", kernel=3, stride=2),
        Conv("conv3", 384, kernel=3, padding=1),
        ReLU("relu3"),
        Conv("conv4", 256, kernel=3, padding=1),
        ReLU("relu4"),
        Conv("conv5", 256, kernel=3, padding=1),
        ReLU("relu5"),
        MaxPool("pool5", kernel=3, stride=2),
        Dropout("drop5"),
        Dense("fc6", 4096),
        ReLU("relu6"),
        Dropout("drop6"),
        Dense("fc7", 4096),
        ReLU("relu7"),
        Dense("fc8", 1000),
    ),
    aliases=(
        ("features.0", "conv1"),
        ("features.3", "conv2"),
        ("features.6", "conv3"),
        ("features.8", "conv4"),
        ("features.10", "conv5"),
        ("classifier.1", "fc6"),
        ("classifier.4", "fc7"),
        ("classifier.6", "fc8"),
    ),
    classes="imagenet",
)
"""torchvision's AlexNet: one tower without normalization (Krizhevsky, One weird trick for
parallelizing convolutional neural networks, 2014). Its adaptive pooling to 6x6 does nothing to
the 6x6 maps of these images."""


ZFNET = Network(
    name="zfnet",
    image_shape=(224, 224, 3),
    preprocessing=replace(_BVLC, mean=_BVLC.mean[::-1], order="RGB"),
    layers=(
        Conv("conv1", 96, kernel=7, stride=2, padding=1),
        ReLU("relu1"),
        MaxPool("pool1", kernel=3, stride=2, ceil=True),
        LRN("norm1"),
        Conv("conv2", 256, kernel=5, stride=2),
        ReLU("relu2"),
        MaxPool("pool2", kernel=3, stride=2, ceil=True),
        LRN("norm2"),
        Conv("conv3", 384, kernel=3, padding=1),
        ReLU("relu3"),
        Conv("conv4", 384, kernel=3, padding=1),
        ReLU("relu4"),
        Conv("conv5", 256, kernel=3, padding=1),
        ReLU("relu5"),
        MaxPool("pool5", kernel=3, stride=2, ceil=True),
        *_classifier(),
    ),
    classes="imagenet",
)
"""Zeiler, Fergus, Visualizing and understanding convolutional networks, ECCV 2014, figure 3: maps
of 110, 55, 26, 13 and 6, pooled before they are normalized. Padding and rounding are those that
give these sizes, and the contrast normalization, of which the paper gives no constants, is Caffe's
LRN; the mean is a pixel's in place of the mean image."""


def _vgg_block(number: int, channels: int, convolutions: int) -> tuple[Layer, ...]:
    """A block of VGG: 3x3 convolutions with their nonlinearities, and a pooling."""
    layers: list[Layer] = []
    for index in range(1, convolutions + 1):
        layers.append(Conv(f"conv{number}_{index}", channels, kernel=3, padding=1))
        layers.append(ReLU(f"relu{number}_{index}"))
    return (*layers, MaxPool(f"pool{number}", kernel=2, stride=2))


VGG16 = Network(
    name="vgg16",
    image_shape=(224, 224, 3),
    preprocessing=_TORCHVISION,
    layers=(
        *_vgg_block(1, 64, 2),
        *_vgg_block(2, 128, 2),
        *_vgg_block(3, 256, 3),
        *_vgg_block(4, 512, 3),
        *_vgg_block(5, 512, 3),
        *_classifier(),
    ),
    aliases=(
        ("features.0", "conv1_1"),
        ("features.2", "conv1_2"),
        ("features.5", "conv2_1"),
        ("features.7", "conv2_2"),
        ("features.10", "conv3_1"),
        ("features.12", "conv3_2"),
        ("features.14", "conv3_3"),
        ("features.17", "conv4_1"),
        ("features.19", "conv4_2"),
        ("features.21", "conv4_3"),
        ("features.24", "conv5_1"),
        ("features.26", "conv5_2"),
        ("features.28", "conv5_3"),
        ("classifier.0", "fc6"),
        ("classifier.3", "fc7"),
        ("classifier.6", "fc8"),
    ),
    classes="imagenet",
)
"""torchvision's VGG16 (Simonyan, Zisserman, Very deep convolutional networks for large-scale image
recognition, ICLR 2015, configuration D)."""


VGG16_CAFFE = replace(
    VGG16,
    name="vgg16-caffe",
    preprocessing=Preprocessing(
        mean=(103.939, 116.779, 123.68), scale=(1.0, 1.0, 1.0), order="BGR", short_side=256
    ),
    aliases=(),
)
"""The authors' own VGG16 (VGG_ILSVRC_16_layers.caffemodel): the same layers, other pixels."""


def _fire(number: int, squeeze: int, expand: int) -> tuple[Layer, ...]:
    """A fire module of SqueezeNet: few 1x1 filters, then 1x1 and 3x3 filters side by side."""
    name = f"fire{number}"
    return (
        Conv(f"{name}/squeeze1x1", squeeze, kernel=1),
        ReLU(f"{name}/relu_squeeze1x1"),
        Conv(f"{name}/expand1x1", expand, kernel=1),
        ReLU(f"{name}/relu_expand1x1"),
        Conv(f"{name}/expand3x3", expand, kernel=3, padding=1, after=(f"{name}/relu_squeeze1x1",)),
        ReLU(f"{name}/relu_expand3x3"),
        Concat(f"{name}/concat", after=(f"{name}/relu_expand1x1", f"{name}/relu_expand3x3")),
    )


SQUEEZENET = Network(
    name="squeezenet1.1",
    image_shape=(227, 227, 3),
    preprocessing=replace(_BVLC, mean=(104.0, 117.0, 123.0)),
    layers=(
        Conv("conv1", 64, kernel=3, stride=2),
        ReLU("relu_conv1"),
        MaxPool("pool1", kernel=3, stride=2, ceil=True),
        *_fire(2, 16, 64),
        *_fire(3, 16, 64),
        MaxPool("pool3", kernel=3, stride=2, ceil=True),
        *_fire(4, 32, 128),
        *_fire(5, 32, 128),
        MaxPool("pool5", kernel=3, stride=2, ceil=True),
        *_fire(6, 48, 192),
        *_fire(7, 48, 192),
        *_fire(8, 64, 256),
        *_fire(9, 64, 256),
        Dropout("drop9"),
        Conv("conv10", 1000, kernel=1),
        GlobalMean("pool10"),
    ),
    classes="imagenet",
)
"""SqueezeNet 1.1 as its authors trained it in Caffe (DeepScale/SqueezeNet, SqueezeNet_v1.1; Iandola
et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016), with one change: a
class's score is the mean of conv10 before its nonlinearity. Classification does not need that
nonlinearity, and it would make densities flat."""


ALEXNET_FASHION = Network(
    name="alexnet-fashion",
    image_shape=(28, 28, 1),
    preprocessing=Preprocessing(mean=(72.94,), scale=(1 / 64,), order="grey"),
    layers=(
        Conv("conv1", 32, kernel=5, padding=2),
        ReLU("relu1"),
        LRN("norm1"),
        MaxPool("pool1", kernel=3, stride=2, ceil=True),
        Conv("conv2", 64, kernel=5, padding=2, groups=2),
        ReLU("relu2"),
        LRN("norm2"),
        MaxPool("pool2", kernel=3, stride=2, ceil=True),
        Conv("conv3", 96, kernel=3, padding=1),
        ReLU("relu3"),
        Conv("conv4", 96, kernel=3, padding=1, groups=2),
        ReLU("relu4"),
        Conv("conv5", 64, kernel=3, padding=1, groups=2),
        ReLU("relu5"),
        MaxPool("pool5", kernel=3, stride=2, ceil=True),
        Dense("fc6", 256),
        ReLU("relu6"),
        Dropout("drop6"),
        Dense("fc7", 256),
        ReLU("relu7"),
        Dropout("drop7"),
        Dense("fc8", 10),
    ),
)
"""AlexNet's pattern and layer names for the 28x28 grey images of Fashion-MNIST."""


NETWORKS = {
    network.name: network
    for network in (
        LENET,
        LENET_ADVERTORCH,
        ALEXNET,
        CAFFENET,
        ALEXNET_TORCHVISION,
        ZFNET,
        VGG16,
        VGG16_CAFFE,
        SQUEEZENET,
        ALEXNET_FASHION,
    )
}
"""The declared networks by their names."""


def network_named(name: str) -> Network:
    """The declaration of that name.

    Raises:
        UnknownNameError: no network of that name is declared.

    Examples:
        >>> network_named("lenet").image_shape
        (28, 28, 1)
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name]
