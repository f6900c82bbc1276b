"""A Flax NNX module of the user's as a network, with its layers found by name."""

import copy
import operator
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from ppl_cnn.errors import ArgumentError, MismatchError, printable
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.forward import scaled
from ppl_cnn.models.networks.receptive_field import Images, Weights, receptive_fields
from ppl_cnn.models.networks.window import Region, Shape
from ppl_cnn.models.trained.cnn import preprocess
from ppl_cnn.models.trained.modules.captured import (
    OUTPUT,
    CapturedModule,
    layer_shapes,
    named_leaves,
    unbridged,
)
from ppl_cnn.models.trained.modules.inference_mode import check_responses
from ppl_cnn.models.trained.modules.module_unit import ModuleUnit
from ppl_cnn.models.trained.suited_target import suited_target
from ppl_cnn.models.units.listing import LayerUnits
from ppl_cnn.models.units.names import Place, UnitName, parse_units
from ppl_cnn.models.units.targets import TargetChoice, parse_target, settled
from ppl_cnn.models.units.unit import Side, no_probabilities, only
from ppl_cnn.numeric import whole


class ModuleNetwork:
    """A Flax NNX module as a network whose units have densities; a `TrainedNetwork`.

    The module is called on a batch of images (n, row, col, channel) and returns scores (n, c). It
    is copied, put into inference mode (`module.eval()`: no dropout, running averages), and its
    `nnx.Conv` layers get an input gradient that is fast inside loops.

    A layer is a submodule that is called and responds with (n, row, col, channel) or (n, channel).
    Its name is its path ("conv1", "blocks.0.conv"); a submodule that is called several times makes
    a layer for each call ("conv-1", "conv-2"). The return value of a module's public method and a
    value that a module sows as an `nnx.Intermediate` are layers too ("blocks.0.features"). A plain
    function such as `nnx.relu` makes none. The last layer, "output", is the module's own response.

    Attributes:
        name: the name of the module's class.
        image_shape: (row, col, channel) of its images.
        preprocessing: the mean, scale and channel order between pixels and the module.
        classes: names of the scores, or () if they have none.
        alpha: (class,) offsets from scores to the classifier's logits, as of a `CNN`; zeros unless
            `python -m ppl_cnn.pretrain` has trained it.
        objective: what the last stage of that training minimised; None for other weights.
        reference: None, as it has no reference of its own.
        is_resized: whether its images have another size than those it was made for.
        layers: layer name -> shape of its response without the batch axis, in the order of calls.
        weights: name ("conv1.kernel") -> array of the module's state, without random keys.
        keys: names of the random keys in the module's state.

    Args:
        module: a module whose `__call__` needs no argument but the images.
        image_shape: (row, col, channel) of its images.
        preprocessing: what the module expects; by default pixels 0..255, RGB or grey.
        classes: names of the scores, or ().

    Raises:
        ArgumentError: the module can't be called on such images, or returns no scores; or the
            image's shape is none.
        MismatchError: preprocessing or classes don't fit the module, it isn't in inference mode,
            or it returns probabilities in place of logits.

    Examples:
        >>> import jax.numpy as jnp, ppl_cnn
        >>> from flax import nnx
        >>> class Net(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        ...     def __call__(self, x):
        ...         return jnp.mean(nnx.relu(self.conv(x)), axis=(1, 2))
        >>> net = ppl_cnn.ModuleNetwork(Net(nnx.Rngs(0)), (8, 8, 1))
        >>> net.layers
        {'conv': (8, 8, 4), 'output': (4,)}
        >>> net.unit("conv:2").shape
        (3, 3, 1)
    """

    def __init__(
        self,
        module: nnx.Module,
        image_shape: tuple[int, int, int],
        preprocessing: Preprocessing | None = None,
        *,
        classes: tuple[str, ...] = (),
    ) -> None:
        self.name = type(unbridged(module)).__name__
        self.objective: str | None = None
        self.reference: str | None = None
        self.image_shape = _image_shape(image_shape)
        self.is_resized = False
        channels = self.image_shape[2]
        self.preprocessing = preprocessing or _as_pixels(channels)
        if not len(self.preprocessing.mean) == len(self.preprocessing.scale) == channels:
            raise MismatchError(
                f"The preprocessing of images of {channels} channels needs {channels} means and "
                f"scales, not {len(self.preprocessing.mean)} and {len(self.preprocessing.scale)}."
            )
        self._module, self.weights = CapturedModule.of(module)
        self.keys = named_leaves(self._module.keys)[0].keys()
        self.layers = self._find_layers()
        check_responses(
            self._responses,
            self.weights,
            image_shape=self.image_shape,
            layers=[*self.layers],
            name=self.name,
        )
        self.classes = tuple(map(printable, classes))
        count = self.layers[OUTPUT][-1]
        self.alpha: Array = jnp.zeros(count)
        if len(self.classes) not in (0, count):
            raise MismatchError(
                f"{self.name} has {count} scores, but `classes` has {len(self.classes)} names. "
                f"Give {count} names, or none."
            )

    def with_weights(self, weights: Mapping[str, Array]) -> Self:
        """The same network with other weights.

        Args:
            weights: name -> array, with the names and shapes of the attribute `weights`.
        """
        other = copy.copy(self)
        other.weights = {name: weights[name] for name in self.weights}
        return other

    def with_classes(self, names: tuple[str, ...]) -> Self:
        """The same network with other names of its scores, as many as it has scores."""
        other = copy.copy(self)
        other.classes = tuple(map(printable, names))
        return other

    def trained(
        self,
        weights: Mapping[str, Array],
        *,
        alpha: Float[Array, " class"],
        classes: tuple[str, ...],
        objective: str | None,
        preprocessing: Preprocessing | None = None,
    ) -> Self:
        """The same network after a training.

        Args:
            weights: as for `with_weights`.
            alpha: the offsets that the training has found.
            classes: the names of the classes that it was trained on, or ().
            objective: that of its last stage, or None.
            preprocessing: that of its images; by default the network's.
        """
        other = self.with_weights(weights)
        other.alpha, other.classes, other.objective = alpha, classes, objective
        other.preprocessing = preprocessing or self.preprocessing
        return other

    def training_module(self) -> nnx.Module:
        """The module with the network's weights, put into training mode (`module.train()`)."""
        module = self._module.module(self.weights)
        module.train()
        return module

    def tensors(self) -> Weights:
        """The weights as a file has them: "conv1.kernel" -> array."""
        return self.weights

    def resized(self, size: int) -> Self:
        """The same network on square images of another size; itself if they have that size.

        Args:
            size: pixels a side.

        Raises:
            ArgumentError: the module can't be called on such images.
        """
        before, size = self.image_shape, whole("size", size)
        if before[:2] == (size, size):
            return self
        other = copy.copy(self)
        other.image_shape = _image_shape((size, size, before[2]))
        other.preprocessing = self.preprocessing.resized(min(before[:2]), size)
        other.is_resized = True
        other.layers = other._find_layers()
        return other

    def __call__(self, x: Float[Array, "n row col channel"]) -> Float[Array, "n c"]:
        """The score matrix F of images in pixel units minus the mean."""
        return self.respond(self.weights, x, OUTPUT)

    def logits(self, pixels: UInt8[np.ndarray, "n row col channel"]) -> Float[Array, "n c"]:
        """The classifier's logits F + alpha of uint8 photographs, RGB or grey, of any size.

        Raises:
            ArgumentError: the pixels are no such photographs.
        """
        x = preprocess(np.asarray(pixels), self.preprocessing, self.image_shape)
        return self(x) + self.alpha[None, :]

    def unit(self, text: str, response: Side = "pre", target: TargetChoice = "logit") -> ModuleUnit:
        """The unit that a text such as "blocks.0.conv:12", "conv2:3@0,3" or "class:cat" names.

        Args:
            text: a unit as in `ppl_cnn.models.units.names.parse_units`.
            response: "pre"; the nonlinearity after a layer is unknown, so there is no "post".
            target: what is scored of a class, as in `ppl_cnn.models.units.targets.parse_target`;
                auto goes by `ppl_cnn.models.trained.suited_target.suited_target`.

        Raises:
            InputError: there is no such unit, response or target, or the text names several units.
        """
        return only(self.units(text, response, target), text)

    def units(
        self, text: str, response: Side = "pre", target: TargetChoice = "logit"
    ) -> list[ModuleUnit]:
        """The units that a text such as "conv1:0-15,conv2:3" names, in its order; see `unit`."""
        if response != "pre":
            raise ArgumentError(
                f"`response={response}` needs the nonlinearity after a layer, which is unknown for "
                f"{self.name}. Name the layer that the nonlinearity makes; "
                f"self.sow(nnx.Intermediate, NAME, x) makes x one.",
                argument="response",
            )
        target, suited = parse_target(target), suited_target(self.objective).target
        names = parse_units(text, self.layers, self.classes)
        found: dict[UnitName, ModuleUnit] = {}
        for layer, group in groupby(sorted(names, key=_layer), key=_layer):
            members = list(group)
            own_target = settled(target, suited=suited, is_class=layer == OUTPUT)
            compared = layer == OUTPUT and self.layers[OUTPUT] != (1,)
            if own_target.compares_classes and not compared:
                raise no_probabilities(layer, self.name, own_target, OUTPUT)
            places = list({name.place for name in members})
            fields = dict(zip(places, self._receptive_fields(layer, places), strict=True))
            for name in members:
                rows, cols = fields[name.place]
                if not rows:
                    raise MismatchError(
                        f"{name} of {self.name} has no gradient with respect to any pixel, so its "
                        f"density is the reference. Name another unit."
                    )
                channel = {"channel": jnp.asarray(name.channel, jnp.int32)}
                params = {"weights": self.weights, "unit": channel}
                if own_target.compares_classes and np.any(self.alpha):
                    params["classes"] = {"alpha": self.alpha}
                found[name] = ModuleUnit(self, name, response, own_target, rows, cols, params)
        return [found[name] for name in names]

    def is_class(self, unit: UnitName) -> bool:
        """Whether a unit is a class, a channel of the last layer."""
        return unit.layer == OUTPUT

    def class_of(self, unit: UnitName) -> str | None:
        """The name of the class that a unit is; None for a filter or a class without a name."""
        return self.classes[unit.channel] if self.is_class(unit) and self.classes else None

    def unit_layers(self) -> tuple[LayerUnits, ...]:
        """The layers whose channels are units, in the order of calls; the last has the classes.

        The receptive field is that of the unit at the map's centre, cut off at the image's border.
        The stride is None where the image is too small to tell it. The multiplications are unknown.
        """
        return tuple(self._layer_units(name, shape) for name, shape in self.layers.items())

    def activity(
        self, batches: Iterable[Float[Array, "_ row col channel"]]
    ) -> dict[str, Float[np.ndarray, " _"]]:
        """Shares of non-zero responses, which need the nonlinearities after a module's layers.

        Raises:
            MismatchError: always, as these are unknown.
        """
        raise MismatchError(
            f"The nonlinearities after the layers of {self.name} are unknown, so non-zero "
            f"responses can't be counted: leave out `data`."
        )

    def _layer_units(self, name: str, shape: Shape) -> LayerUnits:
        if len(shape) == 1:
            ((rows, cols),) = self._receptive_fields(name, [None])
            size = len(rows), len(cols)
            return LayerUnits(name, shape[-1], None, None, size, size, None, None)
        col, last = shape[1] // 2, shape[0] - 1
        places: list[Place] = [(shape[0] // 2, col), (last, col), (max(last - 1, 0), col)]
        (rows, cols), (below, _), (above, _) = self._receptive_fields(name, places)
        size = len(rows), len(cols)
        # If receptive fields begin inside the image anywhere, they do at the map's end.
        stride = below.start - above.start if above.start else None
        return LayerUnits(name, shape[-1], (shape[0], shape[1]), stride, size, size, None, None)

    def respond(self, weights: Weights, x: Images, layer: str) -> Array:
        """A layer's response to images.

        Args:
            weights: name -> array, as the attribute `weights`.
            x: images in pixel units minus the mean.
            layer: the layer's name.

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
        """Layer name -> response to images in pixel units minus the mean."""
        return self._module(weights, scaled(self.preprocessing, x))

    def _find_layers(self) -> dict[str, Shape]:
        return layer_shapes(
            self._responses, self.weights, image_shape=self.image_shape, name=self.name
        )


def _image_shape(shape: Any) -> tuple[int, int, int]:
    try:
        rows, cols, channels = map(operator.index, shape)
    except (TypeError, ValueError):
        rows = cols = channels = 0
    if min(rows, cols, channels) > 0:
        return rows, cols, channels
    raise ArgumentError(
        f"`image_shape` must be three positive whole numbers (row, col, channel), not {shape!r}.",
        argument="image_shape",
    )


def _as_pixels(channels: int) -> Preprocessing:
    return Preprocessing((0.0,) * channels, (1.0,) * channels, "grey" if channels == 1 else "RGB")


def _layer(name: UnitName) -> str:
    return name.layer


def _over_map(place: Place, shape: Shape) -> Float[np.ndarray, "..."]:
    """Weights over a layer's map whose weighted sum is its response at a place, or its mean."""
    if place is None:
        return np.ones((), np.float32)
    if place == "mean":
        return np.full(shape[:2], 1 / (shape[0] * shape[1]), np.float32)
    weights = np.zeros(shape[:2], np.float32)
    weights[place] = 1
    return weights
