"""Names from a file, written so that they cannot break an error message."""

import re
from collections.abc import Iterable


def shown(name: str) -> str:
    """A name as messages show it: as it is, or quoted and cut if networks use no such names.

    Args:
        name: the name of a tensor, layer, archive member or Python object.

    Examples:
        >>> shown("features.0.weight"), shown("a. B")
        ('features.0.weight', "'a. B'")
    """
    return name if re.fullmatch(r"[\w./:-]{1,80}", name) else repr(name[:40])


def listed(names: Iterable[str], few: int = 5) -> str:
    """The first few names, and the number of the others.

    Args:
        names: the names, shown as they are.
        few: the largest number of names to show.

    Examples:
        >>> listed(["conv1", "conv2", "conv3"], few=2)
        'conv1, conv2 and 1 more'
    """
    found = list(names)
    more = f" and {len(found) - few} more" if len(found) > few else ""
    return ", ".join(found[:few]) + more
