"""The graph of a Keras model, in ONNX's operators.

    model = graph_of(keras_model)      # an OnnxModel, as of an ONNX file

Keras keeps images as (n, row, col, channel) and ONNX as (n, channel, row, col): every tensor of
four axes is a value with the axes of the latter.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ppl_cnn.models.formats.onnx_file import Attribute, Input, Node, OnnxModel
from ppl_cnn.models.keras.layers import FUNCTIONS, LAYERS, Site

OPSET = 20
"""The version of ONNX's operators that the rules write."""


class _Graph:
    """The nodes and constants so far."""

    def __init__(self, keras: Any, model: Any) -> None:
        self._keras = keras
        self._names = _names(keras, model)
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(
        self,
        operator: str,
        read: tuple[str | np.ndarray, ...],
        name: str,
        *,
        domain: str = "",
        attributes: dict[str, Attribute],
    ) -> str:
        """Adds a node and the constants that it reads, and returns the name of its result."""
        made, inputs = f"value.{len(self.nodes)}", []
        for place, value in enumerate(read):
            if isinstance(value, str):
                inputs.append(value)
            else:
                inputs.append(f"{made}.{place}")
                self.constants[inputs[-1]] = value
        node = Node(operator, name, tuple(inputs), (made,), attributes, domain, {})
        self.nodes.append(node)
        return made

    def walk(self, model: Any, read: list[str]) -> list[str]:
        """Adds the nodes of a model, or of one inside another.

        Args:
            model: the model.
            read: the names of the values that its inputs are.

        Returns:
            The names of its outputs.
        """
        keras = self._keras
        # Keras calls the model's layers again, in order; of one in a sequence too.
        plain = keras.Model(model.inputs, model.outputs)
        inputs = [keras.Input(batch_shape=each.shape, dtype=each.dtype) for each in plain.inputs]
        value_of = dict(zip(map(id, inputs), read, strict=True))
        kept = list(inputs)  # whose ids stay their own

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            result = layer(*args, **kwargs)
            given = keras.tree.flatten((args, kwargs))
            tensors = [each for each in given if id(each) in value_of]
            values = [
                value_of[id(each)] if id(each) in value_of else np.asarray(each, np.float32)
                for each in given
                if id(each) in value_of or isinstance(each, int | float)
            ]
            outputs = keras.tree.flatten(result)
            found = self._result(layer, values, tensors, outputs)
            value_of.update(zip(map(id, outputs), found, strict=True))
            kept.extend(outputs)
            return result

        cloned = keras.models.clone_model(
            plain,
            input_tensors=keras.tree.pack_sequence_as(plain.input, inputs),
            clone_function=lambda layer: layer,
            call_function=call,
        )
        return [value_of[id(each)] for each in cloned.outputs]

    def _result(
        self, layer: Any, values: list[Any], tensors: list[Any], outputs: list[Any]
    ) -> list[str]:
        keras = self._keras
        if isinstance(layer, keras.Model):
            return self.walk(layer, [value for value in values if isinstance(value, str)])
        rules = LAYERS if isinstance(layer, keras.layers.Layer) else FUNCTIONS
        kind, name = type(layer).__name__, self._names.get(id(layer), layer.name)
        shapes = [tuple(each.shape) for each in (*tensors[:1], *outputs[:1])]
        made = None
        if kind in rules and len(shapes) == 2 and len(outputs) == 1:
            made = rules[kind](Site(layer, name, tuple(values), shapes[0], shapes[1], self.add))
        if made is not None:
            return [made]
        read = tuple(value for value in values if isinstance(value, str))
        end = self.add(kind, read, name, domain="keras", attributes={})
        return [end] * len(outputs)


def graph_of(keras: Any, model: Any) -> OnnxModel:
    """The graph of a Keras model, with its weights.

    A layer's node has its name. A model inside another has its layers in the graph; a name that
    several of them have begins with their models', "first.conv".

    Args:
        keras: the package.
        model: a functional or sequential model.
    """
    graph = _Graph(keras, model)
    names = [f"input.{place}" for place, _ in enumerate(model.inputs)]
    outputs = graph.walk(model, names)
    inputs = [
        Input(name, _sizes(tuple(tensor.shape)))
        for name, tensor in zip(names, model.inputs, strict=True)
    ]
    return OnnxModel(OPSET, tuple(graph.nodes), graph.constants, tuple(inputs), tuple(outputs))


def _sizes(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _names(keras: Any, model: Any) -> dict[int, str]:
    """The id of a layer -> its name, with its models' names where others have the same."""
    paths = dict(_paths(keras, model, ()))
    plain = [path[-1] for path in paths.values()]
    return {
        own: path[-1] if plain.count(path[-1]) == 1 else ".".join(path)
        for own, path in paths.items()
    }


def _paths(
    keras: Any, model: Any, outside: tuple[str, ...]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    for layer in model.layers:
        path = (*outside, layer.name)
        if isinstance(layer, keras.Model):
            yield from _paths(keras, layer, path)
        else:
            yield id(layer), path
