"""The cores of this machine that are ours to use."""

import os


def usable_cores() -> int:
    """Number of cores that this process may use; where the system doesn't tell (macOS), all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
