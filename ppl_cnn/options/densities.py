"""The options by which commands name densities: units, target, reference and temperature."""

import re
import sys
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from tyro.conf import arg

from ppl_cnn.models.references.registry import reference_help
from ppl_cnn.options.presets import (
    DEFAULT,
    FROM_PRESET,
    PRESETS,
    FromPreset,
    Preset,
    default_hint,
    resolved,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ppl_cnn.models.density import TiltedDensity
    from ppl_cnn.models.empirical_density import EmpiricalDensity
    from ppl_cnn.models.references.spectral import Spectral
    from ppl_cnn.models.trained.network import TrainedNetwork
    from ppl_cnn.models.units.unit import NetworkUnit

    type Density = TiltedDensity | EmpiricalDensity


class Named(NamedTuple):
    """What the options name."""

    densities: "list[Density]"
    fitted: "Spectral | None"
    """The reference that was fitted to photographs."""
    description: dict[str, Any]
    """What a run's record says of them."""
    alpha: dict[str, float]
    """Class -> the offset from its score that training has stored with the network, which is
    -log Z + log prior at T = 1 under the training images; empty where the network has none, or
    where something else than the score is the response."""


@dataclass(frozen=True)
class DensityOptions:
    """Options that name densities; commands derive theirs from it."""

    unit: str
    """One or more units, separated by commas. layer:channel is a filter at the centre of its map,
    layer:channel@row,col at another place, layer:channel@mean its mean over the map; class:NAME or
    class:INDEX is a class. FIRST-LAST stands for all channels between. The image is the unit's
    receptive field. `python -m ppl_cnn.units` lists the units of a network."""
    model: str = "alexnet-fashion"
    """An embedded network; the folder of a run of `python -m ppl_cnn.pretrain` or of an import; the
    name of a declared network, with --weights; or package.module:factory for your own Flax NNX
    network."""
    weights: str | None = None
    """A file of weights (safetensors, PyTorch, Caffe, npz, pickled arrays), or auto to fetch the
    network's published weights."""
    response: Literal["pre", "post"] = "pre"
    """The unit's response before or after the nonlinearity that follows its layer."""
    preset: Annotated[Literal["published", "vivid"] | None, arg(aliases=["--recipe"])] = None
    """Sets several options at once; explicit options override the preset. published: the score,
    white noise and T = 1, as in the paper. vivid, for class images of networks such as
    squeezenet1.1: a softened log-probability averaged over warps, images with the spectrum and
    colours of photographs, a low T, and starts at optima. A run prints and records the values."""
    target: Annotated[
        str | FromPreset, arg(metavar="STR", help_behavior_hint=default_hint("target"))
    ] = FROM_PRESET
    """What is scored of a class: logit is its score; log-prob is log p(y|x), which gives the
    density p(y|x)^(1/T) q(x); soft-log-prob:TAU is TAU log_softmax(logits/TAU), which grows like
    the score until the class exceeds all others by several TAU."""
    warps: Annotated[
        int | FromPreset, arg(metavar="INT", help_behavior_hint=default_hint("warps"))
    ] = FROM_PRESET
    """Averages the response over this many fixed random warps of the image: rotated by up to 25
    degrees, scaled by 0.45 to 2, shifted by up to 30 %, every second one mirrored. 0 and 1 use the
    image itself."""
    smooth: Annotated[
        float | FromPreset, arg(metavar="FLOAT", help_behavior_hint=default_hint("smooth"))
    ] = FROM_PRESET
    """Adds fixed noise of this many grey levels to each warped image."""
    size: Annotated[
        int | FromPreset | None, arg(metavar="{None}|INT", help_behavior_hint=default_hint("size"))
    ] = FROM_PRESET
    """The side of the network's square images in pixels, for networks without dense layers. None is
    the network's own size."""
    reference: Annotated[
        str | FromPreset,
        arg(
            metavar="STR",
            help=f"The reference distribution q. {reference_help()}",
            help_behavior_hint=default_hint("reference"),
        ),
    ] = FROM_PRESET
    fit: Path | None = None
    """A folder of photographs from which a spectral reference takes its exponent and colours. The
    fit is stored as spectral.json in the run's folder."""
    temperature: Annotated[
        float | FromPreset, arg(metavar="FLOAT", help_behavior_hint=default_hint("temperature"))
    ] = FROM_PRESET
    """T. 1 is the published model; a lower T is a stronger tilt."""

    def values(self) -> Preset:
        """The values in force of the options that a preset sets."""
        return resolved(self.preset, {name: getattr(self, name) for name in self._preset_options()})

    def named(self) -> Named:
        """Opens the network and makes the densities.

        Raises:
            InputError: the model, unit, target or reference is unknown, or they don't fit.
        """
        from ppl_cnn.models.density import TiltedDensity
        from ppl_cnn.models.empirical_density import EmpiricalDensity
        from ppl_cnn.models.references.empirical import Empirical
        from ppl_cnn.models.references.parsing import parse_reference
        from ppl_cnn.models.references.photographs import measure
        from ppl_cnn.models.references.spectral import Spectral
        from ppl_cnn.models.trained.loading import load
        from ppl_cnn.models.units.views import averaged

        values = self.values()
        network = load(self.model, weights=self.weights)
        if values.size is not None:
            network = network.resized(values.size)
        units = network.units(self.unit, self.response, values.target)
        views = [averaged(unit, values.warps, values.smooth) for unit in units]
        photographs = None if self.fit is None else cache(partial(measure, self.fit))
        reference = parse_reference(values.reference, fit=photographs)
        fitted = None if photographs is None else Spectral(*photographs())
        description = {
            "network": network.name,
            "preprocessing": asdict(units[0].preprocessing),
            "classes": {str(unit): name for unit in units if (name := network.class_of(unit.name))},
        }
        if self.preset is not None:
            # The key's name is that of records which older versions wrote.
            description["recipe"] = {"name": self.preset, **self._in_force()}
        densities: list[Density]
        if isinstance(reference, Empirical):
            densities = [EmpiricalDensity(view, reference, values.temperature) for view in views]
        else:
            densities = [TiltedDensity(view, reference, values.temperature) for view in views]
        return Named(densities, fitted, description, self._alpha(network, units))

    def _alpha(self, network: "TrainedNetwork", units: "Sequence[NetworkUnit]") -> dict[str, float]:
        """Class -> its stored offset; see `Named.alpha`."""
        from ppl_cnn.models.trained.cnn import CNN

        values, usual = self.values(), PRESETS[DEFAULT]
        scores = (usual.target, usual.warps, usual.smooth, usual.temperature)
        same = (values.target, values.warps, values.smooth, values.temperature) == scores
        if not isinstance(network, CNN) or not same or not network.alpha[...].any():
            return {}
        offsets = network.alpha[...].tolist()
        return {str(u): offsets[u.name.channel] for u in units if network.class_of(u.name)}

    def print_preset(self) -> None:
        """Prints the values in force to stderr, if a preset was given."""
        if self.preset is None:
            return
        own = PRESETS[self.preset]._asdict()
        values = ", ".join(
            f"{name} {value}" + ("" if value == own[name] else f" (not {own[name]})")
            for name, value in self._in_force().items()
        )
        print(f"preset {self.preset}: {values}", file=sys.stderr)

    def folder(self, method: str) -> Path:
        """Where the run goes by default, named after what is sampled and how.

        Args:
            method: the kernel's text, or another word for how.
        """
        target, preset = self.values().target, self.preset or ""
        parts = [Path(self.model).name, self.unit, self.response, target, preset, method]
        usual = (DensityOptions.response, PRESETS[DEFAULT].target, "")
        name = "-".join(part for part in parts if part not in usual)
        return Path("runs") / re.sub(r"[^\w.,@-]+", "-", name)[:100]

    def _preset_options(self) -> list[str]:
        """The preset's options that this command has."""
        return [name for name in Preset._fields if hasattr(self, name)]

    def _in_force(self) -> dict[str, Any]:
        """Option -> the value in force, for the preset's options that this command has."""
        values = self.values()._asdict()
        return {name: values[name] for name in self._preset_options()}
