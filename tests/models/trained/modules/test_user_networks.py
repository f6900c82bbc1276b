from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import nnx

import ppl_cnn
from ppl_cnn.errors import ArgumentError, FileError, MismatchError, UnknownNameError
from ppl_cnn.models.trained.modules.user_networks import load_module

FACTORY = "own_network:factory"


@pytest.fixture(autouse=True)
def _where_the_example_is(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


@pytest.fixture
def trained():
    """The example's module with other weights than its factory's."""
    import own_network

    module = own_network.factory()
    random = np.random.default_rng(0)
    state = nnx.state(module, (nnx.Param, nnx.BatchStat))
    nnx.update(module, jax.tree.map(lambda x: x + random.random(x.shape, np.float32), state))
    return module


def scores(module):
    module.eval()
    return module(image())


def image():
    return jnp.asarray(np.random.default_rng(1).normal(0, 1, (2, 16, 16, 3)).astype(np.float32))


def tensors_of(module):
    state = nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngState)))
    return {
        ".".join(map(str, path)): np.array(array)
        for path, array in nnx.traversals.flatten_mapping(state).items()
    }


@pytest.mark.parametrize(
    ("spec", "scale"), [(FACTORY, 1), ("own_network:ready", 64)], ids=["module", "network"]
)
def test_a_factory_is_called_by_its_name(spec, scale):
    network = ppl_cnn.load(spec)
    assert isinstance(network, ppl_cnn.ModuleNetwork)
    assert (network.name, network.classes[0]) == ("OwnNetwork", "cat")
    import own_network

    expected = scores(own_network.factory())
    np.testing.assert_allclose(network(scale * image()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", [FACTORY, "own_network:ready"])
def test_a_file_names_its_classes(spec, tmp_path, refused):
    path = tmp_path / "names.txt"
    path.write_text("Katze\nfire engine\nHündin\n", "utf-8-sig")
    network = ppl_cnn.load(spec, classes=path)
    assert network.classes == ("Katze", "fire engine", "Hündin")
    assert network.class_of(network.unit("class:Hündin").name) == "Hündin"
    assert ppl_cnn.load(spec).classes[0] == "cat"
    path.write_text("a\nb\n")
    with refused("3 classes", "not 2", kind=MismatchError):
        ppl_cnn.load(spec, classes=path)


def test_weights_come_from_a_safetensors_file(trained, tmp_path):
    path = tmp_path / "own.safetensors"
    safetensors.numpy.save_file(tensors_of(trained), path)
    network = ppl_cnn.load(FACTORY, weights=path)
    np.testing.assert_allclose(network(image()), scores(trained), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "what",
    [
        lambda module: nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngState))),
        lambda module: nnx.state(module, nnx.Not(nnx.RngState)),
        nnx.state,
    ],
    ids=["pure", "state", "with-random-keys"],
)
def test_weights_come_from_an_orbax_checkpoint(what, trained, tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "own", what(trained))
    network = load_module(FACTORY, tmp_path / "own")
    np.testing.assert_allclose(network(image()), scores(trained), rtol=1e-5, atol=1e-5)


def drop(tensors):
    del tensors["blocks.0.norm.var"]


def add(tensors):
    tensors["stem.scale"] = np.ones(3, np.float32)


def reshape(tensors):
    tensors["stem.bias"] = np.ones(7, np.float32)


def spoil(tensors):
    tensors["dense.kernel"][3, 1] = np.nan


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (drop, MismatchError, ["own.safetensors", "blocks.0.norm.var", "OwnNetwork"]),
        (add, MismatchError, ["own.safetensors", "stem.scale", "OwnNetwork"]),
        (reshape, MismatchError, ["stem.bias", "(7,)", "(8,)"]),
        (spoil, FileError, ["dense.kernel", "NaN"]),
        (dict.clear, FileError, ["own.safetensors", "no tensors"]),
    ],
)
def test_weights_that_do_not_fit_are_refused(damage, kind, words, trained, tmp_path, refused):
    path, tensors = tmp_path / "own.safetensors", tensors_of(trained)
    damage(tensors)
    safetensors.numpy.save_file(tensors, path)
    with refused(*words, kind=kind):
        load_module(FACTORY, path)


def test_files_that_are_no_weights_are_refused(tmp_path, refused):
    path = tmp_path / "nosuch"
    with refused(path, "missing", kind=FileError, path=path):
        load_module(FACTORY, path)
    with refused(tmp_path, "Orbax", kind=FileError, path=tmp_path):
        load_module(FACTORY, tmp_path)
    path = tmp_path / "text.safetensors"
    path.write_text("these are no weights")
    with refused(path, "safetensors", kind=FileError, path=path):
        load_module(FACTORY, path)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module with factories that can't be used."""
    (tmp_path / "mine.py").write_text(
        "import jax\n"
        "from flax import nnx\n"
        "NUMBER = 3\n"
        "def wants(size): ...\n"
        "def fails(): raise RuntimeError('out of luck')\n"
        "def number(): return 3\n"
        "def bare(): return nnx.Linear(3, 4, rngs=nnx.Rngs(0))\n"
    )
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere.at.all:factory", ["'nowhere.at.all'", "ModuleNotFoundError"]),
        (":factory", ["''", "imported"]),
        ("broken:factory", ["'broken'", "nothing_of_that_name"]),
        ("mine:NUMBER", ["mine:NUMBER", "not int"]),
        ("mine:wants", ["mine:wants", "without arguments", "size"]),
        ("mine:fails", ["mine:fails", "RuntimeError: out of luck"]),
        ("mine:number", ["mine:number", "image_shape", "not int"]),
        ("mine:bare", ["mine:bare", "image_shape", "not Linear"]),
    ],
)
@pytest.mark.usefixtures("mine")
def test_factories_that_make_no_network_are_refused(spec, words, refused):
    with refused(*words, kind=ArgumentError, argument="model"):
        ppl_cnn.load(spec)


@pytest.mark.parametrize("name", ["nosuch", ""])
@pytest.mark.usefixtures("mine")
def test_a_factory_that_its_module_lacks_is_refused(name, refused):
    with refused("mine", repr(name), kind=UnknownNameError, name=name):
        ppl_cnn.load(f"mine:{name}")
