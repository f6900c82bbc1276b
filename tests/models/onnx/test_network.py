"""ONNX graphs as declared networks: names, units, slabs, ends and heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.errors import MismatchError, UnknownNameError
from ppl_cnn.models.formats.onnx_file import read_onnx
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.graph import shapes
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.networks.window import positions
from ppl_cnn.models.onnx.network import declared
from ppl_cnn.models.units.listing import nonlinearities, unit_layers
from ppl_cnn.models.units.unit import find_units


def raw(channels):
    return Preprocessing((0.0,) * channels, (1.0,) * channels, "RGB")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def opened(content, **options):
    return declared(read_onnx(content), "net", raw, **options)


@pytest.fixture
def residual(onnx_node):
    """The nodes and weights of a small network with what residual networks have.

    A convolution with asymmetric padding, two branches (one depthwise, one of a kernel of 1x3) that
    are added, squeeze-and-excite, a channel shuffle and a split, two pools side by side.
    """
    constants = {
        "conv1.weight": normal(0, 8, 3, 3, 3) / 5,
        "block.deep.weight": normal(1, 8, 1, 3, 3) / 3,
        "block.wide.weight": normal(2, 8, 8, 1, 3) / 5,
        **{name: 1 + normal(seed, 8) / 4 for seed, name in enumerate("gbm", 3)},
        "v": 1 + normal(6, 8) ** 2,
        "se.fc.weight": normal(7, 8, 8, 1, 1),
        "five": np.asarray([1, 2, 4, 8, 8], np.int64),
        "four": np.asarray([1, 8, 8, 8], np.int64),
        "slope": np.abs(normal(8, 8, 1, 1)),
        "last.weight": normal(9, 16, 12, 3, 3) / 10,
        "fc.weight": normal(10, 5, 16),
        "fc.bias": normal(11, 5),
    }
    max_pool = {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}
    mean_pool = {"kernel_shape": (3, 2), "strides": (2, 2), "pads": (0, 0, 1, 0)}
    node = onnx_node
    nodes = [
        node("Conv", "x conv1.weight", "c1", "/conv1/Conv", pads=(1, 0, 0, 1), strides=(2, 2)),
        node("BatchNormalization", "c1 g b m v", "n1", "/bn1/BatchNormalization"),
        node("Relu", "n1", "r1", "/relu/Relu"),
        node("Conv", "r1 block.deep.weight", "d", "/block/deep/Conv", group=8, pads=(1, 1, 1, 1)),
        node("Conv", "r1 block.wide.weight", "w", "/block/wide/Conv", pads=(0, 1, 0, 1)),
        node("Add", "d w", "a", "/block/Add"),
        node("Sigmoid", "a", "s", "/block/act/Sigmoid"),
        node("Mul", "a s", "o", "/block/act/Mul"),
        node("GlobalAveragePool", "o", "p", "/se/pool/GlobalAveragePool"),
        node("Conv", "p se.fc.weight", "q", "/se/fc/Conv"),
        node("HardSigmoid", "q", "gate", "/se/gate/HardSigmoid"),
        node("Reshape", "o five", "s1", "/shuffle/Reshape"),
        node("Transpose", "s1", "s2", "/shuffle/Transpose", perm=(0, 2, 1, 3, 4)),
        node("Reshape", "s2 four", "s3", "/shuffle/Reshape_1"),
        node("PRelu", "s3 slope", "pr", "/prelu/PRelu"),
        node("Split", "pr", "left right", "/Split", axis=1),
        node("MaxPool", "left", "ml", "/max/MaxPool", **max_pool),
        node("AveragePool", "right", "ar", "/mean/AveragePool", **mean_pool),
        node("Concat", "ml ar ml", "both", "/Concat", axis=1),
        node("Conv", "both last.weight", "l", "/last/Conv", pads=(1, 1, 1, 1)),
        node("Mul", "l twice", "l2", "/Mul"),
        node("GlobalAveragePool", "l2", "gp", "/avgpool/GlobalAveragePool"),
        node("Flatten", "gp", "f", "/Flatten"),
        node("Gemm", "f fc.weight fc.bias", "y", "/fc/Gemm", transB=1),
    ]  # fmt: skip
    return nodes, {**constants, "twice": np.float32(2)}


@pytest.fixture
def net(residual, onnx_content):
    return opened(onnx_content(*residual, image=(1, 3, 17, 16)))


def test_names_are_module_paths(net):
    names = [layer.name for layer in unit_layers(net.network)]
    assert names == [
        *("conv1", "bn1", "relu", "block.deep", "block.wide", "block.Add", "block.act"),
        *("prelu", "max", "mean", "Concat", "last", "avgpool", "fc"),
    ]
    assert dict(net.network.aliases)["block"] == "block.act"
    assert nonlinearities(net.network) == {
        **{"conv1": "relu", "bn1": "relu", "block.Add": "block.act"},
    }


def responses(net, image):
    return Slab.whole(net.network).responses(net.params, image[None])


@pytest.mark.long
def test_a_slab_equals_the_whole_at_the_centre_and_a_corner(net):
    image = jnp.asarray(normal(0, 17, 16, 3))
    whole = responses(net, image)
    for name in ("prelu", "mean", "last"):
        shape = shapes(net.network)[name]
        rows, cols = positions(shape)
        for row, col in {(len(rows) // 2, len(cols) // 2), (rows[-1], 0)}:
            slab = Slab.of(net.network, name, range(row, row + 1), range(col, col + 1))
            found = slab.respond(net.params, slab.crop(image)[None]).ravel()
            expected = whole[name][0, row, col]
            np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(whole[name]).max())


def test_units_see_their_receptive_fields(net):
    seen = {layer.name: layer.image for layer in unit_layers(net.network)}
    assert seen["conv1"] == (3, 3)
    assert seen["block.Add"] == (7, 7)
    assert seen["block.act"] == (7, 7)
    assert seen["prelu"] == (7, 7)  # shuffling channels stays at its place
    assert seen["fc"] == (17, 16)
    fields = {layer.name: layer.receptive_field for layer in unit_layers(net.network)}
    assert fields["mean"] == (11, 9)


@pytest.mark.parametrize(
    "text", ["block.act:3", "bn1:5@0,7", "prelu:1-2", "mean:2@mean", "class:4"]
)
def test_units_score_as_the_whole_network_with_fewer_weights(text, net):
    image = jnp.asarray(normal(1, 17, 16, 3))
    whole = responses(net, image)
    for unit in find_units(text, net.network, net.params):
        part = image[unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop]
        layer = whole[unit.name.layer][0]
        place = unit.name.place
        at = (
            jnp.mean(layer, (0, 1)) if place == "mean" else layer if place is None else layer[place]
        )
        found = unit.score(unit.params, part)
        np.testing.assert_allclose(found, at[unit.name.channel], rtol=1e-4, atol=1e-5)


def test_a_unit_keeps_its_own_channel_of_the_last_weights(net):
    (unit,) = find_units("bn1:5", net.network, net.params)
    assert unit.params["conv1"]["kernel"].shape[-1] == 1
    assert unit.params["bn1"]["scale"].shape == (1,)
    assert find_units("bn1:5", net.network, net.params, response="post")[0].response == "post"


@pytest.mark.parametrize("text", ["block_act:0", "block:0", "block.act:0"])
def test_paths_may_have_underscores_and_name_modules(text, net):
    (unit,) = find_units(text, net.network, net.params)
    assert unit.name.layer == "block.act"


def test_unknown_layers_are_refused(net, refused):
    with refused("block.axt", "block.act", kind=UnknownNameError):
        find_units("block.axt:0", net.network, net.params)


def test_batches_are_images_one_by_one(net):
    x = jnp.asarray(normal(2, 2, 17, 16, 3))
    one_by_one = [scores(net.network, net.params, image[None])[0] for image in x]
    np.testing.assert_allclose(scores(net.network, net.params, x), one_by_one, rtol=1e-5)


def test_weights_are_arguments(net):
    """They are nowhere in the compiled program, which would fold them for minutes."""
    x = jnp.asarray(normal(2, 1, 17, 16, 3))
    program = jax.make_jaxpr(lambda params, x: scores(net.network, params, x))(net.params, x)
    assert not [each for each in program.consts if np.size(each) > 20]
    assert sum(array.size for array in jax.tree.leaves(net.params)) > 2000


def test_gradients_are_those_of_differences(net):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda array: array.astype(jnp.float64), net.params)
        x, step = (jnp.asarray(normal(seed, 1, 17, 16, 3), jnp.float64) for seed in (3, 4))
        respond = Slab.whole(net.network).respond  # `scores` takes images as float32
        score = jax.jit(lambda x: respond(params, x)[0, 2])
        slope = jnp.sum(jax.grad(score)(x) * step)
        difference = (score(x + 1e-6 * step) - score(x - 1e-6 * step)) / 2e-6
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_images_with_the_channels_last(onnx_node, onnx_content):
    kernel = normal(0, 4, 3, 3, 3)
    nodes = [
        onnx_node("Sub", "x mean", "m", "mean"),
        onnx_node("Transpose", "m", "t", perm=(0, 3, 1, 2)),
        onnx_node("Conv", "t w", "c", "conv"),
        onnx_node("Transpose", "c", "u", perm=(0, 2, 3, 1)),
        onnx_node("ReduceMean", "u", "y", "pool", axes=(1, 2), keepdims=0),
    ]
    constants = {"w": kernel, "mean": np.asarray([1, 2, 3], np.float32)}
    net = opened(onnx_content(nodes, constants, image=(None, 9, 8, 3)))
    assert [type(layer).__name__ for layer in net.network.layers] == [
        *("Elementwise", "Conv", "GlobalMean"),
    ]
    x = normal(1, 2, 9, 8, 3)
    maps = jax.lax.conv_general_dilated(
        (x - constants["mean"]).transpose(0, 3, 1, 2), kernel, (1, 1), "VALID"
    )
    found = scores(net.network, net.params, jnp.asarray(x))
    np.testing.assert_allclose(found, maps.mean((2, 3)), atol=1e-5)
    assert find_units("conv:1", net.network, net.params)[0].shape == (3, 3, 3)


@pytest.mark.parametrize("head", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_probabilities_at_the_end_are_left_out(head, residual, net, onnx_node, onnx_content):
    nodes, constants = residual
    nodes = [*nodes, onnx_node(head, "y", "z"), onnx_node("Identity", "z", "end")]
    other = opened(onnx_content(nodes, constants, image=(1, 3, 17, 16), output="end"))
    assert other.head == head
    x = jnp.asarray(normal(2, 1, 17, 16, 3))
    np.testing.assert_array_equal(
        scores(other.network, other.params, x), scores(net.network, net.params, x)
    )


def test_other_sizes(residual, onnx_content):
    other = opened(onnx_content(*residual, image=(None, 3, None, None)))
    assert other.network.image_shape == (224, 224, 3)
    # The shuffle's sizes are written into the file.
    assert other.network.scores is None
    assert "Reshape" in other.network.end


def test_layers_before_an_unknown_operator_stay_usable(onnx_node, onnx_content, refused):
    nodes = [
        onnx_node("Conv", "x w", "c", "first"),
        onnx_node("Frobnicate", "c", "f", "/odd/one", domain="com.example"),
        onnx_node("Relu", "f", "y", "last"),
    ]
    net = opened(onnx_content(nodes, {"w": normal(0, 4, 3, 3, 3)}))
    assert [layer.name for layer in unit_layers(net.network)] == ["first"]
    assert find_units("first:2", net.network, net.params)[0].shape == (3, 3, 3)
    facts = ("com.example.Frobnicate", "opset 17", "/odd/one")
    with refused(*facts, kind=MismatchError):
        find_units("class:0", net.network, net.params)
    with refused(*facts, kind=MismatchError):
        scores(net.network, net.params, jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("operator", ["QLinearConv", "ConvInteger", "DynamicQuantizeLinear"])
def test_integer_networks_are_refused(operator, onnx_node, onnx_content, refused):
    content = onnx_content([onnx_node(operator, "x", "y", "q0")])
    with refused(operator, "q0", "quantised", kind=MismatchError):
        opened(content)


@pytest.mark.parametrize(
    ("image", "inputs", "facts"),
    [
        ((1, 3, 8), {}, ["(1, 3, 8)"]),
        ((1, 4, 8, 8), {}, ["(1, 4, 8, 8)", "1 or 3 channels"]),
        ((1, 3, 8, 8), {"mask": (1, 8)}, ["2 inputs", "x, mask"]),
    ],
)
def test_what_is_no_function_of_one_image_is_refused(
    image, inputs, facts, onnx_node, onnx_content, refused
):
    content = onnx_content([onnx_node("Relu", "x", "y")], image=image, inputs=inputs)
    with refused(*facts, kind=MismatchError):
        opened(content)


@pytest.mark.parametrize(
    ("operator", "inputs", "words"),
    [
        ("BatchNormalization", "r g g g v r", "don't fit each other"),
        ("Slice", "r eight eight axes", "empty"),
        ("Resize", "r  huge", "an array of shape"),
        ("Resize", "r   sizes", "an array of shape"),
    ],
)
def test_odd_graphs_end_in_a_sentence(operator, inputs, words, onnx_node, onnx_content):
    constants = {"g": normal(0, 3), "v": normal(1, 3) ** 2, "huge": np.float32([1, 1, 2**24, 1])}
    constants |= {"eight": np.asarray([8]), "axes": np.asarray([2])}
    constants["sizes"] = np.asarray([1, 3, 2**14, 2**14])
    nodes = [onnx_node("Relu", "x", "r"), onnx_node(operator, inputs, "y")]
    net = opened(onnx_content(nodes, constants))
    assert [layer.name for layer in net.network.layers] == ["r"]
    assert operator in net.network.end
    assert words in net.network.end


def test_images_have_sides_that_fit_memory(onnx_node, onnx_content, refused):
    with refused("(1, 3, 65536, 8)", "65,535", kind=MismatchError):
        opened(onnx_content([onnx_node("Relu", "x", "y")], image=(1, 3, 65_536, 8)))


def test_names_from_pytorchs_later_exporter(onnx_node, onnx_content):
    node = onnx_node
    block = ["", "layer1", "layer1.0"]
    nodes = [
        # A normalization is folded into it, whose name the exporter writes.
        node("Conv", "x layer1.0.conv1.weight", "c", scopes=[*block, "layer1.0.bn1", "bn"]),
        node("Relu", "c", "r", scopes=[*block, "layer1.0.relu", "relu"]),
        node("Add", "r r", "a", scopes=[*block, "add"]),
        node("Relu", "a", "y", scopes=[*block, "layer1.0.relu", "relu_1"]),
    ]
    net = opened(onnx_content(nodes, {"layer1.0.conv1.weight": normal(0, 4, 3, 3, 3)}))
    assert [layer.name for layer in unit_layers(net.network)] == [
        *("layer1.0.conv1", "layer1.0.relu", "layer1.0.Add", "layer1.0.relu_1"),
    ]
    aliases = {"layer1.0.bn1": "layer1.0.conv1", "layer1.0": "layer1.0.relu_1"}
    assert dict(net.network.aliases) == {**aliases, "layer1": "layer1.0.relu_1"}


def test_weights_that_are_no_numbers_are_refused(onnx_node, onnx_content, refused):
    kernel = normal(0, 4, 3, 3, 3)
    kernel[1, 2, 0, 0] = np.nan
    with refused("Conv", "NaN", kind=MismatchError):
        opened(onnx_content([onnx_node("Conv", "x w", "y", "/c/Conv")], {"w": kernel}))
