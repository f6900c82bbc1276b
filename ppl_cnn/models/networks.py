"""The networks, each declared once: preprocessing and an ordered list of named layers."""

from dataclasses import dataclass, field

from ppl_cnn import InputError
from ppl_cnn.models.layers import LRN, Conv, Dense, Dropout, Layer, MaxPool, ReLU


@dataclass(frozen=True)
class Preprocessing:
    """From pixels (0..255) to what the first layer sees: (pixels - mean) * scale.

    The images of densities and samples are in pixel units minus the mean; the scale belongs
    to the network.
    """

    mean: tuple[float, ...]
    """Per channel, in the network's channel order."""
    scale: float = 1.0
    order: str = "RGB"
    """Of the channels: "RGB", "BGR" or "grey"."""


@dataclass(frozen=True)
class Network:
    """A network's declaration; hashable, and free of arrays."""

    name: str
    image_shape: tuple[int, int, int]
    """(row, col, channel) of the image it sees."""
    preprocessing: Preprocessing
    layers: tuple[Layer, ...] = field(repr=False)

    def layer(self, name: str) -> Layer:
        """The layer of that name; `InputError` if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise InputError(f"{self.name} has no layer {name!r}; its layers are {names}.")


LENET = Network(
    name="lenet",
    image_shape=(28, 28, 1),
    preprocessing=Preprocessing(mean=(0.0,), scale=1 / 256, order="grey"),
    layers=(
        Conv("conv1", 20, kernel=5),
        MaxPool("pool1", kernel=2, stride=2),
        Conv("conv2", 50, kernel=5),
        MaxPool("pool2", kernel=2, stride=2),
        Dense("fc3", 500),
        ReLU("relu3"),
        Dense("fc4", 10),
    ),
)
"""Caffe's LeNet for MNIST (BVLC/caffe, examples/mnist/lenet.prototxt)."""

ALEXNET = Network(
    name="alexnet",
    image_shape=(227, 227, 3),
    preprocessing=Preprocessing(mean=(104.0, 117.0, 123.0), order="BGR"),
    layers=(
        Conv("conv1", 96, kernel=11, stride=4),
        ReLU("relu1"),
        LRN("norm1"),
        MaxPool("pool1", kernel=3, stride=2),
        Conv("conv2", 256, kernel=5, padding=2, groups=2),
        ReLU("relu2"),
        LRN("norm2"),
        MaxPool("pool2", kernel=3, stride=2),
        Conv("conv3", 384, kernel=3, padding=1),
        ReLU("relu3"),
        Conv("conv4", 384, kernel=3, padding=1, groups=2),
        ReLU("relu4"),
        Conv("conv5", 256, kernel=3, padding=1, groups=2),
        ReLU("relu5"),
        MaxPool("pool5", kernel=3, stride=2),
        Dense("fc6", 4096),
        ReLU("relu6"),
        Dropout("drop6"),
        Dense("fc7", 4096),
        ReLU("relu7"),
        Dropout("drop7"),
        Dense("fc8", 1000),
    ),
)
"""BVLC's AlexNet (BVLC/caffe, models/bvlc_alexnet): normalization before pooling."""

ALEXNET_FASHION = Network(
    name="alexnet-fashion",
    image_shape=(28, 28, 1),
    preprocessing=Preprocessing(mean=(72.94,), scale=1 / 64, order="grey"),
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

NETWORKS = {network.name: network for network in (LENET, ALEXNET, ALEXNET_FASHION)}


def network_named(name: str) -> Network:
    """The declaration of that name; `InputError` if there is none."""
    if name not in NETWORKS:
        raise InputError(f"There is no network {name!r}; declared are {', '.join(NETWORKS)}.")
    return NETWORKS[name]
