"""The options by which commands name densities: units, target, reference and temperature."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from tyro.conf import arg

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.references.registry import reference_help
from ppl_cnn.options.presets import (
    AUTO,
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
    from ppl_cnn.models.trained.cnn import CNN
    from ppl_cnn.models.trained.modules.module_network import ModuleNetwork
    from ppl_cnn.models.trained.modules.module_unit import ModuleUnit
    from ppl_cnn.models.trained.network import TrainedNetwork
    from ppl_cnn.models.units.unit import NetworkUnit, Unit

    type Density = TiltedDensity | EmpiricalDensity


class Named(NamedTuple):
    """What the options name."""

    densities: "list[Density]"
    fitted: "Spectral | None"
    """The reference that was fitted to photographs."""
    description: dict[str, Any]
    """What a run's record says of them."""
    target: str
    """The text of the target in force: that of the classes, if classes are among the units."""
    choices: list[str]
    """What auto chose for the target of classes and for the reference, in words."""
    is_own: bool
    """Whether auto took the network's own reference."""
    has_classes: bool
    """Whether classes are among the units."""
    network: "CNN | ModuleNetwork"
    units: "Sequence[Unit | ModuleUnit]"
    """The units, without warps."""
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
    class:INDEX is a class. A number that is one class's name and another's index is refused.
    FIRST-LAST stands for all channels between; * stands for all of a layer, and so does the layer's
    name alone, as in conv5. The image is the unit's receptive field. `python -m
    ppl_cnn.units` lists the units of a network."""
    model: str = "alexnet-fashion"
    """An embedded network; the folder of a run of `python -m ppl_cnn.pretrain` or of an import; the
    name of a declared network (`python -m ppl_cnn.models` lists them), with --weights; an ONNX
    file or one of Keras, with --pixels; or package.module:factory for your own Flax NNX network."""
    weights: str | None = None
    """A file of weights (safetensors, PyTorch, Caffe, npy, npz, pickles), or auto to fetch the
    network's published weights."""
    pixels: str | None = None
    """What the network sees of pixels: torchvision, caffe, keras-tf, inception, raw, or
    "mean=M,M,M scale=S,S,S order=RGB" for (pixels - mean) * scale of pixels from 0 to 255. A
    network's file needs it; --weights do if it isn't what the declared network sees."""
    classes: str | None = None
    """The names of the classes of a network's file, of --weights or of your own network: imagenet,
    or a text file with a name a line."""
    entry: str | None = None
    """The key of the weights, such as model_ema, in a file of --weights that has several."""
    flatten: Literal["channels-first", "channels-last"] | None = None
    """The order in which the dense layers of --weights read maps; by default the file's names
    tell."""
    response: Literal["pre", "post"] = "pre"
    """The unit's response before or after the nonlinearity that follows its layer."""
    preset: Annotated[Literal["published", "vivid"] | None, arg(aliases=["--recipe"])] = None
    """Sets several options at once; explicit options override the preset. published: the score,
    white noise of 10 grey levels and T = 1, as in the paper. vivid, for class images of networks
    such as squeezenet1.1: a softened log-probability averaged over warps, images with the spectrum
    and colours of photographs, a low T, starts at optima and seven short trajectories from there.
    vivid's images are optima with the reference's noise about them, not draws of the density. A run
    prints and records the values."""
    target: Annotated[
        str | FromPreset, arg(metavar="STR", help_behavior_hint=default_hint("target"))
    ] = FROM_PRESET
    """What is scored of a class. auto goes by the last stage of the network's training: logit if it
    was generative or hybrid, log-prob if it was discriminative, and log-prob if nothing is known.
    logit is the class's score; log-prob is log p(y|x), which gives the density p(y|x)^(1/T) q(x);
    soft-log-prob:TAU is TAU log_softmax(logits/TAU), which grows like the score until the class
    exceeds all others by several TAU. Filters are always scored as they are."""
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
    """The side of the network's square images in pixels, for networks whose weights fit any, such
    as squeezenet1.1 and resnet18. None is the network's own size."""
    reference: Annotated[
        str | FromPreset,
        arg(
            metavar="STR",
            help=f"The reference distribution q. auto: the network's own if it has one, as "
            f"alexnet-fashion does, or else white:10. {reference_help()}",
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

    @property
    def model_in_record(self) -> str:
        """What a run's record calls the network; with other pixels it is another one."""
        return self.model if self.pixels is None else f"{self.model} (pixels {self.pixels})"

    def opened(self) -> dict[str, Any]:
        """The arguments of `load` that open the network, for the record; None is left out."""
        names = ("model", "weights", "pixels", "entry", "classes", "flatten")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

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
        from ppl_cnn.models.trained.suited_target import suited_target
        from ppl_cnn.models.units.targets import AUTO as AUTO_TARGET
        from ppl_cnn.models.units.targets import parse_target
        from ppl_cnn.models.units.views import averaged

        values = self.values()
        network = load(**self.opened())
        if values.size is not None:
            with self._preset_named(network):
                network = network.resized(values.size)
        asked = parse_target(values.target)
        units = network.units(self.unit, self.response, asked)
        classes = [unit for unit in units if network.is_class(unit.name)]
        target = str((classes or units)[0].target)
        choices = []
        if asked is AUTO_TARGET and classes:
            choices.append(str(suited_target(network.objective)))
        views = [averaged(unit, values.warps, values.smooth) for unit in units]
        photographs = None if self.fit is None else cache(partial(measure, self.fit))
        text = values.reference
        if text == AUTO:
            text = network.reference or PRESETS["published"].reference
        reference = parse_reference(text, fit=photographs)
        fitted = None if photographs is None else Spectral(*photographs())
        description = {
            "network": network.name,
            "classes": {str(unit): name for unit in units if (name := network.class_of(unit.name))},
            "opened": self.opened(),
        }
        if self.preset is not None:
            # The key's name is that of records which older versions wrote.
            description["recipe"] = {"name": self.preset, **self._in_force(), "target": target}
        densities: list[Density]
        if isinstance(reference, Empirical):
            densities = [EmpiricalDensity(view, reference, values.temperature) for view in views]
        else:
            densities = [TiltedDensity(view, reference, values.temperature) for view in views]
        is_own = values.reference == AUTO and network.reference is not None
        if is_own:
            choices.append(f"reference: {network.reference}, which {network.name} names as its own")
        alpha = self._alpha(network, units) if target == PRESETS["published"].target else {}
        return Named(
            densities,
            fitted,
            description,
            target,
            choices,
            is_own=is_own,
            has_classes=bool(classes),
            network=network,
            units=units,
            alpha=alpha,
        )

    @contextmanager
    def _preset_named(self, network: "TrainedNetwork") -> Iterator[None]:
        """Says that the preset doesn't fit, where it and not the user has given the size."""
        try:
            yield
        except ArgumentError:
            if self.size is not FROM_PRESET:
                raise
            size, own = self.values().size, network.image_shape[0]
            raise ArgumentError(
                f"`preset={self.preset}` shows images of {size}x{size}, which {network.name} can't "
                f"take. Give `size={own}` beside it, or choose a network that takes any size, "
                f"such as squeezenet1.1 or resnet18.",
                argument="preset",
            ) from None

    def _alpha(self, network: "TrainedNetwork", units: "Sequence[NetworkUnit]") -> dict[str, float]:
        """Class -> its stored offset; see `Named.alpha`. The classes' target is the score."""
        from ppl_cnn.models.trained.cnn import CNN

        values, usual = self.values(), PRESETS["published"]
        same = (values.warps, values.smooth, values.temperature) == usual[1:3] + usual[5:6]
        if not isinstance(network, CNN) or not same or not network.alpha[...].any():
            return {}
        offsets = network.alpha[...].tolist()
        return {str(u): offsets[u.name.channel] for u in units if network.class_of(u.name)}

    def print_values(self, choices: Sequence[str]) -> None:
        """Prints to stderr what the user may not have typed: a preset's values, auto's choices.

        Args:
            choices: auto's, as in `Named`.
        """
        if self.preset is not None:
            own = PRESETS[self.preset]._asdict()
            values = ", ".join(
                f"{name} {value}" + ("" if value == own[name] else f" (not {own[name]})")
                for name, value in self._in_force().items()
            )
            print(f"preset {self.preset}: {values}", file=sys.stderr)
        for choice in choices:
            print(choice, file=sys.stderr)

    def folder(self, method: str, target: str) -> Path:
        """Where the run goes by default, named after what is sampled and how.

        Args:
            method: the kernel's text, or another word for how.
            target: the target in force, as in `Named`.
        """
        preset = self.preset or ""
        from ppl_cnn.models.trained.onnx_network import SUFFIXES

        model = Path(self.model)
        parts = [
            model.stem if model.suffix in SUFFIXES else model.name,
            self.unit.replace(":*", ""),  # conv5:* is conv5
            self.response,
            target,
            preset,
            method,
        ]
        usual = (DensityOptions.response, PRESETS["published"].target, "")
        name = "-".join(part for part in parts if part not in usual)
        return Path("runs") / re.sub(r"[^\w.,@-]+", "-", name)[:100]

    def _preset_options(self) -> list[str]:
        """The options that this command takes from a preset."""
        defaults = {field.name: field.default for field in fields(self)}
        return [name for name in Preset._fields if defaults.get(name) is FROM_PRESET]

    def _in_force(self) -> dict[str, Any]:
        """Option -> the value in force, for the preset's options that this command has."""
        values = self.values()._asdict()
        return {name: values[name] for name in self._preset_options()}
