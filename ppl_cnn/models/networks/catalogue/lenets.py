"""LeNets, for digits."""

from ppl_cnn.models.networks.declaration import Network, Preprocessing
from ppl_cnn.models.networks.layers import Conv, Dense, MaxPool, ReLU

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
