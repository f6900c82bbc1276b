"""Keras' activations in ONNX's operators."""

from ppl_cnn.models.formats.onnx_file import Attribute

_SIXTH: dict[str, Attribute] = {"alpha": 1 / 6, "beta": 0.5}

ACTIVATIONS: dict[str, tuple[str, tuple[float, ...], dict[str, Attribute]]] = {
    **{"relu": ("Relu", (), {}), "relu6": ("Clip", (0, 6), {})},
    **{"sigmoid": ("Sigmoid", (), {}), "tanh": ("Tanh", (), {}), "softsign": ("Softsign", (), {})},
    **{"softmax": ("Softmax", (), {}), "log_softmax": ("LogSoftmax", (), {})},
    **{"elu": ("Elu", (), {}), "selu": ("Selu", (), {}), "celu": ("Celu", (), {})},
    **{"silu": ("Swish", (), {}), "swish": ("Swish", (), {}), "mish": ("Mish", (), {})},
    **{"gelu": ("Gelu", (), {}), "softplus": ("Softplus", (), {})},
    **{"exponential": ("Exp", (), {}), "leaky_relu": ("LeakyRelu", (), {"alpha": 0.2})},
    **{"hard_sigmoid": ("HardSigmoid", (), _SIXTH)},
    **{"hard_silu": ("HardSwish", (), {}), "hard_swish": ("HardSwish", (), {})},
}
"""The name of an activation -> ONNX's operator, its constants beside the value, its attributes."""
