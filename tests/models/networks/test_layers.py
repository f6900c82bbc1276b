import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.models.networks.layers import LRN, Conv, Dense, Dropout, Layer, MaxPool, ReLU
from ppl_cnn.models.networks.window import Window, map_size

NO_PADDING = ((0, 0), (0, 0))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def assert_float_equal(actual, expected):
    # float32 against float64: sums of at most a few hundred terms of the same scale.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def whole_padding(window: Window, shape) -> tuple:
    """The padding of a whole map."""
    return tuple(window.inputs(range(window.outputs(size)), size)[1] for size in shape[:2])


@pytest.mark.parametrize(
    "layer",
    [
        Conv("c", 6, 3),
        Dense("d", 5),
        ReLU("r"),
        MaxPool("p", 3, 2),
        LRN("n"),
        Dropout("o"),
    ],
)
def test_every_layer_keeps_the_protocol_and_the_shape_it_announces(layer):
    assert isinstance(layer, Layer)
    shape = (8, 7, 4)
    weights = {name: normal(1, *size) for name, size in layer.weight_shapes(shape).items()}
    response = layer.apply(
        weights, normal(0, 2, *shape), whole_padding(layer.windows[0], shape), None
    )
    assert response.shape == (2, *layer.response_shape(shape))
    assert response.dtype == np.float32


@pytest.mark.parametrize("layer", [ReLU("r"), Dropout("o"), LRN("n")])
def test_layers_without_weights_keep_a_vectors_shape(layer):
    assert layer.weight_shapes((12,)) == {}
    assert layer.response_shape((12,)) == (12,)


# Windows.


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_outputs_counts_the_windows_that_fit(kernel, stride, padding):
    for size in range(max(1, kernel - 2 * padding), 20):
        starts = range(-padding, size + padding - kernel + 1, stride)
        assert Window(kernel, stride, padding).outputs(size) == len(starts)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 3), (3, 1), (5, 2), (2, 1)])
@pytest.mark.parametrize("padding", [0, 1])
def test_outputs_with_ceil_go_on_to_the_end_but_start_inside(kernel, stride, padding):
    # Caffe, pooling_layer.cpp: windows until the padded map is covered, less a last one that
    # would start beyond the map and the padding before it.
    for size in range(kernel, 20):
        starts = [-padding]
        while starts[-1] + kernel < size + padding:
            starts.append(starts[-1] + stride)
        if starts[-1] + padding >= size + padding:
            starts.pop()
        assert Window(kernel, stride, padding, ceil=True).outputs(size) == len(starts)


@pytest.mark.parametrize(
    "window",
    [
        Window(),
        Window(3),
        Window(3, 1, 1),
        Window(5, 1, 2),
        Window(11, 4),
        Window(3, 2),
        Window(3, 2, 0, ceil=True),
        Window(3, 2, 1, ceil=True),
        Window(2, 4, 1),
    ],
)
def test_inputs_are_what_the_outputs_read_and_the_rest_is_padding(window):
    size = 17
    count = window.outputs(size)
    for start in range(count):
        for stop in range(start + 1, count + 1):
            read = {
                output * window.stride - window.padding + offset
                for output in range(start, stop)
                for offset in range(window.kernel)
            }
            inside, (before, after) = window.inputs(range(start, stop), size)
            assert read & set(range(size)) <= set(inside)
            assert inside.start == max(min(read), 0)
            assert inside.stop == min(max(read) + 1, size)
            assert before == sum(index < 0 for index in range(min(read), max(read) + 1))
            assert after == sum(index >= size for index in range(min(read), max(read) + 1))


# Convolution and dense.


def loop_convolution(x, kernel, bias, stride, padding, groups):
    kernel, bias = np.asarray(kernel), np.asarray(bias)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0)))
    k_row, k_col, width, channels = kernel.shape
    rows = (padded.shape[1] - k_row) // stride + 1
    cols = (padded.shape[2] - k_col) // stride + 1
    response = np.zeros((len(x), rows, cols, channels))
    for row in range(rows):
        for col in range(cols):
            for channel in range(channels):
                group = channel // (channels // groups)
                patch = padded[
                    :,
                    row * stride : row * stride + k_row,
                    col * stride : col * stride + k_col,
                    group * width : (group + 1) * width,
                ]
                products = patch * kernel[None, :, :, :, channel]
                response[:, row, col, channel] = products.sum((1, 2, 3)) + bias[channel]
    return response


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((2, 0), (0, 1)), NO_PADDING])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_the_written_out_one(groups, padding, stride):
    layer = Conv("conv", 8, kernel=3, stride=stride, groups=groups)
    x = normal(0, 2, 7, 6, 4)
    weights = {name: normal(1, *size) for name, size in layer.weight_shapes(x.shape[1:]).items()}
    assert weights["kernel"].shape == (3, 3, 4 // groups, 8)
    expected = loop_convolution(x, weights["kernel"], weights["bias"], stride, padding, groups)
    assert_float_equal(layer.apply(weights, x, padding, None), expected)


def test_dense_reads_a_map_by_row_then_column_then_channel():
    layer = Dense("fc", 5)
    x = normal(0, 2, 3, 4, 2)
    weights = {name: normal(1, *size) for name, size in layer.weight_shapes((3, 4, 2)).items()}
    kernel, bias, image = np.asarray(weights["kernel"]), np.asarray(weights["bias"]), np.asarray(x)
    expected = np.zeros((2, 5)) + bias
    index = 0
    for row in range(3):
        for col in range(4):
            for channel in range(2):
                expected += image[:, row, col, channel, None] * kernel[index]
                index += 1
    assert_float_equal(layer.apply(weights, x, NO_PADDING, None), expected)


# Pooling.


def loop_max_pool(x, layer: MaxPool):
    x = np.asarray(x)
    rows, cols = map_size(layer.windows, x.shape[1:])
    response = np.zeros((len(x), rows, cols, x.shape[-1]))
    for row in range(rows):
        for col in range(cols):
            top, left = row * layer.stride - layer.padding, col * layer.stride - layer.padding
            window = x[:, max(top, 0) : top + layer.kernel, max(left, 0) : left + layer.kernel, :]
            response[:, row, col] = window.max((1, 2))
    return response


POOLS = [
    (MaxPool("pool", 2, 2), (6, 8)),
    (MaxPool("pool", 2, 2), (7, 9)),  # the last row and column are not read
    (MaxPool("pool", 3, 2), (7, 9)),
    (MaxPool("pool", 3, 2, ceil=True), (8, 7)),  # windows hang over the last row
    (MaxPool("pool", 3, 2, padding=1), (7, 6)),
    (MaxPool("pool", 3, 2, padding=1, ceil=True), (6, 8)),
    (MaxPool("pool", 2, 2, padding=1, ceil=True), (5, 4)),  # Caffe drops a last window here
    (MaxPool("pool", 3, 1), (5, 5)),
    (MaxPool("pool", 3, 3, ceil=True), (7, 8)),
]


@pytest.mark.parametrize(("layer", "size"), POOLS)
def test_max_pool_is_the_written_out_one(layer, size):
    x = normal(0, 2, *size, 3) - 10  # all negative: a zero from padding would win
    response = layer.apply({}, x, whole_padding(layer.windows[0], size), None)
    np.testing.assert_array_equal(response, loop_max_pool(x, layer))


def test_caffe_drops_a_last_window_that_starts_in_the_padding():
    assert MaxPool("pool", 2, 2, padding=1, ceil=True).response_shape((5, 4, 1)) == (3, 3, 1)
    assert MaxPool("pool", 2, 2, padding=0, ceil=True).response_shape((5, 4, 1)) == (3, 2, 1)
    # Without the rule: ceil((5 + 2 - 2) / 2) + 1 = 4 rows.


@pytest.mark.parametrize(("layer", "size"), POOLS)
def test_max_pools_gradient_is_the_finite_difference(layer, size):
    # A permutation has no ties, and differences of 1 between any two values: a central
    # difference with 0.25 crosses none, and the pool is linear in between.
    count = size[0] * size[1]
    x = np.random.default_rng(0).permutation(count).reshape(1, *size, 1)
    x = jnp.asarray(x, jnp.float32)
    padding = whole_padding(layer.windows[0], size)
    places = layer.apply({}, x, padding, None).shape
    weight = normal(1, *places)

    def total(x):
        return jnp.sum(weight * layer.apply({}, x, padding, None))

    gradient = jax.jit(jax.grad(total))(x)
    steps = 0.25 * jnp.eye(count).reshape(count, *x.shape)
    difference = jax.jit(jax.vmap(lambda step: total(x + step) - total(x - step)))(steps) / 0.5
    # Totals of a few hundred, rounded to 2^-16, divided by 0.5.
    np.testing.assert_allclose(gradient.ravel(), difference, atol=1e-3)


# The rest.


def test_relu_cuts_at_zero():
    x = jnp.asarray([[-2.0, -0.0, 0.5, 3.0]])
    np.testing.assert_array_equal(ReLU("relu").apply({}, x, NO_PADDING, None), [[0, 0, 0.5, 3]])


@pytest.mark.parametrize("layer", [LRN("norm"), LRN("norm", size=3, alpha=2.0, beta=0.6, k=2.0)])
def test_local_response_normalization_is_caffes(layer):
    x = 20 * normal(0, 2, 3, 2, 7)
    image, expected = np.asarray(x, np.float64), np.zeros(x.shape)
    for channel in range(7):
        near = range(max(0, channel - layer.size // 2), min(7, channel + layer.size // 2 + 1))
        squares = sum(image[..., other] ** 2 for other in near)
        scale = layer.k + layer.alpha / layer.size * squares
        expected[..., channel] = image[..., channel] / scale**layer.beta
    assert_float_equal(layer.apply({}, x, NO_PADDING, None), expected)


def test_local_response_normalization_has_a_gradient_at_zero():
    gradient = jax.grad(lambda x: jnp.sum(LRN("norm").apply({}, x, NO_PADDING, None)))
    np.testing.assert_array_equal(gradient(jnp.zeros((1, 2, 2, 6))), np.ones((1, 2, 2, 6)))


def test_dropout_zeroes_what_is_not_kept_scales_the_rest_and_is_off_without_a_mask():
    x, layer = jnp.asarray([[1.0, 2.0, -3.0, 4.0]]), Dropout("drop", 0.2)
    keep = jnp.asarray([[True, False, True, False]])
    assert_float_equal(layer.apply({}, x, NO_PADDING, keep), np.asarray([[1.25, 0.0, -3.75, 0.0]]))
    np.testing.assert_array_equal(layer.apply({}, x, NO_PADDING, None), x)
