"""From an ONNX graph to a declared network and its weights, node by node.

Values that depend on no image are computed at once. A node becomes the layer that a rule makes of
it (`rules.py`), or else an `Operation`. Everything else (shapes, slabs, receptive fields,
multiplications, narrowing to channels) follows from the declaration, as for any network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_cnn.errors import one_line
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.onnx_file import Node, OnnxModel
from ppl_cnn.models.networks.declaration import IMAGE
from ppl_cnn.models.networks.layers import Layer
from ppl_cnn.models.networks.window import Shape
from ppl_cnn.models.onnx.call import LARGEST, Call, UnsupportedError
from ppl_cnn.models.onnx.forms import Form
from ppl_cnn.models.onnx.names import Names
from ppl_cnn.models.onnx.operation import Fixed, Operation, Read, Weight
from ppl_cnn.models.onnx.operators.registry import ELEMENTWISE, OPERATORS
from ppl_cnn.models.onnx.rules import RULES
from ppl_cnn.models.onnx.site import Signal, Site, Value

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_ODD = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
"""What a damaged or odd file makes of NumPy's and JAX's own checks."""


class Lowering:
    """The layers that have been made of a graph's nodes so far."""

    def __init__(self, model: OnnxModel, names: Names, image: Form) -> None:
        self.model = model
        self.names = names
        self.layers: list[Layer] = []
        self.params: dict[str, dict[str, Any]] = {}
        self.values: dict[str, Value] = dict(model.constants)
        self.values[model.inputs[0].name] = Signal(IMAGE, image)
        self.broken: dict[str, str] = {}
        """The name of a value that can't be computed -> why, as a sentence."""
        self.layer_of: dict[int, str] = {}
        """The index of a node -> its layer, for the nodes that have one."""
        self._stored: dict[str, Shape] = {IMAGE: image.stored}
        self._makers = {name: node for node in model.nodes for name in node.outputs if name}

    def maker(self, name: str) -> Node | None:
        """The node that makes a value."""
        return self._makers.get(name)

    def value(self, name: str) -> Value:
        """A value that has been made; None if there is none."""
        return self.values.get(name)

    def add(self, layer: Layer, form: Form, weights: Mapping[str, np.ndarray]) -> Signal:
        """Adds a layer, with its weights as float32.

        Raises:
            UnsupportedError: what it reads makes no response of that form, or an empty one; or a
                weight is NaN or, but for masks of other operations, infinite.
        """
        joined = layer.joined_shape([self._stored[name] for name in layer.after])
        if joined is None or layer.response_shape(joined) != form.stored or 0 in form.stored:
            raise UnsupportedError("of responses that are empty or don't fit each other")
        found = {key: np.asarray(array, np.float32) for key, array in weights.items()}
        may_mask = isinstance(layer, Operation)
        for array in found.values():
            if np.isnan(array).any() or not (may_mask or np.isfinite(array).all()):
                raise UnsupportedError("with weights that are NaN or infinite")
        self.layers.append(layer)
        self._stored[layer.name] = form.stored
        if found:
            self.params[layer.name] = {key: jnp.asarray(array) for key, array in found.items()}
        return Signal(layer.name, form)

    def take(self, index: int, node: Node, *, as_is: bool = False) -> None:
        """Computes a node, or makes its layer; one that can't be computed breaks its results.

        Args:
            index: the node's index in the graph.
            node: the node.
            as_is: whether it is left out, so that its result is what it reads.
        """
        broken = [self.broken[name] for name in node.inputs if name in self.broken]
        if broken:
            self.broken |= dict.fromkeys(node.outputs, broken[0])
            return
        try:
            with np.errstate(all="ignore"):
                found = self._result(index, node, as_is=as_is)
        except UnsupportedError as error:
            self.broken |= dict.fromkeys(node.outputs, self._sentence(node, str(error)))
        except _ODD as error:
            reason = one_line(error).partition(". ")[0]
            self.broken |= dict.fromkeys(node.outputs, self._sentence(node, reason))
        else:
            results = found if isinstance(found, tuple) else (found,)
            self.values |= dict(zip(node.outputs, results, strict=False))

    def _result(self, index: int, node: Node, *, as_is: bool) -> Value | tuple[Value, ...]:
        missing = [name for name in node.inputs if name and name not in self.values]
        if missing:
            raise UnsupportedError(f"it reads {shown(missing[0])}, which nothing makes")
        read = tuple(self.values[name] if name else None for name in node.inputs)
        if as_is:
            return read[0]
        call = _call(node, self.model.opset)
        if node.domain or (node.operator not in OPERATORS and node.operator not in RULES):
            raise UnsupportedError("")
        site = Site(node, call, read, self.names.of[index], self)
        if not site.signals:
            return _computed(call, node, read)
        fits = node.operator in RULES and (node.operator in ELEMENTWISE or _leads(site))
        made = RULES[node.operator](site) if fits else None
        if made is None:
            made = self._operation(site)
        before = {signal.layer for signal in site.signals}
        first = made[0] if isinstance(made, tuple) else made
        if isinstance(first, Signal) and first.layer not in before:
            self.layer_of[index] = first.layer
        return made

    def _operation(self, site: Site) -> Value | tuple[Value, ...]:
        """The layer, or for several results layers, of a node without a rule."""
        if site.node.operator not in OPERATORS:
            raise UnsupportedError("in this use")
        if site.node.operator in ("Shape", "Size"):
            zeros = np.broadcast_to(np.float32(0), site.first.shape)
            return _computed(site.call, site.node, (zeros,))
        after: list[str] = []
        operands: list[Read | Weight | Fixed | None] = []
        weights: dict[str, np.ndarray] = {}
        for place, value in enumerate(site.read):
            if isinstance(value, Signal):
                operands.append(Read(len(after), value.form))
                after.append(value.layer)
            elif value is not None and _is_weight(site.node, value):
                operands.append(Weight(f"w{place}", value.shape))
                weights[f"w{place}"] = value
            else:
                operands.append(None if value is None else Fixed.of(value))
        attributes = tuple(
            (name, Fixed.of(value) if isinstance(value, np.ndarray) else value)
            for name, value in sorted(site.call.attributes.items())
        )
        layer = Operation(
            site.name,
            site.node.operator,
            attributes,
            self.model.opset,
            tuple(operands),
            after=tuple(after),
        )
        shapes = _shapes(layer, site.signals, weights)
        if isinstance(shapes, jax.ShapeDtypeStruct):
            return self._made(layer, None, shapes, weights)
        parts = [self._made(layer, output, shape, weights) for output, shape in enumerate(shapes)]
        return tuple(parts)

    def _made(
        self,
        layer: Operation,
        output: int | None,
        result: jax.ShapeDtypeStruct,
        weights: Mapping[str, np.ndarray],
    ) -> Signal:
        name = f"{layer.name}.{output}" if output else layer.name
        form = Form.of(tuple(result.shape))
        fields = {**layer.__dict__, "name": name, "form": form, "output": output}
        return self.add(Operation(**fields), form, weights)

    def _sentence(self, node: Node, reason: str) -> str:
        operator = f"{node.domain}.{node.operator}" if node.domain else node.operator
        quantized = operator in _QUANTIZED or operator.endswith("Integer") or "QLinear" in operator
        why = (
            "computes with integers; export the network before it is quantised"
            if quantized
            else (f"isn't supported ({reason})" if reason else "isn't supported")
        )
        name = shown(node.name or (node.outputs[0] if node.outputs else ""))
        return (
            f"The operator {shown(operator)} (opset {self.model.opset}, node {name}) {why}, so "
            f"neither layers behind it nor classes can be used."
        )


def _leads(site: Site) -> bool:
    """Whether the first input depends on the image, as most rules expect."""
    return isinstance(site.read[0], Signal)


def _call(node: Node, opset: int) -> Call:
    if node.operator != "Split":
        return Call(node.attributes, opset)
    # Before version 18 the results alone tell how many equal parts there are.
    return Call({"num_outputs": len(node.outputs), **node.attributes}, opset)


def _is_weight(node: Node, value: np.ndarray) -> bool:
    """Whether a constant is a weight, an argument of compiled programs, and no size or number."""
    is_many = value.dtype.kind == "f" and value.size > 1
    return is_many and node.operator not in ("Resize", "Upsample")


def _computed(call: Call, node: Node, read: Sequence[Value]) -> np.ndarray | tuple[np.ndarray, ...]:
    """The constant results of a node that reads constants alone."""
    if node.operator not in OPERATORS:
        raise UnsupportedError("of constants")
    result = OPERATORS[node.operator](call, *read)
    results = result if isinstance(result, tuple) else (result,)
    if any(np.size(each) > LARGEST for each in results):
        raise UnsupportedError("too large a constant")
    arrays = tuple(np.asarray(each) for each in results)
    return arrays if isinstance(result, tuple) else arrays[0]


def _shapes(layer: Operation, read: Sequence[Signal], weights: Mapping[str, np.ndarray]) -> Any:
    """The shape of an operation's result, or of each of its results."""
    stored = [jax.ShapeDtypeStruct(signal.form.stored, jnp.float32) for signal in read]
    own = {name: jax.ShapeDtypeStruct(array.shape, jnp.float32) for name, array in weights.items()}
    return jax.eval_shape(layer.result, own, stored)
