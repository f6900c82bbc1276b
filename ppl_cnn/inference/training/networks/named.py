"""The network that a recipe names, ready for training."""

from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.inference.training.networks.module import ModuleTrainable
from ppl_cnn.inference.training.networks.trainable import Trainable
from ppl_cnn.models.networks.catalogue import network_named
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.layers import BatchNorm
from ppl_cnn.models.trained.modules.user_networks import load_module


def check_trainable(text: str) -> None:
    """Refuses the text of a declared network that can't be trained, before data are opened.

    Args:
        text: as for `trainable_named`. Factories of the user's aren't called.

    Raises:
        UnknownNameError: there is no such network.
        ArgumentError: it has batch normalizations.
    """
    if ":" not in text:
        _declared(text)


def trainable_named(text: str, classes: int) -> Trainable:
    """A declared network with that many classes, or a module that a factory of the user's makes.

    Args:
        text: a declared network's name, or "package.module:factory".
        classes: number of classes of the data.

    Raises:
        UnknownNameError: there is no such network, module or factory.
        ArgumentError: the factory fails, or makes nothing that can be trained; or the declared
            network has batch normalizations.
        MismatchError: the module has another number of scores.
    """
    if ":" not in text:
        return DeclaredTrainable(_declared(text).with_classes(classes))
    network = ModuleTrainable.of(load_module(text))
    if network.classes != classes:
        raise MismatchError(
            f"{text} makes a module of {network.classes} scores, but the data has {classes} "
            f"classes. Make its last layer {classes} wide, or give other `data`."
        )
    return network


def _declared(name: str) -> Network:
    network = network_named(name)
    # Their statistics of training batches are kept for Flax modules alone.
    if any(isinstance(layer, BatchNorm) for layer in network.layers):
        raise ArgumentError(
            f"`network={name}` can't be trained, as it has batch normalizations. Give a declared "
            f"network without them, such as vgg16, or a Flax module of yours, as "
            f"package.module:factory.",
            argument="network",
        )
    return network
