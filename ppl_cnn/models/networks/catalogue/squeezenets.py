"""SqueezeNet."""

from dataclasses import replace

from ppl_cnn.models.networks.catalogue.pixels import BVLC
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.layers import Concat, Conv, Dropout, GlobalMean, Layer, MaxPool, ReLU


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
    preprocessing=replace(BVLC, mean=(104.0, 117.0, 123.0)),
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
