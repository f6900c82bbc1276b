"""The operators of ONNX that are computed on whole responses, and on constants.

Those that `lowering.py` makes layers of their own (convolutions, pools and the like) aren't here;
values at one place are `ELEMENTWISE`.
"""

from typing import Any

from ppl_cnn.models.networks.elementwise import FUNCTIONS
from ppl_cnn.models.onnx.call import Call, Operator, aligned
from ppl_cnn.models.onnx.operators.arithmetic import ARITHMETIC
from ppl_cnn.models.onnx.operators.arrays import ARRAYS
from ppl_cnn.models.onnx.operators.convolutions import CONVOLUTIONS

ELEMENTWISE: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    **{"Relu": ("relu", ()), "Sigmoid": ("sigmoid", ()), "Tanh": ("tanh", ())},
    **{"Softplus": ("softplus", ()), "Softsign": ("softsign", ()), "Mish": ("mish", ())},
    "LeakyRelu": ("leaky_relu", (("alpha", 0.01),)),
    "ThresholdedRelu": ("thresholded_relu", (("alpha", 1.0),)),
    "PRelu": ("prelu", ()),
    "Elu": ("elu", (("alpha", 1.0),)),
    "Celu": ("celu", (("alpha", 1.0),)),
    "Selu": ("selu", (("alpha", 1.6732632423543772), ("gamma", 1.0507009873554805))),
    "HardSigmoid": ("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
    "HardSwish": ("hard_swish", ()),
    "Swish": ("silu", ()),
    "Gelu": ("gelu", ()),
    **{"Add": ("add", ()), "Sub": ("subtract", ()), "Mul": ("multiply", ())},
    **{"Div": ("divide", ()), "Pow": ("power", ()), "Sum": ("total", ()), "Mean": ("mean", ())},
    **{"Max": ("maximum", ()), "Min": ("minimum", ())},
    **{"Neg": ("negative", ()), "Reciprocal": ("reciprocal", ()), "Abs": ("abs", ())},
    **{"Sign": ("sign", ()), "Floor": ("floor", ()), "Ceil": ("ceil", ()), "Round": ("round", ())},
    **{"Exp": ("exp", ()), "Log": ("log", ()), "Sqrt": ("sqrt", ()), "Erf": ("erf", ())},
    **{"Sin": ("sin", ()), "Cos": ("cos", ())},
}
"""Operator -> the function of `networks.elementwise`, and its attributes with their defaults."""


def _elementwise(name: str) -> Operator:
    function, attributes = ELEMENTWISE[name]

    def compute(call: Call, *values: Any) -> Any:
        parameters = [call.number(*attribute) for attribute in attributes]
        return FUNCTIONS[function](*aligned(*values), *parameters)

    return compute


OPERATORS: dict[str, Operator] = {
    **{name: _elementwise(name) for name in ELEMENTWISE},
    **ARITHMETIC,
    **ARRAYS,
    **CONVOLUTIONS,
}
"""Operator -> function of a `Call` and of arrays with ONNX's axes."""
