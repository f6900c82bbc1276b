from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from ppl_cnn.models.networks.convolution import conv_general_dilated, convolve

# Rows and columns, kernel's rows and columns, stride, padding. Columns differ from rows in size.
CASES = [
    ((9, 7), (1, 1), 1, ((0, 0), (0, 0))),
    ((9, 8), (1, 1), 2, ((0, 0), (0, 0))),  # the last column is not read
    ((9, 7), (3, 3), 1, ((1, 1), (1, 1))),
    ((9, 7), (3, 3), 1, ((2, 0), (0, 1))),
    ((7, 7), (3, 3), 1, ((0, 0), (0, 0))),  # fewer outputs than inputs, as in slabs
    ((7, 6), (3, 3), 1, ((1, 0), (0, 0))),  # the same at a border
    ((3, 3), (3, 3), 1, ((0, 0), (0, 0))),
    ((10, 8), (3, 3), 2, ((0, 0), (0, 0))),  # the last row and column are not read
    ((10, 7), (3, 3), 2, ((1, 0), (0, 2))),
    ((11, 8), (3, 3), 4, ((0, 0), (1, 0))),  # stride over kernel: rows in between are not read
    ((9, 11), (5, 5), 1, ((2, 2), (2, 2))),
    ((9, 11), (5, 5), 1, ((4, 0), (1, 3))),
    ((12, 11), (5, 5), 2, ((0, 3), (2, 1))),
    ((15, 14), (5, 5), 4, ((0, 0), (2, 2))),
    ((23, 19), (11, 11), 1, ((0, 0), (3, 0))),
    ((24, 21), (11, 11), 2, ((0, 5), (5, 0))),
    ((26, 23), (11, 11), 4, ((0, 0), (0, 2))),  # AlexNet's conv1; rows 23 to 25 are not read
    ((11, 11), (11, 11), 4, ((0, 0), (0, 0))),  # one position
    ((3, 3), (5, 5), 1, ((1, 1), (2, 1))),  # the kernel is larger than the map
    ((6, 5), (1, 1), 1, ((1, 2), (0, 1))),  # padding over kernel - 1: its positions see no input
    ((8, 9), (1, 3), 1, ((0, 0), (2, 0))),  # not square
]


def library_convolve(x, kernel, *, stride, padding):
    """The convolution whose gradients autodiff writes."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def assert_float_equal(actual, expected):
    # The two differ in the order of at most 11*11*3 additions: a few 1e-6 of the largest value.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


@partial(jax.jit, static_argnums=0)
def value_and_gradients(function, x, kernel, g):
    value, vjp = jax.vjp(function, x, kernel)
    return value, *vjp(g)


def assert_same_value_and_gradients(ours, theirs, x, kernel):
    g = normal(2, *jax.eval_shape(theirs, x, kernel).shape)
    found = (value_and_gradients(function, x, kernel, g) for function in (ours, theirs))
    for actual, expected in zip(*found, strict=True):
        assert actual.shape == expected.shape
        assert_float_equal(actual, expected)


@pytest.mark.parametrize(("size", "window", "stride", "padding"), CASES)
def test_value_and_both_gradients_are_those_of_the_library(size, window, stride, padding):
    x, kernel = normal(0, 2, *size, 3), normal(1, *window, 3, 4)
    both = (partial(each, stride=stride, padding=padding) for each in (convolve, library_convolve))
    assert_same_value_and_gradients(*both, x, kernel)


def library_depthwise(x, kernel, *, stride, padding, dilation):
    return lax.conv_general_dilated(
        *(x, kernel, stride, padding),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
    )


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "dilation"),
    [
        ((7, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
        ((9, 8), (3, 5), (2, 1), ((0, 2), (2, 1)), (1, 1)),
        ((9, 8), (3, 2), (1, 3), ((2, 0), (0, 0)), (2, 3)),
        ((5, 5), (5, 5), (1, 1), ((0, 0), (0, 0)), (1, 1)),  # one position
        ((8, 8), (1, 1), (3, 3), ((0, 0), (0, 0)), (1, 1)),  # rows in between are not read
    ],
)
def test_depthwise_value_and_gradients_are_those_of_the_library(
    times, size, window, stride, padding, dilation
):
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    x, kernel = normal(0, 2, *size, 4), normal(1, *window, 1, 4 * times)
    ours, theirs = partial(convolve, groups=4, **settings), partial(library_depthwise, **settings)
    assert_same_value_and_gradients(ours, theirs, x, kernel)


def energy(function, x, kernel):
    """A scalar whose gradient changes with x."""
    return jnp.sum(jnp.sin(function(x[None], kernel, stride=2, padding=((1, 0), (2, 1)))))


def test_gradient_under_vmap_is_that_of_the_library():
    x, kernel = normal(3, 5, 9, 8, 2), normal(4, 3, 3, 2, 3)
    ours, theirs = (
        jax.jit(jax.vmap(jax.grad(partial(energy, function)), (0, None)))(x, kernel)
        for function in (convolve, library_convolve)
    )
    assert_float_equal(ours, theirs)


def test_gradient_under_vmap_of_kernels_is_that_of_the_library():
    x, kernels = normal(5, 9, 8, 2), normal(6, 4, 3, 3, 2, 3)
    ours, theirs = (
        jax.jit(jax.vmap(jax.grad(partial(energy, function), argnums=(0, 1)), (None, 0)))(
            x, kernels
        )
        for function in (convolve, library_convolve)
    )
    for actual, expected in zip(ours, theirs, strict=True):
        assert_float_equal(actual, expected)


def test_gradient_inside_a_loop_is_that_of_the_library():
    x, kernel = normal(7, 9, 8, 2), normal(8, 3, 3, 2, 3)

    def descend(function):
        gradient = jax.grad(partial(energy, function))
        return lax.fori_loop(0, 5, lambda _, x: x - 0.01 * gradient(x, kernel), x)

    assert_float_equal(jax.jit(descend, static_argnums=0)(convolve), descend(library_convolve))


# What an nnx.Conv is given: features in and out, and more. Its input has 9 x 8 places.
LAYERS = [
    (3, 4, {}),
    (3, 4, {"strides": 2, "padding": "VALID"}),
    (3, 4, {"strides": (1, 3), "padding": ((0, 2), (1, 0))}),
    (3, 4, {"kernel_dilation": (2, 1)}),
    (3, 4, {"kernel_dilation": 2, "strides": 2, "padding": 3}),
    (6, 4, {"feature_group_count": 2}),
    (6, 9, {"feature_group_count": 3, "strides": 2, "kernel_dilation": (1, 2)}),
    (4, 8, {"feature_group_count": 4}),  # depthwise
    (3, 4, {"padding": "CIRCULAR"}),
    (3, 4, {"input_dilation": 2, "padding": 1}),  # these two are left to the library
    (3, 4, {"precision": "highest"}),
]


@pytest.mark.parametrize(("inputs", "outputs", "options"), LAYERS)
def test_an_nnx_convolution_is_what_it_was(inputs, outputs, options):
    ours, theirs = (
        nnx.Conv(inputs, outputs, (3, 2), **options, **own, rngs=nnx.Rngs(0))
        for own in ({"conv_general_dilated": conv_general_dilated}, {})
    )
    x = normal(9, 2, 9, 8, inputs)

    def value_and_gradient(layer):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(layer(x)))))(x)

    for actual, expected in zip(value_and_gradient(ours), value_and_gradient(theirs), strict=True):
        assert_float_equal(actual, expected)


def test_an_nnx_convolution_of_signals_is_left_to_the_library():
    layer = nnx.Conv(3, 4, (3,), conv_general_dilated=conv_general_dilated, rngs=nnx.Rngs(0))
    theirs = nnx.Conv(3, 4, (3,), rngs=nnx.Rngs(0))
    assert_float_equal(layer(normal(10, 2, 9, 3)), theirs(normal(10, 2, 9, 3)))


# Forward mode, and derivatives of any order.


@pytest.mark.parametrize(("size", "window", "stride", "padding"), CASES[2:8:2] + CASES[12:13])
def test_tangents_are_those_of_the_library(size, window, stride, padding):
    """In both arguments, of the value and of both gradients."""
    x, kernel = normal(11, 2, *size, 3), normal(12, *window, 3, 4)
    moved = normal(13, *x.shape), normal(14, *kernel.shape)

    def value_and_slope(function, x, kernel):
        def height(x, kernel):
            return jnp.sum(jnp.sin(function(x, kernel, stride=stride, padding=padding)))

        return function(x, kernel, stride=stride, padding=padding), jax.grad(height, (0, 1))(
            x, kernel
        )

    @partial(jax.jit, static_argnums=0)
    def tangents(function, *moved):
        return jax.jvp(partial(value_and_slope, function), (x, kernel), moved)

    ours, theirs = (tangents(function, *moved) for function in (convolve, library_convolve))
    jax.tree.map(assert_float_equal, ours, theirs)


MIXED = ((jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacfwd))
EVERY = (*MIXED, (jax.jacrev, jax.jacrev), (jax.jacfwd, jax.jacfwd))


@pytest.mark.parametrize(
    ("groups", "modes"),
    [(1, MIXED), *(pytest.param(groups, EVERY, marks=pytest.mark.long) for groups in (1, 2))],
    ids=["mixed", "1", "2"],
)
def test_hessians_under_vmap_are_those_of_the_library(groups, modes):
    """Both orders of the two modes are tried; `vmap` maps over the kernels, then the images."""
    images, kernels = normal(15, 2, 5, 4, 2), normal(16, 3, 3, 3, 2 // groups, 2)
    settings = {"stride": 2, "padding": ((1, 0), (2, 1)), "groups": groups}

    def library(x, kernel, *, stride, padding, groups):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def curvatures(function, first, second):
        def height(x, kernel):
            return jnp.sum(jnp.sin(function(x[None], kernel, **settings)))

        hessian = first(second(height, (0, 1)), (0, 1))
        return jax.jit(jax.vmap(jax.vmap(hessian, (None, 0)), (0, None)))(images, kernels)

    expected = curvatures(library, jax.jacfwd, jax.jacrev)
    for first, second in modes:
        jax.tree.map(assert_float_equal, curvatures(convolve, first, second), expected)


def test_a_mapped_function_has_the_kernels_gradient_summed_over_the_map():
    """The gradient of a sum over mapped images, where the kernel is one for all."""
    images, kernel = normal(17, 4, 9, 8, 2), normal(18, 3, 3, 2, 3)

    def total(function, images, kernel):
        return jnp.sum(jax.vmap(partial(energy, function), (0, None))(images, kernel))

    ours, theirs = (
        jax.jit(jax.grad(partial(total, function), (0, 1)))(images, kernel)
        for function in (convolve, library_convolve)
    )
    jax.tree.map(assert_float_equal, ours, theirs)
