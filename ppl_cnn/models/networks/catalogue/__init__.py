"""The networks that the package declares, each once; a file for each family."""

from ppl_cnn.models.networks.catalogue.alexnets import (
    ALEXNET,
    ALEXNET_FASHION,
    ALEXNET_TORCHVISION,
    CAFFENET,
    ZFNET,
)
from ppl_cnn.models.networks.catalogue.googlenets import GOOGLENET
from ppl_cnn.models.networks.catalogue.lenets import LENET, LENET_ADVERTORCH
from ppl_cnn.models.networks.catalogue.mobilenets import MOBILENET_V2
from ppl_cnn.models.networks.catalogue.registry import NETWORKS, network_named
from ppl_cnn.models.networks.catalogue.resnets import (
    RESNET18,
    RESNET34,
    RESNET50,
    RESNET101,
    RESNET152,
    WIDE_RESNET50_2,
    resnet,
)
from ppl_cnn.models.networks.catalogue.squeezenets import SQUEEZENET
from ppl_cnn.models.networks.catalogue.vggs import VGG16, VGG16_BN, VGG16_CAFFE

__all__ = [
    "ALEXNET",
    "ALEXNET_FASHION",
    "ALEXNET_TORCHVISION",
    "CAFFENET",
    "GOOGLENET",
    "LENET",
    "LENET_ADVERTORCH",
    "MOBILENET_V2",
    "NETWORKS",
    "RESNET18",
    "RESNET34",
    "RESNET50",
    "RESNET101",
    "RESNET152",
    "SQUEEZENET",
    "VGG16",
    "VGG16_BN",
    "VGG16_CAFFE",
    "WIDE_RESNET50_2",
    "ZFNET",
    "network_named",
    "resnet",
]
