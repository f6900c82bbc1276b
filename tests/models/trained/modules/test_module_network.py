from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ppl_cnn.errors import ArgumentError, InputError, MismatchError, UnknownNameError
from ppl_cnn.models.networks.catalogue import ALEXNET_FASHION, LENET
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.layers import Conv, Dense
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork
from ppl_cnn.models.trained.network import TrainedNetwork
from ppl_cnn.models.units.listing import unit_layers
from ppl_cnn.models.units.score_function import Scored
from ppl_cnn.models.units.targets import LogProb
from ppl_cnn.models.units.unit import find_units


class Rebuilt(nnx.Module):
    """A declared network, of NNX's own convolutions and dense layers."""

    def __init__(self, network, params):
        self.network = network
        for name, weights in params.items():
            layer, rngs = network.layer(name), nnx.Rngs(0)
            if isinstance(layer, Conv):
                part = nnx.Conv(
                    weights["kernel"].shape[2] * layer.groups,
                    layer.channels,
                    (layer.kernel, layer.kernel),
                    strides=layer.stride,
                    padding=layer.padding,
                    feature_group_count=layer.groups,
                    rngs=rngs,
                )
            else:
                part = nnx.Linear(*weights["kernel"].shape, rngs=rngs)
            part.kernel[...], part.bias[...] = weights["kernel"], weights["bias"]
            setattr(self, name, part)

    def __call__(self, x):
        for layer in self.network.layers:
            if isinstance(layer, Conv):
                x = getattr(self, layer.name)(x)
            elif isinstance(layer, Dense):
                x = getattr(self, layer.name)(x.reshape(len(x), -1))
            else:
                x = layer.apply({}, x, beyond(layer.windows[0], x.shape[1:3]), None)
        return x


def beyond(window, sizes):
    """What the windows over a whole map read off its ends."""
    if len(sizes) < 2:
        return (0, 0), (0, 0)
    rows, cols = (window.inputs(range(window.outputs(size)), size)[1] for size in sizes)
    return rows, cols


@pytest.fixture(
    params=[LENET, pytest.param(ALEXNET_FASHION, marks=pytest.mark.long)],
    ids=lambda network: network.name,
)
def both(request, random_params):
    """A declared network, its weights, and the same as a module."""
    network = request.param
    params = random_params(network)
    module = Rebuilt(network, params)
    return network, params, ModuleNetwork(module, network.image_shape, network.preprocessing)


PLACES = {
    "lenet": ["conv1:7@0,23", "conv2:3@7,0", "conv2:5", "fc4:9"],
    "alexnet-fashion": ["conv2:40@13,13", "conv2:3@mean", "conv4:90@6,2", "conv5:63@0,6"],
}
# Each program is compiled and run once.
QUICK = {"xla_backend_optimization_level": 0}


def test_fields_and_responses_are_those_of_a_declared_network(both):
    network, params, module = both
    for text in PLACES[network.name]:
        (declared,) = find_units(text, network, params)
        unit = module.unit(text)
        assert (unit.rows, unit.cols, unit.shape) == (declared.rows, declared.cols, declared.shape)
        (image,) = images(1, unit.shape)
        ours, theirs = (
            jax.jit(jax.value_and_grad(u.score, argnums=1), compiler_options=QUICK)(u.params, image)
            for u in (unit, declared)
        )
        # Sums of up to 2,304 terms in as many as eight layers, in another order.
        assert float(ours[0]) == pytest.approx(float(theirs[0]), rel=1e-4, abs=1e-4)
        atol = 1e-4 * np.abs(theirs[1]).max()
        np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=atol)


def test_layers_are_listed_as_a_declared_networks_are(both):
    network, _, module = both
    listed = {layer.name: layer for layer in module.unit_layers()}
    for declared in unit_layers(network):
        layer = listed[declared.name]
        assert layer[:3] == declared[:3]
        # A field that covers the image at all places doesn't tell the stride.
        wide = declared.receptive_field[0] > network.image_shape[0]
        assert layer.stride == declared.stride or (wide and layer.stride is None)
        assert layer.receptive_field == layer.image == declared.image
        assert layer.whole_multiplications is layer.slab_multiplications is None
    order = [layer.name for layer in unit_layers(network)]
    assert [name for name in listed if name in order] == order


@pytest.fixture(scope="module")
def own():
    """The worked example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2])
        import own_network

    return own_network


@pytest.fixture(scope="module")
def network(own):
    """Its network."""
    return own.ready()


def images(n, shape=(16, 16, 3)):
    return jnp.asarray(np.random.default_rng(1).normal(0, 40, (n, *shape)).astype(np.float32))


def test_layers_are_named_by_paths_in_the_order_of_calls(network):
    assert network.layers == {
        "stem": (16, 16, 8),
        "relu": (16, 16, 8),  # sown
        **{f"blocks.0.{name}": (8, 8, 12) for name in ("conv", "norm")},
        "blocks.0": (8, 8, 12),
        **{f"blocks.1.{name}": (8, 8, 12) for name in ("conv", "norm")},
        "blocks.1": (8, 8, 12),
        "dropout": (192,),
        "dense": (3,),
        "output": (3,),
    }
    names = list(network.layers)
    assert names.index("stem") < names.index("blocks.0.conv") < names.index("blocks.0")
    assert names.index("blocks.0") < names.index("blocks.1.norm") < names.index("dropout")
    assert names[-1] == "output"


def test_scores_are_the_modules_in_inference_mode(own, network):
    module, x = own.factory(), images(4)
    scores = network(x)
    assert not module.dropout.deterministic, "the module itself is left as it was"
    module.eval()
    np.testing.assert_allclose(scores, module(x / 64), rtol=1e-5, atol=1e-5)


def test_logits_are_of_photographs(network):
    pixels = np.random.default_rng(2).integers(0, 256, (2, 16, 16, 3), np.uint8)
    x = jnp.asarray(pixels.astype(np.float32) - np.float32(127.5))
    np.testing.assert_allclose(network.logits(pixels), network(x), rtol=1e-5, atol=1e-5)


def test_a_units_response_is_the_modules(own, network):
    (image,) = images(1)
    module = own.factory()
    module.eval()
    x = nnx.relu(module.stem(image[None] / 64))
    conv = module.blocks[0].conv(x)[0]
    for text, expected in [
        ("relu:3@0,0", x[0, 0, 0, 3]),
        ("blocks.0.conv:5@7,7", conv[7, 7, 5]),
        ("blocks.0.conv:5@mean", conv[..., 5].mean()),
        ("blocks.0:11", module.blocks[0](x)[0, 4, 4, 11]),
        ("class:dog", module(image[None] / 64)[0, 1]),
    ]:
        unit = network.unit(text)
        assert isinstance(unit, Scored)
        crop = image[unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop]
        score = float(unit.score(unit.params, crop))
        assert score == pytest.approx(float(expected), rel=1e-5, abs=1e-5)


def test_log_probabilities_are_those_of_the_softmax(network):
    (image,) = images(1)
    units = network.units("class:0-2", target="log-prob")
    assert [str(unit) for unit in units] == ["output:0", "output:1", "output:2"]
    assert units[0].settings == {"unit": "output:0", "response": "pre", "target": "log-prob"}
    found = [unit.score(unit.params, image) for unit in units]
    np.testing.assert_allclose(found, jax.nn.log_softmax(network(image[None])[0]), rtol=1e-5)


def test_units_share_weights_and_differ_in_their_channel(network):
    one, other = network.units("blocks.0.conv:1,blocks.0.conv:7")
    assert one.params["weights"].keys() == other.params["weights"].keys()
    for name, array in one.params["weights"].items():
        assert array is other.params["weights"][name]
    (image,) = images(1, one.shape)
    assert one.score(other.params, image) == other.score(other.params, image)
    assert one.score(one.params, image) != other.score(other.params, image)
    assert not any("key" in name for name in one.params["weights"])


def test_units_are_compared_by_what_they_are(network):
    assert network.unit("stem:3") == network.unit("stem:3@8,8")
    assert network.unit("stem:3") != network.unit("stem:4")


def test_other_weights_make_another_network(network):
    x = images(2)
    doubled = network.with_weights(
        {
            name: 2 * array if name.startswith("dense") else array
            for name, array in network.weights.items()
        }
    )
    np.testing.assert_allclose(doubled(x), 2 * network(x), rtol=1e-5)


class Halves(nnx.Module):
    """What may be found in a module: calls of one part twice, inheritance, methods, jit."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.twice = nnx.Linear(3, 3, rngs=rngs)
        self.heir = Heir(3, 3, rngs=rngs)
        self.unused = nnx.Linear(3, 3, rngs=rngs)
        self.compiled = Compiled(rngs)

    def features(self, x):
        return self.twice(self.twice(x))

    def __call__(self, x):
        return self.compiled(self.heir(self.features(x)).mean((1, 2)))


class Heir(nnx.LinearGeneral):
    """Inherits its call."""


class Compiled(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(3, 2, rngs=rngs)

    @nnx.jit
    def __call__(self, x):
        return self.inner(x)


def test_calls_are_numbered_and_methods_heirs_and_compiled_parts_found():
    assert ModuleNetwork(Halves(), (4, 5, 3)).layers == {
        **dict.fromkeys(("twice-1", "twice-2", "features", "heir"), (4, 5, 3)),
        **dict.fromkeys(("compiled", "compiled.inner", "output"), (2,)),
    }
    assert "__call__" not in vars(Heir)  # the user's class is left as it is


def test_by_default_a_module_sees_pixels():
    for channels, order in ((1, "grey"), (3, "RGB")):
        network = ModuleNetwork(Head(), (2, 2, channels))
        assert network.preprocessing == Preprocessing((0.0,) * channels, (1.0,) * channels, order)


class Head(nnx.Module):
    """The response of a function."""

    def __init__(self, head=lambda x: x.mean((1, 2))):
        self.head = nnx.static(head)

    def __call__(self, x):
        return self.head(x)


def fails(x):
    raise ValueError("no such thing.\nAnd more.")


@pytest.mark.parametrize(
    ("head", "shape", "argument", "words"),
    [
        (fails, (2, 2, 3), "module", ["Head", "(2, 2, 3)", "(ValueError: no such thing)"]),
        (lambda x: x, (2, 2, 3), "module", ["Head", "(n, class)"]),
        (lambda x: (x, x), (2, 2, 3), "module", ["Head", "(n, class)"]),
        (lambda x: x.mean(), (2, 2, 3), "module", ["Head", "(n, class)"]),
        (lambda x: x.mean((1, 2)) > 0, (2, 2, 3), "module", ["Head", "(n, class)"]),
        (lambda x: x.mean((1, 2)), (2, 2), "image_shape", ["(row, col, channel)", "(2, 2)"]),
        (lambda x: x.mean((1, 2)), (2, 2, 0), "image_shape", ["(row, col, channel)"]),
        (lambda x: x.mean((1, 2)), None, "image_shape", ["(row, col, channel)", "None"]),
    ],
)
def test_modules_that_are_no_such_networks_are_refused(head, shape, argument, words, refused):
    with refused(*words, kind=ArgumentError, argument=argument):
        ModuleNetwork(Head(head), shape)


def test_a_preprocessing_of_other_channels_is_refused(refused):
    with refused("3 channels", "not 1 and 1", kind=MismatchError):
        ModuleNetwork(Head(), (2, 2, 3), Preprocessing((0.0,), (1.0,)))


def test_too_few_names_of_classes_are_refused(refused):
    with refused("Head", "3 scores", "2 names", kind=MismatchError):
        ModuleNetwork(Head(), (2, 2, 3), classes=("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "options", "kind", "words"),
    [
        ("blocks.2:0", {}, UnknownNameError, ["'blocks.2'", "blocks.1", "output"]),
        ("stem:8", {}, InputError, ["stem", "0 to 7"]),
        ("stem:0@16,0", {}, InputError, ["stem", "15,15"]),
        ("stem:0-3", {}, ArgumentError, ["4 units"]),
        ("class:cow", {}, UnknownNameError, ["'cow'", "cat"]),
        ("stem:0", {"response": "post"}, ArgumentError, ["OwnNetwork", "`response=post`", "layer"]),
        ("stem:0", {"target": "log-prob"}, MismatchError, ["stem", "log-prob", "output"]),
        ("stem:0", {"target": LogProb()}, MismatchError, ["stem", "log-prob", "output"]),
    ],
)
def test_units_that_are_not_there_are_refused(text, options, kind, words, network, refused):
    with refused(*words, kind=kind):
        network.unit(text, **options)


def test_it_is_a_trained_network_whose_nonlinearities_are_unknown(network, refused):
    assert isinstance(network, TrainedNetwork)
    with refused("OwnNetwork", "`data`", kind=MismatchError):
        network.activity([])


def test_a_unit_without_gradient_is_refused(refused):
    network = ModuleNetwork(Head(lambda x: jnp.round(x).mean((1, 2))), (2, 2, 3))
    with refused("output:1", "no gradient", kind=MismatchError):
        network.unit("output:1")


class AnySize(nnx.Module):
    """Scores of images of any size."""

    def __init__(self) -> None:
        self.conv = nnx.Conv(3, 2, (3, 3), rngs=nnx.Rngs(0))

    def __call__(self, x):
        return jnp.mean(nnx.relu(self.conv(x)), axis=(1, 2))


def test_a_module_that_can_takes_images_of_another_size():
    network = ModuleNetwork(AnySize(), (16, 16, 3))
    large = network.resized(20)
    assert large.image_shape == (20, 20, 3)
    assert large.layers["conv"] == (20, 20, 2)
    x = images(2, (20, 20, 3))
    np.testing.assert_array_equal(
        large(x), ModuleNetwork(AnySize(), (20, 20, 3)).respond(network.weights, x, "output")
    )
    assert large.unit("class:1").settings["size"] == 20
    assert "size" not in network.unit("class:1").settings
    assert network.resized(16) is network


def test_a_module_that_cannot_be_called_on_another_size_is_refused(network, refused):
    with refused("OwnNetwork", "(20, 20, 3)", kind=ArgumentError, argument="module"):
        network.resized(20)
    with refused("-1", kind=ArgumentError, argument="image_shape"):
        network.resized(-1)
