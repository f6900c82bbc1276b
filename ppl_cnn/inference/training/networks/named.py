"""The network that a recipe names, ready for training."""

from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.inference.training.networks.module import ModuleTrainable
from ppl_cnn.inference.training.networks.trainable import Trainable
from ppl_cnn.models.networks.catalogue import network_named
from ppl_cnn.models.trained.modules.user_networks import load_module


def trainable_named(text: str, classes: int) -> Trainable:
    """A declared network with that many classes, or a module that a factory of the user's makes.

    Args:
        text: a declared network's name, or "package.module:factory".
        classes: number of classes of the data.

    Raises:
        UnknownNameError: there is no such network, module or factory.
        ArgumentError: the factory fails, or makes nothing that can be trained.
        MismatchError: the module has another number of scores.
    """
    if ":" not in text:
        return DeclaredTrainable(network_named(text).with_classes(classes))
    network = ModuleTrainable.of(load_module(text))
    if network.classes != classes:
        raise MismatchError(
            f"{text} makes a module of {network.classes} scores, but the data has {classes} "
            f"classes. Make its last layer {classes} wide, or give other `data`."
        )
    return network
