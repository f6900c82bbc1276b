"""A Flax NNX module of the user's in training."""

import hashlib
import inspect
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ppl_cnn.errors import ArgumentError, MismatchError, one_line
from ppl_cnn.inference.training.networks.trainable import Averages
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.networks.forward import scaled
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.networks.receptive_field import Weights
from ppl_cnn.models.trained.modules.captured import OUTPUT, named_leaves
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork

_IN_TRAINING = {
    "train": True,
    "training": True,
    "deterministic": False,
    "use_running_average": False,
}
"""Arguments by which modules' calls are told that they train."""
_AVERAGES = nnx.Not(nnx.Any(nnx.Param, nnx.RngState, nnx.Intermediate))


@dataclass(frozen=True, eq=False)
class ModuleTrainable:
    """A module as a `Trainable`, from its factory's weights.

    Its `nnx.Param`s are trained. It is called in training mode (`module.train()`, and `train=True`
    and the like where its call has such an argument), on a group of images: a device's part of the
    batch, or one of the `accumulate` parts of that. A BatchNorm normalises by the mean and variance
    of the group, through which the gradient goes. All other state, such as a BatchNorm's running
    averages, is taken over from the call: its mean over the groups, or the first group's where it
    isn't made of real numbers. Tests, alpha and the trained network's densities use the running
    averages. Dropout draws from a key for each group and step.
    """

    network: ModuleNetwork
    """The module in inference mode."""
    graph: Any
    """The module's structure in training mode."""
    tree: Any
    """The tree of the weights' state."""
    names: tuple[str, ...]
    """The names of its leaves, such as "conv1.kernel"."""
    keys: Any
    """The state of the random keys."""
    others: Any
    """The rest of the state: the averages before training."""
    arguments: dict[str, bool]
    """What the call is given besides images."""

    @classmethod
    def of(cls, network: ModuleNetwork) -> "ModuleTrainable":
        """A network with its module put into training mode.

        Raises:
            ArgumentError: the module can't be called so, or returns no scores.
            MismatchError: it has no weights, or some that have no gradient.
        """
        module = network.training_module()
        known = inspect.signature(type(module).__call__).parameters
        arguments = {name: value for name, value in _IN_TRAINING.items() if name in known}
        kinds = nnx.Param, nnx.RngState, _AVERAGES, ...
        parts: tuple[Any, ...] = nnx.split(module, *kinds)
        graph, state, keys, others, _ = parts
        weights, tree = named_leaves(state)
        if not weights:
            raise MismatchError(
                f"{network.name} has no nnx.Param, so that there is nothing to train. Give another "
                f"`network`."
            )
        for name, array in weights.items():
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise MismatchError(
                    f"Weight {name} of {network.name} is of type {array.dtype}, which has no "
                    f"gradient. Make it an nnx.Variable, or of real numbers."
                )
        found = cls(network, graph, tree, tuple(weights), keys, others, arguments)
        found._check_call()
        return found

    @property
    def name(self) -> str:
        """The name of the module's class."""
        return self.network.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of its images."""
        return self.network.image_shape

    @property
    def preprocessing(self) -> Preprocessing:
        """The mean, scale and channel order between pixels and the module."""
        return self.network.preprocessing

    @property
    def classes(self) -> int:
        """Number of scores."""
        return self.network.layers[OUTPUT][-1]

    @property
    def identity(self) -> dict[str, str]:
        """The module's class and a digest of its arrays' names, shapes and types."""
        arrays = [f"{name} {a.shape} {a.dtype}" for name, a in self.network.weights.items()]
        digest = hashlib.sha256("\n".join(arrays).encode()).hexdigest()[:12]
        return {"module": f"{self.name} of {len(arrays)} arrays, {digest}"}

    @property
    def multiplications(self) -> None:
        """Unknown, as the module's layers are not declared."""
        return None

    def initial(self, key: PRNGKeyArray) -> tuple[Params, Averages]:
        """The factory's weights, and its averages."""
        params: dict[str, dict[str, Array]] = {}
        for name in self.names:
            layer, own = _layer(name)
            params.setdefault(layer, {})[own] = self.network.weights[name].astype(jnp.float32)
        return params, named_leaves(self.others)[0]

    def noise(self, key: PRNGKeyArray, n: int) -> Key[Array, " n"]:
        """A key for each image."""
        return jax.random.split(key, n)

    def train_scores(
        self, params: Params, averages: Averages, x: Float[Array, "k row col channel"], noise: Any
    ) -> tuple[Float[Array, "k c"], Averages]:
        """The scores in training mode, and the state that the call leaves."""
        leaves = [self._leaf(params, name) for name in self.names]
        others = jax.tree.unflatten(jax.tree.structure(self.others), [*averages.values()])
        module = nnx.merge(
            self.graph, jax.tree.unflatten(self.tree, leaves), _fresh(self.keys, noise[0]), others
        )
        F = module(scaled(self.preprocessing, x), **self.arguments)
        after, _ = named_leaves(nnx.state(module, _AVERAGES))
        return F, {name: after[name] for name in averages}

    def inferring(self, params: Params, averages: Averages) -> Weights:
        """Weights and averages by their names, in the module's own number formats."""
        return {name: self._leaf(params, name) for name in self.names} | averages

    def scores(self, weights: Weights, x: Float[Array, "n row col channel"]) -> Float[Array, "n c"]:
        """The score matrix F in inference mode."""
        return self.network.respond(weights, x, OUTPUT)

    def trained(
        self, weights: Weights, *, alpha: Array, classes: tuple[str, ...], objective: str
    ) -> ModuleNetwork:
        """The module with trained weights, in inference mode."""
        return self.network.trained(weights, alpha=alpha, classes=classes, objective=objective)

    def _leaf(self, params: Params, name: str) -> Array:
        """A weight in the number format it is given in, or the module's own if that is shorter."""
        layer, own = _layer(name)
        given, wanted = params[layer][own], self.network.weights[name].dtype
        return given if wanted.itemsize >= given.dtype.itemsize else given.astype(wanted)

    def _check_call(self) -> None:
        n, key = 2, jax.random.key(0)
        x = jax.ShapeDtypeStruct((n, *self.image_shape), jnp.float32)
        noise = jax.eval_shape(lambda: self.noise(key, n))
        try:
            F, _ = jax.eval_shape(self.train_scores, *self.initial(key), x, noise)
        except Exception as error:  # whatever a user's module raises
            raise ArgumentError(
                f"{self.name} can't be called in training mode ({one_line(error)}).",
                argument="network",
            ) from error
        if getattr(F, "shape", None) != (n, self.classes):
            raise ArgumentError(
                f"{self.name} must return an array of scores of shape (n, class) in training mode, "
                f"too.",
                argument="network",
            )


def _layer(name: str) -> tuple[str, str]:
    """The layer that a weight belongs to, by its path, and the weight's name in it."""
    layer, _, own = name.rpartition(".")
    return layer or OUTPUT, own


def _fresh(keys: Any, key: PRNGKeyArray) -> Any:
    """The state of random keys with keys that are derived from one; counts stay as they are."""

    def one(index: int, leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        own = jax.random.fold_in(key, index)
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    leaves, tree = jax.tree.flatten(keys)
    return jax.tree.unflatten(tree, [one(index, leaf) for index, leaf in enumerate(leaves)])
