"""Probabilistic programming over trained CNNs.

A unit u of a CNN (a filter at a place, or a class) scores an image x with f_u(x) and thereby
defines the image density p_u(x) ∝ exp(f_u(x)/T) q(x):

    net = ppl_cnn.load("alexnet-fashion")
    density = ppl_cnn.TiltedDensity(net.unit("conv5:12"), ppl_cnn.WhiteNoise(10.0), temperature=1.0)
    draws = ppl_cnn.draw(density, kernel="hmc", chains=8, draws=200, seed=0)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppl_cnn.inference.chains import draw as draw
    from ppl_cnn.models.density import TiltedDensity as TiltedDensity
    from ppl_cnn.models.gaussian import Gaussian as Gaussian
    from ppl_cnn.models.module_network import ModuleNetwork as ModuleNetwork
    from ppl_cnn.models.networks import Preprocessing as Preprocessing
    from ppl_cnn.models.references import Bounded as Bounded
    from ppl_cnn.models.references import Uniform as Uniform
    from ppl_cnn.models.references import WhiteNoise as WhiteNoise
    from ppl_cnn.models.spectral import Band as Band
    from ppl_cnn.models.spectral import Spectral as Spectral
    from ppl_cnn.models.units import Response as Response
    from ppl_cnn.models.views import Averaged as Averaged
    from ppl_cnn.models.weights import load as load

__version__ = "0.1.0"
__all__ = [
    "Averaged",
    "Band",
    "Bounded",
    "Gaussian",
    "InputError",
    "ModuleNetwork",
    "Preprocessing",
    "Response",
    "Spectral",
    "TiltedDensity",
    "Uniform",
    "WhiteNoise",
    "draw",
    "load",
]

_HOMES = {
    "Averaged": "ppl_cnn.models.views",
    "Band": "ppl_cnn.models.spectral",
    "Bounded": "ppl_cnn.models.references",
    "Gaussian": "ppl_cnn.models.gaussian",
    "ModuleNetwork": "ppl_cnn.models.module_network",
    "Preprocessing": "ppl_cnn.models.networks",
    "Response": "ppl_cnn.models.units",
    "Spectral": "ppl_cnn.models.spectral",
    "TiltedDensity": "ppl_cnn.models.density",
    "Uniform": "ppl_cnn.models.references",
    "WhiteNoise": "ppl_cnn.models.references",
    "draw": "ppl_cnn.inference.chains",
    "load": "ppl_cnn.models.weights",
}


class InputError(ValueError):
    """What the user gave can't be used.

    The message is one sentence: what is wrong, what would be right. The commands print it and
    exit with 2.
    """


def __getattr__(name: str) -> Any:
    # Public names are imported when first used, so that `--help` never waits for JAX.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ppl_cnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
