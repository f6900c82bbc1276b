"""Names that come out of a file, as a sentence can show them."""

import re
from collections.abc import Iterable


def shown(name: str) -> str:
    """A name, quoted and shortened if it is none that a network would use."""
    return name if re.fullmatch(r"[\w./:-]{1,80}", name) else repr(name[:40])


def listed(names: Iterable[str], few: int = 5) -> str:
    """The first few names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - few} more" if len(found) > few else ""
    return ", ".join(found[:few]) + more
