import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import UnknownNameError
from ppl_cnn.models.networks.catalogue import LENET, NETWORKS, SQUEEZENET
from ppl_cnn.models.networks.graph import shapes, weight_shapes
from ppl_cnn.models.units.class_names import class_names, named_classes
from ppl_cnn.models.units.names import parse_units


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.name)
def test_a_network_of_a_thousand_classes_has_imagenets_names(network):
    count = shapes(network)[network.layers[-1].name][-1]
    names = class_names(network)
    assert len(names) == (1000 if count == 1000 else 0)
    assert all(name and name == name.strip() and "," not in name for name in names)


@pytest.mark.parametrize(
    ("text", "index"),
    [("goldfish", 1), ("Tiger Shark", 3), ("zebra", 340), ("toilet tissue", 999), ("517", 517)],
)
def test_units_are_named_by_them(text, index):
    (unit,) = parse_units(f"class:{text}", {"fc8": (1000,)}, class_names(SQUEEZENET))
    assert (unit.layer, unit.channel) == ("fc8", index)


@pytest.mark.parametrize(
    ("name", "words"),
    [("crane", "class:134 or class:517"), ("maillot", "class:638 or class:639")],
)
def test_two_classes_of_one_name_are_told_apart_by_index(name, words, refused):
    with refused("2 classes", repr(name), words, kind=UnknownNameError, name=name):
        parse_units(f"class:{name}", {"fc8": (1000,)}, class_names(SQUEEZENET))


def test_weights_from_a_file_come_with_the_names(tmp_path):
    tensors = {
        f"{layer}.{key}": np.zeros(shape, np.float32)
        for layer, weights in weight_shapes(SQUEEZENET).items()
        for key, shape in weights.items()
    }
    np.savez(tmp_path / "zeros.npz", **tensors)
    cnn = ppl_cnn.load("squeezenet1.1", weights=tmp_path / "zeros.npz")
    goldfish = cnn.unit("class:goldfish")
    assert str(goldfish) == "pool10:1"
    assert cnn.classes[1] == "goldfish"
    assert goldfish.score(goldfish.params, jnp.zeros(goldfish.shape)) == 0


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\r\n dog \r\n\r\n\n", ("cat", "dog")),
        ("Käse\n猫".encode(), ("Käse", "猫")),
    ],
)
def test_a_file_names_classes(content, names, tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    assert named_classes(path, 2) == named_classes(str(path), 2) == names


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"cat\n\ndog\n", ("Line 2", "empty")),
        (b"cat", ("2 classes", "not 1")),
        (b"", ("2 classes", "not 0")),
        (b"K\xe4se\ncat\n", ("names.txt", "UTF-8")),
        ("cat\ndog\n".encode("utf-16"), ("names.txt", "UTF-8")),
    ],
)
def test_a_file_that_names_no_such_classes_is_refused(content, facts, tmp_path, refused):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with refused(*facts):
        named_classes(path, 2)


def test_other_networks_have_none():
    assert class_names(LENET) == ()
