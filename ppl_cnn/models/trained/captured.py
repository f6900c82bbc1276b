"""A Flax NNX module as a pure function of its weights and its input, with its layers' responses."""

import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from ppl_cnn.errors import ArgumentError, one_line
from ppl_cnn.models.networks.convolution import hasten
from ppl_cnn.models.networks.receptive_field import Images, Weights
from ppl_cnn.models.networks.window import Shape

OUTPUT = "output"
"""The layer name of the module's own output, which has the classes."""

type Responses = dict[str, Array]
"""Layer name -> response to a batch."""


@dataclass(frozen=True, eq=False)
class CapturedModule:
    """A copy of a module in inference mode, without its weights."""

    graph: Any
    """The module's structure (`nnx.graphdef`)."""
    tree: Any
    """The tree of the module's state, without random keys."""
    names: tuple[str, ...]
    """The names of the tree's leaves, such as "conv1.kernel"."""
    keys: Any
    """The state of the module's random keys."""

    @classmethod
    def of(cls, module: nnx.Module) -> "tuple[CapturedModule, Weights]":
        """Copies a module, which stays as it is; the second value is the copy's weights by name."""
        module = nnx.clone(module)
        module.eval()
        for _, part in nnx.iter_modules(module):
            _prepare(part)
        weights, tree = named_leaves(nnx.state(module, nnx.Not(nnx.RngState)))
        keys = nnx.state(module, nnx.RngState)
        return cls(nnx.graphdef(module), tree, tuple(weights), keys), weights

    def __call__(self, weights: Weights, x: Images) -> Responses:
        """The responses of the module and of all its parts.

        Args:
            weights: name -> array, as from `of`.
            x: images as the module sees them, after the preprocessing.
        """
        state = jax.tree.unflatten(self.tree, [weights[name] for name in self.names])
        module = nnx.merge(self.graph, state, self.keys)
        call: Callable[[Images], tuple[Any, Any]] = nnx.capture(
            module, nnx.Intermediate, method_outputs=nnx.Intermediate
        )
        output, captured = call(x)
        found = {}
        for path, variable in nnx.to_flat_state(captured):
            name = ".".join(str(part) for part in path if part != "__call__")
            values = variable.get_value()
            calls = values if isinstance(values, tuple) else (values,)
            for number, value in enumerate(calls, 1):
                found[name if len(calls) == 1 else f"{name}-{number}"] = value
        # The module's own output takes the name even if a submodule has it.
        found[OUTPUT] = output
        return {name: value for name, value in found.items() if isinstance(value, jax.Array)}


def layer_shapes(
    respond: Callable[[Weights, Images], Responses],
    weights: Weights,
    *,
    image_shape: tuple[int, int, int],
    name: str,
) -> dict[str, Shape]:
    """Layer name -> shape of its response without the batch axis, in the order of calls.

    A layer is a response of floats (n, row, col, channel) or (n, channel). The output is the last.

    Args:
        respond: the responses to a batch of images.
        weights: the weights to pass to it.
        image_shape: (row, col, channel).
        name: the module's name, for error messages.

    Raises:
        ArgumentError: the module can't be called on such images, or returns no scores (n, class).
    """
    n = 2
    x = jax.ShapeDtypeStruct((n, *image_shape), jnp.float32)
    try:
        traced = jax.make_jaxpr(respond, return_shape=True)(weights, x)
    except Exception as error:  # whatever a user's module raises
        raise ArgumentError(
            f"{name} can't be called on images of shape {image_shape} ({one_line(error)}).",
            argument="module",
        ) from error
    program, responses = traced[0].jaxpr, traced[1]
    made = {
        id(variable): index
        for index, equation in enumerate(program.eqns)
        for variable in equation.outvars
    }
    # No equation makes the image itself or a constant.
    order = [made.get(id(variable), -1) for variable in program.outvars]
    calls = dict(zip(sorted(responses), order, strict=True))
    layers = {
        layer: responses[layer].shape[1:]
        for layer in sorted(calls, key=lambda layer: calls[layer])
        if layer and responses[layer].ndim in (2, 4) and responses[layer].shape[0] == n
        if jnp.issubdtype(responses[layer].dtype, jnp.floating)
    }
    output = layers.pop(OUTPUT, ())
    if len(output) != 1:
        raise ArgumentError(
            f"{name} must return an array of scores of shape (n, class).", argument="module"
        )
    return {**layers, OUTPUT: output}


def named_leaves(state: Any) -> tuple[dict[str, Any], Any]:
    """The arrays of a state by their paths, such as "blocks.0.conv.kernel", and its tree."""
    leaves, tree = jax.tree.flatten_with_path(state)
    names = (jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves)
    return {
        name.removesuffix(".value"): leaf for name, (_, leaf) in zip(names, leaves, strict=True)
    }, tree


def _prepare(part: nnx.Module) -> None:
    """Gives a convolution the fast gradient, and an inherited call a method of its own."""
    hasten(part)
    if callable(part) and "__call__" not in vars(type(part)):
        object.__setattr__(part, "__class__", _with_own_call(type(part)))


@cache
def _with_own_call(kind: type[nnx.Module]) -> type[nnx.Module]:
    """A subclass that defines its call itself, as `nnx.capture` doesn't see inherited methods."""
    return types.new_class(
        kind.__name__, (kind,), {}, lambda own: own.update(__call__=kind.__call__)
    )
