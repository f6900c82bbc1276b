import math

import pytest

from ppl_cnn.models.networks.catalogue import (
    ALEXNET,
    ALEXNET_FASHION,
    ALEXNET_TORCHVISION,
    CAFFENET,
    GOOGLENET,
    LENET,
    LENET_ADVERTORCH,
    MOBILENET_V2,
    NETWORKS,
    RESNET18,
    RESNET34,
    RESNET50,
    RESNET101,
    RESNET152,
    SQUEEZENET,
    VGG16,
    VGG16_BN,
    VGG16_CAFFE,
    WIDE_RESNET50_2,
    ZFNET,
)
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.graph import shapes, weight_shapes
from ppl_cnn.models.units.class_names import class_names


def parameters(network: Network) -> int:
    return sum(
        math.prod(shape)
        for weights in weight_shapes(network).values()
        for shape in weights.values()
    )


@pytest.mark.parametrize(
    ("network", "count"),
    [
        # Each as its authors give it or as follows from the published files' sizes.
        (LENET, 431_080),
        (LENET_ADVERTORCH, 320 + 18_496 + 627_400 + 2_010),
        (ALEXNET, 60_965_224),
        (CAFFENET, 60_965_224),
        (ALEXNET_TORCHVISION, 61_100_840),
        (ZFNET, 62_357_608),
        (VGG16, 138_357_544),
        (VGG16_CAFFE, 138_357_544),
        (SQUEEZENET, 1_235_496),
        # num_params in torchvision's documentation; GoogLeNet's without auxiliary classifiers.
        (VGG16_BN, 138_365_992),
        (RESNET18, 11_689_512),
        (RESNET34, 21_797_672),
        (RESNET50, 25_557_032),
        (RESNET101, 44_549_160),
        (RESNET152, 60_192_808),
        (WIDE_RESNET50_2, 68_883_240),
        (GOOGLENET, 6_624_904),
        (MOBILENET_V2, 3_504_872),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_network_has_its_originals_number_of_parameters(network, count):
    assert parameters(network) == count


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (LENET, {"conv1": 24, "pool1": 12, "conv2": 8, "pool2": 4}),
        (LENET_ADVERTORCH, {"conv1": 28, "pool1": 14, "conv2": 14, "pool2": 7}),
        # Krizhevsky and others 2012, figure 2, and Caffe's log.
        (ALEXNET, {"conv1": 55, "pool1": 27, "conv2": 27, "pool2": 13, "conv5": 13, "pool5": 6}),
        (CAFFENET, {"conv1": 55, "norm1": 27, "conv2": 27, "norm2": 13, "conv5": 13, "pool5": 6}),
        (ALEXNET_TORCHVISION, {"conv1": 55, "conv2": 27, "conv3": 13, "conv5": 13, "pool5": 6}),
        # Zeiler and Fergus 2014, figure 3.
        (ZFNET, {"conv1": 110, "norm1": 55, "conv2": 26, "norm2": 13, "conv5": 13, "pool5": 6}),
        (VGG16, {"conv1_2": 224, "conv2_2": 112, "conv3_3": 56, "conv4_3": 28, "pool5": 7}),
        # Caffe rounds 27.5 and 13.5 up.
        (SQUEEZENET, {"conv1": 113, "pool1": 56, "pool3": 28, "pool5": 14, "conv10": 14}),
        # The papers' tables.
        (RESNET50, {"conv1": 112, "layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7}),
        (GOOGLENET, {"conv1": 112, "conv3": 56, "inception3b": 28, "inception4e": 14}),
        (MOBILENET_V2, {"features.0": 112, "features.2": 56, "features.13": 14, "features": 7}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_networks_maps_have_its_originals_sizes(network, sizes):
    found, aliases = shapes(network), dict(network.aliases)
    assert {name: found[aliases.get(name, name)][:2] for name in sizes} == {
        name: (size, size) for name, size in sizes.items()
    }


def test_alexnets_weights_have_caffes_shapes():
    assert weight_shapes(ALEXNET)["conv2"]["kernel"] == (5, 5, 48, 256)
    assert weight_shapes(ALEXNET)["fc6"]["kernel"] == (9216, 4096)
    assert weight_shapes(ALEXNET) == weight_shapes(CAFFENET)


def test_alexnet_normalizes_and_then_pools_and_caffenet_the_other_way_round():
    def middle(network):
        return [layer.name for layer in network.layers[1:8]]

    assert middle(ALEXNET) == ["relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]
    assert middle(CAFFENET) == ["relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    assert sorted(ALEXNET.layers, key=str) == sorted(CAFFENET.layers, key=str)


def test_vgg16s_two_declarations_differ_in_pixels_and_names_alone():
    assert VGG16_CAFFE.layers == VGG16.layers


@pytest.mark.parametrize("count", [1, 2, 37])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.name)
def test_a_network_has_any_number_of_classes(network, count):
    """The layer that gives the scores is another, and nothing else."""
    wide = network.with_classes(count)
    before, after = shapes(network), shapes(wide)
    assert after[network.layers[-1].name][-1] == count
    others = [name for name in before if before[name] != after[name]]
    assert others == [each.name for each in network.layers][-len(others) :]
    assert [n for n, w in weight_shapes(wide).items() if w != weight_shapes(network)[n]] == [
        network.score_layer.name
    ]
    assert (wide.classes, class_names(wide)) == (None, ())
    own = before[network.layers[-1].name][-1]
    assert network.with_classes(own) is network
    assert wide.with_classes(own).layers == network.layers


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.name)
def test_aliases_are_other_names_of_layers(network):
    others, own = [name for name, _ in network.aliases], [name for _, name in network.aliases]
    assert len(set(others)) == len(others)
    layers = {layer.name for layer in network.layers}
    assert set(own) <= layers
    assert not set(others) & layers


def test_alexnet_fashion_has_alexnets_layers_and_at_most_two_million_parameters():
    def pattern(network):
        return [(type(layer), layer.name) for layer in network.layers]

    assert pattern(ALEXNET_FASHION) == pattern(ALEXNET)
    assert parameters(ALEXNET_FASHION) <= 2_000_000
    grouped = [layer.name for layer in ALEXNET_FASHION.layers if getattr(layer, "groups", 1) == 2]
    assert grouped == ["conv2", "conv4", "conv5"]
