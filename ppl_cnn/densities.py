"""The options by which commands name densities: units, target, reference and temperature."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from ppl_cnn.models.density import TiltedDensity
    from ppl_cnn.models.spectral import Spectral


class Named(NamedTuple):
    """What the options name."""

    densities: "list[TiltedDensity]"
    fitted: "Spectral | None"
    """The reference that was fitted to photographs."""
    description: dict[str, Any]
    """For a run's record."""


@dataclass(frozen=True)
class Densities:
    """Options."""

    unit: str
    """One or more, between commas: layer:channel (at the centre of the layer's map),
    layer:channel@row,col, layer:channel@mean (the channel's mean over its map), class:name or
    class:index; first-last stands for all channels between. `python -m ppl_cnn.units` lists
    them. The image is the unit's receptive field."""
    model: str = "alexnet-fashion"
    """An embedded network; the folder of a run of `python -m ppl_cnn.pretrain` or of an import;
    with --weights, a declared network; or package.module:factory, a Flax NNX network of yours."""
    weights: str | None = None
    """A file of weights (safetensors, PyTorch, Caffe, npz, pickled arrays), or auto to fetch the
    network's published ones."""
    response: Literal["pre", "post"] = "pre"
    """Before or after the nonlinearity that follows the unit's layer."""
    target: Literal["logit", "log-prob"] = "logit"
    """Of a class: its score, or log p(y|x), for the density p(y|x)^(1/T) q(x)."""
    reference: str = "white:10"
    """q. white:SIGMA is independent Gaussian noise of SIGMA grey levels about the mean image;
    uniform is over 0..255; spectral has natural images' spectrum and colours, spectral:A the
    amplitude 1/f^A; bounded:white:SIGMA and bounded:spectral squash pixels into 0..255."""
    fit: Path | None = None
    """A folder of photographs that a spectral reference takes its exponent and colours from;
    the fit is stored as spectral.json in the run's folder."""
    temperature: float = 1.0
    """T: 1 is the published model, lower means stronger tilts."""

    def named(self) -> Named:
        """The densities.

        Raises:
            InputError: there is no such model, unit, target or reference.
        """
        from ppl_cnn.models.density import TiltedDensity
        from ppl_cnn.models.references import parse_reference
        from ppl_cnn.models.spectral import Spectral
        from ppl_cnn.models.weights import load

        network = load(self.model, self.weights)
        units = network.units(self.unit, self.response, self.target)
        # A reference that takes nothing from photographs is refused before they are read.
        parse_reference(self.reference, None if self.fit is None else Spectral())
        fitted = None if self.fit is None else Spectral.fit(self.fit)
        reference = parse_reference(self.reference, fitted)
        description = {
            "network": network.network.name,
            "preprocessing": asdict(units[0].preprocessing),
            "classes": {str(unit): name for unit in units if (name := network.class_of(unit.name))},
        }
        densities = [TiltedDensity(unit, reference, self.temperature) for unit in units]
        return Named(densities, fitted, description)

    def folder(self, method: str) -> Path:
        """Where their run goes by default, by what is sampled and how."""
        parts = [Path(self.model).name, self.unit, self.response, self.target, method]
        usual = (Densities.response, Densities.target)
        name = "-".join(part for part in parts if part not in usual)
        return Path("runs") / re.sub(r"[^\w.,@-]+", "-", name)[:100]
