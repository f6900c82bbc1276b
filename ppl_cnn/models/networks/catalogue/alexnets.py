"""AlexNet, its variants, and ZFNet."""

from dataclasses import replace

from ppl_cnn.models.networks.catalogue.parts import classifier
from ppl_cnn.models.networks.catalogue.pixels import BVLC, TORCHVISION
from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.layers import LRN, Conv, Dense, Dropout, MaxPool, ReLU

ALEXNET = Network(
    name="alexnet",
    image_shape=(227, 227, 3),
    preprocessing=BVLC,
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
        *classifier(),
    ),
    classes="imagenet",
)
"""BVLC's AlexNet (BVLC/caffe, models/bvlc_alexnet): normalization before pooling."""


CAFFENET = Network(
    name="caffenet",
    image_shape=(227, 227, 3),
    preprocessing=BVLC,
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
    preprocessing=TORCHVISION,
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
    preprocessing=replace(BVLC, mean=BVLC.mean[::-1], order="RGB"),
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
        *classifier(),
    ),
    classes="imagenet",
)
"""Zeiler, Fergus, Visualizing and understanding convolutional networks, ECCV 2014, figure 3: maps
of 110, 55, 26, 13 and 6, pooled before they are normalized. Padding and rounding are those that
give these sizes, and the contrast normalization, of which the paper gives no constants, is Caffe's
LRN; the mean is a pixel's in place of the mean image."""


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
