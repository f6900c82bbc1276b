"""The networks that the package declares, each once; a file for each family."""

from ppl_cnn.errors import unknown
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
from ppl_cnn.models.networks.declaration import Network

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
        VGG16_BN,
        VGG16_CAFFE,
        SQUEEZENET,
        GOOGLENET,
        RESNET18,
        RESNET34,
        RESNET50,
        RESNET101,
        RESNET152,
        WIDE_RESNET50_2,
        MOBILENET_V2,
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
