"""The options by which commands name densities: units, target, reference and temperature."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import tyro

if TYPE_CHECKING:
    from ppl_cnn.models.density import TiltedDensity
    from ppl_cnn.models.references.spectral import Spectral


RECIPES: Mapping[str, Mapping[str, Any]] = {
    "published": {
        "target": "logit",
        "warps": 0,
        "smooth": 0.0,
        "size": None,
        "reference": "white:10",
        "temperature": 1.0,
        "start": None,
    },
    "vivid": {
        "target": "soft-log-prob:10",
        "warps": 4,
        "smooth": 0.0,
        "size": 160,
        "reference": "bounded:spectral@12",
        "temperature": 0.0005,
        "start": "rto",
    },
}
"""Recipe -> options that belong together, as far as a command has them.

`published` is the setting of Dai, Lu and Wu (ICLR 2015); `vivid` is tuned for class images of
squeezenet1.1 that another network recognises.
"""


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
    recipe: Literal["published", "vivid"] | None = None
    """Values of several options that belong together, for those that you don't give yourself.
    published: the class's score, white noise and T = 1, as the paper has it. vivid, for classes of
    networks such as squeezenet1.1: a softened log-probability over several warps, the spectrum and
    colours of natural images, a low T and starts at optima. With --help after it, the help shows
    its values; a run prints and records them."""
    target: str = "logit"
    """Of a class: logit is its score; log-prob is log p(y|x), for the density p(y|x)^(1/T) q(x);
    soft-log-prob:TAU is TAU log_softmax(logits/TAU), which grows as the score does until the
    class outdoes all others by several TAU."""
    warps: int = 0
    """Averages the response over that many fixed random warps of the image: turned by up to 25
    degrees, magnified 0.45 to 2 times, shifted by up to 30 %, every second one mirrored. 0 or 1 is
    the image itself."""
    smooth: float = 0.0
    """Adds fixed noise of that many grey levels to each of the warped images."""
    size: int | None = None
    """Pixels of the side of the network's square images, for networks without dense layers; by
    default the network's own."""
    reference: str = "white:10"
    """q. white:SIGMA is independent Gaussian noise of SIGMA grey levels about the mean image;
    uniform is over 0..255; spectral has natural images' spectrum and colours, spectral:A the
    amplitude 1/f^A; @C after it is a contrast (standard deviation of a pixel) of C grey levels,
    64 by default; band:N, band:N:A or band:N:A@C is spectral with its N x N lowest waves alone;
    gaussian:FILE.npz has the mean and the covariance of images (ppl_cnn.Gaussian.fit); bounded:
    before one of them, as in bounded:spectral:1.2@18, squashes pixels into 0..255."""
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
        from ppl_cnn.models.references.named import parse_reference
        from ppl_cnn.models.references.photographs import measure
        from ppl_cnn.models.references.spectral import Spectral
        from ppl_cnn.models.trained.loading import load
        from ppl_cnn.models.units.views import averaged

        network = load(self.model, weights=self.weights)
        if self.size is not None:
            network = network.resized(self.size)
        units = network.units(self.unit, self.response, self.target)
        views = [averaged(unit, self.warps, self.smooth) for unit in units]
        photographs = None if self.fit is None else cache(partial(measure, self.fit))
        reference = parse_reference(self.reference, photographs=photographs)
        fitted = None if photographs is None else Spectral(*photographs())
        description = {
            "network": network.name,
            "preprocessing": asdict(units[0].preprocessing),
            "classes": {str(unit): name for unit in units if (name := network.class_of(unit.name))},
        }
        if self.recipe is not None:
            description["recipe"] = {"name": self.recipe, **self._in_force(self.recipe)}
        densities = [TiltedDensity(view, reference, self.temperature) for view in views]
        return Named(densities, fitted, description)

    def _in_force(self, recipe: str) -> dict[str, Any]:
        """The values of the recipe's options, its own or others that were given."""
        return {name: getattr(self, name) for name in RECIPES[recipe] if hasattr(self, name)}

    def say_recipe(self) -> None:
        """Prints the values in force to stderr, if there is a recipe."""
        if self.recipe is None:
            return
        own = RECIPES[self.recipe]
        values = ", ".join(
            f"{name} {value}" + ("" if value == own[name] else f" (not {own[name]})")
            for name, value in self._in_force(self.recipe).items()
        )
        print(f"recipe {self.recipe}: {values}", file=sys.stderr)

    @classmethod
    def by_recipe(cls, arguments: Sequence[str]) -> Self | None:
        """The options' defaults under the recipe that a command line names; None if it names none.

        What the line itself gives is read later, and counts.
        """
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--recipe", choices=RECIPES)
        try:
            recipe = parser.parse_known_args(arguments)[0].recipe
        except argparse.ArgumentError:
            return None  # which the command's own parser says better
        if recipe is None:
            return None
        options = {option.name for option in fields(cls)}
        own = {name: value for name, value in RECIPES[recipe].items() if name in options}
        defaults = cls("", recipe=recipe, **own)
        # Tyro's sign that it must be given, which is no text.
        object.__setattr__(defaults, "unit", tyro.MISSING)
        return defaults

    def folder(self, method: str) -> Path:
        """Where their run goes by default, by what is sampled and how."""
        recipe = self.recipe or ""
        parts = [Path(self.model).name, self.unit, self.response, self.target, recipe, method]
        usual = (Densities.response, Densities.target, "")
        name = "-".join(part for part in parts if part not in usual)
        return Path("runs") / re.sub(r"[^\w.,@-]+", "-", name)[:100]
