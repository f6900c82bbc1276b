import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.models.formats.caffe import CaffeLayer, read_caffemodel
from ppl_cnn.models.networks.catalogue import ALEXNET, CAFFENET, LENET, NETWORKS, SQUEEZENET, VGG16
from ppl_cnn.models.networks.elementwise import Elementwise
from ppl_cnn.models.networks.layers import Conv, Dense, Dropout, GlobalMean, MaxPool, ReLU
from ppl_cnn.models.trained.checkpoints.caffe_networks import check_network, check_pixels

BLOB = (np.ones(1, np.float32),)
FILE = "net.caffemodel"


def described(network, *, data=True):
    """The layers of a network as Caffe writes them; weights are stand-ins."""
    names = {Conv: "Convolution", Dense: "InnerProduct", ReLU: "ReLU", Dropout: "Dropout"}
    names |= {MaxPool: "Pooling", GlobalMean: "Pooling", Elementwise: "Eltwise"}
    layers = [CaffeLayer("data", "Data")] if data else []
    for layer in network.layers:
        blobs = BLOB if isinstance(layer, Conv | Dense) else ()
        kind = names.get(type(layer), type(layer).__name__)
        layers.append(CaffeLayer(layer.name, kind, blobs, isinstance(layer, GlobalMean)))
    return (*layers, CaffeLayer("loss", "SoftmaxWithLoss"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_own_description_fits(name, tmp_path):
    check_network(described(NETWORKS[name]), NETWORKS[name], tmp_path / FILE)
    check_network(described(NETWORKS[name], data=False), NETWORKS[name], tmp_path / FILE)


def test_what_is_beside_the_computation_is_passed_over(tmp_path):
    layers = list(described(SQUEEZENET))
    layers.insert(3, CaffeLayer("split", "Split"))
    layers.insert(-1, CaffeLayer("relu_conv10", "ReLU"))
    check_network(layers, SQUEEZENET, tmp_path / FILE)
    weights = [layer for layer in described(ALEXNET) if layer.blobs]
    check_network(weights, CAFFENET, tmp_path / FILE)
    check_network((), CAFFENET, tmp_path / FILE)


def means(layer):
    return layer._replace(pools_means=layer.type == "Pooling")


def sigmoids(layer):
    return layer._replace(type="Sigmoid") if layer.type == "ReLU" else layer


@pytest.mark.parametrize(
    ("layers", "network", "facts"),
    [
        (described(CAFFENET), ALEXNET, ["pool1 of type Pooling", "LRN", "caffenet"]),
        (described(ALEXNET), CAFFENET, ["norm1 of type LRN", "Pooling", "alexnet"]),
        (tuple(map(means, described(LENET))), LENET, ["pool1", "'Pooling of means'"]),
        (tuple(map(sigmoids, described(VGG16))), VGG16, ["relu1_1 of type Sigmoid", "ReLU"]),
        (described(VGG16)[:-4], VGG16, ["nothing more", "ReLU"]),
        (described(VGG16), LENET, ["relu1_1", "Pooling", "vgg16"]),
    ],
)
def test_another_networks_description_is_refused(layers, network, facts, tmp_path, refused):
    with refused(tmp_path / FILE, network.name, *facts, kind=MismatchError):
        check_network(layers, network, tmp_path / FILE)


@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_of_caffe_are_bgr_and_unscaled(name, tmp_path, refused):
    layers, network = described(NETWORKS[name]), NETWORKS[name]
    check_pixels((), network, tmp_path / FILE)
    if network.preprocessing.order in ("BGR", "grey"):
        check_pixels(layers, network, tmp_path / FILE)
    else:
        with refused(tmp_path / FILE, "BGR", name, "`pixels=caffe`", kind=MismatchError):
            check_pixels(layers, network, tmp_path / FILE)


def test_the_published_vgg_is_not_torchvisions(caffe_field, tmp_path, refused):
    """VGG_ILSVRC_16_layers.caffemodel: layers of V1, whose types are numbers."""
    types = {Conv: 4, Dense: 14, Dropout: 6, MaxPool: 17, ReLU: 18}
    blob = b"".join(caffe_field(size, 1) for size in (1, 2, 3, 4))
    blob += caffe_field(5, BLOB[0].tobytes())
    content = caffe_field(1, b"VGG_ILSVRC_16_layers")
    for layer in VGG16.layers:
        weights = caffe_field(6, blob) * 2 if isinstance(layer, Conv | Dense) else b""
        named = caffe_field(4, layer.name.encode()) + caffe_field(5, types[type(layer)])
        content += caffe_field(2, named + weights)
    content += caffe_field(2, caffe_field(4, b"prob") + caffe_field(5, 20))
    _, layers = read_caffemodel(content)
    assert len(layers) == len(VGG16.layers) + 1
    check_network(layers, VGG16, tmp_path / FILE)
    with refused(tmp_path / FILE, "vgg16", "BGR", "`pixels=caffe`", kind=MismatchError):
        check_pixels(layers, VGG16, tmp_path / FILE)
    with refused(tmp_path / FILE, "alexnet", "conv1_2 of type Convolution", kind=MismatchError):
        check_network(layers, ALEXNET, tmp_path / FILE)


def test_layers_of_all_generations(caffe_field):
    pooling = caffe_field(1, 1)
    blob = caffe_field(7, caffe_field(1, 1)) + caffe_field(5, BLOB[0].tobytes())
    texts = caffe_field(1, b"c") + caffe_field(2, b"Convolution") + caffe_field(7, blob)
    today = caffe_field(100, texts) + caffe_field(
        100, caffe_field(1, b"p") + caffe_field(2, b"Pooling") + caffe_field(121, pooling)
    )
    v1 = caffe_field(2, caffe_field(4, b"c") + caffe_field(5, 4) + caffe_field(6, blob))
    v1 += caffe_field(2, caffe_field(4, b"p") + caffe_field(5, 17) + caffe_field(19, pooling))
    v0 = b"".join(
        caffe_field(2, caffe_field(1, layer) + caffe_field(2, b"data") + caffe_field(3, b"top"))
        for layer in (
            caffe_field(1, b"c") + caffe_field(2, b"conv") + caffe_field(50, blob),
            caffe_field(1, b"p") + caffe_field(2, b"pool") + caffe_field(11, 1),
        )
    )
    for content in (today, v1, v0):
        tensors, layers = read_caffemodel(caffe_field(1, b"net") + content)
        assert tensors.keys() == {"c.weight"}
        assert [layer[:2] for layer in layers] == [("c", "Convolution"), ("p", "Pooling")]
        assert [layer.pools_means for layer in layers] == [False, True]


@pytest.fixture
def small_caffenet(monkeypatch):
    """VGG's pixels for a network small enough to write: lenet of three channels."""
    from dataclasses import replace

    network = replace(
        LENET, name="lenet-colour", image_shape=(28, 28, 3), preprocessing=VGG16.preprocessing
    )
    monkeypatch.setitem(NETWORKS, network.name, network)
    return network


def test_pixels_may_be_given_as_a_file_is_opened(
    small_caffenet, caffemodel, random_params, tmp_path, refused
):
    layers = {}
    for name, weights in random_params(small_caffenet).items():
        kernel = np.asarray(weights["kernel"])
        kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        layers[name] = [kernel, np.asarray(weights["bias"])]
    path = tmp_path / FILE
    path.write_bytes(caffemodel(layers))
    with refused(path, "lenet-colour", "BGR", kind=MismatchError):
        ppl_cnn.load("lenet-colour", path)
    network = ppl_cnn.load("lenet-colour", path, pixels="caffe")
    assert (network.preprocessing.order, network.preprocessing.scale) == ("BGR", (1.0,) * 3)
    assert network.preprocessing.short_side == VGG16.preprocessing.short_side
    with refused("`pixels=grey`", "torchvision", kind=ArgumentError, argument="pixels"):
        ppl_cnn.load("lenet-colour", path, pixels="grey")
    for given in ({"pixels": "caffe"}, {"entry": "model_ema"}):
        with refused("`weights`", kind=ArgumentError, argument=next(iter(given))):
            ppl_cnn.load("alexnet-fashion", **given)
