"""A Flax NNX module as a pure function of its weights and its input, with its layers' responses."""

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jaxtyping import Array

from ppl_cnn.errors import ArgumentError, one_line
from ppl_cnn.models.networks.convolution import hasten
from ppl_cnn.models.networks.receptive_field import Images, Weights
from ppl_cnn.models.networks.window import Shape
from ppl_cnn.models.trained.modules.inference_mode import inference_arguments
from ppl_cnn.numeric import single

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
    arguments: Mapping[str, bool]
    """Keyword arguments of its call, such as `train=False`."""

    @classmethod
    def of(cls, module: nnx.Module) -> "tuple[CapturedModule, Weights]":
        """Copies a module, which stays as it is; the second value is the copy's weights by name."""
        module = nnx.clone(module)
        module.eval()
        for _, part in nnx.iter_modules(module):
            _prepare(part)
        state = jax.tree.map(single, nnx.state(module, nnx.Not(nnx.RngState)))
        weights, tree = named_leaves(state)
        keys = nnx.state(module, nnx.RngState)
        arguments = inference_arguments(unbridged(module))
        return cls(nnx.graphdef(module), tree, tuple(weights), keys, arguments), weights

    def module(self, weights: Weights) -> nnx.Module:
        """The module with these weights, and a copy of the keys, which a call may use up."""
        state = jax.tree.unflatten(self.tree, [weights[name] for name in self.names])
        module: nnx.Module = nnx.merge(self.graph, state, self.keys, copy=True)
        return module

    def __call__(self, weights: Weights, x: Images) -> Responses:
        """The responses of the module and of all its parts.

        Args:
            weights: name -> array, as from `of`.
            x: images as the module sees them, after the preprocessing.
        """
        call: Callable[..., tuple[Any, Any]] = nnx.capture(
            self.module(weights), nnx.Intermediate, method_outputs=nnx.Intermediate
        )
        output, captured = call(x, **self.arguments)
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
    alone, x = (jax.ShapeDtypeStruct((count, *image_shape), jnp.float32) for count in (1, n))
    try:
        traced = jax.make_jaxpr(respond, return_shape=True)(weights, x)
        outputs = [jax.eval_shape(respond, weights, alone).get(OUTPUT), traced[1].get(OUTPUT)]
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
    returned = [None if each is None else each.shape for each in outputs]
    if len(output) != 1 or returned != [(1, *output), (n, *output)]:
        said = " and ".join("no array" if shape is None else str(shape) for shape in returned)
        raise ArgumentError(
            f"{name} must return an array of scores of shape (n, class), but it returns {said} for "
            f"1 and {n} images.",
            argument="module",
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
    if isinstance(part, nnx.bridge.ToNNX):
        object.__setattr__(part, "__class__", _with_own_call(type(part), _call_linen))
    elif callable(part) and "__call__" not in vars(type(part)):
        kind = type(part)
        object.__setattr__(part, "__class__", _with_own_call(kind, kind.__call__))


@cache
def _with_own_call(kind: type[nnx.Module], call: Callable[..., Any]) -> type[nnx.Module]:
    """A subclass that defines its call itself, as `nnx.capture` doesn't see inherited methods."""
    return types.new_class(kind.__name__, (kind,), {}, lambda own: own.update(__call__=call))


def unbridged(module: nnx.Module) -> Any:
    """The Linen module that an `nnx.bridge.ToNNX` wraps; any other module itself."""
    return module.to_nnx__module if isinstance(module, nnx.bridge.ToNNX) else module


def _call_linen(
    bridge: nnx.bridge.ToNNX, *args: Any, rngs: Any = None, mutable: Any = None, **kwargs: Any
) -> Any:
    """`ToNNX.__call__` in inference: without random keys and updates, with Linen's submodules seen.

    Their responses become intermediates of the bridge.
    """
    names = nnx.state(bridge, nnx.Not(nnx.Any(nnx.RngState, nnx.Intermediate))).keys()
    state = {name: vars(bridge)[name] for name in names}
    with linen.intercept_methods(_hasten_linen):
        output, collections = unbridged(bridge).apply(
            nnx.bridge.variables.nnx_attrs_to_linen_vars(state),
            *args,
            capture_intermediates=True,
            mutable=["intermediates"],
            **kwargs,
        )
    for path, values in _leaves(collections["intermediates"]):
        for value in values:
            if path != ("__call__",):
                bridge.sow(nnx.Intermediate, ".".join(path).removesuffix(".__call__"), value)
    return output


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _hasten_linen(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    """Calls a Linen module's method, of a convolution with the fast gradient."""
    hasten(context.module)
    return call(*args, **kwargs)
