"""Probabilistic programming over trained CNNs.

A unit u of a CNN (a filter at a place, or a class) scores an image x with f_u(x) and thereby
defines the image density p_u(x) ∝ exp(f_u(x)/T) q(x):

    net = ppl_cnn.load("alexnet-fashion")
    density = ppl_cnn.TiltedDensity(net.unit("conv5:12"), ppl_cnn.WhiteNoise(10.0), temperature=1.0)
    draws = ppl_cnn.draw(density, kernel="hmc", chains=8, draws=200, seed=0)
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from ppl_cnn.errors import InputError

if TYPE_CHECKING:
    from ppl_cnn.inference.sampling.driver import draw as draw
    from ppl_cnn.models.density import TiltedDensity as TiltedDensity
    from ppl_cnn.models.networks.declaration import Preprocessing as Preprocessing
    from ppl_cnn.models.references.band import Band as Band
    from ppl_cnn.models.references.bounded import Bounded as Bounded
    from ppl_cnn.models.references.gaussian import Gaussian as Gaussian
    from ppl_cnn.models.references.noise import Uniform as Uniform
    from ppl_cnn.models.references.noise import WhiteNoise as WhiteNoise
    from ppl_cnn.models.references.spectral import Spectral as Spectral
    from ppl_cnn.models.trained.loading import load as load
    from ppl_cnn.models.trained.module_network import ModuleNetwork as ModuleNetwork
    from ppl_cnn.models.units.scored import ScoreFunction as ScoreFunction
    from ppl_cnn.models.units.views import Averaged as Averaged

__version__ = "0.1.0"
__all__ = [
    "Averaged",
    "Band",
    "Bounded",
    "Gaussian",
    "InputError",
    "ModuleNetwork",
    "Preprocessing",
    "ScoreFunction",
    "Spectral",
    "TiltedDensity",
    "Uniform",
    "WhiteNoise",
    "draw",
    "load",
]

_HOMES = {
    "Averaged": "ppl_cnn.models.units.views",
    "Band": "ppl_cnn.models.references.band",
    "Bounded": "ppl_cnn.models.references.bounded",
    "Gaussian": "ppl_cnn.models.references.gaussian",
    "ModuleNetwork": "ppl_cnn.models.trained.module_network",
    "Preprocessing": "ppl_cnn.models.networks.declaration",
    "ScoreFunction": "ppl_cnn.models.units.scored",
    "Spectral": "ppl_cnn.models.references.spectral",
    "TiltedDensity": "ppl_cnn.models.density",
    "Uniform": "ppl_cnn.models.references.noise",
    "WhiteNoise": "ppl_cnn.models.references.noise",
    "draw": "ppl_cnn.inference.sampling.driver",
    "load": "ppl_cnn.models.trained.loading",
}

_RENAMED = {"Response": "ScoreFunction"}
"""Old public names, which still work for one release."""


def __getattr__(name: str) -> Any:
    # Public names are imported when first used, so that `--help` never waits for JAX.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"ppl_cnn.{name} is now ppl_cnn.{new}.", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(_HOMES[new]), new)
    raise AttributeError(f"module 'ppl_cnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
