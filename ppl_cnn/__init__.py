"""Probabilistic programming over trained CNNs.

A unit u of a CNN (a filter at a place, or a class) scores an image x with f_u(x) and thereby
defines the image density p_u(x) ∝ exp(f_u(x)/T) q(x), where q is a reference:

    net = ppl_cnn.load("alexnet-fashion")
    density = ppl_cnn.TiltedDensity(net.unit("conv5:12"), ppl_cnn.WhiteNoise(10.0), temperature=1.0)
    draws = ppl_cnn.draw(density, kernel="split", chains=8, draws=500)
    print(ppl_cnn.diagnose(draws).verdict)
"""

import importlib
import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ppl_cnn.errors import (
    ArgumentError,
    FileError,
    InputError,
    MismatchError,
    RunFolderError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from ppl_cnn.inference.diagnostics.diagnose import Diagnosis as Diagnosis
    from ppl_cnn.inference.diagnostics.diagnose import diagnose as diagnose
    from ppl_cnn.inference.kernels.isir import ISIR as ISIR
    from ppl_cnn.inference.kernels.langevin import Langevin as Langevin
    from ppl_cnn.inference.kernels.libraries.blackjax_kernels import BlackJAX as BlackJAX
    from ppl_cnn.inference.kernels.libraries.numpyro_kernels import HMC as HMC
    from ppl_cnn.inference.kernels.libraries.numpyro_kernels import NUTS as NUTS
    from ppl_cnn.inference.kernels.libraries.numpyro_kernels import ExternalKernel as ExternalKernel
    from ppl_cnn.inference.kernels.split import Split as Split
    from ppl_cnn.inference.kernels.tempered import Tempered as Tempered
    from ppl_cnn.inference.report.beside import side_by_side as side_by_side
    from ppl_cnn.inference.report.page import report as report
    from ppl_cnn.inference.sampling.driver import draw as draw
    from ppl_cnn.inference.sampling.evidence.evidence import evidence as evidence
    from ppl_cnn.inference.sampling.evidence.evidence import (
        evidence_of_images as evidence_of_images,
    )
    from ppl_cnn.inference.sampling.evidence.log_z import LogZ as LogZ
    from ppl_cnn.inference.sampling.evidence.log_z import MeanWeight as MeanWeight
    from ppl_cnn.inference.sampling.evidence.log_z import class_offsets as class_offsets
    from ppl_cnn.inference.sampling.resampling.settings import Resample as Resample
    from ppl_cnn.inference.sampling.starts.drawn import Annealed as Annealed
    from ppl_cnn.inference.sampling.starts.drawn import Prior as Prior
    from ppl_cnn.inference.sampling.starts.drawn import Rto as Rto
    from ppl_cnn.inference.sampling.starts.drawn import TwoSided as TwoSided
    from ppl_cnn.inference.sampling.starts.images import FromRun as FromRun
    from ppl_cnn.inference.sampling.starts.images import Images as Images
    from ppl_cnn.inference.sampling.starts.images import Photographs as Photographs
    from ppl_cnn.inference.sampling.starts.images import Zero as Zero
    from ppl_cnn.inference.sampling.starts.resampled import Resampled as Resampled
    from ppl_cnn.inference.training.execution import Execution as Execution
    from ppl_cnn.inference.training.generators.loop import train_generator as train_generator
    from ppl_cnn.inference.training.generators.recipe import GeneratorRecipe as GeneratorRecipe
    from ppl_cnn.inference.training.loop import train as train
    from ppl_cnn.inference.training.recipe import Recipe as Recipe
    from ppl_cnn.models.density import TiltedDensity as TiltedDensity
    from ppl_cnn.models.empirical_density import EmpiricalDensity as EmpiricalDensity
    from ppl_cnn.models.generators.generator import Generator as Generator
    from ppl_cnn.models.generators.loading import load_generator as load_generator
    from ppl_cnn.models.networks.catalogue import NETWORKS as NETWORKS
    from ppl_cnn.models.networks.declaration import Network as Network
    from ppl_cnn.models.networks.declaration import Preprocessing as Preprocessing
    from ppl_cnn.models.references.band import Band as Band
    from ppl_cnn.models.references.bounded import Bounded as Bounded
    from ppl_cnn.models.references.empirical import Empirical as Empirical
    from ppl_cnn.models.references.gaussian import Gaussian as Gaussian
    from ppl_cnn.models.references.generator import GeneratorReference as GeneratorReference
    from ppl_cnn.models.references.noise import Uniform as Uniform
    from ppl_cnn.models.references.noise import WhiteNoise as WhiteNoise
    from ppl_cnn.models.references.spectral import Spectral as Spectral
    from ppl_cnn.models.trained.cnn import CNN as CNN
    from ppl_cnn.models.trained.loading import load as load
    from ppl_cnn.models.trained.modules.module_network import ModuleNetwork as ModuleNetwork
    from ppl_cnn.models.trained.torch_modules import from_torch as from_torch
    from ppl_cnn.models.units.score_function import ScoreFunction as ScoreFunction
    from ppl_cnn.models.units.targets import Logit as Logit
    from ppl_cnn.models.units.targets import LogProb as LogProb
    from ppl_cnn.models.units.targets import SoftLogProb as SoftLogProb
    from ppl_cnn.models.units.views import Averaged as Averaged

__version__ = "0.2.0"

_HOMES = {
    "Annealed": "ppl_cnn.inference.sampling.starts.drawn",
    "Averaged": "ppl_cnn.models.units.views",
    "Band": "ppl_cnn.models.references.band",
    "BlackJAX": "ppl_cnn.inference.kernels.libraries.blackjax_kernels",
    "Bounded": "ppl_cnn.models.references.bounded",
    "CNN": "ppl_cnn.models.trained.cnn",
    "Diagnosis": "ppl_cnn.inference.diagnostics.diagnose",
    "Empirical": "ppl_cnn.models.references.empirical",
    "EmpiricalDensity": "ppl_cnn.models.empirical_density",
    "Execution": "ppl_cnn.inference.training.execution",
    "ExternalKernel": "ppl_cnn.inference.kernels.libraries.numpyro_kernels",
    "FromRun": "ppl_cnn.inference.sampling.starts.images",
    "Gaussian": "ppl_cnn.models.references.gaussian",
    "Generator": "ppl_cnn.models.generators.generator",
    "GeneratorRecipe": "ppl_cnn.inference.training.generators.recipe",
    "GeneratorReference": "ppl_cnn.models.references.generator",
    "HMC": "ppl_cnn.inference.kernels.libraries.numpyro_kernels",
    "ISIR": "ppl_cnn.inference.kernels.isir",
    "Images": "ppl_cnn.inference.sampling.starts.images",
    "Langevin": "ppl_cnn.inference.kernels.langevin",
    "LogProb": "ppl_cnn.models.units.targets",
    "LogZ": "ppl_cnn.inference.sampling.evidence.log_z",
    "Logit": "ppl_cnn.models.units.targets",
    "MeanWeight": "ppl_cnn.inference.sampling.evidence.log_z",
    "ModuleNetwork": "ppl_cnn.models.trained.modules.module_network",
    "NETWORKS": "ppl_cnn.models.networks.catalogue",
    "NUTS": "ppl_cnn.inference.kernels.libraries.numpyro_kernels",
    "Network": "ppl_cnn.models.networks.declaration",
    "Photographs": "ppl_cnn.inference.sampling.starts.images",
    "Preprocessing": "ppl_cnn.models.networks.declaration",
    "Prior": "ppl_cnn.inference.sampling.starts.drawn",
    "Recipe": "ppl_cnn.inference.training.recipe",
    "Resample": "ppl_cnn.inference.sampling.resampling.settings",
    "Resampled": "ppl_cnn.inference.sampling.starts.resampled",
    "Rto": "ppl_cnn.inference.sampling.starts.drawn",
    "ScoreFunction": "ppl_cnn.models.units.score_function",
    "SoftLogProb": "ppl_cnn.models.units.targets",
    "Spectral": "ppl_cnn.models.references.spectral",
    "Split": "ppl_cnn.inference.kernels.split",
    "Tempered": "ppl_cnn.inference.kernels.tempered",
    "TiltedDensity": "ppl_cnn.models.density",
    "TwoSided": "ppl_cnn.inference.sampling.starts.drawn",
    "Uniform": "ppl_cnn.models.references.noise",
    "WhiteNoise": "ppl_cnn.models.references.noise",
    "Zero": "ppl_cnn.inference.sampling.starts.images",
    "class_offsets": "ppl_cnn.inference.sampling.evidence.log_z",
    "diagnose": "ppl_cnn.inference.diagnostics.diagnose",
    "draw": "ppl_cnn.inference.sampling.driver",
    "evidence": "ppl_cnn.inference.sampling.evidence.evidence",
    "evidence_of_images": "ppl_cnn.inference.sampling.evidence.evidence",
    "from_torch": "ppl_cnn.models.trained.torch_modules",
    "load": "ppl_cnn.models.trained.loading",
    "load_generator": "ppl_cnn.models.generators.loading",
    "report": "ppl_cnn.inference.report.page",
    "side_by_side": "ppl_cnn.inference.report.beside",
    "train": "ppl_cnn.inference.training.loop",
    "train_generator": "ppl_cnn.inference.training.generators.loop",
}
"""Public name -> the module that defines it."""

_ERRORS = (
    ArgumentError,
    FileError,
    InputError,
    MismatchError,
    RunFolderError,
    UnknownNameError,
)

__all__ = sorted([*_HOMES, *(error.__name__ for error in _ERRORS)])

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
    return list(__all__)


class _Package(ModuleType):
    """The package, whose `report` and `evidence` stay functions.

    Commands of these names lie in it too, and the import system binds an imported module to its
    package.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
