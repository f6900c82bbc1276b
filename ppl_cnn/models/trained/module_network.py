"""A network of one's own: a Flax NNX module, its layers found by name."""

import copy
import types
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.convolution import conv_general_dilated
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.forward import scaled
from ppl_cnn.models.networks.graph import Params, Region
from ppl_cnn.models.networks.layers import Shape
from ppl_cnn.models.networks.receptive_field import Images, Weights, receptive_fields
from ppl_cnn.models.trained.cnn import preprocess
from ppl_cnn.models.units.listing import LayerUnits
from ppl_cnn.models.units.names import Place, UnitName, parse_units
from ppl_cnn.models.units.scored import Image
from ppl_cnn.models.units.targets import Target, parse_target
from ppl_cnn.models.units.unit import NetworkUnit, Side, no_probabilities, only

OUTPUT = "output"
"""The layer of the module's own output, which has the classes."""


class ModuleNetwork:
    """A Flax NNX module as a network whose units have densities.

    The module is called on a batch of images (n, row, col, channel) and returns scores (n, c).
    It is copied and put into inference mode (`module.eval()`: no dropout, running averages), and
    its `nnx.Conv`s get an input gradient that is fast inside loops (`convolve`).

    Its layers are its submodules, by their paths ("conv1", "blocks.0.conv"), as far as they are
    called and respond with (n, row, col, channel) or (n, channel); a submodule that is called
    several times has a layer for each ("conv-1", "conv-2"). What a public method of a module
    returns, and what a module sows as an `nnx.Intermediate`, is a layer under that name
    ("blocks.0.features"). A plain function such as `nnx.relu` is none. The last layer, "output",
    is the module's own response.

    Attributes:
        name: the class of the module.
        image_shape: (row, col, channel).
        preprocessing: from pixels to what the module sees.
        classes: names of the scores, or ().
        is_resized: whether its images are of another size than those it was made for.
        layers: layer name -> shape of its response without the batch, in the order of calls.
        weights: name ("conv1.kernel") -> array, of the module's state but for its random keys.
        keys: the names of these.

    Args:
        module: any whose `__call__` needs no argument but the images.
        image_shape: likewise.
        preprocessing: likewise; by default the module sees pixels (0..255), RGB or grey.
        classes: likewise.

    Raises:
        InputError: the arguments don't fit each other, or the module can't be called so.
    """

    def __init__(
        self,
        module: nnx.Module,
        image_shape: tuple[int, int, int],
        preprocessing: Preprocessing | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self.name = type(module).__name__
        self.image_shape = _image_shape(image_shape)
        self.is_resized = False
        channels = image_shape[2]
        self.preprocessing = preprocessing or _as_pixels(channels)
        if not len(self.preprocessing.mean) == len(self.preprocessing.scale) == channels:
            raise InputError(
                f"The preprocessing of images of {channels} channels has a mean and a scale of "
                f"{channels} numbers each."
            )
        module = nnx.clone(module)
        module.eval()
        for _, part in nnx.iter_modules(module):
            _prepare(part)
        self._graph = nnx.graphdef(module)
        self._keys = nnx.state(module, nnx.RngState)
        self.keys = named_leaves(self._keys)[0].keys()
        self.weights, self._tree = named_leaves(nnx.state(module, nnx.Not(nnx.RngState)))
        self.layers = self._find_layers()
        self.classes = tuple(classes)
        count = self.layers[OUTPUT][-1]
        if len(self.classes) not in (0, count):
            raise InputError(
                f"{self.name} has {count} scores and {len(self.classes)} names of classes: give "
                f"{count}, or none."
            )

    @property
    def network(self) -> Self:
        """Itself: what its declaration is to a `CNN`."""
        return self

    def with_weights(self, weights: Mapping[str, Array]) -> Self:
        """The same network with other weights, of the same names and shapes."""
        other = copy.copy(self)
        other.weights = {name: weights[name] for name in self.weights}
        return other

    def resized(self, side: int) -> Self:
        """The same network on square images of another size; itself if they are of that size.

        Raises:
            InputError: it can't be called on such images.
        """
        before = self.image_shape
        if before[:2] == (side, side):
            return self
        other = copy.copy(self)
        other.image_shape = _image_shape((side, side, before[2]))
        other.preprocessing = self.preprocessing.resized(min(before[:2]), side)
        other.is_resized = True
        other.layers = other._find_layers()
        return other

    def __call__(self, x: Float[Array, "n row col channel"]) -> Float[Array, "n c"]:
        """The scores of images in pixel units minus the mean."""
        return self.respond(self.weights, x, OUTPUT)

    def logits(self, pixels: UInt8[np.ndarray, "n row col channel"]) -> Float[Array, "n c"]:
        """The scores of uint8 photographs, RGB or grey, of any size."""
        return self(preprocess(np.asarray(pixels), self.preprocessing, self.image_shape))

    def unit(
        self, text: str, response: Side = "pre", target: Target | str = "logit"
    ) -> "ModuleUnit":
        """The unit that a text such as "blocks.0.conv:12", "conv2:3@0,3" or "class:cat" names.

        Args:
            text: see `ppl_cnn.models.units.names.parse_units`.
            response: "pre"; of what follows a layer, a module doesn't tell.
            target: of a class, see `ppl_cnn.models.units.targets.parse_target`.

        Raises:
            InputError: there is no such unit, or the text names several.
        """
        return only(self.units(text, response, target), text)

    def units(
        self, text: str, response: Side = "pre", target: Target | str = "logit"
    ) -> list["ModuleUnit"]:
        """The units that a text such as "conv1:0-15,conv2:3" names, in its order; see `unit`."""
        if response != "pre":
            raise InputError(
                f"{self.name} doesn't tell which nonlinearity follows a layer: instead of "
                f"--response post, name the layer after it, which a module or "
                f"`self.sow(nnx.Intermediate, NAME, x)` makes."
            )
        target = parse_target(target)
        names = parse_units(text, self.layers, self.classes)
        found: dict[UnitName, ModuleUnit] = {}
        for layer, group in groupby(sorted(names, key=_layer), key=_layer):
            members = list(group)
            if target.compares_classes and layer != OUTPUT:
                raise no_probabilities(layer, self.name, target, OUTPUT)
            places = list({name.place for name in members})
            fields = dict(zip(places, self._receptive_fields(layer, places), strict=True))
            for name in members:
                rows, cols = fields[name.place]
                if not rows:
                    raise InputError(
                        f"{name} of {self.name} has no gradient with respect to any pixel, so "
                        f"that its density is the reference."
                    )
                channel = {"channel": jnp.asarray(name.channel)}
                params = {"weights": self.weights, "unit": channel}
                found[name] = ModuleUnit(self, name, response, target, rows, cols, params)
        return [found[name] for name in names]

    def class_of(self, unit: UnitName) -> str | None:
        """The name of the class that the unit is; None if it is another or has no name."""
        scores = unit.layer == OUTPUT
        return self.classes[unit.channel] if scores and self.classes else None

    def unit_layers(self) -> tuple[LayerUnits, ...]:
        """The layers, as `ppl_cnn.models.units.listing.unit_layers` lists them.

        The receptive field is that of the unit at the map's centre, as far as the image holds
        it; the stride is None where the image holds too little to tell, and the
        multiplications aren't known.
        """
        return tuple(self._layer_units(name, shape) for name, shape in self.layers.items())

    def _layer_units(self, name: str, shape: Shape) -> LayerUnits:
        if len(shape) == 1:
            ((rows, cols),) = self._receptive_fields(name, [None])
            size = len(rows), len(cols)
            return LayerUnits(name, shape[-1], None, None, size, size, None, None)
        col, last = shape[1] // 2, shape[0] - 1
        places: list[Place] = [(shape[0] // 2, col), (last, col), (max(last - 1, 0), col)]
        (rows, cols), (below, _), (above, _) = self._receptive_fields(name, places)
        size = len(rows), len(cols)
        # Towards the map's end, fields begin inside the image if they do anywhere.
        stride = below.start - above.start if above.start else None
        return LayerUnits(name, shape[-1], (shape[0], shape[1]), stride, size, size, None, None)

    def respond(self, weights: Weights, x: Images, layer: str) -> Array:
        """A layer's response to images in pixel units minus the mean.

        Args:
            weights: as the attribute.
            x: the images.
            layer: its name.

        Returns:
            (n, row, col, channel) or (n, channel), as float32.
        """
        return self._responses(weights, x)[layer].astype(jnp.float32)

    def _receptive_fields(self, layer: str, places: list[Place]) -> list[Region]:
        shape = self.layers[layer]
        return list(
            receptive_fields(
                lambda weights, x: self.respond(weights, x, layer),
                self.weights,
                self.image_shape,
                [_over_map(place, shape) for place in places],
            )
        )

    def _responses(self, weights: Weights, x: Images) -> dict[str, Array]:
        """Layer name -> response, and other arrays that are captured on the way."""
        state = jax.tree.unflatten(self._tree, [weights[name] for name in self.weights])
        module = nnx.merge(self._graph, state, self._keys)
        call = nnx.capture(module, nnx.Intermediate, method_outputs=nnx.Intermediate)
        output, captured = call(scaled(self.preprocessing, x))
        found = {}
        for path, variable in nnx.to_flat_state(captured):
            name = ".".join(str(part) for part in path if part != "__call__")
            values = variable.get_value()
            calls = values if isinstance(values, tuple) else (values,)
            for number, value in enumerate(calls, 1):
                found[name if len(calls) == 1 else f"{name}-{number}"] = value
        # The module's own output takes the name, were there a submodule that has it.
        found[OUTPUT] = output
        return {name: value for name, value in found.items() if isinstance(value, jax.Array)}

    def _find_layers(self) -> dict[str, Shape]:
        """The layers in the order of calls, the output last."""
        n = 2
        x = jax.ShapeDtypeStruct((n, *self.image_shape), jnp.float32)
        try:
            traced = jax.make_jaxpr(self._responses, return_shape=True)(self.weights, x)
        except Exception as error:
            raise InputError(
                f"{self.name} can't be called on images of {self.image_shape} ({one_line(error)})."
            ) from error
        program, responses = traced[0].jaxpr, traced[1]
        made = {
            id(variable): index
            for index, equation in enumerate(program.eqns)
            for variable in equation.outvars
        }
        # What no equation makes is the image itself, or a constant.
        order = [made.get(id(variable), -1) for variable in program.outvars]
        calls = dict(zip(sorted(responses), order, strict=True))
        layers = {
            name: responses[name].shape[1:]
            for name in sorted(calls, key=lambda name: calls[name])
            if name and responses[name].ndim in (2, 4) and responses[name].shape[0] == n
            if jnp.issubdtype(responses[name].dtype, jnp.floating)
        }
        output = layers.pop(OUTPUT, ())
        if len(output) != 1:
            raise InputError(f"{self.name} must return an array of scores (n, class).")
        return {**layers, OUTPUT: output}


@dataclass(frozen=True)
class ModuleUnit(NetworkUnit):
    """A unit of a module: a channel of a layer's response, at a place if that is a map.

    Its image is its receptive field; the module is run on the whole image, of which the rest
    is the mean (zeros). Its response is always "pre".
    """

    network: ModuleNetwork
    params: Params = field(repr=False, compare=False)
    """All the network's weights, which its units share, and `unit.channel`."""

    @property
    def program(self) -> Hashable:
        """All but the channel."""
        place = self.name.layer, self.name.place
        return self.network, *place, self.response, self.target, self.rows, self.cols

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """f(image), for an image of its receptive field."""
        rows, cols, place = self.rows, self.cols, self.name.place
        outside = [
            (inside.start, size - inside.stop)
            for inside, size in zip((rows, cols), self.image_shape[:2], strict=True)
        ]
        x = jnp.pad(image, (*outside, (0, 0)))[None]
        response = self.network.respond(dict(params["weights"]), x, self.name.layer)[0]
        if place == "mean":
            response = jnp.mean(response, axis=(0, 1))
        elif place is not None:
            response = response[place]
        response = self.target(response)
        return jax.lax.dynamic_index_in_dim(response, params["unit"]["channel"], keepdims=False)


def named_leaves(state: Any) -> tuple[dict[str, Any], Any]:
    """A state's arrays under their paths ("blocks.0.conv.kernel"), and its tree."""
    leaves, tree = jax.tree.flatten_with_path(state)
    names = (jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves)
    return {
        name.removesuffix(".value"): leaf for name, (_, leaf) in zip(names, leaves, strict=True)
    }, tree


def one_line(error: Exception) -> str:
    """What an exception says, for the end of a sentence."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(".: ")


def _image_shape(shape: object) -> tuple[int, int, int]:
    if (
        isinstance(shape, tuple)
        and len(shape) == 3
        and all(isinstance(size, int) and size > 0 for size in shape)
    ):
        return shape
    raise InputError(f"An image's shape is (row, col, channel), not {shape!r}.")


def _as_pixels(channels: int) -> Preprocessing:
    return Preprocessing((0.0,) * channels, (1.0,) * channels, "grey" if channels == 1 else "RGB")


def _prepare(part: nnx.Module) -> None:
    """Gives convolutions the fast gradient, and a class that inherits its call one of its own."""
    if isinstance(part, nnx.Conv) and part.conv_general_dilated is jax.lax.conv_general_dilated:
        part.conv_general_dilated = conv_general_dilated
    if callable(part) and "__call__" not in vars(type(part)):
        object.__setattr__(part, "__class__", _with_own_call(type(part)))


@cache
def _with_own_call(kind: type[nnx.Module]) -> type[nnx.Module]:
    """A subclass that has its call itself: `nnx.capture` sees no inherited methods."""
    return types.new_class(
        kind.__name__, (kind,), {}, lambda own: own.update(__call__=kind.__call__)
    )


def _layer(name: UnitName) -> str:
    return name.layer


def _over_map(place: Place, shape: Shape) -> Float[np.ndarray, "..."]:
    """Weights over a layer's map that take its response at a place, or its mean."""
    if place is None:
        return np.ones((), np.float32)
    if place == "mean":
        return np.full(shape[:2], 1 / (shape[0] * shape[1]), np.float32)
    weights = np.zeros(shape[:2], np.float32)
    weights[place] = 1
    return weights
