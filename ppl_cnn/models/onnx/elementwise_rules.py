"""Operators on the values at one place: sums of branches, gates and nonlinearities."""

import math

import numpy as np

from ppl_cnn.models.formats.onnx_file import Node
from ppl_cnn.models.networks.elementwise import Elementwise
from ppl_cnn.models.networks.layers import ReLU
from ppl_cnn.models.onnx.call import UnsupportedError
from ppl_cnn.models.onnx.forms import Form
from ppl_cnn.models.onnx.operators.registry import ELEMENTWISE
from ppl_cnn.models.onnx.site import Signal, Site, Value


def _elementwise(site: Site) -> Value:
    function, attributes = ELEMENTWISE[site.node.operator]
    parameters = tuple(site.call.number(*attribute) for attribute in attributes)
    if function == "gelu" and site.call.text("approximate", "none") == "tanh":
        function = "gelu_tanh"
    if function == "hard_swish":
        parameters = (1 / 6, 0.5)
    if function == "silu" and site.call.number("alpha", 1.0) != 1:
        raise UnsupportedError("with alpha")
    if len(site.read) == 1:
        return _layer(site, function, parameters)
    if function in ("maximum", "minimum") and len(site.read) != 2:
        return None
    gate = _gated(site) if function == "multiply" else None
    if gate is not None:
        return gate
    exponent = site.constant(1)
    if function == "power" and exponent is not None and exponent.size == 1:
        raised = float(exponent.reshape(()))
        form = site.first
        layer = Elementwise(site.name, "raised", (raised,), after=site.after)
        return site.make(layer, form)
    return _layer(site, function, parameters)


def _layer(site: Site, function: str, parameters: tuple[float, ...]) -> Value:
    """The layer of a function of several signals and constants; None if it isn't elementwise."""
    forms = [signal.form for signal in site.signals]
    form = _broadcast(forms)
    if form is None:
        return None
    arranged = {
        place: form.arranged(value)
        for place, value in enumerate(site.read)
        if isinstance(value, np.ndarray)
    }
    if any(array is None for array in arranged.values()):
        return None
    shapes = [each.stored for each in forms] + [array.shape for array in arranged.values()]
    if np.broadcast_shapes(*shapes) != form.stored:
        return None
    if function == "relu":
        return site.make(ReLU(site.name, after=site.after), form)
    weights = tuple((place, array.shape) for place, array in arranged.items())
    layer = Elementwise(site.name, function, parameters, weights, after=site.after)
    return site.make(layer, form, {f"w{place}": array for place, array in arranged.items()})


def _broadcast(forms: list[Form]) -> Form | None:
    """The form of values that are broadcast to one another; None if their axes differ."""
    if len({(form.layout, len(form.shape), len(form.stored)) for form in forms}) > 1:
        return None
    shape = np.broadcast_shapes(*(form.shape for form in forms))
    return forms[0]._replace(shape=shape)


def _clip(site: Site) -> Value:
    bounds = []
    for place, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        value = site.read[place] if place < len(site.read) else None
        if isinstance(value, Signal):
            return None
        bounds.append(
            site.call.number(name, default) if value is None else float(value.reshape(()))
        )
    return _layer_of(site, "clip", tuple(bounds))


def _layer_of(site: Site, function: str, parameters: tuple[float, ...]) -> Signal:
    """The layer of a function of the first input alone."""
    layer = Elementwise(site.name, function, parameters, after=site.after[:1])
    return site.make(layer, site.first)


def _gated(site: Site) -> Signal | None:
    """A signal times its own sigmoid or error function, which exporters write as several nodes."""
    for own, gate in zip(site.node.inputs, reversed(site.node.inputs), strict=True):
        signal, node = site.made.value(own), site.made.maker(gate)
        if node is None or not isinstance(signal, Signal):
            continue
        found = _gate(site, own, node)
        if found is not None:
            function, parameters = found
            layer = Elementwise(site.name, function, parameters, after=(signal.layer,))
            return site.make(layer, signal.form)
    return _halved(site)


def _gate(site: Site, own: str, node: Node) -> tuple[str, tuple[float, ...]] | None:
    """The nonlinearity that a signal times the result of a node is, and its parameters."""
    if node.inputs[:1] != (own,):
        return None
    if node.operator == "Sigmoid":
        return "silu", ()
    if node.operator == "HardSigmoid":
        call = site.call._replace(attributes=node.attributes)
        return "hard_swish", (call.number("alpha", 0.2), call.number("beta", 0.5))
    return None


def _halved(site: Site) -> Signal | None:
    """GELU as PyTorch's first exporter writes it: x * (1 + erf(x / sqrt(2))) * 0.5."""
    half = _scalar(site.made.value(site.node.inputs[1]))
    product = site.made.maker(site.node.inputs[0])
    if half != 0.5 or product is None or product.operator != "Mul":
        return None
    own, shifted = product.inputs
    ratio = _before(site, shifted, ("Add", "Erf", "Div"))
    signal = site.made.value(own)
    if ratio is None or ratio.inputs[0] != own or not isinstance(signal, Signal):
        return None
    divisor = _scalar(site.made.value(ratio.inputs[1]))
    if divisor is None or abs(divisor - math.sqrt(2)) > 1e-6:
        return None
    return site.make(Elementwise(site.name, "gelu", after=(signal.layer,)), signal.form)


def _before(site: Site, name: str, operators: tuple[str, ...]) -> Node | None:
    """The node behind a value, through nodes of these operators that lead to it; None if others."""
    node = site.made.maker(name)
    for number, operator in enumerate(operators):
        if node is None or node.operator != operator:
            return None
        if number + 1 < len(operators):
            node = site.made.maker(node.inputs[0])
    return node


def _scalar(value: Value) -> float | None:
    return float(value.reshape(())) if isinstance(value, np.ndarray) and value.size == 1 else None


ELEMENTWISE_RULES = {**dict.fromkeys(ELEMENTWISE, _elementwise), "Clip": _clip}
"""Operator -> the rule that makes its layer."""
